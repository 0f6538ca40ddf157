"""The user's definitions: a Python file with the classes of a learner's model.

This is the only user code that conversion runs, and only because the user asked for it. The pickle
is still only read. The file is imported as one module, so that a class's ``forward`` finds the
globals that it uses; modules next to the file can be imported too.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from fastai_deploy.errors import DefinitionsError
from fastai_deploy.files import read
from fastai_deploy.progress import Reporter, Step, Warned

MODULE = "fdeploy_definitions"  # the name under which the file is imported


@dataclass(frozen=True, eq=False)
class Definitions:
    """The module that a definitions file defines; ``path`` is the file."""

    path: Path
    module: ModuleType

    def find(self, name: str) -> object:
        """The object the file defines as ``name`` (also ``Outer.Inner``), or None."""
        found: object = self.module
        for part in name.split("."):
            found = getattr(found, part, None)
        return found

    def failure(self, what: str, error: BaseException) -> DefinitionsError:
        """The error for code in the file that raised: what was being done, why and where."""
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(self.path)
        ]
        return _failure(self.path, what, error, lines[-1] if lines else None)


@contextlib.contextmanager
def open_definitions(path: Path) -> Iterator[Definitions]:
    """Run a definitions file; its folder stays importable until the block ends.

    Raises FileError, or DefinitionsError if the file is not Python or raises. Its output goes to
    stderr.
    """
    read(path)
    spec = spec_from_file_location(MODULE, path, loader=SourceFileLoader(MODULE, str(path)))
    if spec is None or spec.loader is None:
        raise DefinitionsError(f"{path} is not a Python file", hint="name a file that ends in .py")
    module = module_from_spec(spec)
    before = sys.modules.get(MODULE)
    folder = str(path.parent)
    sys.path.insert(0, folder)
    sys.modules[MODULE] = module  # dataclasses and typing look up a class's module here
    try:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise _failed_import(path, error) from error
        yield Definitions(path, module)
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
        if before is None:
            del sys.modules[MODULE]
        else:
            sys.modules[MODULE] = before


@contextlib.contextmanager
def opened(
    path: Path | None, classes: Sequence[str], report: Reporter
) -> Iterator[Definitions | None]:
    """The user's definitions, if there is a file and the model uses any of ``classes``.

    Reports that the file is run. Raises what :func:`open_definitions` raises.
    """
    if path is None:
        yield None
    elif not classes:
        report(Warned(f"{path.name} is not used: fdeploy knows every class of the model"))
        yield None
    else:
        report(
            Step(f"running {path.name} for {', '.join(classes)}; the learner is still only read")
        )
        with open_definitions(path) as definitions:
            yield definitions


def _failed_import(path: Path, error: BaseException) -> DefinitionsError:
    if isinstance(error, SyntaxError):
        return _failure(path, "it is not Python", error, error.lineno)
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    return _failure(path, "the import fails", error, lines[-1] if lines else None)


def _failure(path: Path, what: str, error: BaseException, line: int | None) -> DefinitionsError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    place = f"{path.name}, line {line}" if line else path.name
    return DefinitionsError(
        f"{place}: {what}: {type(error).__name__}: {reason}", hint=_hint(path, error)
    )


def _hint(path: Path, error: BaseException) -> str:
    match error:
        case ImportError(name=str(name)):
            return (
                f"install {name.split('.')[0]} next to fdeploy, or remove its import from "
                f"{path.name}: only the model's classes and what their forward() uses are needed"
            )
        case NameError(name=str(name)):
            return f"define {name} in {path.name}as it was when the learner was trained"
    return f"fix {path.name}, then run the same command again"
