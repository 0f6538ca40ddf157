"""Convert variants of learners without goldens, and compare them with the learners' own answers.

``make test-variants`` creates them with the real fastai (``generators/fastai2_variants.py``) and
runs ``python -m tests.learner.variants FOLDER``. A variant is a standard learner with one operation
inserted into its code: harmless, or one that changes answers. Each is converted without goldens; if
that fails, it is converted again with the learner's own answers. The exit code is 1 if

- a variant is converted, with or without goldens, and answers differently from the learner,
- fewer than 90 % of the harmless variants are converted without goldens, or
- a standard learner of ``tests/learners`` is no longer converted without goldens.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from fastai_deploy.errors import FdeployError, UnprovenLearner
from fastai_deploy.learner.convert import convert, refuse
from fastai_deploy.learner.examine.anatomy import examine
from fastai_deploy.learner.proof import Proof
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.parity.compare import Gate
from fastai_deploy.parity.goldens import Case
from fastai_deploy.progress import silent
from fastai_deploy.runtime.contract import RequestError
from fastai_deploy.runtime.hardware import Hardware
from fastai_deploy.runtime.loading import load
from tests.learner.made import HALF_TOLERANCE, LEARNERS, TOLERANCE

ENOUGH = 0.9  # the required share of harmless variants that convert without goldens
TOLERANCES = {"half": HALF_TOLERANCE, "bfloat16": 4e-2}  # for types that round the answers
# Learners in tests/learners whose code changes answers, or is another library's and not in the
# file, or which have no labels.
NOT_STANDARD = {"blurr", "callback_temperature", "v1_awdlstm_language_model", "wrapper_softened"}

Outcome = Literal["same answers", "other answers", "wants goldens", "refused"]
OUTCOMES: tuple[Outcome, ...] = ("same answers", "other answers", "wants goldens", "refused")


@dataclass(frozen=True)
class Answer:
    """The learner's answer to a text: its label, and the probability of each label."""

    text: str
    predicted: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Variant:
    """A line of ``variants.jsonl``, and where its files are; ``answers`` are the learner's own."""

    name: str
    kind: Literal["harmless", "effect", "unknown"]
    place: str
    operation: str
    path: Path
    answers: tuple[Answer, ...]

    @property
    def golden(self) -> Path:
        """The golden file, which holds the learner's own answers."""
        return self.path.with_suffix(".golden.jsonl")

    @property
    def tolerance(self) -> float:
        """|Δprobability| that rounding explains."""
        return TOLERANCES.get(self.operation, TOLERANCE)


@dataclass(frozen=True)
class Judged:
    """The outcome for a variant.

    ``difference`` is the largest |Δprobability| of the bundle converted without goldens; if there
    is none, ``reason`` is the error. ``gate`` is the outcome with the learner's own answers as
    goldens; None if that was not tried.
    """

    variant: Variant
    outcome: Outcome
    difference: float | None = None
    reason: str = ""
    gate: Outcome | None = None


