"""What ``fdeploy export`` shows: the bundle, and the worst of what its goldens came to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastai_deploy import files
from fastai_deploy.comparison import report_files
from fastai_deploy.errors import FileError
from fastai_deploy.json_reader import BadJson, parse
from fastai_deploy.records import Bundle

_WORST = 3  # texts that are shown; --json and the page have all of them
_SHORT = 48  # characters of a text


@dataclass(frozen=True)
class Exported:
    """A bundle and its parity report; ``parity`` is None where none was written."""

    bundle: Bundle
    parity: dict[str, Any] | None
    page: str

    @classmethod
    def of(cls, bundle: Bundle) -> Exported:
        """The bundle with the report beside it."""
        data, page = report_files(Path(bundle.path))
        try:
            found = cls(bundle, parse(files.read(data)), str(page))
            list(found.lines())
        except (FileError, BadJson, LookupError, TypeError, AttributeError, ValueError):
            return cls(bundle, None, str(page))  # edited: it only informs, so nothing is shown
        return found

    def values(self) -> dict[str, Any]:
        """All of it for programs."""
        return {**asdict(self.bundle), "parity": self.parity, "parity_page": self.page}

    def lines(self) -> Iterator[str]:
        """The report for people: accuracy, the texts with the largest differences, the page."""
        if self.parity is None:
            return
        for form, found in self.parity["accuracy"].items():
            yield f"accuracy {found['accuracy']:.3f} of {form} on {found['texts']} labelled texts"
        for row in self.parity["rows"][:_WORST]:
            answered = next(iter(row["answers"].values()))
            labels = ", ".join(answered["labels"]) or "(no label)"
            changed = "CHANGED " if row["changed"] else ""
            yield f"|Δ|      {_number(row['difference'])}  {changed}{labels}  {_short(row['text'])}"
        yield f"report   {self.page}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _short(text: str) -> str:
    shown = text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
    return ascii(shown) if not shown.isprintable() else repr(shown)
