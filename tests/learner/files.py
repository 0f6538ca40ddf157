"""The real learners and their answers."""

from __future__ import annotations

import json
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
CUSTOM_HEAD = "v1/roberta_customhead_fastai1052_t211"
AWD_LSTM = (
    "v1/awdlstm_fastai1061_zip",
    "v2/v2_awdlstm_f2812",
    "v1/v1_awdlstm_bidir",
    "v1/v1_awdlstm_fields",
    "v1/v1_awdlstm_tags",
    "v1/v1_awdlstm_backwards",
    "v2/v2_awdlstm_f2812_bidir",
    "v2/v2_awdlstm_f2812_german",
    "v2/v2_awdlstm_f2712_backwards",
    "v2/v2_awdlstm_f2712_base",
)
USER_RULE = "v1/v1_awdlstm_user_rule"
LANGUAGE_MODEL = "v1/v1_awdlstm_language_model"
ALL = (*CONVERTIBLE, CUSTOM_HEAD, *AWD_LSTM)

# transformers 2.1 replaces a blank text by a random special token, which differs between processes
# (it depends on PYTHONHASHSEED), so there is no answer to reproduce.
UNDEFINED = {
    "v1/roberta_fastai1052_t211": {"space"},
    "v1/bert_multilabel_fastai1052_t211": {"space"},
    "v1/roberta_customhead_fastai1052_t211": {"space"},
}


@dataclass(frozen=True)
class Golden:
    """A text, with the reloaded learner's ids and probabilities."""

    id: str
    text: str
    ids: tuple[int, ...]
    probabilities: tuple[float, ...]


def learner(name: str) -> Path:
    """The pickle."""
    return LEARNERS / f"{name}.pkl"


def document(name: str) -> dict[str, Any]:
    """The recorded answers of a learner."""
    path = LEARNERS / f"{name}.golden.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def goldens(name: str) -> list[Golden]:
    """The texts with an answer of the learner."""
    return [
        Golden(each["id"], each["text"], tuple(each["ids"]), tuple(each["probs"]))
        for each in document(name)["golden"]
        if each["id"] not in UNDEFINED.get(name, set())
    ]


def write_goldens(name: str, path: Path) -> Path:
    """Write the goldens in the format of a user's golden file."""
    lines = [
        json.dumps({"text": each.text, "probabilities": each.probabilities})
        for each in goldens(name)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