def read_variants(folder: Path) -> list[Variant]:
    """The variants in a folder, without those that could not be made."""
    lines = (folder / "variants.jsonl").read_text("utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [_variant(row, folder) for row in rows if "failed" not in row]


def _variant(row: dict[str, Any], folder: Path) -> Variant:
    path = folder / f"{row['name']}.pkl"
    goldens = path.with_suffix(".golden.jsonl").read_text("utf-8").splitlines()
    answers = tuple(
        Answer(each["text"], each["predicted"], each["probabilities"])
        for each in map(json.loads, goldens)
        if "error" not in each
    )
    return Variant(row["name"], row["kind"], row["place"], row["operation"], path, answers)


def judge(variant: Variant, *, quick: bool = False) -> Judged:
    """Convert a variant without goldens, and if that fails or is wrong, with them.

    ``quick``: rebuild only the model in torch, and do not try goldens.
    """
    outcome, difference, reason = _outcome(variant, None, quick=quick)
    if quick or outcome == "same answers" or not variant.answers:
        return Judged(variant, outcome, difference, reason)
    gate, _, why = _outcome(variant, variant.golden)
    return Judged(variant, outcome, difference, reason or why, gate)


def _outcome(
    variant: Variant, golden: Path | None, *, quick: bool = False
) -> tuple[Outcome, float | None, str]:
    try:
        difference = _rebuilt(variant) if quick else _converted(variant, golden)
    except UnprovenLearner as error:
        return "wants goldens", None, _unproven(error)
    except FdeployError as error:
        return "refused", None, error.message.splitlines()[0]
    # A learner that fails on all of these texts must not convert without goldens.
    right = difference <= variant.tolerance and bool(variant.answers)
    return "same answers" if right else "other answers", difference, ""


def _unproven(error: UnprovenLearner) -> str:
    return "; ".join(
        f"{each['subject']}: {each['reason']} ({each['code']})" for each in error.unproven
    )


def _converted(variant: Variant, golden: Path | None) -> float:
    """The difference of the bundle."""
    with tempfile.TemporaryDirectory() as scratch:
        bundle = convert(
            variant.path,
            Path(scratch) / "bundle",
            golden=golden,
            tolerance=variant.tolerance,
            name="variant",
            report=silent,
            gate=Gate("none"),
        )
        predictor = load(bundle.path, Hardware(cores=1, memory=None), 1).predictor
        found = predictor.predict([each.text for each in variant.answers])
    given = (None if isinstance(each, RequestError) else dict(each.probabilities) for each in found)
    return _furthest(variant, given)


def _rebuilt(variant: Variant) -> float:
    """The difference of the model in torch."""
    from fastai_deploy.learner.rebuild.families import rebuild  # noqa: PLC0415  # imports torch

    with open_archive(variant.path) as (source, archive):
        anatomy = examine(archive, source.size)
        refuse(anatomy)
        Proof(anatomy, variant.path).require_answers(())
        texts = [each.text for each in variant.answers]
        rows = rebuild(anatomy, [Case(text, None, None, 1) for text in texts], None).answer(texts)
    names = anatomy.labels.names
    return _furthest(variant, (dict(zip(names, row, strict=True)) for row in rows))


def _furthest(variant: Variant, given: Iterable[dict[str, float] | None]) -> float:
    """The largest |Δprobability|; infinite if there is no answer, or another label."""
    worst = 0.0
    for answer, found in zip(variant.answers, given, strict=True):
        if found is None or found.keys() != answer.probabilities.keys():
            return math.inf
        best = max(found.values())
        if answer.predicted not in found or found[answer.predicted] < best - variant.tolerance:
            return math.inf
        apart = (abs(found[label] - each) for label, each in answer.probabilities.items())
        worst = max(worst, *apart)
    return worst


def standard_learners() -> list[Path]:
    """The learners of ``tests/learners`` in standard forms whose code is in the file.

    These include learners made only of library classes, which have no code of their own.
    """
    outcomes = json.loads((LEARNERS / "outcomes.json").read_text("utf-8"))
    return [
        path
        for path in sorted(LEARNERS.glob("v[12]/**/*.pkl"))
        if path.stem not in NOT_STANDARD
        and outcomes.get(path.stem, {}).get("outcome") != "refused"
        and _holds_its_code(path)
    ]


def _holds_its_code(path: Path) -> bool:
    """Whether the file contains all of the user's code, instead of naming some of it."""
    with open_archive(path) as (source, archive):
        imports = examine(archive, source.size).imports
    return not any(each.kind == "user" for each in imports)


def problem(path: Path, *, quick: bool = False) -> str:
    """Why a standard learner does not convert without goldens; empty if it does."""
    if quick:
        return _not_proven(path)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            convert(
                path,
                Path(scratch) / "bundle",
                golden=None,
                tolerance=TOLERANCE,
                name="learner",
                report=silent,
                gate=Gate("none"),
            )
        except FdeployError as error:
            return f"{path.stem}: {error.message}"
    return ""


def _not_proven(path: Path) -> str:
    with open_archive(path) as (source, archive):
        verdict = examine(archive, source.size).verdict
    return "" if verdict.kind == "convertible" else f"{path.stem}: {verdict.reason}"


@dataclass(frozen=True)
class Tally:
    """The outcomes of all variants and standard learners."""

    variants: tuple[Judged, ...]
    standard: int
    problems: tuple[str, ...]

    @property
    def wrong(self) -> list[Judged]:
        """Variants that were converted without goldens and answer differently."""
        return [each for each in self.variants if each.outcome == "other answers"]

    @property
    def let_through(self) -> list[Judged]:
        """Variants that were converted with the learner's answers as goldens and differ."""
        return [each for each in self.variants if each.gate == "other answers"]

    @property
    def missed(self) -> list[Judged]:
        """Harmless variants that were not converted without goldens."""
        return [each for each in self._harmless if each.outcome != "same answers"]

    @property
    def _harmless(self) -> list[Judged]:
        return [each for each in self.variants if each.variant.kind == "harmless"]

    @property
    def passed(self) -> bool:
        """Whether all three requirements are met."""
        few_missed = len(self.missed) <= (1 - ENOUGH) * len(self._harmless)
        return not (self.wrong or self.let_through or self.problems) and few_missed

    def lines(self) -> Iterator[str]:
        """The table, and every exception by name."""
        counts = Counter((each.variant.kind, each.outcome) for each in self.variants)
        yield f"{len(self.variants)} variants, converted without goldens:"
        yield "| inserted operation | variants | " + " | ".join(OUTCOMES) + " |"
        yield "|---|" + "---:|" * (len(OUTCOMES) + 1)
        for kind in ("harmless", "effect", "unknown"):
            row = [counts[kind, outcome] for outcome in OUTCOMES]
            yield f"| {kind} | {sum(row)} | " + " | ".join(map(str, row)) + " |"
        gates = Counter(each.gate for each in self.variants if each.gate)
        yield "then with the learner's own answers as goldens: " + ", ".join(
            f"{gates[outcome]} {outcome}" for outcome in OUTCOMES if outcome != "wants goldens"
        )
        share = 1 - len(self.missed) / max(1, len(self._harmless))
        yield f"harmless and converted without goldens: {share:.1%}"
        yield f"standard learners: {self.standard}, not converted: {len(self.problems)}"
        yield from (f"  {each}" for each in self.problems)
        yield from _listed("WRONG without goldens", self.wrong)
        yield from _listed("WRONG with goldens", self.let_through)
        yield from _listed("harmless, not converted without goldens", self.missed)


def _listed(heading: str, judged: Sequence[Judged]) -> Iterator[str]:
    yield f"{heading}: {len(judged)}"
    for each in judged:
        off = "" if each.difference is None else f", off by {each.difference:.1e}"
        reason = f": {each.reason}" if each.reason else ""
        yield f"  {each.variant.name} ({each.variant.place}{off}){reason}"


def tally(folder: Path, jobs: int, *, quick: bool) -> Tally:
    """Judge every variant in a folder, and the standard learners."""
    standard = standard_learners()
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_one_thread) as pool:
        judged = []
        for each in pool.map(partial(judge, quick=quick), read_variants(folder)):
            judged.append(each)
            sys.stderr.write(f"{each.variant.name}: {each.outcome}, {each.gate or '-'}\n")
        problems = tuple(filter(None, pool.map(partial(problem, quick=quick), standard)))
    return Tally(tuple(judged), len(standard), problems)


def _one_thread() -> None:
    """Keep torch to one thread: tiny models gain nothing from more, and jobs share the cores."""
    import torch  # noqa: PLC0415  # not in the process that only counts

    torch.set_num_threads(1)


def main() -> int:
    """Judge, print the table, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="no ONNX, and no goldens")
    wanted = parser.parse_args()
    found = tally(wanted.folder, wanted.jobs, quick=wanted.quick)
    sys.stdout.write("\n".join(found.lines()) + "\n")
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main())
