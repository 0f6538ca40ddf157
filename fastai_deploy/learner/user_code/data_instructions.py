"""Instructions that move data: constants, variables, attributes, the stack, and containers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from fastai_deploy.learner.user_code.bytecode import InvalidBytecode
from fastai_deploy.learner.user_code.frame import Frame, Path, Step
from fastai_deploy.learner.user_code.interpreter import NotUnderstood
from fastai_deploy.learner.user_code.values import (
    MAX_TEXT,
    NONE,
    NULL,
    Const,
    Items,
    ItemsKind,
    Iterator,
    Library,
    Null,
    Pairs,
    Slice,
    Unknown,
    Value,
    const,
    is_none,
    items_of,
    weight_of,
)

MAX_UNPACKED: Final = 64  # values unpacked by one statement
_KEY_AND_VALUE: Final = 2
_WITH_FORMAT: Final = 4  # a flag of FORMAT_VALUE: the format is on the stack too


# Constants, variables and names


def _load_const(frame: Frame, path: Path, argument: int) -> None:
    path.push(frame.constant(argument))


def _load_small_int(_frame: Frame, path: Path, argument: int) -> None:
    path.push(const(argument))


def _load_fast(frame: Frame, path: Path, argument: int) -> None:
    path.push(frame.load(path, frame.variable(argument)))


def _load_two(frame: Frame, path: Path, argument: int) -> None:
    _load_fast(frame, path, argument >> 4)
    _load_fast(frame, path, argument & 15)


def _load_and_clear(frame: Frame, path: Path, argument: int) -> None:
    path.push(path.variables.pop(frame.variable(argument), NULL))


def _store_fast(frame: Frame, path: Path, argument: int) -> None:
    name, value = frame.variable(argument), path.pop()
    if isinstance(value, Null):
        path.variables.pop(name, None)
        return
    # Messages show the expression of what is not understood, and the value of a constant.
    plain = isinstance(value, (Unknown, Const))
    path.variables[name] = value if plain else value.spelled(name)


def _store_and_load(frame: Frame, path: Path, argument: int) -> None:
    _store_fast(frame, path, argument >> 4)
    _load_fast(frame, path, argument & 15)


def _store_two(frame: Frame, path: Path, argument: int) -> None:
    _store_fast(frame, path, argument >> 4)
    _store_fast(frame, path, argument & 15)


def _delete_fast(frame: Frame, path: Path, argument: int) -> None:
    path.variables.pop(frame.variable(argument), None)


def _load_deref(frame: Frame, path: Path, argument: int) -> None:
    path.push(frame.load(path, frame.cell(argument)))


def _store_deref(frame: Frame, path: Path, argument: int) -> None:
    name = frame.cell(argument)
    if name in frame.code.free:
        raise NotUnderstood("it changes a variable of the enclosing function", name)
    path.variables[name] = path.pop()


def _load_closure(frame: Frame, path: Path, argument: int) -> None:
    path.push(cell_marker(frame.cell(argument)))


def cell_marker(name: str) -> Const:
    """The cell of a variable, as ``LOAD_CLOSURE`` pushes it until Python 3.12."""
    return Const(("cell", name), tuple, text=name)


def _load_global(frame: Frame, path: Path, argument: int) -> None:
    callable_place = False  # Python 3.11 and later: whether a call follows
    if frame.version >= (3, 11):
        callable_place, argument = bool(argument & 1), argument >> 1
    name = frame.name(argument)
    held = frame.function.globals
    found = frame.semantics.value(held[name]) if name in held else frame.semantics.builtin(name)
    _push_callable(frame, path, found.spelled(name), place=callable_place)


def _push_callable(frame: Frame, path: Path, value: Value, *, place: bool) -> None:
    """A value, with the empty slot that Python 3.11 and later add next to a callable."""
    if not place:
        path.push(value)
    elif frame.version < (3, 13):
        path.push(NULL, value)
    else:
        path.push(value, NULL)


def _load_attr(frame: Frame, path: Path, argument: int) -> None:
    method = False
    if frame.version >= (3, 12):
        method, argument = bool(argument & 1), argument >> 1
    _push_attribute(frame, path, argument, method=method)


def _load_method(frame: Frame, path: Path, argument: int) -> None:
    _push_attribute(frame, path, argument, method=frame.version >= (3, 11))


def _push_attribute(frame: Frame, path: Path, index: int, *, method: bool) -> None:
    owner, name = path.pop(), frame.name(index)
    found = frame.semantics.attribute(owner, name).spelled(f"{owner.text}.{name}")
    _push_callable(frame, path, found, place=method)


def _store_attr(frame: Frame, path: Path, argument: int) -> None:
    owner, value = path.pop(), path.pop()
    own = frame.function.owner is not None and owner == frame.function.owner
    frame.semantics.store(owner, frame.name(argument), value, own=own)


def _import_name(frame: Frame, path: Path, argument: int) -> None:
    names, _level = path.pop(), path.pop()
    module = frame.name(argument)
    whole = module if not is_none(names) else module.partition(".")[0]
    path.push(Library(whole, text=whole))


def _import_from(frame: Frame, path: Path, argument: int) -> None:
    module, name = path.stack[path.at(1)], frame.name(argument)
    if not isinstance(module, Library):
        raise InvalidBytecode("import")
    path.push(Library(f"{module.name}.{name}", text=name))


def _load_assertion_error(_frame: Frame, path: Path, _argument: int) -> None:
    path.push(Library("builtins.AssertionError", text="AssertionError"))


# The stack


def pop_top(_frame: Frame, path: Path, _argument: int) -> None:
    """Drop the top of the stack."""
    path.pop()


def _push_null(_frame: Frame, path: Path, _argument: int) -> None:
    path.push(NULL)


def _push_none(_frame: Frame, path: Path, _argument: int) -> None:
    path.push(NONE)


def _copy(_frame: Frame, path: Path, argument: int) -> None:
    path.push(path.stack[path.at(argument)])


def _dup_top(_frame: Frame, path: Path, _argument: int) -> None:
    path.push(path.stack[path.at(1)])


def _dup_top_two(_frame: Frame, path: Path, _argument: int) -> None:
    path.push(path.stack[path.at(2)], path.stack[path.at(1)])


def _swap(_frame: Frame, path: Path, argument: int) -> None:
    top, other = path.at(1), path.at(argument)
    path.stack[top], path.stack[other] = path.stack[other], path.stack[top]


def _rotate(_frame: Frame, path: Path, argument: int) -> None:
    path.stack.insert(path.at(argument), path.pop())


def _rotation(count: int) -> Step:
    return lambda frame, path, _argument: _rotate(frame, path, count)


# Containers and loops


def _items(frame: Frame, kind: ItemsKind, items: Sequence[Value]) -> Items:
    frame.interpreter.budget.step(len(items))
    return items_of(kind, items)


def _pairs(frame: Frame, pairs: Iterable[tuple[Value, Value]]) -> Pairs:
    held = tuple(pairs)
    frame.interpreter.budget.step(len(held))
    weight = weight_of([each for pair in held for each in pair])
    return Pairs(held, text="{...}" if held else "{}", weight=weight)


def _building(kind: ItemsKind) -> Step:
    return lambda frame, path, argument: path.push(_items(frame, kind, path.pop_many(argument)))


def _build_map(frame: Frame, path: Path, argument: int) -> None:
    flat = path.pop_many(_KEY_AND_VALUE * argument)
    path.push(_pairs(frame, zip(flat[::2], flat[1::2], strict=True)))


def _build_const_key_map(frame: Frame, path: Path, argument: int) -> None:
    keys = path.pop()
    values = path.pop_many(argument)
    if not isinstance(keys, Const) or not isinstance(keys.value, tuple):
        raise InvalidBytecode("keys")
    if len(keys.value) != argument:
        raise InvalidBytecode("keys")
    named = zip(map(const, keys.value), values, strict=True)
    path.push(_pairs(frame, named))


def slice_of(parts: Sequence[Value]) -> Slice:
    """``start:stop:step``, where the step may be missing."""
    text = ":".join("" if is_none(part) else part.text for part in parts)
    return Slice(tuple(parts), weight=weight_of(parts)).spelled(text)


def _build_slice(_frame: Frame, path: Path, argument: int) -> None:
    path.push(slice_of(path.pop_many(argument)))


def _append(frame: Frame, path: Path, argument: int) -> None:
    """An item of a comprehension."""
    value = path.pop()

    def appended(held: Value) -> Value:
        if not isinstance(held, Items):
            raise InvalidBytecode("comprehension")
        return _items(frame, held.kind, (*held.items, value))

    path.exchange(argument, appended)


def _extend(frame: Frame, path: Path, argument: int) -> None:
    more = path.pop()

    def extended(held: Value) -> Value:
        added = _known_items(more)
        if isinstance(held, Items) and added is not None:
            return _items(frame, held.kind, (*held.items, *added))
        return Unknown("it unpacks a sequence", text=f"*{more.text}")

    path.exchange(argument, extended)


def _known_items(value: Value) -> tuple[Value, ...] | None:
    if isinstance(value, Items):
        return value.items
    if isinstance(value, Const) and isinstance(value.value, tuple):
        return tuple(const(each) for each in value.value)
    return None


def _merge(frame: Frame, path: Path, argument: int) -> None:
    more = path.pop()

    def merged(held: Value) -> Value:
        if isinstance(held, Pairs) and isinstance(more, Pairs):
            return _pairs(frame, (*held.pairs, *more.pairs))
        return Unknown("it unpacks keyword arguments", text=f"**{more.text}")

    path.exchange(argument, merged)


def list_to_tuple(frame: Frame, path: Path, _argument: int) -> None:
    """The end of ``(*a, *b)``, which is built as a list."""
    value = path.pop()
    path.push(_items(frame, "tuple", value.items) if isinstance(value, Items) else value)


def _unpacking(kind: ItemsKind) -> Step:
    """``(*a, *b)`` and the like in Python 3.8."""

    def build(frame: Frame, path: Path, argument: int) -> None:
        parts = path.pop_many(argument)
        path.push(_items(frame, kind, ()))
        for part in parts:
            path.push(part)
            _extend(frame, path, 1)

    return build


def _build_map_unpack(frame: Frame, path: Path, argument: int) -> None:
    """``{**a, **b}`` in Python 3.8."""
    parts = path.pop_many(argument)
    path.push(_pairs(frame, ()))
    for part in parts:
        path.push(part)
        _merge(frame, path, 1)


def _unpack_sequence(frame: Frame, path: Path, argument: int) -> None:
    path.push(*reversed(_unpacked(frame, path.pop(), argument)))


def _unpack_ex(frame: Frame, path: Path, argument: int) -> None:
    value = path.pop()
    before, after = argument & 255, argument >> 8
    if after > MAX_UNPACKED:
        raise NotUnderstood("it unpacks a long sequence", value.text)
    first = _unpacked(frame, value, before)
    rest = Unknown("it takes the rest of a sequence", text=f"*{value.text}")
    last = [Unknown("it takes the last items of a sequence", text=value.text)] * after
    path.push(*reversed((*first, rest, *last)))


def _unpacked(frame: Frame, value: Value, count: int) -> tuple[Value, ...]:
    if count > MAX_UNPACKED:
        raise NotUnderstood("it unpacks a long sequence", value.text)
    if isinstance(value, Unknown):
        return tuple(replace(value, text=f"{value.text}[{i}]") for i in range(count))
    return frame.semantics.unpack(value, count)


def _get_iter(_frame: Frame, path: Path, _argument: int) -> None:
    """Loops are followed only over containers whose every item is known."""
    value = path.pop()
    if isinstance(value, Iterator):
        path.push(value)
    elif isinstance(value, Items) and value.kind in ("tuple", "list"):
        path.push(Iterator(value.items, text=value.text, weight=value.weight))
    else:
        raise NotUnderstood("it has a loop", f"for ... in {value.text}")


def _yield_value(_frame: Frame, path: Path, _argument: int) -> None:
    path.yielded.append(path.pop())
    path.push(NONE)


# Formatted strings


def _formatted(value: Value) -> Unknown:
    """``{value}`` in a formatted string."""
    return Unknown("it formats a string", text=f"{{{value.text}}}")


def _format_value(_frame: Frame, path: Path, argument: int) -> None:
    value, *_format = path.pop_many(2 if argument & _WITH_FORMAT else 1)
    path.push(_formatted(value))


def _format_simple(_frame: Frame, path: Path, _argument: int) -> None:
    path.push(_formatted(path.pop()))


def _convert_value(_frame: Frame, path: Path, _argument: int) -> None:
    path.push(Unknown("it formats a string", text=path.pop().text))


def _format_with_spec(_frame: Frame, path: Path, _argument: int) -> None:
    value, _format = path.pop_many(2)
    path.push(_formatted(value))


def _build_string(_frame: Frame, path: Path, argument: int) -> None:
    parts = [
        part.value[:MAX_TEXT]
        if isinstance(part, Const) and isinstance(part.value, str)
        else part.text
        for part in path.pop_many(argument)
    ]
    path.push(Unknown("it formats a string").spelled(f"f{''.join(parts)!r}"))


STEPS: Final[dict[str, Step]] = {
    "LOAD_CONST": _load_const,
    "LOAD_SMALL_INT": _load_small_int,
    "LOAD_FAST": _load_fast,
    "LOAD_FAST_CHECK": _load_fast,
    "LOAD_FAST_BORROW": _load_fast,
    "LOAD_FAST_LOAD_FAST": _load_two,
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": _load_two,
    "LOAD_FAST_AND_CLEAR": _load_and_clear,
    "STORE_FAST": _store_fast,
    "STORE_FAST_LOAD_FAST": _store_and_load,
    "STORE_FAST_STORE_FAST": _store_two,
    "DELETE_FAST": _delete_fast,
    "LOAD_DEREF": _load_deref,
    "STORE_DEREF": _store_deref,
    "LOAD_CLOSURE": _load_closure,
    "LOAD_GLOBAL": _load_global,
    "LOAD_ATTR": _load_attr,
    "LOAD_METHOD": _load_method,
    "STORE_ATTR": _store_attr,
    "IMPORT_NAME": _import_name,
    "IMPORT_FROM": _import_from,
    "LOAD_ASSERTION_ERROR": _load_assertion_error,
    "LOAD_COMMON_CONSTANT": _load_assertion_error,
    "POP_TOP": pop_top,
    "POP_ITER": pop_top,
    "GEN_START": pop_top,
    "WITH_CLEANUP_START": pop_top,
    "PUSH_NULL": _push_null,
    "RETURN_GENERATOR": _push_none,
    "COPY": _copy,
    "DUP_TOP": _dup_top,
    "DUP_TOP_TWO": _dup_top_two,
    "SWAP": _swap,
    "ROT_TWO": _rotation(2),
    "ROT_THREE": _rotation(3),
    "ROT_FOUR": _rotation(4),
    "ROT_N": _rotate,
    "BUILD_TUPLE": _building("tuple"),
    "BUILD_LIST": _building("list"),
    "BUILD_SET": _building("set"),
    "BUILD_MAP": _build_map,
    "BUILD_CONST_KEY_MAP": _build_const_key_map,
    "BUILD_SLICE": _build_slice,
    "LIST_APPEND": _append,
    "SET_ADD": _append,
    "LIST_EXTEND": _extend,
    "SET_UPDATE": _extend,
    "DICT_UPDATE": _merge,
    "DICT_MERGE": _merge,
    "LIST_TO_TUPLE": list_to_tuple,
    "BUILD_TUPLE_UNPACK": _unpacking("tuple"),
    "BUILD_TUPLE_UNPACK_WITH_CALL": _unpacking("tuple"),
    "BUILD_LIST_UNPACK": _unpacking("list"),
    "BUILD_SET_UNPACK": _unpacking("set"),
    "BUILD_MAP_UNPACK": _build_map_unpack,
    "BUILD_MAP_UNPACK_WITH_CALL": _build_map_unpack,
    "UNPACK_SEQUENCE": _unpack_sequence,
    "UNPACK_EX": _unpack_ex,
    "GET_ITER": _get_iter,
    "YIELD_VALUE": _yield_value,
    "FORMAT_VALUE": _format_value,
    "FORMAT_SIMPLE": _format_simple,
    "FORMAT_WITH_SPEC": _format_with_spec,
    "CONVERT_VALUE": _convert_value,
    "BUILD_STRING": _build_string,
}
