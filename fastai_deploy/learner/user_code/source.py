"""Compile, but never run, the class sources that torch before 1.6 stored in a learner.

The result is bytecode of the Python that runs fdeploy, and is followed like any other.
"""

from __future__ import annotations

import ast
import io
import sys
import textwrap
import tokenize
import types
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fastai_deploy.learner.reading.graph import Global
from fastai_deploy.learner.reading.tensors import EmbeddedSource
from fastai_deploy.learner.user_code.bytecode import Version

MAX_SOURCE: Final = 1 << 16  # bytes of source that are parsed
MAX_TOKENS: Final = 600  # per logical line; bounds the depth of the parser
MAX_CLASSES: Final = 100
COMPILED_BY: Final[Version] = (sys.version_info.major, sys.version_info.minor)


@dataclass(frozen=True)
class Compiled:
    """A method of a class whose source is in the file, with its defaults."""

    code: types.CodeType
    defaults: tuple[object, ...]
    keyword_defaults: dict[str, object]


def compiled_classes(sources: Iterable[EmbeddedSource]) -> dict[Global, dict[str, object]]:
    """The methods of each class whose source the file holds, by name, as code objects."""
    found: dict[Global, dict[str, object]] = {}
    for source in sources:
        if len(found) >= MAX_CLASSES:
            break
        methods = _methods(source.text, source.name.name)
        if methods is not None:
            found[source.name] = methods
    return found


def _methods(text: str, name: str) -> dict[str, object] | None:
    if not _parsable(text):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for example about an odd escape in the source
            tree = ast.parse(textwrap.dedent(text))
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef) and node.name == name:
                    return {
                        item.name: _compiled(item)
                        for item in node.body
                        if isinstance(item, ast.FunctionDef)
                    }
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return None


def _compiled(function: ast.FunctionDef) -> Compiled | None:
    """A method; None if a decorator may have replaced it."""
    if function.decorator_list:
        return None
    arguments = function.args
    defaults = [*arguments.defaults, *(each for each in arguments.kw_defaults if each is not None)]
    if not all(isinstance(each, ast.Constant) for each in defaults):
        return None
    module = compile(ast.Module([function], []), "<learner>", "exec", dont_inherit=True)
    code = next((each for each in module.co_consts if isinstance(each, types.CodeType)), None)
    if code is None:
        return None
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return Compiled(
        code,
        tuple(each.value for each in arguments.defaults if isinstance(each, ast.Constant)),
        {arg.arg: each.value for arg, each in named if isinstance(each, ast.Constant)},
    )


def _parsable(text: str) -> bool:
    """Whether a text is safe to parse; a hostile one may be too deep for the parser's stack."""
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
