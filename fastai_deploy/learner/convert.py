"""Convert a learner file, or a folder that ``save_pretrained`` wrote, into a bundle.

read and examine -> (a folder: ask transformers' own pipeline, in a process of its own)
    -> try the text pipeline in a separate process
    -> rebuild in torch -> answer the goldens -> export to ONNX -> answer them again
    -> write the bundle, if every check passed and the file has not changed
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastai_deploy.bundle import Bundle, LearnerSpec, building, read_bundle, seal
from fastai_deploy.errors import DangerousLearner, ParityError, UnsupportedLearner, need_extra
from fastai_deploy.files import write
from fastai_deploy.learner.definitions import opened
from fastai_deploy.learner.examine.anatomy import Anatomy, examine
from fastai_deploy.learner.examine.architecture import check_numbers
from fastai_deploy.learner.examine.labels import raw_scores
from fastai_deploy.learner.examine.verdict import users_classes
from fastai_deploy.learner.pretrained.examine import (
    default_names,
    examine_folder,
    folder_hints,
)
from fastai_deploy.learner.pretrained.folder import Opened, opened_folder
from fastai_deploy.learner.pretrained.pipeline import proven_by_pipeline
from fastai_deploy.learner.proof import Proof, as_typed, check_decoding, unshown
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.reading.sources import FileSource
from fastai_deploy.learner.rebuild.libraries import CONVERT, require
from fastai_deploy.learner.text.rules import blank_residue
from fastai_deploy.learner.text.trial import try_text
from fastai_deploy.learner.text.user_tokenizer import UserTokenizer, read_user_tokenizer
from fastai_deploy.parity.compare import DEFAULT_GATE, Gate, check
from fastai_deploy.parity.goldens import PROBES, Case, Golden, Labels, answered, read_cases, render
from fastai_deploy.parity.report import Comparison, comparing
from fastai_deploy.progress import Advanced, Reporter, Step, Warned
from fastai_deploy.records import counted
from fastai_deploy.runtime.bundle import FP32, Form
from fastai_deploy.runtime.parity import Rules, answer, compare

if TYPE_CHECKING:
    from fastai_deploy.learner.rebuild.families import AnyRebuilt
    from fastai_deploy.learner.rebuild.onnx_export import Graph

_AT_ONCE = 100  # goldens answered before the progress is reported
CHANCE = 1e-5  # a larger difference on a blank text means that a random token was in its place
_BRING = "the learner's own answers would prove it: --golden golden.jsonl"


def convert(
    learner: Path,
    destination: Path,
    *,
    golden: Path | Sequence[Case] | None,
    tolerance: float,
    name: str,
    report: Reporter,
    definitions: Path | None = None,
    tokenizer: Path | None = None,
    gate: Gate = DEFAULT_GATE,
    unproven: bool = False,
    hub: str = "",
) -> Bundle:
    """Convert ``learner`` into a bundle at ``destination`` without running anything in it.

    ``golden`` is a file of texts, or the texts themselves. If they carry the learner's own
    probabilities, the torch model and the ONNX graph must reproduce them within ``tolerance``.
    ``definitions`` is a Python file with the user's classes; that file is run, the learner is not.
    ``tokenizer`` is a folder or file with the tokenizer of a learner whose file lacks it.
    ``gate`` says in which forms with fewer bits the bundle may be served; the default tries them
    all (``rebuild/precision.py``). ``unproven`` accepts what neither the file nor the goldens
    prove, and records it in the bundle. ``hub`` is where on the Hub the learner comes from
    (``owner/name@commit``).
    Raises a LearnerError, GoldenError, ParityError, FileError or ExtraMissing. On an error, an
    existing bundle is left unchanged.
    """
    report(Step(f"reading {learner.name}; nothing in it is run"))
    handed = read_user_tokenizer(tokenizer) if tokenizer else None
    with _opened(learner, handed) as (source, examined):
        anatomy = examined
        digest = _hash(source, f"reading the {anatomy.owner}", report)
        refuse(anatomy, defined=definitions is not None)
        labels = anatomy.golden_labels(tolerance)
        cases = _cases(golden, labels, report)
        if isinstance(source, Opened):
            anatomy, cases = _ask_pipeline(
                source, anatomy, cases, more=golden is None, report=report
            )
        proof = Proof(
            anatomy,
            learner,
            _options(definitions, tokenizer),
            # Definitions of classes that the model does not use are not run, so they prove nothing.
            defined=definitions is not None and bool(users_classes(anatomy.tree)),
            waived=unproven,
        )
        if anatomy.loss.raw:
            report(Step(raw_scores(anatomy.loss)))
        need_extra("convert", *CONVERT)
        if anatomy.transformer is not None:
            check_numbers(anatomy.transformer.config, anatomy.weights, every=False)
        try_text(anatomy, [case.text for case in cases])
        require()
        # Torch and transformers take seconds to import; a refused learner should not wait for them.
        from fastai_deploy.learner.rebuild.families import (  # noqa: PLC0415
            choose,
            manifest,
            rebuild,
            write_model,
        )
        from fastai_deploy.learner.rebuild.precision import Served  # noqa: PLC0415

        report(Step(f"rebuilding {_architecture(anatomy)} in torch"))
        with (
            comparing(destination) as found,
            opened(definitions, users_classes(anatomy.tree), report) as brought,
            building(destination) as folder,
        ):
            rebuilt = rebuild(anatomy, cases, brought)
            proof.require_answers(cases)
            goldens = _answer(rebuilt, cases, tolerance, report, found, proof=proof)
            left = proof.left(cases, rebuilt.cuts, rebuilt.max_length)
            for each in left:
                report(Warned(f"unproven: {each}", _BRING))
            report(Step("exporting to ONNX"))
            graph = rebuilt.export(folder / "model.onnx")
            difference = _check_graph(rebuilt, graph, goldens, found, report)
            reference = Served(graph, (Form(FP32, graph.path.name),), tolerance, difference)
            own = 0 if golden is None else sum(case.text not in PROBES for case in cases)
            served = choose(
                rebuilt, reference, goldens, gate=gate, own=own, found=found, report=report
            )
            found.serve(served.forms[0].precision)
            write_model(folder, rebuilt)
            write(folder / "goldens.json", render(goldens, labels))
            origin = LearnerSpec(
                learner.resolve().name, digest, source.size, str(anatomy.fastai or ""), hub
            )
            proven = any(each.source == "learner" for each in goldens)
            described = manifest(rebuilt, served, name=name, origin=origin, proven=proven)
            residues = (*described.residues, *unshown(cases, rebuilt.cuts, anatomy))
            seal(folder, replace(described, residues=residues, unproven=tuple(map(str, left))))
            source.check_unchanged()
            if _hash(source, f"checking the {anatomy.owner} again", report) != digest:
                raise source.changed()
    written, version = read_bundle(destination)
    return Bundle(
        path=destination,
        version=version,
        name=written.name,
        task=written.task,
        labels=written.labels,
        max_difference=served.difference,
        learner_sha256=digest,
        learner_bytes=anatomy.size,
    )


@contextmanager
def _opened(
    learner: Path, handed: UserTokenizer | None
) -> Iterator[tuple[FileSource | Opened, Anatomy]]:
    """A learner file or a folder, read and examined; its weights can be read in the block."""
    if learner.is_dir():
        with folder_hints(), opened_folder(learner) as folder:
            yield folder, examine_folder(folder)
    else:
        with open_archive(learner) as (source, archive):
            yield source, examine(archive, source.size, handed, file=learner.name)


def _ask_pipeline(
    folder: Opened, anatomy: Anatomy, cases: tuple[Case, ...], *, more: bool, report: Reporter
) -> tuple[Anatomy, tuple[Case, ...]]:
    """The folder's tokenizer and answers, from transformers' own pipeline."""
    need_extra("convert", *CONVERT)
    check_numbers(
        anatomy.transformer.config if anatomy.transformer else {}, anatomy.weights, every=False
    )
    require()
    from fastai_deploy.learner.rebuild.pretrained import check_model  # noqa: PLC0415 - torch

    check_model(anatomy)
    if anatomy.labels.names == default_names(len(anatomy.labels.names)):
        shown = ", ".join(anatomy.labels.names[:3])
        report(Warned(f"the labels have no names but {shown}", "set id2label in config.json"))
    unanswered = sum(case.probabilities is None for case in cases)
    asked = counted(unanswered, "text") if unanswered else "its tokenizer"
    report(Step(f"asking transformers' own pipeline, in a process of its own: {asked}"))
    return proven_by_pipeline(folder, anatomy, cases, more=more)


def refuse(anatomy: Anatomy, *, defined: bool = False) -> None:
    """Raise DangerousLearner or UnsupportedLearner unless the learner can be converted.

    ``defined``: the user has supplied definitions of its classes.
    """
    verdict = anatomy.verdict
    refuse_dangerous(anatomy)
    ways = {"convertible", "with-goldens", *(("with-definitions",) if defined else ())}
    if verdict.kind not in ways:
        raise UnsupportedLearner(
            f"this {anatomy.owner} cannot be converted: {verdict.reason}", hint=verdict.hint
        )


def refuse_dangerous(anatomy: Anatomy) -> None:
    """Raise DangerousLearner for a pickle that would do what no learner needs to do."""
    verdict = anatomy.verdict
    if anatomy.dangers:
        raise DangerousLearner(
            f"{verdict.reason}; fdeploy only read the file and ran nothing", hint=verdict.hint
        )


def _answer(
    rebuilt: AnyRebuilt,
    cases: Sequence[Case],
    tolerance: float,
    report: Reporter,
    found: Comparison,
    *,
    proof: Proof,
) -> tuple[Golden, ...]:
    """The goldens, with the learner's own answers where given; the model must reproduce those."""
    cases = [case for case in cases if not case.error]
    given = _in_torch(rebuilt, cases, report)
    cases = _without_chance(rebuilt, cases, given, report)
    found.begin(rebuilt.anatomy.labels.names, rebuilt.anatomy.threshold, tolerance, cases)
    found.add("torch", given)
    known = [(case, mine) for case, mine in zip(cases, given, strict=True) if case.probabilities]
    if known:
        check_decoding(rebuilt.anatomy, cases, tolerance)
        parity = compare(
            [case.text for case, _ in known],
            [case.probabilities or () for case, _ in known],
            [mine for _, mine in known],
            threshold=rebuilt.anatomy.threshold,
        )
        try:
            check(parity, Rules.exact(tolerance))
        except ParityError as error:
            raise proof.disproved(error) from error
        owner = rebuilt.anatomy.owner
        report(Step(f"{len(known)} of the {owner}'s own answers reproduced in torch: "
                    f"max |Δprobability| {parity.max_difference:.1e}"))  # fmt: skip
    else:
        for assumed in rebuilt.text.assumptions:
            report(Warned(assumed, _BRING))
    _tell_accuracy(rebuilt, cases, given, report)
    return tuple(
        Golden(case.text, case.probabilities or mine,
               "learner" if case.probabilities else "rebuilt", case.expected)
        for case, mine in zip(cases, given, strict=True)
    )  # fmt: skip


