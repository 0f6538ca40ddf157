"""The user's classes and functions in a pickle, which cloudpickle stores by value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from fastai_deploy.learner.reading.graph import (
    MAKE_CLASS,
    Call,
    Global,
    Sequence,
    attribute,
    attributes,
    class_name,
    class_of,
    entries,
    lookup,
    named_entries,
)
from fastai_deploy.learner.reading.tensors import EmbeddedSource
from fastai_deploy.learner.user_code.bytecode import (
    MAX_NAMES,
    CodeObject,
    InvalidBytecode,
    Version,
    code_object,
    decode,
    versions_of,
)
from fastai_deploy.learner.user_code.interpreter import DECODED_A_STEP, Budget
from fastai_deploy.learner.user_code.source import COMPILED_BY, Compiled, compiled_classes
from fastai_deploy.learner.user_code.values import Function, Value

MAX_DECODED = 1 << 20  # bytes of bytecode of all functions; real learners have a few thousand
MAX_BASES = 100  # base classes of a class
_MAKERS = frozenset({"_make_function", "_make_skel_func"})  # what cloudpickle calls
_DISPATCHES = frozenset({"fastcore.dispatch.TypeDispatch"})
_STATE_PARTS = 2  # attributes and slots
# Special names that a class may define without changing how its instances are called.
PLAIN_DUNDERS = frozenset(
    {"__module__", "__qualname__", "__doc__", "__init__", "__dict__", "__weakref__", "__slots__",
     "__annotations__", "__repr__", "__str__", "__firstlineno__", "__static_attributes__",
     "__signature__", "__slotnames__", "__orig_bases__", "__parameters__", "__hash__", "__eq__",
     "__annotate_func__", "__annotations_cache__", "__classdictcell__", "__abstractmethods__"}
)  # fmt: skip


class Objects:
    """Looks up the code of a learner's classes and functions.

    ``calls`` are all calls in the pickle; ``sources`` are the classes whose source the file holds.
    ``by_value`` says whether any function is stored by value. ``versions`` are the Python versions
    that may have compiled the code.
    """

    def __init__(self, calls: Iterable[Call], sources: Iterable[EmbeddedSource] = ()) -> None:
        self._compiled = compiled_classes(sources)
        self._bodies: dict[int, dict[str, object]] = {}
        self._states: dict[int, object] = {}
        self.budget = Budget()
        codes: dict[int, CodeObject] = {}
        left = MAX_DECODED
        for call in calls:
            match call:
                case Call(func=Global(name="_class_setstate"), args=(cls, (body, *_))):
                    self._bodies[id(cls)] = named_entries(body)
                case Call(func=Global(name="_rehydrate_skeleton_class"), args=(cls, body)):
                    self._bodies[id(cls)] = named_entries(body)
                case Call(func=Global(name="_function_setstate"), args=(function, state)):
                    self._states[id(function)] = state
            code = _code_of(call) if left > 0 else None
            if code is not None and id(call.args[0]) not in codes:
                codes[id(call.args[0])] = code
                left -= len(code.code)
        self.by_value = bool(codes)
        self.versions: tuple[Version, ...] = (COMPILED_BY,)
        if codes:
            self.versions = versions_of(codes.values()) if left > 0 else ()

    @property
    def python(self) -> str | None:
        """The Python needed to load the file; None if any will do."""
        if not self.by_value:
            return None
        names = [".".join(map(str, version)) for version in self.versions]
        if len(names) < 3:  # noqa: PLR2004 - with two versions, name both
            return " or ".join(names) or "3.8 or newer"
        return f"{names[0]} to {names[-1]}"

    def function(self, value: object, owner: Value | None = None) -> Function | None:
        """A function stored by value; a method of ``owner``, if given."""
        if isinstance(value, Compiled):
            code = code_object(value.code)
            if code is None:
                return None
            return Function(
                code, {}, defaults=value.defaults, keyword_defaults=value.keyword_defaults,
                owner=owner, text=code.name,
            )  # fmt: skip
        for each in islice(_signatures(value), 1):
            value = each
        found = _code_of(value)
        if found is None:
            return None
        slots = self._slots(value)
        defaults = lookup(slots, "__defaults__")
        closure = lookup(slots, "__closure__")
        return Function(
            found,
            named_entries(lookup(slots, "__globals__")),
            closure=tuple(_cells(closure)),
            defaults=defaults if isinstance(defaults, tuple) else (),
            keyword_defaults=named_entries(lookup(slots, "__kwdefaults__")),
            owner=owner,
            text=found.name,
        )

    def stored_names(self, value: object) -> set[str]:
        """The attributes that a function sets, on any object."""
        function = self.function(value)
        if function is None:
            return set()
        self.budget.step(1 + len(function.code.code) // DECODED_A_STEP)
        return set(_stored(function.code, self.versions))

    def signatures(self, value: object) -> tuple[object, ...]:
        """The functions of a method that dispatches on its argument's type.

        Empty for any other value, and for such a method without functions.
        """
        return tuple(islice(_signatures(value), MAX_NAMES))

    def for_texts(self, value: object) -> object:
        """The function of a method that is annotated with ``str``, or else the method itself.

        fastai chooses a function by the type of its argument.
        """
        text = Global("builtins", "str")
        found = [each for each in self.signatures(value) if text in self._annotations(each)]
        return found[0] if len(found) == 1 else value

    def _annotations(self, function: object) -> list[object]:
        found = named_entries(lookup(self._slots(function), "__annotations__"))
        return [value for name, value in found.items() if name != "return"]

    def _slots(self, function: object) -> object:
        """What cloudpickle sets on a function: its globals, closure, defaults and so on."""
        state = self._states.get(id(function))
        return state[1] if isinstance(state, tuple) and len(state) == _STATE_PARTS else state

    def several(self, value: object) -> bool:
        """Whether a method has more than one signature."""
        return len(self.signatures(value)) > 1

    def lineage(self, cls: object) -> list[object]:
        """A class and its bases, as far as the file shows; the class itself first."""
        found: list[object] = []
        waiting = [cls]
        while waiting and len(found) < MAX_BASES:
            each = waiting.pop()
            # In Python's order: bases from left to right, a shared one at its last occurrence.
            found = [known for known in found if known is not each and known != each]
            found.append(each)
            match each:
                case Call(func=Global(name=made), args=(_, _, tuple() as bases, *_)):
                    if made in MAKE_CLASS:
                        waiting.extend(reversed(bases[:MAX_BASES]))
        return found

    def class_of(self, node: object) -> object:
        """The class of an object, as a node of the graph; None if it is not an object."""
        if not isinstance(node, Call):
            return None
        if class_name(node.func) is not None and not _reconstructs(node):
            return node.func
        return node.args[0] if node.args and _reconstructs(node) else None

    def body(self, cls: object) -> dict[str, object] | None:
        """What a class in the file defines, by name; None for an imported class."""
        if isinstance(cls, Global):
            return self._compiled.get(cls)
        return self._bodies.get(id(cls))

    def defined(self, node: object, name: str) -> tuple[object, object] | None:
        """The class in the file that defines an attribute of an object, and its value there."""
        for cls in self.lineage(self.class_of(node)):
            body = self.body(cls)
            if body is not None and name in body:
                return cls, body[name]
        return None


def function_name(value: object) -> str | None:
    """The name of a function stored by value; None for anything else."""
    found = _code_of(value)
    return found.name if found is not None else None


def _code_of(value: object) -> CodeObject | None:
    match value:
        case Call(func=Global(name=name), args=(code, *_)) if name in _MAKERS:
            return code_object(code)
    return None


def _stored(code: CodeObject, versions: tuple[Version, ...]) -> Iterator[str]:
    """The attributes that code sets on a variable, unlike those set on ``self.learn.pred``."""
    for version in versions:
        try:
            instructions = decode(code, version)
        except InvalidBytecode:
            continue
        before = ""
        for each in instructions:
            changes = each.name in ("STORE_ATTR", "DELETE_ATTR") and before != "LOAD_ATTR"
            if changes and each.argument < len(code.names):
                yield code.names[each.argument]
            before = each.name
    for constant in code.constants:
        inner = code_object(constant)
        if inner is not None:
            yield from _stored(inner, versions)


def _reconstructs(node: Call) -> bool:
    return isinstance(node.func, Global) and node.func.module == "copyreg"


def is_dispatched(value: object) -> bool:
    """Whether a value is a method with several signatures (plum Function, fastcore dispatch)."""
    return "_f" in attributes(value) or _is_dispatch(value)


def _is_dispatch(value: object) -> bool:
    cls = class_of(value)
    return cls is not None and str(cls) in _DISPATCHES


def _signatures(value: object) -> Iterator[object]:
    own = attributes(value)
    if _is_dispatch(value):
        for _, inner in entries(attribute(value, "funcs", "d")):
            deeper = entries(attribute(inner, "d")) if isinstance(inner, Call) else []
            yield from (function for _, function in deeper) if deeper else (inner,)
        return
    if "_f" not in own:
        return
    listed = False
    for name in ("_resolved", "_pending"):
        held = own.get(name)
        for item in held.items[:MAX_NAMES] if isinstance(held, Sequence) else ():
            if isinstance(item, tuple) and item:
                listed = True
                yield item[0]
    if not listed:
        yield own["_f"]


def _cells(closure: object) -> Iterator[object]:
    for cell in closure[:MAX_NAMES] if isinstance(closure, tuple) else ():
        yield cell.args[0] if isinstance(cell, Call) and cell.args else None
