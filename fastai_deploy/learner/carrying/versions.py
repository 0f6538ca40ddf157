"""Which Python and which versions of libraries a learner is loaded with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

from fastai_deploy.environments.pythons import running
from fastai_deploy.environments.requirements import Requirements, installed, parse_requirements
from fastai_deploy.errors import UsageError
from fastai_deploy.learner.anatomy import Anatomy

_ALWAYS = ("fastai", "torch", "numpy")
_ALSO = ("fastcore", "fasttransform", "spacy", "tokenizers", "cloudpickle", "plum-dispatch")
_NEWEST = 30  # the minor version that no Python of today has


def python_for(anatomy: Anatomy, stated: str | None, here: str | None = None) -> str:
    """The version of Python: the one stated, else the one that the file needs, else ``here``.

    Bytecode in the file is tied to its Python. Raises UsageError when what is stated does not fit.
    """
    here = here or running()
    fitting = _range(anatomy.python)
    if stated is not None:
        if fitting is not None and _minor(stated) not in fitting:
            raise UsageError(
                f"the learner holds bytecode of Python {anatomy.python}, not of {stated}",
                hint=f"leave --python out, or name {anatomy.python}",
            )
        return stated
    if fitting is None or _minor(here) in fitting:
        return here
    return f"3.{max(fitting) if len(fitting) < _NEWEST // 2 else min(fitting)}"


def _range(needed: str | None) -> range | None:
    """Minor versions of Python from words such as ``3.8 to 3.10`` and ``3.11 or newer``."""
    if needed is None:
        return None
    numbers = [int(each) for each in re.findall(r"3\.(\d+)", needed)]
    if not numbers:
        return None
    return range(numbers[0], (_NEWEST if "newer" in needed else numbers[-1]) + 1)


def _minor(version: str) -> int:
    return int(version.partition(".")[2])


def requirements_here(
    anatomy: Anatomy,
    python: str,
    *,
    here: str | None = None,
    find: Callable[[str], str | None] = installed,
    distributions: Mapping[str, Sequence[str]] | None = None,
) -> Requirements:
    """The versions installed here, where this is an environment that the learner can come from.

    Raises UsageError, which says what to state, where it is not: no fastai of its major version,
    another transformers than the file names, another Python.
    """
    here = here or running()
    problem = _problem(anatomy, python, here, find)
    if problem:
        raise UsageError(
            f"the versions that the learner needs are not known: {problem}",
            hint=f"state them with --requirements requirements.txt: {_to_state(anatomy)} "
            "(pip freeze shows them where the learner was trained)",
        )
    owners = packages_distributions() if distributions is None else distributions
    imported = {each.name.split(".")[0] for each in anatomy.imports if each.kind != "dangerous"}
    names = [*_ALWAYS, *_ALSO, *(owner for top in imported for owner in owners.get(top, ()))]
    return parse_requirements(_pinned(names, find), "the installed packages")


def _pinned(names: Iterable[str], find: Callable[[str], str | None]) -> str:
    found = {name.lower(): find(name) for name in names}
    return "".join(
        f"{name}=={version.partition('+')[0]}\n"
        for name, version in sorted(found.items())
        if version
    )


def _problem(anatomy: Anatomy, python: str, here: str, find: Callable[[str], str | None]) -> str:
    if python != here:
        return f"it needs Python {python}, and fdeploy runs in {here}"
    fastai = find("fastai")
    if fastai is None:
        return "fastai is not installed here"
    if fastai.partition(".")[0] != str(anatomy.fastai):
        return f"it is of fastai {anatomy.libraries['fastai']}, and {fastai} is installed here"
    written = anatomy.libraries.get("transformers")
    ours = find("transformers")
    if written and re.fullmatch(r"[0-9.]+", written) and written.count(".") > 1 and written != ours:
        return f"it is of transformers {written}, and {ours or 'none'} is installed here"
    return ""


def _to_state(anatomy: Anatomy) -> str:
    hints = anatomy.libraries
    names = [name for name in ("fastai", "torch", "transformers") if name in hints]
    return ", ".join(f"{name}==... ({hints[name]})" for name in names)


def main_names(anatomy: Anatomy) -> tuple[str, ...]:
    """What the pickle looks up in ``__main__``: the definitions must have it."""
    tops = ("__main__.", "__mp_main__.")
    return tuple(
        sorted(
            {
                each.name.split(".", 1)[1].split(".")[0]
                for each in anatomy.imports
                if each.name.startswith(tops)
            }
        )
    )


def check_definitions(anatomy: Anatomy, definitions: Path | None) -> None:
    """Raise UsageError when the pickle needs classes and no module with them was brought."""
    names = main_names(anatomy)
    if definitions is None:
        if names:
            raise UsageError(
                f"the pickle looks {', '.join(names)} up in __main__, where no server has it",
                hint="write them into a file, and name it with --definitions model_def.py",
            )
    elif definitions.suffix != ".py" or not definitions.stem.isidentifier():
        raise UsageError(
            f"{definitions.name} cannot be imported as a module",
            hint="give it a name such as model_def.py",
        )