def _in_torch(
    rebuilt: AnyRebuilt, cases: Sequence[Case], report: Reporter
) -> list[tuple[float, ...]]:
    """The rebuilt model's answers, one text at a time as the learner's ``predict`` gets them."""
    given: list[tuple[float, ...]] = []
    for start in range(0, len(cases), _AT_ONCE):
        given += rebuilt.answer([case.text for case in cases[start : start + _AT_ONCE]])
        if len(cases) > _AT_ONCE:
            report(Advanced("answering the goldens in torch", len(given), len(cases), "texts"))
    return given


def _without_chance(
    rebuilt: AnyRebuilt,
    cases: Sequence[Case],
    given: Sequence[tuple[float, ...]],
    report: Reporter,
) -> tuple[Case, ...]:
    """The cases without answers that the learner gave by chance, on blank texts.

    Some older tokenizers replace a blank text with a random token, or fail on it, so the answer
    cannot be compared. The user is warned, and the manifest lists the difference as a residue.
    """
    tokenizer = rebuilt.anatomy.tokenizer
    residue = blank_residue(tokenizer) if tokenizer else None
    if residue is None:
        return tuple(cases)
    kept = []
    for case, mine in zip(cases, given, strict=True):
        by_chance = (
            case.probabilities is not None
            and not case.text.strip()
            and max(abs(a - b) for a, b in zip(case.probabilities, mine, strict=True)) > CHANCE
        )
        if by_chance:
            report(Warned(f"the learner's answer to the golden text {case.text!r} is not used",
                          residue))  # fmt: skip
        kept.append(replace(case, probabilities=None) if by_chance else case)
    return tuple(kept)


