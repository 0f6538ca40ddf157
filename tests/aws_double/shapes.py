"""Requests compared with the service's own model, as botocore ships it: types, enumerations."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import botocore.session


@functools.cache
def _model(service: str = "sagemaker") -> Any:
    return botocore.session.Session().get_service_model(service)


def typed(service: str, operation: str, properties: Any) -> Any:
    """Properties of a resource with the types that the service wants.

    CloudFormation converts them: the value of a parameter of type Number arrives as a string.
    """
    return _typed(_model(service).operation_model(operation).input_shape, properties)


def _typed(shape: Any, value: Any) -> Any:
    if shape.type_name == "structure" and isinstance(value, dict):
        return {
            name: _typed(shape.members[name], item) if name in shape.members else item
            for name, item in value.items()
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [_typed(shape.member, item) for item in value]
    if shape.type_name in {"integer", "long"} and isinstance(value, str):
        return int(value)
    if shape.type_name in {"float", "double"} and isinstance(value, str):
        return float(value)
    return value


def enum_problem(operation: str, request: Any) -> str:
    """What is wrong with a request's enumerated values, in SageMaker's words; else nothing."""
    problems = list(_problems(_model().operation_model(operation).input_shape, request, ""))
    if not problems:
        return ""
    return f"{len(problems)} validation error detected: {problems[0]}"


def _problems(shape: Any, value: Any, path: str) -> Iterator[str]:
    if shape.type_name == "structure" and isinstance(value, dict):
        for name, member in shape.members.items():
            if name in value:
                yield from _problems(member, value[name], f"{path}.{name}".lstrip("."))
    elif shape.type_name == "list" and isinstance(value, list):
        for number, item in enumerate(value, start=1):
            yield from _problems(shape.member, item, f"{path}.{number}.member")
    elif shape.type_name == "string" and getattr(shape, "enum", None) and value not in shape.enum:
        yield (
            f"Value '{value}' at '{path}' failed to satisfy constraint: Member must satisfy enum "
            f"value set: [{', '.join(shape.enum)}]"
        )
