"""What came of many texts: frozen records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastai_deploy.errors import InvocationError

_SHOWN = 5


@dataclass(frozen=True)
class Answered:
    """A text (its row counts from 1) and what the contract answers to it, which may be an error."""

    row: int
    text: str
    body: Mapping[str, Any]

    @property
    def failed(self) -> bool:
        """Whether the answer is an error."""
        return "error" in self.body

    @property
    def labels(self) -> list[str]:
        """The labels of the text; none where it failed."""
        if self.failed:
            return []
        return list(self.body["labels"] if "labels" in self.body else [self.body["label"]])

    def encode(self) -> bytes:
        """The line of a file of answers."""
        values = {"row": self.row, "text": self.text, **self.body}
        try:
            return (json.dumps(values, ensure_ascii=False) + "\n").encode()
        except UnicodeEncodeError:  # half a character, which is only JSON's to write
            return (json.dumps(values) + "\n").encode()


@dataclass(frozen=True)
class Batch:
    """All answers in the order of the texts; ``reused`` of them were there before.

    ``output`` is the file that holds them, None where there is none.
    """

    answers: Sequence[Answered]
    reused: int = 0
    output: str | None = None

    @property
    def failures(self) -> list[Answered]:
        """The texts that were answered with an error."""
        return [answer for answer in self.answers if answer.failed]

    def counts(self) -> list[tuple[str, int]]:
        """How often each label was answered, the most frequent first."""
        return Counter(label for answer in self.answers for label in answer.labels).most_common()

    @property
    def failure(self) -> InvocationError | None:
        """The error to end with, where a text failed."""
        failed = self.failures
        if not failed:
            return None
        rows = ", ".join(
            f"row {answer.row} ({answer.body['error']['code']})" for answer in failed[:_SHOWN]
        )
        more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        return InvocationError(
            f"{len(failed)} of {len(self.answers)} texts failed: {rows}{more}",
            hint=str(failed[0].body["error"]["hint"])
            + ("; the same command again tries these alone" if self.output else ""),
        )
