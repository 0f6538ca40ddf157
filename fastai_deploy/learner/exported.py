"""What ``export_learner`` returns: a bundle that shows itself, in a notebook and in a terminal."""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.bundle import Bundle, read_manifest
from fastai_deploy.json_reader import parse
from fastai_deploy.parity.report import report_files

_MOST_LABELS = 12


@dataclass(frozen=True, repr=False)
class ExportedLearner(Bundle):
    """A bundle made from a live learner.

    ``texts`` is the number of goldens, ``answered`` of those that the learner itself answered.
    ``forms`` may be served, the fastest first; ``report`` is the page with every text;
    ``unproven`` is what neither the learner's code nor its answers prove.
    """

    texts: int
    answered: int
    forms: tuple[str, ...]
    unproven: tuple[str, ...]
    report: Path

    @classmethod
    def of(cls, bundle: Bundle) -> ExportedLearner:
        """A bundle with what its manifest and its parity report say. Raises FileError."""
        manifest, _ = read_manifest(bundle.path)
        data, page = report_files(bundle.path)
        summary = parse(files.read(data))
        return cls(
            **asdict(bundle),
            texts=summary["texts"],
            answered=summary["learner_answers"],
            forms=tuple(form.precision for form in manifest.model.forms),
            unproven=manifest.unproven,
            report=page,
        )

    @property
    def next_command(self) -> str:
        """The command that serves the bundle, typed in the working folder."""
        here = self.path.resolve().parent == Path.cwd()
        return "fdeploy up" if here else f"fdeploy up {shlex.quote(str(self.path))}"

    def __repr__(self) -> str:
        rows = [("bundle", str(self.path)), *self._rows(), ("next", self.next_command)]
        return "\n".join(f"{name:<8} {said}" for name, said in rows)

    def _repr_html_(self) -> str:
        """The same as a table, for notebooks."""
        report = html.escape(str(self.report), quote=True)
        rows = "".join(
            f'<tr><th style="text-align: left">{html.escape(name)}</th>'
            f'<td style="text-align: left">{html.escape(said)}</td></tr>'
            for name, said in (("bundle", str(self.path)), *self._rows())
        )
        return (
            f"<table><tbody>{rows}</tbody></table>"
            f"<p>Every text with its answers: <code>{report}</code></p>"
            f"<p>Next, in a terminal: <code>{html.escape(self.next_command)}</code></p>"
        )

    def _rows(self) -> Iterator[tuple[str, str]]:
        shown = [str(ascii(label)[1:-1]) for label in self.labels[:_MOST_LABELS]]
        more = len(self.labels) - len(shown)
        yield "labels", ", ".join(shown) + (f" and {more} more" if more else "")
        answered = f"{self.answered} of {self.texts} texts answered by the learner itself"
        yield "proven", f"{answered}, max |Δprobability| {self.max_difference:.1e}"
        yield "forms", ", ".join(self.forms)
        for each in self.unproven:
            yield "unproven", each
