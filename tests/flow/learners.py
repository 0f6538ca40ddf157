"""The real learners and their own answers, as a user would pass them to the command."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEARNERS = Path(__file__).parent.parent / "learners"
CONVERTIBLE = (
    "v1/roberta_fastai1052_t211",
    "v1/bert_fastai1061_t2110",
    "v1/distilbert_fastai1061_t418_zip",
    "v1/bert_multilabel_fastai1052_t211",
    "v2/v2_hfwrapper_f2812_t523",
    "v2/v2_hfwrapper_f2712_py39_plainpickle",
)
ULMFIT = ("v1/awdlstm_fastai1061_zip", "v2/v2_awdlstm_f2812")
# transformers 2.1 replaces a blank text by a random special token, which differs between processes.
# That answer cannot be reproduced, so the answer to the empty text is used instead.
BLANK_BY_CHANCE = ("v1/roberta_fastai1052_t211", "v1/bert_multilabel_fastai1052_t211")


@dataclass(frozen=True)
class Golden:
    """A text with the learner's own probabilities, by label."""

    text: str
    probabilities: dict[str, float]


def goldens(name: str) -> list[Golden]:
    """The answers of the reloaded learner's ``learn.predict``."""
    document: dict[str, Any] = json.loads((LEARNERS / f"{name}.golden.json").read_bytes())
    labels = [str(label) for label in document["meta"]["classes"]]
    return [
        Golden(row["text"], dict(zip(labels, row["probs"], strict=True)))
        for row in document["golden"]
    ]


def answers(name: str) -> list[Golden]:
    """fdeploy's answers: the goldens, except for the blank text if the original's is random."""
    known = goldens(name)
    empty = next(golden for golden in known if golden.text == "")
    by_chance = name in BLANK_BY_CHANCE
    return [
        Golden(golden.text, empty.probabilities)
        if by_chance and not golden.text.strip()
        else golden
        for golden in known
    ]


def bring(name: str, folder: Path) -> tuple[str, str]:
    """Copy a learner and its golden texts into a folder; return the two file names."""
    shutil.copyfile(LEARNERS / f"{name}.pkl", folder / "learner.pkl")
    lines = (
        json.dumps({"text": golden.text, "probabilities": golden.probabilities})
        for golden in goldens(name)
    )
    (folder / "golden.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "learner.pkl", "golden.jsonl"
