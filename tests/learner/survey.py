"""Convert every tiny learner, check it against its goldens, and record the outcome.

``make test-architectures``, or ``python -m tests.learner.survey [FOLDER ...]``, covers the learners
in the repository and those in other folders filled by the generators. The outcomes go to
``tests/learners/outcomes.json``, and from there into the table in ``docs/learners-tested.md``. The
exit code is 1 if a learner that used to be proven no longer is.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.learner.made import LEARNERS, MADE, names, outcome

OUTCOMES = LEARNERS / "outcomes.json"
PAGE = LEARNERS.parent.parent / "docs" / "learners-tested.md"
BEGIN, END = "<!-- outcomes -->", "<!-- end of outcomes -->"

Rows = dict[str, dict[str, Any]]


def read_outcomes() -> Rows:
    """The recorded outcomes, by learner."""
    found: Rows = json.loads(OUTCOMES.read_text(encoding="utf-8"))
    return found


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table for docs/learners-tested.md."""
    return "\n".join(_lines(rows))


def _lines(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "| learner | model | tokenizer | wrapper | transformers | outcome |"
    yield "|---|---|---|---|---|---|"
    for name, row in sorted(rows.items()):
        if row["outcome"] == "proven":
            said = f"proven: torch {row['torch']:.1e}, ONNX {row['onnx']:.1e}"
            if row["padding"] == "equal-length":
                said += "; batches of equal length"
            if row.get("gpu") is False:
                said += "; not on a GPU"
        else:
            said = f"refused: {row['reason']}"
        cells = (f"`{name}`", row["architecture"], row["tokenizer"], row["wrapper"],
                 row["transformers"], said)  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def write_page(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the table into docs/learners-tested.md."""
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n{table(rows)}\n{END}{tail}", encoding="utf-8")


def main(folders: list[str]) -> int:
    """Convert the learners and record the outcomes; return the exit code."""
    rows, lost = read_outcomes(), []
    for folder in (MADE, *map(Path, folders)):
        for name in names(folder):
            with tempfile.TemporaryDirectory() as scratch:
                found = asdict(outcome(name, Path(scratch), folder))
            if rows.get(name, found)["outcome"] != found["outcome"]:
                lost.append(name)
            rows[name] = found
            sys.stdout.write(f"{name}: {found['outcome']} {found['reason']}\n")
            sys.stdout.flush()
    text = json.dumps(rows, indent=1, sort_keys=True, ensure_ascii=False)
    OUTCOMES.write_text(text + "\n", encoding="utf-8")
    write_page(rows)
    sys.stdout.write(f"{len(rows)} learners; changed: {', '.join(lost) or 'none'}\n")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
