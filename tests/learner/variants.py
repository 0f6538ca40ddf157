"""Convert variants of learners without goldens, and compare with what the learners answered.

``make test-variants`` makes the variants with the real fastai (``generators/fastai2_variants.py``)
and runs ``python -m tests.learner.variants FOLDER``. A variant is a standard learner with one
operation inserted into its code: harmless, or one that changes answers. Each is converted without
goldens, and each that is not is converted again with the learner's own answers. Ends with 1 when

- a variant is converted, with goldens or without, and answers differently from the learner,
- fewer than 90 % of the harmless variants are converted without goldens, or
- a standard learner of ``tests/learners`` is not converted without goldens any more.
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
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from fastai_deploy.bundle import Bundle
from fastai_deploy.errors import FdeployError
from fastai_deploy.learner.anatomy import examine
from fastai_deploy.learner.convert import convert
from fastai_deploy.learner.reading.archive import open_archive
from fastai_deploy.progress import silent
from fastai_deploy.runtime.contract import RequestError
from fastai_deploy.runtime.hardware import Hardware
from fastai_deploy.runtime.loading import load
from tests.learner.made import HALF_TOLERANCE, LEARNERS, TOLERANCE

ENOUGH = 0.9  # of the harmless variants that are converted without goldens
TOLERANCES = {"half": HALF_TOLERANCE, "bfloat16": 4e-2}  # of types that round the learner's answers
# Learners in tests/learners whose code is in the file and changes answers, or which have no labels.
NOT_STANDARD = {"callback_temperature", "v1_awdlstm_language_model", "wrapper_softened"}

Outcome = Literal["same answers", "other answers", "wants goldens", "refused"]
OUTCOMES: tuple[Outcome, ...] = ("same answers", "other answers", "wants goldens", "refused")


@dataclass(frozen=True)
class Variant:
    """A line of ``variants.jsonl``, and where its files are; ``answers`` are the learner's own."""

    name: str
    kind: Literal["harmless", "effect", "unknown"]
    place: str
    operation: str
    path: Path
    answers: tuple[tuple[str, dict[str, float]], ...]

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
    """What became of a variant.

    ``difference`` is the largest |Δprobability| of the bundle that was converted without goldens,
    ``reason`` the error where there is none. ``gate`` is the outcome with the learner's own answers
    as goldens; None where that was not tried.
    """

    variant: Variant
    outcome: Outcome
    difference: float | None = None
    reason: str = ""
    gate: Outcome | None = None


def read_variants(folder: Path) -> list[Variant]:
    """The variants in a folder; those that could not be made are left out."""
    lines = (folder / "variants.jsonl").read_text("utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [_variant(row, folder) for row in rows if "failed" not in row]


def _variant(row: dict[str, Any], folder: Path) -> Variant:
    path = folder / f"{row['name']}.pkl"
    goldens = path.with_suffix(".golden.jsonl").read_text("utf-8").splitlines()
    answers = tuple((each["text"], each["probabilities"]) for each in map(json.loads, goldens))
    return Variant(row["name"], row["kind"], row["place"], row["operation"], path, answers)


def judge(variant: Variant) -> Judged:
    """Convert a variant without goldens, and with them where it is not converted right."""
    outcome, difference, reason = _converted(variant, None)
    if outcome == "same answers" or not variant.answers:
        return Judged(variant, outcome, difference, reason)
    gate, _, why = _converted(variant, variant.golden)
    return Judged(variant, outcome, difference, reason or why, gate)


def _converted(variant: Variant, golden: Path | None) -> tuple[Outcome, float | None, str]:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            bundle = convert(
                variant.path,
                Path(scratch) / "bundle",
                golden=golden,
                tolerance=variant.tolerance,
                name="variant",
                report=silent,
                quantize="none",
            )
        except FdeployError as error:
            wants = golden is None and _wants_goldens(variant.path)
            return "wants goldens" if wants else "refused", None, error.message
        difference = furthest(bundle, variant.answers)
    # A learner that itself answers no text of these is not to be converted unseen.
    right = difference <= variant.tolerance and bool(variant.answers)
    return "same answers" if right else "other answers", difference, ""


def _wants_goldens(path: Path) -> bool:
    """Whether the learner is one that goldens could prove."""
    with open_archive(path) as (source, archive):
        anatomy = examine(archive, source.size)
    return anatomy.verdict.with_goldens or bool(getattr(anatomy, "unproven", ()))


def furthest(bundle: Bundle, answers: Iterable[tuple[str, dict[str, float]]]) -> float:
    """The largest |Δprobability| of a bundle against answers; infinite where it has no answer."""
    predictor = load(bundle.path, Hardware(cores=1, memory=None), 1).predictor
    worst = 0.0
    for text, expected in answers:
        [found] = predictor.predict([text])
        if isinstance(found, RequestError):
            return math.inf
        given = dict(found.probabilities)
        if given.keys() != expected.keys():
            return math.inf
        worst = max(worst, *(abs(given[label] - each) for label, each in expected.items()))
    return worst


def standard_learners() -> list[Path]:
    """The learners of ``tests/learners`` in standard forms whose code is in the file.

    Those of the libraries' classes alone have no other code, and are among them.
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
    """Whether nothing of the user's is only named in the file."""
    with open_archive(path) as (source, archive):
        imports = examine(archive, source.size).imports
    return not any(each.kind == "user" for each in imports)


def problem(path: Path) -> str:
    """Why a standard learner is not converted without goldens; an empty text where it is."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            convert(
                path,
                Path(scratch) / "bundle",
                golden=None,
                tolerance=TOLERANCE,
                name="learner",
                report=silent,
                quantize="none",
            )
        except FdeployError as error:
            return f"{path.stem}: {error.message}"
    return ""


@dataclass(frozen=True)
class Tally:
    """What became of all variants and standard learners."""

    variants: tuple[Judged, ...]
    standard: int
    problems: tuple[str, ...]

    @property
    def wrong(self) -> list[Judged]:
        """Converted without goldens, and answering differently."""
        return [each for each in self.variants if each.outcome == "other answers"]

    @property
    def let_through(self) -> list[Judged]:
        """Converted with the learner's own answers as goldens, and answering differently."""
        return [each for each in self.variants if each.gate == "other answers"]

    @property
    def missed(self) -> list[Judged]:
        """Harmless, and not converted without goldens."""
        return [each for each in self._harmless if each.outcome != "same answers"]

    @property
    def _harmless(self) -> list[Judged]:
        return [each for each in self.variants if each.variant.kind == "harmless"]

    @property
    def passed(self) -> bool:
        """Whether the promise holds."""
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


def tally(folder: Path, jobs: int) -> Tally:
    """Judge every variant in a folder, and the standard learners."""
    standard = standard_learners()
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_one_thread) as pool:
        judged = []
        for each in pool.map(judge, read_variants(folder)):
            judged.append(each)
            sys.stderr.write(f"{each.variant.name}: {each.outcome}, {each.gate or '-'}\n")
        problems = tuple(filter(None, pool.map(problem, standard)))
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
    wanted = parser.parse_args()
    found = tally(wanted.folder, wanted.jobs)
    sys.stdout.write("\n".join(found.lines()) + "\n")
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main())