def _tell_accuracy(
    rebuilt: AnyRebuilt,
    cases: Sequence[Case],
    given: Sequence[tuple[float, ...]],
    report: Reporter,
) -> None:
    """Report how many of the true labels are predicted, if the golden file has any."""
    names = rebuilt.anatomy.labels.names
    right = [
        {names[index] for index in answer(mine, rebuilt.anatomy.threshold)} == set(case.expected)
        for case, mine in zip(cases, given, strict=True)
        if case.expected is not None
    ]
    if right:
        report(Step(f"accuracy on {len(right)} labelled texts: {sum(right) / len(right):.3f}"))


def _check_graph(
    rebuilt: AnyRebuilt,
    graph: Graph,
    goldens: Sequence[Golden],
    found: Comparison,
    report: Reporter,
) -> float:
    """The graph's largest |Δprobability| against the goldens. Raises ParityError."""
    texts = [each.text for each in goldens]
    answers = rebuilt.answer_onnx(graph, texts)
    found.add("onnx", answers)
    parity = compare(
        texts,
        [each.probabilities for each in goldens],
        answers,
        threshold=rebuilt.anatomy.threshold,
    )
    check(parity, Rules.exact(found.tolerance), subject="the ONNX model")
    report(Step(f"{len(texts)} goldens reproduced in ONNX Runtime: max |Δprobability| "
                f"{parity.max_difference:.1e}, 0 answers changed"))  # fmt: skip
    return parity.max_difference


