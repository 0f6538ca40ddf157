"""Instructions that compute: operators, comparisons, subscripts, calls, functions and contexts."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fastai_deploy.learner.user_code.bytecode import InvalidBytecode, code_object
from fastai_deploy.learner.user_code.data_instructions import cell_marker, list_to_tuple, slice_of
from fastai_deploy.learner.user_code.frame import Frame, Path, Step
from fastai_deploy.learner.user_code.interpreter import NotUnderstood
from fastai_deploy.learner.user_code.values import (
    COUNTED,
    NULL,
    Const,
    Context,
    Function,
    Items,
    Method,
    Null,
    Pairs,
    Unknown,
    Value,
    argument_text,
    bare,
    const,
    index_text,
    is_none,
    items_of,
)

# By the names of BINARY_ADD and INPLACE_ADD, in Python 3.8 to 3.10.
_BINARY: Final = {
    "ADD": "+", "SUBTRACT": "-", "MULTIPLY": "*", "TRUE_DIVIDE": "/", "FLOOR_DIVIDE": "//",
    "MODULO": "%", "POWER": "**", "MATRIX_MULTIPLY": "@", "AND": "&", "OR": "|", "XOR": "^",
    "LSHIFT": "<<", "RSHIFT": ">>",
}  # fmt: skip
# The arguments of BINARY_OP; 13 more for the in-place form; 26 is a subscript (Python 3.14).
_BINARY_OPS: Final = ("+", "&", "//", "<<", "@", "*", "%", "|", "**", ">>", "-", "/", "^")
_SUBSCRIPT: Final = 26
_COMPARE: Final = ("<", "<=", "==", "!=", ">", ">=")
_COMPARE_38: Final = (*_COMPARE, "in", "not in", "is", "is not")
# Arguments of CALL_INTRINSIC_1.
_POSITIVE, _LIST_TO_TUPLE = 5, 6
# Arguments of SET_FUNCTION_ATTRIBUTE, and flags of MAKE_FUNCTION before Python 3.13.
_DEFAULTS, _KEYWORD_DEFAULTS, _ANNOTATIONS, _CLOSURE, _ANNOTATE = 1, 2, 4, 8, 16
_UNKNOWN_ARGUMENTS: Final = "it passes on unknown arguments"


# Operators


def is_known_none(value: Value) -> bool | None:
    """Whether a value is None; None if that is not known."""
    if isinstance(value, Const):
        return value.value is None
    return None if isinstance(value, (Method, Unknown)) else False


def _operated(
    frame: Frame, operator: str, left: Value, right: Value, *, in_place: bool = False
) -> Value:
    if in_place and not _immutable(left):
        raise NotUnderstood(
            "it changes a value in place", f"{left.text} {operator}= {bare(right.text)}"
        )
    text = f"({left.text} {operator} {right.text})"
    for side in (left, right):
        if isinstance(side, Unknown):
            return side.spelled(text)
    return frame.semantics.binary(operator, left, right).spelled(text)


def _immutable(value: Value) -> bool:
    """Whether an in-place operation can only create a new value."""
    if isinstance(value, Unknown):
        return value.reason == COUNTED
    return isinstance(value, Const) or (isinstance(value, Items) and value.kind == "tuple")


def _named_operator(operator: str, *, in_place: bool) -> Step:
    """An operator with its own instruction, until Python 3.10."""

    def operate(frame: Frame, path: Path, _argument: int) -> None:
        right, left = path.pop(), path.pop()
        path.push(_operated(frame, operator, left, right, in_place=in_place))

    return operate


def _binary_op(frame: Frame, path: Path, argument: int) -> None:
    right, left = path.pop(), path.pop()
    if argument == _SUBSCRIPT and frame.version >= (3, 14):
        path.push(_item(frame, left, right))
        return
    count = len(_BINARY_OPS)
    if argument >= 2 * count:
        raise InvalidBytecode("operator")
    operator = _BINARY_OPS[argument % count]
    path.push(_operated(frame, operator, left, right, in_place=argument >= count))


def _push_unary(frame: Frame, path: Path, operator: str) -> None:
    value = path.pop()
    text = f"{operator}{value.text}"
    if isinstance(value, Unknown):
        path.push(value.spelled(text))
    else:
        path.push(frame.semantics.unary(operator, value).spelled(text))


def _unary(operator: str) -> Step:
    return lambda frame, path, _argument: _push_unary(frame, path, operator)


def _unary_not(frame: Frame, path: Path, _argument: int) -> None:
    value = path.pop()
    known = frame.semantics.truth(value)
    tested = Unknown("it tests a condition", text=f"not {value.text}")
    path.push(tested if known is None else const(not known))


def _compare_op(frame: Frame, path: Path, argument: int) -> None:
    table = _COMPARE_38 if frame.version == (3, 8) else _COMPARE
    if frame.version >= (3, 13):
        argument >>= 5
    elif frame.version >= (3, 12):
        argument >>= 4
    if argument >= len(table):
        raise InvalidBytecode("comparison")
    _push_comparison(frame, path, table[argument])


def _push_comparison(frame: Frame, path: Path, operator: str) -> None:
    right, left = path.pop(), path.pop()
    if operator in ("is", "is not") and is_none(right):
        known = is_known_none(left)
        if known is not None:
            path.push(const(known == (operator == "is")))
            return
    path.push(_operated(frame, operator, left, right))


def _is_op(frame: Frame, path: Path, argument: int) -> None:
    _push_comparison(frame, path, "is not" if argument else "is")


def _contains_op(frame: Frame, path: Path, argument: int) -> None:
    _push_comparison(frame, path, "not in" if argument else "in")


def _item(frame: Frame, owner: Value, key: Value) -> Value:
    text = f"{owner.text}[{index_text(key)}]"
    for side in (owner, key):
        if isinstance(side, Unknown):
            return side.spelled(text)
    return frame.semantics.subscript(owner, key).spelled(text)


def _binary_subscr(frame: Frame, path: Path, _argument: int) -> None:
    key, owner = path.pop(), path.pop()
    path.push(_item(frame, owner, key))


def _binary_slice(frame: Frame, path: Path, _argument: int) -> None:
    owner, *parts = path.pop_many(3)
    path.push(_item(frame, owner, slice_of(parts)))


def _store_subscr(frame: Frame, path: Path, _argument: int) -> None:
    key, owner, value = path.pop(), path.pop(), path.pop()
    frame.semantics.store_item(owner, key, value)


def _call_intrinsic_1(frame: Frame, path: Path, argument: int) -> None:
    if argument == _LIST_TO_TUPLE:
        list_to_tuple(frame, path, argument)
    elif argument == _POSITIVE:
        _push_unary(frame, path, "+")
    else:
        raise NotUnderstood(
            f"it uses an instruction that fdeploy does not follow (call_intrinsic_1 {argument})",
            frame.code.name,
        )


# Calls


def _call_function(frame: Frame, path: Path, argument: int) -> None:
    args = path.pop_many(argument)
    _push_call(frame, path, path.pop(), args)


def _call_function_kw(frame: Frame, path: Path, argument: int) -> None:
    names = _keyword_names(path.pop())
    args = path.pop_many(argument)
    _push_call(frame, path, path.pop(), args, names)


def _kw_names(frame: Frame, path: Path, argument: int) -> None:
    path.keyword_names = _keyword_names(frame.constant(argument))


def _call(frame: Frame, path: Path, argument: int) -> None:
    names, path.keyword_names = path.keyword_names, ()
    _push_placed_call(frame, path, path.pop_many(argument), names)


def _call_kw(frame: Frame, path: Path, argument: int) -> None:
    names = _keyword_names(path.pop())
    _push_placed_call(frame, path, path.pop_many(argument), names)


def _push_placed_call(frame: Frame, path: Path, args: list[Value], names: tuple[str, ...]) -> None:
    """A call since Python 3.11: below the arguments are two slots, one of which may be empty."""
    lower, upper = path.pop_many(2)
    if isinstance(lower, Null):
        _push_call(frame, path, upper, args, names)
    elif isinstance(upper, Null):
        _push_call(frame, path, lower, args, names)
    else:
        _push_call(frame, path, lower, [upper, *args], names)


def _call_function_ex(frame: Frame, path: Path, argument: int) -> None:
    # Python 3.14 always has a slot for the keyword arguments.
    keywords = path.pop() if argument & 1 or frame.version >= (3, 14) else NULL
    args = path.pop()
    if frame.version >= (3, 13):
        func, _null = path.pop_many(2)
    else:
        func = path.pop()
        if frame.version >= (3, 11):
            path.pop()
    text = f"{func.text}(*{args.text})"
    if isinstance(args, Const) and isinstance(args.value, tuple):
        args = items_of("tuple", [const(each) for each in args.value])
    named = {} if isinstance(keywords, Null) else _by_name(keywords)
    if not isinstance(args, Items) or named is None:
        raise NotUnderstood(_UNKNOWN_ARGUMENTS, text)
    _push_call(frame, path, func, [*args.items, *named.values()], tuple(named))


def _by_name(keywords: Value) -> dict[str, Value] | None:
    """A dict that the code builds with string keys; None for anything else."""
    found: dict[str, Value] = {}
    for key, value in keywords.pairs if isinstance(keywords, Pairs) else ():
        if not isinstance(key, Const) or not isinstance(key.value, str):
            return None
        found[key.value] = value
    return found if isinstance(keywords, Pairs) else None


def _keyword_names(value: Value) -> tuple[str, ...]:
    if isinstance(value, Const) and isinstance(value.value, tuple):
        names = tuple(each for each in value.value if isinstance(each, str))
        if len(names) == len(value.value):
            return names
    raise InvalidBytecode("keyword names")


def _push_call(
    frame: Frame, path: Path, func: Value, args: list[Value], names: tuple[str, ...] = ()
) -> None:
    if len(names) > len(args):
        raise InvalidBytecode("keyword names")
    split = len(args) - len(names)
    positional, keywords = tuple(args[:split]), dict(zip(names, args[split:], strict=True))
    shown = [argument_text(each) for each in positional]
    shown += [f"{name}={argument_text(value)}" for name, value in keywords.items()]
    text = f"{func.text}({', '.join(shown)})"
    if isinstance(func, Unknown):
        raise NotUnderstood(func.reason, text)
    try:
        found = frame.interpreter.apply(func, positional, keywords)
    except NotUnderstood as error:
        if error.code or error.subject:
            raise
        raise NotUnderstood(error.reason, text) from error
    path.push(found.spelled(text))


# Functions and contexts


def _make_function(frame: Frame, path: Path, argument: int) -> None:
    if frame.version < (3, 11):
        path.pop()  # the qualified name
    code = path.pop()
    made = code_object(code.value) if isinstance(code, Const) else None
    if made is None:
        raise InvalidBytecode("function")
    function = Function(made, frame.function.globals, text=made.name)
    flags = (_CLOSURE, _ANNOTATIONS, _KEYWORD_DEFAULTS, _DEFAULTS)
    for flag in flags if frame.version < (3, 13) else ():
        if argument & flag:
            function = _with_part(frame, path, function, flag, path.pop())
    path.push(function)


def _set_function_attribute(frame: Frame, path: Path, argument: int) -> None:
    function, part = path.pop(), path.pop()
    if not isinstance(function, Function):
        raise InvalidBytecode("function")
    path.push(_with_part(frame, path, function, argument, part))


def _with_part(frame: Frame, path: Path, function: Function, flag: int, part: Value) -> Function:
    """A function with its closure, its defaults, or its annotations, which do not matter."""
    match flag, part:
        case 8, Items(items=cells) if len(cells) == len(function.code.free):
            named_cells = zip(function.code.free, cells, strict=True)
            captured = tuple(_captured(frame, path, name, each) for name, each in named_cells)
            return replace(function, closure=captured)
        case 1, Const(value=tuple(values)):
            return replace(function, defaults=tuple(const(each) for each in values))
        case 1, Items(items=items):
            return replace(function, defaults=items)
        case 2, Pairs():
            named = _by_name(part)
            if named is not None:
                return replace(function, keyword_defaults=dict(named))
        case ((4 | 16), _):
            return function
    raise NotUnderstood("it defines a function with unknown defaults", function.text)


def _captured(frame: Frame, path: Path, name: str, cell: Value) -> Value:
    """What a nested function finds in a variable, which must have only one value."""
    stores = sum(frame.stores(each, name) for each in frame.instructions)
    again = any(each.name == "FOR_ITER" or "BACKWARD" in each.name for each in frame.instructions)
    if stores > (0 if again or name in frame.code.parameters else 1):
        raise NotUnderstood("a nested function uses a variable that changes", name)
    # Since Python 3.13 a cell is loaded like any variable.
    return frame.load(path, name) if cell == cell_marker(name) else cell


def _entered(path: Path) -> Context:
    context = path.pop()
    if not isinstance(context, Context):
        raise NotUnderstood("it enters an unknown context manager", f"with {context.text}")
    return context


def _before_with(_frame: Frame, path: Path, _argument: int) -> None:
    context = _entered(path)
    path.push(context, Unknown("it enters a context manager", text=context.text))


def _load_special(_frame: Frame, path: Path, _argument: int) -> None:
    path.push(_entered(path), NULL)


STEPS: Final[dict[str, Step]] = {
    **{f"BINARY_{name}": _named_operator(o, in_place=False) for name, o in _BINARY.items()},
    **{f"INPLACE_{name}": _named_operator(o, in_place=True) for name, o in _BINARY.items()},
    "BINARY_OP": _binary_op,
    "BINARY_SUBSCR": _binary_subscr,
    "BINARY_SLICE": _binary_slice,
    "STORE_SUBSCR": _store_subscr,
    "UNARY_NEGATIVE": _unary("-"),
    "UNARY_POSITIVE": _unary("+"),
    "UNARY_INVERT": _unary("~"),
    "UNARY_NOT": _unary_not,
    "COMPARE_OP": _compare_op,
    "IS_OP": _is_op,
    "CONTAINS_OP": _contains_op,
    "CALL_INTRINSIC_1": _call_intrinsic_1,
    "CALL_FUNCTION": _call_function,
    "CALL_METHOD": _call_function,
    "CALL_FUNCTION_KW": _call_function_kw,
    "CALL_FUNCTION_EX": _call_function_ex,
    "KW_NAMES": _kw_names,
    "CALL": _call,
    "CALL_KW": _call_kw,
    "MAKE_FUNCTION": _make_function,
    "SET_FUNCTION_ATTRIBUTE": _set_function_attribute,
    "BEFORE_WITH": _before_with,
    "SETUP_WITH": _before_with,
    "LOAD_SPECIAL": _load_special,
}
