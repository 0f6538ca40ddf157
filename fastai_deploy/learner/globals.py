"""What loading a learner would import and call, sorted: known, the user's own, dangerous.

fdeploy itself imports and calls none of it. The verdict protects whoever loads the file: a file
that would take control of the machine is not a learner to build a service on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fastai_deploy.errors import DangerousLearner
from fastai_deploy.learner.dangers import (
    CALLABLE,
    CLOUDPICKLE_HELPERS,
    EXCEPTIONS,
    GADGET_MODULES,
    GADGETS,
    KNOWN_LIBRARIES,
    NEVER_MODULES,
    NEVER_NAMES,
    REEXPORTED,
    SAFE_SUBMODULES,
)
from fastai_deploy.learner.reading.machine import Pickled
from fastai_deploy.learner.reading.values import Call, Global
from fastai_deploy.learner.reading.views import class_name

Kind = Literal["known", "user", "dangerous"]

GETATTR = Global("builtins", "getattr")
REDUCE = Global("functools", "reduce")
# How Python pickles the type ``A | B``: as reduce(or_, (A, B)).
UNIONS = ((Global("operator", "or_"),), (Global("_operator", "or_"),))
_STANDARD = frozenset(sys.stdlib_module_names) | {"__builtin__", "imp", "distutils"}
_DUNDERS = frozenset({"__newobj__", "__newobj_ex__", "__main__", "__init__", "__call__"})
_GETTERS = frozenset({"itemgetter", "attrgetter", "methodcaller", "getattr"})


@dataclass(frozen=True)
class Imported:
    """One name that loading would import, how often, and of which kind it is."""

    name: str
    kind: Kind
    count: int


def sort_globals(pickled: Pickled) -> tuple[Imported, ...]:
    """Every import, dangerous ones first, then the user's, then known ones, each by name."""
    order = {"dangerous": 0, "user": 1, "known": 2}
    found = [Imported(str(name), kind_of(name), count) for name, count in pickled.globals.items()]
    return tuple(sorted(found, key=lambda item: (order[item.kind], item.name)))


def refuse_danger(pickled: Pickled) -> None:
    """Raise DangerousLearner, naming what loading the file would do; nothing was run."""
    for danger in dangers(pickled):
        raise DangerousLearner(
            f"loading this file would {danger}; fdeploy only read it, and nothing was run",
            hint="do not load this file; if a colleague made it, ask for a new learn.export()",
        )


def dangers(pickled: Pickled) -> Iterator[str]:
    """What loading would do that no learner needs, each in words that follow "would"."""
    for name in pickled.globals:
        if kind_of(name) == "dangerous":
            yield f"import {name}"
    for call in pickled.calls:
        danger = _danger_of_call(call)
        if danger:
            yield danger
    for name in pickled.patched:
        yield f"set attributes on {name}"


def kind_of(name: Global) -> Kind:
    """The kind of an import."""
    top = name.module.split(".")[0]
    if _reaches_in(name):
        return "dangerous"
    if top in ("__main__", "__mp_main__"):
        return "user"
    if top in _STANDARD or top in NEVER_MODULES:
        return "dangerous" if _never(name, top) else "known"
    if top in KNOWN_LIBRARIES:
        return "dangerous" if _gadget(name) else "known"
    return "user"


def _reaches_in(name: Global) -> bool:
    """Whether a name leads through the interpreter's own attributes or another module."""
    return any(_is_dunder(part) or part in REEXPORTED for part in name.name.split("."))


def _is_dunder(part: str) -> bool:
    return part.startswith("__") and part.endswith("__") and part not in _DUNDERS


def _within(dotted: str, *packages: str) -> bool:
    return any(dotted == package or dotted.startswith(package + ".") for package in packages)


def _never(name: Global, top: str) -> bool:
    if str(name) in EXCEPTIONS or _within(str(name), *SAFE_SUBMODULES):
        return False
    if top in NEVER_MODULES:
        return True
    forbidden = NEVER_NAMES.get(top, frozenset())
    parts = (*name.module.split(".")[1:], *name.name.split("."))
    return any(part in forbidden for part in parts)


def _gadget(name: Global) -> bool:
    if name.module.startswith("cloudpickle"):
        return name.name not in CLOUDPICKLE_HELPERS
    return name.name.split(".")[-1] in GADGETS or _within(name.module, *GADGET_MODULES)


def _danger_of_call(call: Call) -> str | None:
    func = call.func
    if isinstance(func, Global):
        if func == GETATTR:
            return _danger_of_getattr(call)
        if func == REDUCE and call.args[:1] in UNIONS:
            return None
        top = func.module.split(".")[0]
        if top in _STANDARD and not call.new and not _callable(func, top):
            return f"call {func}"
        return None
    if isinstance(func, Call):
        return _danger_of_result(func)
    return "call something that is neither a class nor a function"


def _callable(func: Global, top: str) -> bool:
    """Whether loading may call this part of the standard library; classes of exceptions, too."""
    allowed = CALLABLE.get(top, frozenset())
    is_error = top == "builtins" and func.name.endswith(("Error", "Exception", "Warning"))
    return allowed is None or func.name in allowed or is_error


def _danger_of_getattr(call: Call) -> str | None:
    match call.args:
        case (owner, str(name), *_):
            if _is_dunder(name):
                return f"reach for the attribute {name}"
            if _is_module(owner):
                return f"take {name} out of a module"
            return None
    return "reach for an attribute that is computed while loading"


def _danger_of_result(made: Call) -> str | None:
    """The danger in calling something that was itself made by a call."""
    match made:
        case _ if class_name(made) is not None:
            return None
        case Call(func=Global(name="_builtin_type")):
            return None
        case Call(func=Global() as func) if func == GETATTR and made.args:
            return _danger_of_method(made.args[0])
        case Call(func=Global(name="_make_function" | "_make_skel_func")):
            return "run code that is stored in the file"
        case Call(func=Global() as func) if func.name in _GETTERS:
            return f"call what {func} makes"
    return "call the result of another call"


def _danger_of_method(owner: object) -> str | None:
    """The danger in calling a method of a class or an object: none when a library defines it."""
    cls = owner if isinstance(owner, Global) else _class_owner(owner)
    if cls is None or cls.module.split(".")[0] in _STANDARD:
        return f"call a method of {cls or 'a value that it holds'}"
    return None


def _class_owner(owner: object) -> Global | None:
    return class_name(owner.func) if isinstance(owner, Call) else None


def _is_module(value: object) -> bool:
    return (
        isinstance(value, Call)
        and isinstance(value.func, Global)
        and (value.func.name in ("subimport", "dynamic_subimport", "import_module", "__import__"))
    )
