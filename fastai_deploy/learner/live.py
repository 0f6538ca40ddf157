"""Export a live learner from a script or a notebook; its own answers become the goldens.

learn.export() to a temporary file -> learn.predict() on the goldens -> convert, as for any file
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastai_deploy.errors import DefinitionsError, NotALearner, UsageError
from fastai_deploy.evaluation.card import write_card
from fastai_deploy.learner.convert import convert, refuse
from fastai_deploy.learner.examine.anatomy import Anatomy, examine
from fastai_deploy.learner.exported import ExportedLearner
from fastai_deploy.learner.proof import telling_texts
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.parity.compare import DEFAULT_GATE, Gate
from fastai_deploy.parity.goldens import PROBES, Case, read_cases
from fastai_deploy.progress import Reporter, Step, silent

FACTORY = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<function>[A-Za-z_]\w*)")
TOLERANCE = 1e-4
_FILE = "learner.pkl"


def export_learner(
    learn: Any,
    destination: str | Path,
    goldens: Sequence[str] | str | Path | None = None,
    *,
    definitions: str | Path | None = None,
    tolerance: float | None = None,
    gate: Gate = DEFAULT_GATE,
    name: str | None = None,
    report: Reporter = silent,
    unproven: bool = False,
) -> ExportedLearner:
    """Make a bundle from a live fastai 2 learner; then run ``fdeploy up`` in the same folder.

    What is returned shows itself in a notebook: labels, parity, and the next command.

    ``goldens`` are texts, or a file of them (.txt, .jsonl or .csv, with or without labels), for
    ``learn.predict`` to answer; the default is fdeploy's own texts. ``definitions`` is a file with
    the classes of a custom model. ``tolerance`` and ``gate`` are as in the settings.
    ``unproven`` converts a learner even where its answers do not prove everything.
    The learner is not changed.
    Raises what ``fdeploy export`` raises: a LearnerError, GoldenError, ParityError or FileError.
    """
    _check_live(learn)
    place = Path(destination)
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as folder:
        file = Path(folder) / _FILE
        report(Step("exporting the live learner to a temporary file"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fastai warns about pickles
            learn.export(file.absolute())
        with open_archive(file) as (source, archive):
            anatomy = examine(archive, source.size)
        refuse(anatomy, defined=definitions is not None)
        within = TOLERANCE if tolerance is None else tolerance
        made = convert(
            file,
            place,
            golden=_answered(learn, goldens, anatomy, within),
            tolerance=within,
            gate=gate,
            name=name or place.resolve().name,
            report=report,
            definitions=Path(definitions) if definitions is not None else None,
            unproven=unproven,
        )
    write_card(made.path)
    return ExportedLearner.of(made)


def _check_live(learn: Any) -> None:
    """Raise UsageError if ``learn`` is not a fastai 2 learner."""
    if callable(getattr(learn, "export", None)) and hasattr(learn, "data"):
        raise UsageError(
            "this is a learner of fastai 1",
            hint="call learn.export(), then run: fdeploy export export.pkl",
        )
    if not all(callable(getattr(learn, each, None)) for each in ("export", "predict", "no_bar")):
        raise NotALearner(
            f"this is not a fastai learner but {type(learn).__name__}",
            hint="pass the Learner that you trained",
        )


def _answered(
    learn: Any, goldens: Sequence[str] | str | Path | None, anatomy: Anatomy, tolerance: float
) -> tuple[Case, ...]:
    """The texts with the learner's own answers. Raises GoldenError or FileError.

    If code that reads texts is unproven, texts that show what it does are added.
    """
    if isinstance(goldens, (str, Path)):
        cases = list(read_cases(Path(goldens), anatomy.golden_labels(tolerance)))
    else:
        cases = [Case(text, None, None, 0) for text in (PROBES if goldens is None else goldens)]
    texts = [case.text for case in cases if case.text.strip()]
    if texts and any(each.part == "text" for each in anatomy.unproven):
        more = [text for text in telling_texts(anatomy, texts) if text not in texts]
        cases += [Case(text, None, None, 0) for text in more]
    return tuple(_predicted(learn, case, anatomy) for case in cases)


def _predicted(learn: Any, case: Case, anatomy: Anatomy) -> Case:
    """A text with the answer of ``learn.predict``, or with the error that it raises."""
    try:
        with learn.no_bar():
            label, _, numbers = learn.predict(case.text)
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        return replace(case, probabilities=None, error=repr(error))
    names = tuple(map(str, label)) if anatomy.task == "multi-label" else (str(label),)
    # fastai returns no label if it has no activation for the loss.
    named = names != ("",) and not (anatomy.loss.raw or anatomy.loss.assumed)
    return replace(
        case,
        probabilities=tuple(float(each) for each in numbers),
        from_scores=anatomy.loss.raw,
        predicted=names if named else None,
    )


def run_factory(spec: str, folder: Path, report: Reporter) -> Any:
    """The learner that ``module:function`` returns; modules are looked up in ``folder``.

    Runs the user's code, and reports so. Raises UsageError or DefinitionsError.
    """
    found = FACTORY.fullmatch(spec)
    if found is None:
        raise UsageError(
            f"{spec!r} is not module:function", hint="fdeploy export train:make_learner"
        )
    report(Step(f"running {spec}: your code runs and returns the learner"))
    with _importable(folder), contextlib.redirect_stdout(sys.stderr):
        function = _function(found["module"], found["function"], folder)
        try:
            return function()
        except Exception as error:  # the user's code may raise anything
            raise DefinitionsError(
                f"{spec} fails: {type(error).__name__}: {error}",
                hint=f"fix {found['function']}(), then run the same command again",
            ) from error


def _function(module: str, name: str, folder: Path) -> Callable[[], Any]:
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # the user's code may raise anything
        raise DefinitionsError(
            f"{module} cannot be imported from {folder}: {type(error).__name__}: {error}",
            hint="run the command in the module's folder, with everything it imports installed",
        ) from error
    if not callable(found):
        raise DefinitionsError(
            f"{module} has no function {name}", hint=f"define {name}() in {module}"
        )
    function: Callable[[], Any] = found
    return function


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
