"""Requests checked against the services' own models, more strictly than botocore does itself.

botocore checks types and required members, and leaves enumerations, patterns and bounds to AWS.
Here they are checked before anything is sent, so the double accepts no request that AWS's model
forbids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any


def check_strictly(session: Any) -> None:
    """Make every client of a boto3 session raise AssertionError for what its model forbids."""
    session.events.register("before-parameter-build.*.*", _check)


def initialize_client_plugin(client: Any) -> None:
    """The same for a client of another process, which botocore finds by its plugin variable."""
    client.meta.events.register("before-parameter-build.*.*", _check)


def _check(params: Any, model: Any, **_rest: Any) -> None:
    problems = list(_problems(model.input_shape, params, model.name)) if model.input_shape else []
    assert not problems, "; ".join(problems)


def _problems(shape: Any, value: Any, path: str) -> Iterator[str]:
    if shape.type_name == "structure" and isinstance(value, dict):
        for name, member in shape.members.items():
            if name in value:
                yield from _problems(member, value[name], f"{path}.{name}")
        return
    if shape.type_name == "list" and isinstance(value, list | tuple):
        yield from _bounds(shape, len(value), path)
        for item in value:
            yield from _problems(shape.member, item, f"{path}[]")
    elif shape.type_name == "map" and isinstance(value, dict):
        yield from _bounds(shape, len(value), path)
        for key, item in value.items():
            yield from _problems(shape.key, key, f"{path}.key")
            yield from _problems(shape.value, item, f"{path}.{key}")
    elif isinstance(value, str):
        yield from _bounds(shape, len(value), path)
        yield from _words(shape, value, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _bounds(shape, value, path)


def _bounds(shape: Any, size: float, path: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and size < least:
        yield f"{path}: {size} is below {least}"
    if most is not None and size > most:
        yield f"{path}: {size} is above {most}"


def _words(shape: Any, value: str, path: str) -> Iterator[str]:
    allowed = shape.metadata.get("enum")
    if allowed and value not in allowed:
        yield f"{path}: {value!r} is none of {allowed}"
    pattern = shape.metadata.get("pattern")
    if not pattern:
        return
    try:
        matches = re.fullmatch(pattern.removeprefix("^").removesuffix("$"), value, re.DOTALL)
    except re.error:  # some are Java's
        return
    if matches is None:
        yield f"{path}: {value!r} does not match {pattern}"
