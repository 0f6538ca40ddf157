"""Bundle a learner to be served from its original pickle, with the libraries it was trained with.

Loading a pickle runs it. ``--trust-pickle`` allows the user's own code: the classes of ``__main__``
and of the definitions file, and what the pickle itself defines. Every name that fdeploy does not
know needs ``--allow-import``. A dangerous call is never run.
"""

from __future__ import annotations

import platform
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions
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
from fastai_deploy.bundle.manifest import KIND, LEARNER, LOCK, REQUIREMENTS, Activation
from fastai_deploy.environments.requirements import (
    Requirements,
    installed,
    parse_requirements,
    read_requirements,
)
from fastai_deploy.environments.serving_process import ask_learner, check_bundle
from fastai_deploy.environments.venv import Environments
from fastai_deploy.errors import RuntimeUnproven, UnsupportedLearner, UntrustedLearner, UsageError
from fastai_deploy.files import copy, sha256, write
from fastai_deploy.interpreters import running
from fastai_deploy.learner.convert import refuse_dangerous
from fastai_deploy.learner.examine.anatomy import Anatomy, examine
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.text.rules import blank_residue
from fastai_deploy.parity.compare import check
from fastai_deploy.parity.goldens import PROBES, Case, Golden, Labels, read_cases, render
from fastai_deploy.parity.report import Comparison, comparing
from fastai_deploy.progress import Reporter, Step, Warned
from fastai_deploy.runtime.bundle import LEARNER as LEARNER_PRECISION
from fastai_deploy.runtime.bundle import Form
from fastai_deploy.runtime.parity import Rules, compare

TRUST, ALLOW = "--trust-pickle", "--allow-import"
_SHOWN = 12  # names that the message lists; the command lists all


@dataclass(frozen=True)
class PickleTrust:
    """What may be run; ``typed`` is the command line after ``fdeploy``, for the hint to repeat."""

    trusted: bool
    allowed: tuple[str, ...]
    definitions: Path | None
    typed: tuple[str, ...]

    def check(self, anatomy: Anatomy, name: str) -> None:
        """Raise unless the pickle called ``name`` may be run and can be served.

        Raises DangerousLearner, UnsupportedLearner, or UntrustedLearner with the command that
        grants everything that is needed.
        """
        refuse_dangerous(anatomy)
        if anatomy.verdict.kind == "refused":
            raise UnsupportedLearner(
                f"this learner cannot be served: {anatomy.verdict.reason}",
                hint=anatomy.verdict.hint,
            )
        needed = tuple(self._needed(anatomy))
        missing = [each for each in needed if each not in self.allowed]
        if self.trusted and not missing:
            return
        raise UntrustedLearner(
            f"serving {name} means loading it, and loading runs whatever code it contains, "
            "with your permissions on this machine and with the endpoint's on AWS"
            + (f"; fdeploy does not know what these do: {_some(missing)}" if missing else ""),
            hint=f"if you made the file, or trust whoever did: {self._command(needed)}",
        )

    def _needed(self, anatomy: Anatomy) -> Iterator[str]:
        """The unknown names that the definitions file does not define."""
        own = self.definitions.stem if self.definitions is not None else None
        for name in anatomy.unknown:
            if own is None or name.split(".")[0] != own:
                yield name

    def _command(self, needed: tuple[str, ...]) -> str:
        """The whole command, with the permissions that it lacked."""
        given = " ".join(self.typed).replace("=", " ").split()
        words = ["fdeploy", *self.typed]
        if TRUST not in self.typed:
            words.append(TRUST)
        for name in needed:
            if name not in given:
                words += [ALLOW, _readable(name)]
        return shlex.join(words)


