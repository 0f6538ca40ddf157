"""Convert a folder of every architecture against transformers' own pipeline, and record it.

``python -m tests.pretrained.survey [NAME ...]``, a part of ``make test-architectures``, makes a
small folder of each architecture (``folders.py``), or of those named, asks one process with the
pipeline about all of them, and converts each with these answers. Each outcome goes at once to
``tests/pretrained/outcomes.json``, and from there into the list in ``docs/huggingface.md``, so an
interrupted survey can be continued by name. The exit code is 1 if a folder that used to be proven
no longer is.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from fastai_deploy.errors import FdeployError
from fastai_deploy.learner.convert import convert
from fastai_deploy.learner.examine.anatomy import Anatomy
from fastai_deploy.learner.pretrained.examine import examine_folder
from fastai_deploy.learner.pretrained.folder import opened_folder
from fastai_deploy.learner.pretrained.pipeline import (
    Asked,
    Question,
    answered_by,
    ask_pipeline,
    staged,
    with_tokenizer,
)
from fastai_deploy.parity.compare import Gate
from fastai_deploy.parity.goldens import PROBES, Case
from fastai_deploy.progress import silent
from tests.pretrained.folders import architectures, save

OUTCOMES = Path(__file__).with_name("outcomes.json")
PAGE = Path(__file__).parents[2] / "docs/huggingface.md"
BEGIN, END = "<!-- folders -->", "<!-- end of folders -->"
TEXTS = (*PROBES[:8], PROBES[-1])  # of several languages, and one that is too long
# In full size, for the benchmarks; and three whose tokenizers exist only in Python.
_LEFT_OUT = {"roberta_base", "canine", "flaubert", "xlm"}
# Needs a library that no registry has.
_LEFT_OUT |= {"layoutlmv2"}


_REASON = 200  # characters
PROVEN, IN_TORCH = "proven", "proven in torch"


@dataclass(frozen=True)
class Outcome:
    """``proven``, with the largest |Δprobability| of ONNX Runtime, or ``refused``.

    ``proven in torch``: the graph was not made.
    """

    outcome: str
    difference: float | None = None
    reason: str = ""


Rows = dict[str, Outcome]


def names() -> list[str]:
    """The architectures of which folders can be made here."""
    return sorted(set(architectures()) - _LEFT_OUT)


@contextmanager
def asked(chosen: Iterable[str], scratch: Path) -> Iterator[dict[str, tuple[Anatomy, Asked]]]:
    """Folders of these architectures in ``scratch``, and what one pipeline process says of them."""
    chosen = list(chosen)
    with ExitStack() as stack:
        anatomies, questions = [], []
        for name in chosen:
            opened = stack.enter_context(opened_folder(save(name, scratch / name)))
            anatomies.append(examine_folder(opened))
            folder = stack.enter_context(staged(opened, anatomies[-1]))
            questions.append(Question(folder, TEXTS, more=True))
        found = ask_pipeline(
            questions,
            weights=max(each.weights_size for each in anatomies),
            parameters=sum(each.parameters for each in anatomies),
        )
        yield dict(zip(chosen, zip(anatomies, found, strict=True), strict=True))


def cases(anatomy: Anatomy, found: Asked) -> tuple[Case, ...]:
    """The texts with the pipeline's answers. Raises UnsupportedLearner."""
    empty = [Case(text, None, None, 0) for text in TEXTS]
    return answered_by(found, with_tokenizer(anatomy, found), empty)


def outcome(folder: Path, anatomy: Anatomy, found: Asked, destination: Path) -> Outcome:
    """Convert a folder against the pipeline's answers."""
    try:
        golden = [case for case in cases(anatomy, found) if not case.error]
        bundle = convert(
            folder,
            destination,
            golden=golden,
            tolerance=1e-4,
            name="x",
            report=silent,
            gate=Gate(quantize="none"),  # the graph's difference, not that of int8
        )
    except FdeployError as error:
        return Outcome("refused", reason=error.message.partition(": '")[0][:_REASON])
    return Outcome(PROVEN, difference=float(f"{bundle.max_difference:.1e}"))


def read_outcomes() -> Rows:
    """The recorded outcomes, by architecture."""
    held = json.loads(OUTCOMES.read_text(encoding="utf-8"))
    return {name: Outcome(**row) for name, row in held.items()}


def listed(rows: Mapping[str, Outcome]) -> str:
    """The list for docs/huggingface.md."""

    def of(kind: str) -> list[str]:
        return [f"`{name}`" for name, row in sorted(rows.items()) if row.outcome == kind]

    worst = max(row.difference or 0.0 for row in rows.values() if row.outcome == PROVEN)
    both, torch = of(PROVEN), of(IN_TORCH)
    head = f"Proven in torch and in ONNX Runtime, {len(both)} architectures"
    lines = [f"{head}, the largest |Δprobability| {worst:.1e}: {', '.join(both)}.", ""]
    if torch:
        head = (
            f"Proven in torch, {len(torch)} architectures; the last survey did not make the graph"
        )
        lines += [f"{head}: {', '.join(torch)}.", ""]
    lines += ["| refused | reason |", "|---|---|"]
    refused = [(name, row) for name, row in sorted(rows.items()) if row.outcome == "refused"]
    lines += [f"| `{name}` | {row.reason} |" for name, row in refused]
    return "\n".join(lines)


def write_page(rows: Mapping[str, Outcome]) -> None:
    """Write the list into docs/huggingface.md."""
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n{listed(rows)}\n{END}{tail}", encoding="utf-8")


def keep(rows: Rows) -> None:
    """Record the outcomes, and list them in the page."""
    held = {name: asdict(row) for name, row in rows.items()}
    OUTCOMES.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    write_page(rows)


def main(chosen: Sequence[str]) -> int:
    """Convert the folders and record the outcomes; return the exit code."""
    rows = read_outcomes() if OUTCOMES.exists() else {}
    lost = []
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        with asked(chosen or names(), scratch) as found:
            for name, (anatomy, answers) in found.items():
                row = outcome(scratch / name, anatomy, answers, scratch / f"{name}-bundle")
                before = rows.get(name, row).outcome
                if row.outcome == "refused" and before != row.outcome:
                    lost.append(name)
                rows[name] = row
                keep(rows)
                sys.stdout.write(f"{name}: {row.outcome} {row.reason}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{len(rows)} folders; no longer proven: {', '.join(lost) or 'none'}\n")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
