"""Opcodes that would import or call, which are noted and never obeyed, and those that frame."""

from __future__ import annotations

from fastai_deploy.errors import DangerousLearner
from fastai_deploy.learner.reading.registry import check_size, opcode, u64
from fastai_deploy.learner.reading.state import PickleState
from fastai_deploy.learner.reading.values import Call, Global

HIGHEST_PROTOCOL = 5
MAX_NAME = 1_024  # bytes of a module's or a class's name


def _name(state: PickleState) -> str:
    try:
        return state.stream.line(MAX_NAME).decode("utf-8")
    except UnicodeDecodeError:
        state.damaged("a name that is not Unicode")


@opcode(b"c")
def _global(state: PickleState) -> None:
    module, name = _name(state), _name(state)
    state.push_global(module, name)


@opcode(b"\x93")
def _stack_global(state: PickleState) -> None:
    name, module = state.pop(), state.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        state.damaged("a name that is no text")
    if len(name) + len(module) > MAX_NAME:
        state.damaged("a name that is too long")
    state.push_global(module, name)


@opcode(b"R")
def _reduce(state: PickleState) -> None:
    args, func = state.pop_tuple(), state.pop()
    state.push_call(func, args)


@opcode(b"\x81")
def _newobj(state: PickleState) -> None:
    args, cls = state.pop_tuple(), state.pop()
    state.push_call(cls, args, new=True)


@opcode(b"\x92")
def _newobj_ex(state: PickleState) -> None:
    kwargs, args, cls = state.pop(), state.pop_tuple(), state.pop()
    state.push_call(cls, args, kwargs, new=True)


@opcode(b"i")
def _inst(state: PickleState) -> None:
    module, name = _name(state), _name(state)
    args = tuple(state.pop_mark())
    state.push_global(module, name)
    state.push_call(state.pop(), args)


@opcode(b"o")
def _obj(state: PickleState) -> None:
    cls, *args = state.pop_mark() or (None,)
    if cls is None:
        state.damaged("a class is missing")
    state.push_call(cls, tuple(args))


@opcode(b"b")
def _build(state: PickleState) -> None:
    value, target = state.pop(), state.top()
    state.spend(16)
    if isinstance(target, Global):
        state.patched.append(target)
    elif isinstance(target, Call):
        target.states.append(value)
    else:
        state.damaged("attributes are set on something that is no object")


@opcode(b"P")
def _persid(state: PickleState) -> None:
    pid = _name(state)
    state.stack.append(state.persistent_load(pid))


@opcode(b"Q")
def _binpersid(state: PickleState) -> None:
    pid = state.pop()
    state.spend(120)
    state.stack.append(state.persistent_load(pid))


def _extension(state: PickleState) -> None:
    raise DangerousLearner(
        f"the pickle asks for an extension of the running program (byte {state.stream.offset}), "
        "which no learner does; nothing was run",
        hint="do not load this file; ask where it comes from",
    )


for _code in (b"\x82", b"\x83", b"\x84"):
    opcode(_code)(_extension)


@opcode(b"\x80")
def _proto(state: PickleState) -> None:
    state.protocol = state.stream.byte()
    if state.protocol > HIGHEST_PROTOCOL:
        state.damaged(f"pickle protocol {state.protocol} does not exist")


@opcode(b"\x95")
def _frame(state: PickleState) -> None:
    check_size(state, u64(state))