def _some(names: list[str]) -> str:
    shown = ", ".join(_readable(each) for each in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _readable(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]


_ALWAYS = ("fastai", "torch", "numpy")
_ALSO = ("fastcore", "fasttransform", "spacy", "tokenizers", "cloudpickle", "plum-dispatch")
_NEWEST = 30  # a minor version that no Python has reached


def python_for(anatomy: Anatomy, stated: str | None, here: str | None = None) -> str:
    """The version of Python: the one stated, or else the one the file needs, or else ``here``.

    Bytecode in the file is tied to its Python. Raises UsageError if the stated version conflicts.
    """
    here = here or running()
    fitting = _range(anatomy.python)
    if stated is not None:
        if fitting is not None and _minor(stated) not in fitting:
            raise UsageError(
                f"the learner contains bytecode for Python {anatomy.python}, not {stated}",
                hint=f"leave out --python, or pass {anatomy.python}",
            )
        return stated
    if fitting is None or _minor(here) in fitting:
        return here
    return f"3.{max(fitting) if len(fitting) < _NEWEST // 2 else min(fitting)}"


def _range(needed: str | None) -> range | None:
    """Minor versions of Python from phrases such as ``3.8 to 3.10`` and ``3.11 or newer``."""
    if needed is None:
        return None
    numbers = [int(each) for each in re.findall(r"3\.(\d+)", needed)]
    if not numbers:
        return None
    return range(numbers[0], (_NEWEST if "newer" in needed else numbers[-1]) + 1)


def _minor(version: str) -> int:
    return int(version.partition(".")[2])


def requirements_here(
    anatomy: Anatomy,
    python: str,
    *,
    here: str | None = None,
    find: Callable[[str], str | None] = installed,
    distributions: Mapping[str, Sequence[str]] | None = None,
) -> Requirements:
    """The installed versions, if the learner can have been trained with them.

    Raises UsageError, which says what to state, if this environment lacks the learner's major
    version of fastai, has another transformers than the file names, or another Python.
    """
    here = here or running()
    problem = _problem(anatomy, python, here, find)
    if problem:
        raise UsageError(
            f"fdeploy does not know which versions the learner needs: {problem}",
            hint=f"state them with --requirements requirements.txt: {_to_state(anatomy)} "
            "(run pip freeze where the learner was trained)",
        )
    owners = packages_distributions() if distributions is None else distributions
    imported = {each.name.split(".")[0] for each in anatomy.imports if each.kind != "dangerous"}
    names = [*_ALWAYS, *_ALSO, *(owner for top in imported for owner in owners.get(top, ()))]
    return parse_requirements(_pinned(names, find), "the installed packages")


def _pinned(names: Iterable[str], find: Callable[[str], str | None]) -> str:
    found = {name.lower(): find(name) for name in names}
    return "".join(
        f"{name}=={version.partition('+')[0]}\n"
        for name, version in sorted(found.items())
        if version
    )


def _problem(anatomy: Anatomy, python: str, here: str, find: Callable[[str], str | None]) -> str:
    if python != here:
        return f"it needs Python {python}, and fdeploy runs on {here}"
    fastai = find("fastai")
    if fastai is None:
        return "fastai is not installed here"
    if fastai.partition(".")[0] != str(anatomy.fastai):
        return f"it needs fastai {anatomy.libraries['fastai']}, and {fastai} is installed here"
    written = anatomy.libraries.get("transformers")
    ours = find("transformers")
    if written and re.fullmatch(r"[0-9.]+", written) and written.count(".") > 1 and written != ours:
        return f"it needs transformers {written}, and {ours or 'none'} is installed here"
    return ""


def _to_state(anatomy: Anatomy) -> str:
    hints = anatomy.libraries
    names = [name for name in ("fastai", "torch", "transformers") if name in hints]
    return ", ".join(f"{name}==... ({hints[name]})" for name in names)


def main_names(anatomy: Anatomy) -> tuple[str, ...]:
    """The names that the pickle looks up in ``__main__``; the definitions must have them."""
    tops = ("__main__.", "__mp_main__.")
    return tuple(
        sorted(
            {
                each.name.split(".", 1)[1].split(".")[0]
                for each in anatomy.imports
                if each.name.startswith(tops)
            }
        )
    )


def check_definitions(anatomy: Anatomy, definitions: Path | None) -> None:
    """Raise UsageError if the pickle needs classes that no definitions file supplies."""
    names = main_names(anatomy)
    if definitions is None:
        if names:
            raise UsageError(
                f"the pickle looks up {', '.join(names)} in __main__, which a server does not have",
                hint="put them in a file and pass it: --definitions model_def.py",
            )
    elif definitions.suffix != ".py" or not definitions.stem.isidentifier():
        raise UsageError(
            f"{definitions.name} is not a valid module name",
            hint="rename it, for example to model_def.py",
        )


_RESIDUES = (
    'answers always say "truncated": false, because the learner does not report that it cut a text',
    "texts are answered one at a time, because fastai's predict is not thread-safe",
)


@dataclass(frozen=True)
class ExportOptions:
    """The user's choices: texts, classes, versions, and what the pickle may run.

    ``hub`` is where on the Hub the learner comes from, or empty.
    """

    golden: Path | None
    definitions: Path | None
    requirements: Path | None
    python: str | None
    trust: PickleTrust
    tolerance: float
    hub: str = ""


def bundle_original(
    learner: Path,
    destination: Path,
    options: ExportOptions,
    environments: Environments,
    *,
    name: str,
    report: Reporter,
) -> Bundle:
    """Make a bundle at ``destination`` that holds ``learner`` itself, proven to load and answer.

    Raises UntrustedLearner, DangerousLearner, RuntimeUnproven, UsageError, GoldenError,
    ParityError or FileError. On an error, an existing bundle is left unchanged.
    """
    digest = sha256(learner)
    with open_archive(learner) as (source, archive):
        anatomy = examine(archive, source.size, file=learner.name)
    options.trust.check(anatomy, learner.name)
    labels = Labels(anatomy.labels.names, several=anatomy.task == "multi-label")
    cases = _cases(options.golden, labels, anatomy, report)
    check_definitions(anatomy, options.definitions)
    python = python_for(anatomy, options.python)
    requirements = _requirements(options.requirements, anatomy, python)
    interpreter = environments.interpreter(python, requirements)
    section = _section(anatomy, python, options.definitions)
    with comparing(destination) as found, building(destination) as folder:
        _fill(folder, learner, options.definitions, requirements)
        lock = environments.lock(python, requirements)
        if lock is not None:
            write(folder / LOCK, lock.text.encode())
        report(Step(f"loading the learner in a fresh Python {python} process: its code runs now"))
        answers = ask_learner(interpreter, folder, _asked(section), [each.text for each in cases])
        goldens = _goldens(anatomy, cases, answers, options.tolerance, found)
        report(Step(f"the learner answered {len(goldens)} texts"))
        write(folder / "goldens.json", render(goldens, labels))
        origin = LearnerSpec(learner.name, digest, anatomy.size, str(anatomy.fastai), options.hub)
        sealed = seal(
            folder, _manifest(anatomy, section, origin, name=name, tolerance=options.tolerance)
        )
        report(Step("loading the bundle in another fresh process, as a server does"))
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
    """The texts to answer, without blank ones that the learner answers by chance."""
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
    """The section as the process reads it before there is a manifest."""
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
    """The goldens; the learner must reproduce answers that the user supplied."""
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
    check(parity, Rules.exact(tolerance), subject="the learner in a fresh process")
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
                f"the learner's predict() returns {[round(n, 4) for n in each[:8]]}, which are not "
                f"probabilities of its {labels} labels",
                hint="export a learner with a loss that fastai knows, such as CrossEntropyLossFlat",
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
        model=ModelSpec(
            (Form(LEARNER_PRECISION, LEARNER),), (), "probabilities", root, anatomy.parameters
        ),
        tolerance=tolerance,
        residues=_RESIDUES,
        provenance=Provenance(
            origin,
            {"fastai-deploy": fastai_deploy.__version__, "python": platform.python_version()},
        ),
        runtime=section,
    )
