"""What a learner's file does not prove about its answers, and how its model is called."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

RUNTIME = (
    "serve the pickle itself: fdeploy export --runtime learner --definitions model_def.py "
    "--trust-pickle"
)
_MOST_TEXT = 500  # characters that are shown of one thing

Part = Literal["text", "model", "answer"]


@dataclass(frozen=True)
class Unproven:
    """One thing on the way from a text to its answer that the file does not prove.

    ``subject`` says whose code it is: "the forward() of __main__.Wrap". ``reason`` is what is
    assumed or was not understood, as a clause: "divides the scores by 3.0", or "its code is not in
    the file; it is taken to ...". ``code`` is the line that was not understood, where it is known:
    "return logits / 3.0" or "line 12 of forward()".

    ``part`` says where on the way it is: "text" turns a text into ids (and cuts it: only a golden
    text that is too long shows how), "model" is the model and the modules around it (the user's
    definitions prove those), "answer" is the loss or a callback.
    """

    subject: str
    reason: str
    code: str = ""
    part: Part = field(kw_only=True)

    def __str__(self) -> str:
        shown = f"{self.subject}: {self.reason}"
        return printable(f"{shown} ({self.code})" if self.code else shown)


def printable(text: str) -> str:
    """Text from a learner's file on one line, with nothing in it that a terminal would obey."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:_MOST_TEXT])


Mask = Literal["from-ids", "none", "unknown"]


@dataclass(frozen=True)
class Forward:
    """How the transformer is called.

    ``mask``: "from-ids" when padding is found by comparing the ids with ``pad_token_id`` (None:
    the tokenizer's); "none" when every token is attended to; "unknown" where the code is not in
    the file, or not understood.
    """

    mask: Mask
    pad_token_id: int | None = None


UNKNOWN = Forward("unknown")
