"""What a learner's file does not prove about its answers, and how its model is called."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

RUNTIME = (
    "serve the pickle itself: fdeploy export --runtime learner --trust-pickle "
    "(with --definitions model_def.py if it needs code of yours)"
)
# For a model that can be rebuilt but not exported.
OTHER_ARCHITECTURE = (
    f"{RUNTIME}; or train a model of an architecture that docs/learners-tested.md lists as proven"
)
_MOST_TEXT = 500  # characters shown of each text

Part = Literal["text", "model", "answer", "label"]


@dataclass(frozen=True)
class Unproven:
    """One step from a text to its answer that the file does not prove.

    ``subject`` says whose code it is: "the forward() of __main__.Wrap". ``reason`` is a clause that
    says what is assumed or was not understood: "divides the scores by 3.0", or "its code is not in
    the file; it is assumed to ...". ``code`` is the line that was not understood, if it is known:
    "return logits / 3.0" or "line 12 of forward()".

    ``part`` says which step it is: "text" turns a text into ids (and cuts it, which only a golden
    text that is too long can show), "model" is the model and the modules around it (which the
    user's definitions prove), "answer" is the loss or a callback, "label" chooses the label (which
    only a golden with the learner's own label can show).
    """

    subject: str
    reason: str
    code: str = ""
    part: Part = field(kw_only=True)

    def __str__(self) -> str:
        shown = f"{self.subject}: {self.reason}"
        return printable(f"{shown} ({self.code})" if self.code else shown)


def printable(text: str) -> str:
    """Text from a learner's file, as one line without terminal escape sequences."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:_MOST_TEXT])


Mask = Literal["from-ids", "none", "unknown"]


@dataclass(frozen=True)
class Forward:
    """How the transformer is called.

    ``mask``: "from-ids" if padding is found by comparing the ids with ``pad_token_id`` (None: the
    tokenizer's); "none" if every token is attended to; "unknown" if the code is not in the file or
    was not understood.
    """

    mask: Mask
    pad_token_id: int | None = None


UNKNOWN = Forward("unknown")
