"""A file of answers, one line of JSON a text: written as they come, gone on with later.

A line is added when its text is answered, so that whatever ends the work, what was answered is
kept; at the end the lines stand in the order of the texts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai_deploy import files
from fastai_deploy.errors import FileError, FileMissing
from fastai_deploy.invoking.answered import Answered
from fastai_deploy.json_reader import parse

_MOST = 2 << 30  # bytes of a file of answers


@dataclass(frozen=True)
class Fits:
    """Which answers of before still count.

    ``version`` is that of the model that is asked now; ``probabilities`` how many an answer holds,
    None where that is not known.
    """

    version: str
    probabilities: int | None

    def __call__(self, answer: Answered) -> bool:
        """Whether an answer can stand in for a new one."""
        if answer.failed or answer.body["model"]["version"] != self.version:
            return False
        return self.probabilities in (None, len(answer.body["probabilities"]))


class AnswerFile:
    """The answers in ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def reusable(self, texts: Sequence[str], fits: Fits) -> list[Answered]:
        """The answers of before that still count, in the order of the texts.

        Raises FileError for a file that holds something else, or is a link, a pipe or a device: it
        is not written over.
        """
        before = self._read()
        ours = [a for a in before if a.row <= len(texts) and texts[a.row - 1] == a.text]
        if before and not ours:
            raise FileError(
                f"{self.path} holds the answers to other texts",
                hint="choose another file with --output",
            )
        return list(
            {answer.row: answer for answer in sorted(ours, key=_row) if fits(answer)}.values()
        )

    def write(self, answers: Iterable[Answered]) -> None:
        """Replace the file, with answers in the order of the texts."""
        files.write(self.path, b"".join(answer.encode() for answer in sorted(answers, key=_row)))

    def add(self, answers: Iterable[Answered]) -> None:
        """Add answers at the end; they are on the disk when this returns."""
        descriptor = files.open_regular(self.path, os.O_WRONLY | os.O_APPEND, follow=False)
        with files.file_errors(self.path), os.fdopen(descriptor, "ab") as file:
            file.write(b"".join(answer.encode() for answer in answers))
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> list[Answered]:
        try:
            data = files.read(self.path, most=_MOST, follow=False)
        except FileMissing:
            return []
        *whole, torn = data.split(b"\n")  # what follows the last line's end was never finished
        found = [self._answer(number, line) for number, line in enumerate(whole, 1)]
        if torn and not found:
            raise self._foreign(1)
        return found

    def _answer(self, number: int, line: bytes) -> Answered:
        try:
            values = parse(line, halves=True)
            answer = Answered(int(values.pop("row")), str(values.pop("text")), values)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self._foreign(number) from None
        if answer.row < 1 or not (answer.failed or _is_whole(answer.body)):
            raise self._foreign(number)
        return answer

    def _foreign(self, number: int) -> FileError:
        return FileError(
            f"{self.path}, line {number}: not an answer of fdeploy, so nothing is written there",
            hint="choose another file with --output",
        )


def _is_whole(body: Mapping[str, Any]) -> bool:
    """Whether an answer holds what is shown of it."""
    labels = body.get("labels", [body.get("label")])
    model, probabilities = body.get("model"), body.get("probabilities")
    return (
        isinstance(model, dict)
        and isinstance(model.get("version"), str)
        and isinstance(labels, list)
        and all(isinstance(label, str) for label in labels)
        and isinstance(probabilities, dict)
        and all(isinstance(each, int | float) for each in probabilities.values())
    )


def _row(answer: Answered) -> int:
    return answer.row
