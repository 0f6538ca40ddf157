"""Opcodes that build tuples, lists, sets and dicts, and those of the memo."""

from __future__ import annotations

from fastai_deploy.learner.reading.registry import decimal, opcode, u32
from fastai_deploy.learner.reading.state import PickleState
from fastai_deploy.learner.reading.values import Call, Mapping, Pairs, Sequence


@opcode(b"(")
def _mark(state: PickleState) -> None:
    state.spend(40)
    state.marks.append(len(state.stack))


@opcode(b"0")
def _pop(state: PickleState) -> None:
    if len(state.stack) > (state.marks[-1] if state.marks else 0):
        state.stack.pop()
    else:
        state.pop_mark()


@opcode(b"1")
def _pop_mark(state: PickleState) -> None:
    state.pop_mark()


@opcode(b"2")
def _dup(state: PickleState) -> None:
    state.spend(9)
    state.stack.append(state.top())


def _short_tuple(code: bytes, size: int) -> None:
    def push(state: PickleState) -> None:
        items = [state.pop() for _ in range(size)]
        state.spend(48 + 8 * size)
        state.stack.append(tuple(reversed(items)))

    opcode(code)(push)


_short_tuple(b"\x85", 1)
_short_tuple(b"\x86", 2)
_short_tuple(b"\x87", 3)


@opcode(b"t")
def _tuple(state: PickleState) -> None:
    items = tuple(state.pop_mark())
    state.spend(56 + 8 * len(items))
    state.stack.append(items)


@opcode(b"]")
def _empty_list(state: PickleState) -> None:
    state.spend(140)
    state.stack.append(Sequence("list", []))


@opcode(b"l")
def _list(state: PickleState) -> None:
    items = state.pop_mark()
    state.spend(140 + 8 * len(items))
    state.stack.append(Sequence("list", items))


@opcode(b"\x8f")
def _empty_set(state: PickleState) -> None:
    state.spend(140)
    state.stack.append(Sequence("set", []))


@opcode(b"\x91")
def _frozenset(state: PickleState) -> None:
    items = state.pop_mark()
    state.spend(140 + 8 * len(items))
    state.stack.append(Sequence("frozenset", items))


@opcode(b"}")
def _empty_dict(state: PickleState) -> None:
    state.spend(140)
    state.stack.append(Mapping([]))


@opcode(b"d")
def _dict(state: PickleState) -> None:
    mapping = Mapping([])
    _set(state, mapping, state.pop_mark())
    state.spend(140)
    state.stack.append(mapping)


def _add(state: PickleState, target: object, items: list[object]) -> None:
    if not isinstance(target, (Sequence, Call)):
        state.damaged("items are added to something that is no list or set")
    state.spend(10 * len(items))
    target.items.extend(items)


def _set(state: PickleState, target: object, items: list[object]) -> None:
    if not isinstance(target, (Mapping, Call)) or len(items) % 2:
        state.damaged("keys and values do not pair")
    state.spend(42 * len(items))
    pairs: Pairs = list(zip(items[::2], items[1::2], strict=True))
    target.pairs.extend(pairs)


@opcode(b"a")
def _append(state: PickleState) -> None:
    item = state.pop()
    _add(state, state.top(), [item])


@opcode(b"e")
def _appends(state: PickleState) -> None:
    items = state.pop_mark()
    _add(state, state.top(), items)


@opcode(b"\x90")
def _additems(state: PickleState) -> None:
    items = state.pop_mark()
    _add(state, state.top(), items)


@opcode(b"s")
def _setitem(state: PickleState) -> None:
    value, key = state.pop(), state.pop()
    _set(state, state.top(), [key, value])


@opcode(b"u")
def _setitems(state: PickleState) -> None:
    items = state.pop_mark()
    _set(state, state.top(), items)


@opcode(b"p")
def _put(state: PickleState) -> None:
    state.remember(decimal(state))


@opcode(b"q")
def _binput(state: PickleState) -> None:
    state.remember(state.stream.byte())


@opcode(b"r")
def _long_binput(state: PickleState) -> None:
    state.remember(u32(state))


@opcode(b"\x94")
def _memoize(state: PickleState) -> None:
    state.remember(len(state.memo))


@opcode(b"g")
def _get(state: PickleState) -> None:
    state.recall(decimal(state))


@opcode(b"h")
def _binget(state: PickleState) -> None:
    state.recall(state.stream.byte())


@opcode(b"j")
def _long_binget(state: PickleState) -> None:
    state.recall(u32(state))
