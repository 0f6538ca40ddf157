"""What the user's wrapper does around the transformer: does it mask padding, does it do more.

The wrapper's ``forward`` is read where the file holds its source (torch before 1.6) or its bytecode
tables (cloudpickle). It is never run, and what cannot be seen is called unknown.
"""

from __future__ import annotations

import ast
import io
import textwrap
import tokenize
import warnings
from dataclasses import dataclass
from typing import Literal

from fastai_deploy.learner.embedded import Code
from fastai_deploy.learner.words import words

Mask = Literal["from-ids", "none", "unknown"]

MAX_SOURCE = 1 << 16  # bytes of source that are parsed
MAX_TOKENS = 600  # in one logical line: bounds how deep the parser must go
MASK = "attention_mask"
# Functions that would change the scores on their way out.
PROCESSING = words(
    """
    softmax log_softmax sigmoid logsigmoid relu gelu tanh dropout normalize mean sum max exp log
    clamp argmax topk squeeze matmul bmm
    """
)


@dataclass(frozen=True)
class Forward:
    """What a wrapper does.

    ``mask``: "from-ids" when padding is found by comparing the ids with ``pad_token_id`` (None:
    the tokenizer's); "none" when every token is attended to. ``processes``: a function that is
    applied to the transformer's answer, or None. ``evidence`` says where this was seen, and
    ``seen`` is false where nothing was: the code of a wrapper is not in the file.
    """

    mask: Mask
    pad_token_id: int | None = None
    processes: str | None = None
    evidence: str = ""
    seen: bool = True


UNSEEN = Forward("unknown", evidence="the file does not hold the wrapper's forward()", seen=False)
BARE = Forward("none", evidence="the model is the transformer itself")


def from_code(code: Code, wrapper: dict[str, object]) -> Forward:
    """What bytecode tables show; ``wrapper`` holds the attributes of the wrapper."""
    evidence = "bytecode of the wrapper's forward()"
    processes = next(iter(sorted(code.names & PROCESSING)), None)
    compares = code.compares or bool(code.names & {"ne", "not_equal"})
    if MASK in code.keywords:
        if compares:
            numbers = [wrapper[n] for n in sorted(code.names) if type(wrapper.get(n)) is int]
            pad = numbers[0] if len(numbers) == 1 else None
            return Forward("from-ids", pad if isinstance(pad, int) else None, processes, evidence)
        if "ones_like" in code.names or MASK in code.arguments:
            return Forward("none", None, processes, evidence)
        return Forward("unknown", None, processes, evidence)
    hidden = compares or any("mask" in name for name in code.names | code.texts)
    return Forward("unknown" if hidden else "none", None, processes, evidence)


def from_source(text: str, name: str, child: str, wrapper: dict[str, object]) -> Forward:
    """What the source of class ``name`` shows of how ``self.<child>`` is called."""
    forward = _find_forward(text, name)
    if forward is None:
        return UNSEEN
    evidence = "source of the wrapper's forward()"
    calls = [node for node in ast.walk(forward) if _is_child_call(node, child)]
    if len(calls) != 1 or not isinstance(calls[0], ast.Call):
        return Forward("unknown", evidence=evidence)
    called = calls[0]
    processes = _processing(forward)
    argument = next((kw.value for kw in called.keywords if kw.arg == MASK), None)
    if argument is None and len(called.args) > 1:
        argument = called.args[1]
    if argument is None:
        hidden = any(kw.arg is None for kw in called.keywords) or len(called.args) != 1
        return Forward("unknown" if hidden else "none", None, processes, evidence)
    mask, pad = _mask(forward, argument, wrapper)
    return Forward(mask, pad, processes, evidence)


def _find_forward(text: str, name: str) -> ast.FunctionDef | None:
    if not _parsable(text):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an odd escape in the user's source, say
            tree = ast.parse(textwrap.dedent(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == name:
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == "forward":
                    return item
    return None


def _parsable(text: str) -> bool:
    """Whether the parser can be given this text: a hostile one may be too deep for its stack."""
    if len(text) > MAX_SOURCE or "\0" in text:
        return False
    tokens = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(textwrap.dedent(text)).readline):
            tokens = 0 if token.type == tokenize.NEWLINE else tokens + 1
            if tokens > MAX_TOKENS:
                return False
    except (tokenize.TokenError, SyntaxError, ValueError):
        return False
    return True


def _is_child_call(node: ast.AST, child: str) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=attr)):
            return attr == child
    return False


def _processing(forward: ast.FunctionDef) -> str | None:
    """A function in ``forward`` that could change the scores."""
    for node in ast.walk(forward):
        match node:
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in PROCESSING:
                return name
    return None


def _mask(
    forward: ast.FunctionDef, argument: ast.expr, wrapper: dict[str, object]
) -> tuple[Mask, int | None]:
    """What the expression of the mask means, and the id that it is compared with."""
    expression = _definition(forward, argument)
    nodes = [] if expression is None else list(ast.walk(expression))
    compared = [node for node in nodes if isinstance(node, ast.Compare)]
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    match expression, compared:
        case (ast.Constant(value=None), _):
            return "none", None
        case (ast.expr(), []) if "ones_like" in names:
            return "none", None
        case (_, [ast.Compare(ops=[ast.NotEq()], comparators=[right])]):
            return "from-ids", _number(right, wrapper)
        case (_, [ast.Compare(ops=[ast.Gt()], comparators=[ast.Constant(value=0)])]):
            return "from-ids", 0
    return "unknown", None


def _definition(forward: ast.FunctionDef, argument: ast.expr) -> ast.expr | None:
    """The expression that a local name stands for; None when there is none or more than one.

    A parameter that is never assigned is its default: fastai passes the ids alone.
    """
    if not isinstance(argument, ast.Name):
        return argument
    assigned = [
        node.value
        for node in ast.walk(forward)
        if isinstance(node, ast.Assign)
        and any(isinstance(t, ast.Name) and t.id == argument.id for t in node.targets)
    ]
    if assigned:
        return assigned[0] if len(assigned) == 1 else None
    is_parameter = any(each.arg == argument.id for each in forward.args.args)
    return ast.Constant(value=None) if is_parameter else None


def _number(node: ast.expr, wrapper: dict[str, object]) -> int | None:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Attribute(value=ast.Name(id="self"), attr=attr):
            found = wrapper.get(attr)
            return found if type(found) is int else None
    return None
