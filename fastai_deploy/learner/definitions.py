"""The user's definitions: a Python file with the classes that a learner's model is made of.

It is the only code of a user's that conversion runs, because the user asked for it; the pickle is
still read and never run. The file is a module of its own, so that its classes and what their
``forward`` finds under global names are together; what it imports may lie beside it.
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
    """The module that a definitions file made; ``path`` is the file."""

    path: Path
    module: ModuleType

    def find(self, name: str) -> object:
        """What the file calls ``name`` (perhaps ``Outer.Inner``); None when it defines no such."""
        found: object = self.module
        for part in name.split("."):
            found = getattr(found, part, None)
        return found

    def failure(self, what: str, error: BaseException) -> DefinitionsError:
        """The error for code of the file that raised: what was done, why it failed, and where."""
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(self.path)
        ]
        return _failure(self.path, what, error, lines[-1] if lines else None)


@contextlib.contextmanager
def open_definitions(path: Path) -> Iterator[Definitions]:
    """Run a definitions file; its folder is importable until the block ends.

    Raises FileError, or DefinitionsError when the file is no Python or raises. What it prints goes
    to stderr.
    """
    read(path)
    spec = spec_from_file_location(MODULE, path, loader=SourceFileLoader(MODULE, str(path)))
    if spec is None or spec.loader is None:
        raise DefinitionsError(f"{path} is no Python file", hint="name a file that ends in .py")
    module = module_from_spec(spec)
    before = sys.modules.get(MODULE)
    folder = str(path.parent)
    sys.path.insert(0, folder)
    sys.modules[MODULE] = module  # where dataclasses and typing look a class's module up
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
    """The user's definitions, where there is a file and the model is of ``classes`` of the user's.

    Says out loud that the file is run. Raises what :func:`open_definitions` does.
    """
    if path is None:
        yield None
    elif not classes:
        report(Warned(f"{path.name} is not used: the model is of known classes only"))
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
    return _failure(path, "it fails on import", error, lines[-1] if lines else None)


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
                f"install {name.split('.')[0]} beside fdeploy, or take its import out of "
                f"{path.name}: the classes of the model and what their forward() uses are enough"
            )
        case NameError(name=str(name)):
            return f"define {name} in {path.name}, as it was where the learner was trained"
    return f"mend {path.name}, then run the same command again"
