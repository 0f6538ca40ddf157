"""The names that loading a learner would import, each of one of four kinds.

    dangerous   known to run code, to read other pickles or to reach for files and the network
    unknown     of a library, and neither known to be dangerous nor known to be harmless
    user        of ``__main__`` or of a module that no library is known by
    harmless    listed by module and name (``harmless.py``)

fdeploy itself imports and calls none of them. What loading would do with them is in ``loading.py``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fastai_deploy.learner.dangers import (
    CLOUDPICKLE_HELPERS,
    EXCEPTIONS,
    GADGET_CLASSES,
    GADGET_MODULES,
    GADGETS,
    KNOWN_LIBRARIES,
    NEVER_MODULES,
    NEVER_NAMES,
    NEVER_PRIVATE,
    REEXPORTED,
    SAFE_SUBMODULES,
)
from fastai_deploy.learner.harmless import CALLED, FAMILIES, FOLLOWED, HELD, MADE
from fastai_deploy.learner.reading.values import Global

Kind = Literal["dangerous", "unknown", "user", "harmless"]
# The gravest first.
KINDS: tuple[Kind, ...] = ("dangerous", "unknown", "user", "harmless")

MAIN = ("__main__", "__mp_main__")
STANDARD = frozenset(sys.stdlib_module_names) | {"__builtin__", "imp", "distutils"}
_DUNDERS = frozenset({"__newobj__", "__newobj_ex__", "__main__", "__init__", "__call__"})
_CLASS = re.compile(r"_?[A-Z]\w*[a-z]\w*", re.ASCII)
_MOST_SPLITS = 20  # dots of a name that somebody wrote down


@dataclass(frozen=True)
class Imported:
    """One name that loading would import, how often, and of which kind it is."""

    name: str
    kind: Kind
    count: int

    @property
    def own(self) -> bool:
        """Whether it is of the user's own notebook or script."""
        return self.name.split(".")[0] in MAIN


def sort_names(counts: Mapping[Global, int]) -> tuple[Imported, ...]:
    """Every import, the gravest kind first, within a kind by name."""
    found = [Imported(str(name), kind_of(name), count) for name, count in counts.items()]
    return tuple(sorted(found, key=lambda item: (KINDS.index(item.kind), item.name)))


def kind_of(name: Global) -> Kind:
    """The kind of an import."""
    top = name.module.split(".")[0]
    if is_listed(name):
        return "harmless"
    if would_be_dangerous(name):
        return "dangerous"
    return "unknown" if top in STANDARD or top in KNOWN_LIBRARIES else "user"


def is_users_own(cls: Global | None) -> bool:
    """Whether a class is of the user's own code; False for an object without a class."""
    return cls is not None and kind_of(cls) == "user"


def would_be_dangerous(name: Global) -> bool:
    """Whether a name is dangerous, were it not listed as harmless."""
    top = name.module.split(".")[0]
    if any(is_dunder(part) or part in REEXPORTED for part in name.name.split(".")):
        return True  # it leads through the interpreter's own attributes or another module
    if top in MAIN:
        return False
    if top in STANDARD or top in NEVER_MODULES:
        return _never(name, top)
    return top in KNOWN_LIBRARIES and _gadget(name)


def is_listed(name: Global) -> bool:
    """Whether a name is known to be harmless."""
    if is_called(name) or is_made(name) or name.name in HELD.get(name.module, ()):
        return True
    helper = name.module.split(".")[0] == "cloudpickle" and name.name in CLOUDPICKLE_HELPERS
    return str(name) in FOLLOWED or helper


def is_called(name: Global) -> bool:
    """Whether calling it while loading is known to do no harm."""
    error = name.module == "builtins" and name.name.endswith(("Error", "Exception", "Warning"))
    return name.name in CALLED.get(name.module, ()) or error


def is_made(name: Global) -> bool:
    """Whether making an instance of it, as pickle does, is known to do no harm."""
    if name.name in MADE.get(name.module, ()) or is_called(name):
        return True
    return FAMILIES.fullmatch(str(name)) is not None


def is_class(name: Global) -> bool:
    """Whether it is spelt as a class."""
    return _CLASS.fullmatch(name.name.split(".")[-1]) is not None


def ever_dangerous(dotted: str) -> bool:
    """Whether ``a.b.c`` is dangerous, wherever in it the module ends."""
    parts = dotted.split(".")[:_MOST_SPLITS]
    names = (Global(".".join(parts[:end]), ".".join(parts[end:])) for end in range(1, len(parts)))
    return any(kind_of(name) == "dangerous" for name in names)


def is_dunder(part: str) -> bool:
    """Whether a name is one of the interpreter's own that lead to everything else."""
    return part.startswith("__") and part.endswith("__") and part not in _DUNDERS


def leads_out(attribute: str) -> bool:
    """Whether an attribute is one that runs code or fetches something, in whatever it is."""
    return is_dunder(attribute) or attribute in GADGETS or attribute in REEXPORTED


def _within(dotted: str, *packages: str) -> bool:
    return any(dotted == package or dotted.startswith(package + ".") for package in packages)


def _never(name: Global, top: str) -> bool:
    if str(name) in EXCEPTIONS or _within(str(name), *SAFE_SUBMODULES):
        return False
    if top in NEVER_MODULES or str(name) in NEVER_PRIVATE:
        return True
    forbidden = NEVER_NAMES.get(top, frozenset())
    parts = (*name.module.split(".")[1:], *name.name.split("."))
    return any(part in forbidden for part in parts)


def _gadget(name: Global) -> bool:
    last = name.name.split(".")[-1]
    if last in GADGETS:
        return True
    if not _within(name.module, *GADGET_MODULES):
        return False
    return last in GADGET_CLASSES or not is_class(name)
