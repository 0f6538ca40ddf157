"""From a learner to a bundle that holds the learner itself, in one straight line.

read and examine -> versions -> environment -> the learner, asked in a fresh process
    -> bundle -> the bundle, opened in another fresh process as a server would

The pickle is run, but only in those processes, and only when the user trusts it. A dangerous pickle
is refused all the same: what it imports no learner needs, so there is nothing to be lost.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fastai_deploy
from fastai_deploy.bundle import (
    Bundle,
    LearnerSpec,
    Manifest,
    ModelSpec,
    Provenance,
    RuntimeSpec,
    TextSpec,
    building,
    read_bundle,
    seal,
)
from fastai_deploy.bundle.runtime_spec import KIND, LEARNER, LOCK, REQUIREMENTS, Activation
from fastai_deploy.comparison import Comparison, comparing
from fastai_deploy.environments.environment import Environments
from fastai_deploy.environments.fresh_process import ask_learner, check_bundle
from fastai_deploy.environments.requirements import Requirements, read_requirements
from fastai_deploy.errors import RuntimeUnproven
from fastai_deploy.files import copy, sha256, write
from fastai_deploy.goldens import Case, Golden, Labels, read_cases, render
from fastai_deploy.learner.anatomy import Anatomy, examine
from fastai_deploy.learner.carrying.leave import Leave
from fastai_deploy.learner.carrying.versions import (
    check_definitions,
    main_names,
    python_for,
    requirements_here,
)
from fastai_deploy.learner.probes import PROBES
from fastai_deploy.learner.reading.archive import open_archive
from fastai_deploy.learner.text.rules import blank_residue
from fastai_deploy.parity import check, compare
from fastai_deploy.progress import Reporter, Step, Warned

_RESIDUES = (
    'answers always say "truncated": false: the learner does not tell when it cuts a text',
    "texts are answered one at a time, because fastai's predict is not thread-safe",
)


@dataclass(frozen=True)
class Wishes:
    """What the user states: texts, classes, versions, and what the pickle may run."""

    golden: Path | None
    definitions: Path | None
    requirements: Path | None
    python: str | None
    leave: Leave
    tolerance: float


def carry(
    learner: Path,
    destination: Path,
    wishes: Wishes,
    environments: Environments,
    *,
    name: str,
    report: Reporter,
) -> Bundle:
    """Make a bundle at ``destination`` that holds ``learner`` itself, proven to load and answer.

    Raises UntrustedLearner, DangerousLearner, RuntimeUnproven, UsageError, GoldenError,
    ParityError or FileError; an old bundle is then as it was.
    """
    digest = sha256(learner)
    with open_archive(learner) as (source, archive):
        anatomy = examine(archive, source.size, file=learner.name)
    wishes.leave.check(anatomy, learner.name)
    labels = Labels(anatomy.labels.names, several=anatomy.task == "multi-label")
    cases = _cases(wishes.golden, labels, anatomy, report)
    check_definitions(anatomy, wishes.definitions)
    python = python_for(anatomy, wishes.python)
    requirements = _requirements(wishes.requirements, anatomy, python)
    interpreter = environments.interpreter(python, requirements)
    section = _section(anatomy, python, wishes.definitions)
    with comparing(destination) as found, building(destination) as folder:
        _fill(folder, learner, wishes.definitions, requirements)
        lock = environments.lock(python, requirements)
        if lock is not None:
            write(folder / LOCK, lock.text.encode())
        report(Step(f"loading the learner in a fresh process with Python {python}: it runs now"))
        answers = ask_learner(interpreter, folder, _asked(section), [each.text for each in cases])
        goldens = _goldens(anatomy, cases, answers, wishes.tolerance, found)
        report(Step(f"the learner answered {len(goldens)} texts"))
        write(folder / "goldens.json", render(goldens, labels))
        origin = LearnerSpec(learner.name, digest, anatomy.size, str(anatomy.fastai))
        sealed = seal(
            folder, _manifest(anatomy, section, origin, name=name, tolerance=wishes.tolerance)
        )
        report(Step("opening the bundle in another fresh process, as a server does"))
        difference = check_bundle(interpreter, folder)
        if sealed.files[LEARNER].sha256 != digest:
            raise source.changed()
    written, version = read_bundle(destination)
    return Bundle(
        path=destination,
        version=version,
        name=written.name,
        task=written.task,
        labels=written.labels,
        max_difference=difference,
        learner_sha256=digest,
        learner_bytes=anatomy.size,
    )


def _cases(
    golden: Path | None, labels: Labels, anatomy: Anatomy, report: Reporter
) -> tuple[Case, ...]:
    """The texts to ask, without blank ones that the learner answers by chance."""
    if golden is None:
        return tuple(Case(text, None, None, line) for line, text in enumerate(PROBES, start=1))
    cases = read_cases(golden, labels)
    residue = blank_residue(anatomy.tokenizer) if anatomy.tokenizer else None
    if residue is None:
        return cases
    kept = tuple(case for case in cases if case.text.strip())
    if len(kept) < len(cases):
        report(Warned("blank golden texts are not used", residue))
    return kept


def _requirements(stated: Path | None, anatomy: Anatomy, python: str) -> Requirements:
    return read_requirements(stated) if stated else requirements_here(anatomy, python)


def _section(anatomy: Anatomy, python: str, definitions: Path | None) -> RuntimeSpec:
    activation: Activation | None = None
    if anatomy.loss.raw:
        activation = "sigmoid" if anatomy.loss.activation == "sigmoid" else "softmax"
    return RuntimeSpec(
        python=python,
        fastai=str(anatomy.fastai),
        definitions=definitions.name if definitions else None,
        names=main_names(anatomy),
        activation=activation,
    )


def _fill(
    folder: Path, learner: Path, definitions: Path | None, requirements: Requirements
) -> None:
    copy(learner, folder / LEARNER)
    if definitions is not None:
        copy(definitions, folder / definitions.name)
    write(folder / REQUIREMENTS, requirements.text.encode())


def _asked(section: RuntimeSpec) -> dict[str, object]:
    """The section as the process reads it, before there is a manifest."""
    return {
        "fastai": section.fastai,
        "definitions": section.definitions,
        "names": list(section.names),
        "activation": section.activation,
    }


def _goldens(
    anatomy: Anatomy,
    cases: Sequence[Case],
    answers: Sequence[tuple[float, ...]],
    tolerance: float,
    found: Comparison,
) -> tuple[Golden, ...]:
    """The goldens; answers that the user brought must have been given again."""
    _check_answers(anatomy, answers)
    found.begin(anatomy.labels.names, anatomy.threshold, tolerance, cases)
    found.add("process", answers)
    brought = [
        (case, case.probabilities, mine)
        for case, mine in zip(cases, answers, strict=True)
        if case.probabilities
    ]
    parity = compare(
        [case.text for case, _, _ in brought],
        [theirs for _, theirs, _ in brought],
        [mine for _, _, mine in brought],
        threshold=anatomy.threshold,
    )
    check(parity, tolerance, subject="the learner in a fresh process")
    return tuple(
        Golden(case.text, case.probabilities or mine, "learner", case.expected)
        for case, mine in zip(cases, answers, strict=True)
    )


def _check_answers(anatomy: Anatomy, answers: Sequence[Sequence[float]]) -> None:
    labels, several = len(anatomy.labels.names), anatomy.task == "multi-label"
    for each in answers:
        right = len(each) == labels and all(0 <= number <= 1 for number in each)
        if not right or not (several or abs(sum(each) - 1) <= 1e-3):  # noqa: PLR2004 - float32
            raise RuntimeUnproven(
                f"the learner's predict() gives {[round(n, 4) for n in each[:8]]}, which are no "
                f"probabilities of its {labels} labels",
                hint="export a learner whose loss fastai knows, such as CrossEntropyLossFlat",
            )


def _manifest(
    anatomy: Anatomy, section: RuntimeSpec, origin: LearnerSpec, *, name: str, tolerance: float
) -> Manifest:
    root = anatomy.modules[0].cls if anatomy.modules else anatomy.family
    return Manifest(
        name=name,
        task="multi-label" if anatomy.task == "multi-label" else "single-label",
        labels=anatomy.labels.names,
        threshold=anatomy.threshold,
        text=TextSpec(KIND, (), 0, "equal-length", 0),
        model=ModelSpec(LEARNER, (), "probabilities", root, anatomy.parameters, "as exported"),
        tolerance=tolerance,
        residues=_RESIDUES,
        provenance=Provenance(
            origin,
            {"fastai-deploy": fastai_deploy.__version__, "python": platform.python_version()},
        ),
        runtime=section,
    )