def _cases(
    golden: Path | Sequence[Case] | None, labels: Labels, report: Reporter
) -> tuple[Case, ...]:
    """The texts to answer: the user's, or else fdeploy's. Raises GoldenError or FileError."""
    if golden is None:
        return _probes()
    if isinstance(golden, Path):
        cases = read_cases(golden, labels)
    else:
        cases = answered(golden, labels, "learn.predict")
    scores = sum(case.from_scores for case in cases)
    if scores:
        activation = "sigmoid" if labels.several else "softmax"
        report(Step(f"the goldens hold raw scores; {activation} turns them into probabilities"))
    return cases


def _options(definitions: Path | None, tokenizer: Path | None) -> tuple[str, ...]:
    """The command-line options that name files."""
    named = {"--definitions": definitions, "--tokenizer": tokenizer}
    return tuple(each for flag, path in named.items() if path for each in (flag, as_typed(path)))


def _probes() -> tuple[Case, ...]:
    return tuple(Case(text, None, None, line) for line, text in enumerate(PROBES, start=1))


def _architecture(anatomy: Anatomy) -> str:
    return anatomy.transformer.cls.name if anatomy.transformer else anatomy.family


def _hash(source: FileSource | Opened, task: str, report: Reporter) -> str:
    """The SHA-256 of what is converted, read through the descriptors that everything else uses."""
    return source.digest(lambda done: report(Advanced(task, done, source.size)))
