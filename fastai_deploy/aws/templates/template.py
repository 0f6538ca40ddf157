"""A CloudFormation template: its text, its parameters, and the resources that both give.

    text ──load──> document ──evaluate(parameters)──> the resources that the stack would have

``load`` reads YAML or JSON and spells the short forms out (``!Ref`` becomes ``{"Ref": ...}``).
``evaluate`` replaces parameters and applies conditions and mappings. What only AWS knows stays an
intrinsic function: pseudo parameters and the attributes of resources.

Source: "Intrinsic function reference" and "Condition functions" of CloudFormation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

Json = Any
_PARAMETER = r"(?m)^  {name}:\n(?:    (?!Default:).*\n)+"
_VARIABLE = re.compile(r"\$\{([^!}][^}]*)\}")
_NO_VALUE = {"Ref": "AWS::NoValue"}
_PLAIN_NAMES = frozenset(("Ref", "Condition"))


@dataclass(frozen=True)
class Template:
    """The text of a template, YAML or JSON, and the values of its parameters."""

    text: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Json]:
        """The template as plain data."""
        return load(self.text)

    def evaluated(self) -> dict[str, Json]:
        """The ``Resources`` and ``Outputs`` that the stack would have."""
        return evaluate(self.document(), self.parameters)

    def with_defaults(self) -> str:
        """The text with the values as the parameters' defaults, so that it can stand alone."""
        text = self.text
        for name, value in self.parameters.items():
            found = re.search(_PARAMETER.format(name=name), text)
            if found:
                end = found.end()
                text = f"{text[:end]}    Default: {json.dumps(value)}\n{text[end:]}"
        return text


# libyaml, where PyYAML was built with it, is ten times as fast.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """YAML as CloudFormation reads it: dates are strings, and ``!Name`` is an intrinsic."""


def _intrinsic(loader: _Loader, name: str, node: yaml.Node) -> Json:
    if isinstance(node, yaml.ScalarNode):
        value: Json = loader.construct_scalar(node)
        if name == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)  # noqa: S101 - the third kind of node there is
        value = loader.construct_mapping(node, deep=True)
    return {name if name in _PLAIN_NAMES else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _intrinsic)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(text: str) -> dict[str, Json]:
    """A template as plain data, with every intrinsic function in its long form."""
    loaded: dict[str, Json] = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader's child
    return loaded


def evaluate(template: Mapping[str, Json], parameters: Mapping[str, str]) -> dict[str, Json]:
    """The ``Resources`` and ``Outputs`` that a template gives with these parameters.

    A parameter that is not given has its default.
    """
    return _Evaluation(template, parameters).result()


class _Evaluation:
    """One template with one set of parameters."""

    def __init__(self, template: Mapping[str, Json], parameters: Mapping[str, str]) -> None:
        self._template = template
        self._conditions: Mapping[str, Json] = template.get("Conditions", {})
        self._values: dict[str, Json] = {
            name: _typed(declared["Type"], parameters.get(name, declared.get("Default", "")))
            for name, declared in template.get("Parameters", {}).items()
        }
        self._functions: Mapping[str, Callable[[Json], Json]] = {
            "Fn::If": self._if,
            "Fn::Sub": self._sub,
            "Fn::FindInMap": self._find_in_map,
            "Fn::Join": self._join,
            "Fn::Split": lambda argument: self._value(argument[1]).split(argument[0]),
        }

    def result(self) -> dict[str, Json]:
        """The sections that depend on the parameters, without what a condition leaves out."""
        return {
            section: {
                name: self._value({key: item[key] for key in item if key != "Condition"})
                for name, item in self._template.get(section, {}).items()
                if "Condition" not in item or self._holds(item["Condition"])
            }
            for section in ("Resources", "Outputs")
        }

    def _value(self, value: Json) -> Json:
        if isinstance(value, list):
            items = [self._value(item) for item in value]
            return [item for item in items if item != _NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, argument),) = value.items()
            if name == "Ref" and argument in self._values:
                return self._values[argument]
            if name in self._functions:
                return self._functions[name](argument)
        values = {key: self._value(item) for key, item in value.items()}
        return {key: item for key, item in values.items() if item != _NO_VALUE}

    def _if(self, argument: Json) -> Json:
        condition, then, otherwise = argument
        return self._value(then if self._holds(condition) else otherwise)

    def _holds(self, condition: str) -> bool:
        return self._truth(self._conditions[condition])

    def _truth(self, expression: Json) -> bool:
        ((name, argument),) = expression.items()
        if name == "Condition":
            return self._holds(argument)
        if name == "Fn::Not":
            return not self._truth(argument[0])
        if name == "Fn::And":
            return all(self._truth(each) for each in argument)
        if name == "Fn::Or":
            return any(self._truth(each) for each in argument)
        assert name == "Fn::Equals"  # noqa: S101 - the fifth condition function there is
        left, right = (self._value(each) for each in argument)
        return str(left) == str(right)

    def _sub(self, argument: Json) -> Json:
        text, given = argument if isinstance(argument, list) else (argument, {})
        known = {**self._values, **{name: self._value(value) for name, value in given.items()}}

        def replaced(match: re.Match[str]) -> str:
            value = known.get(match[1])
            return match[0] if value is None or isinstance(value, list | dict) else str(value)

        done = _VARIABLE.sub(replaced, text)
        return {"Fn::Sub": done} if _VARIABLE.search(done) else done

    def _find_in_map(self, argument: Json) -> Json:
        name, first, second = (self._value(each) for each in argument)
        return self._value(self._template["Mappings"][name][first][second])

    def _join(self, argument: Json) -> Json:
        delimiter, items = argument[0], self._value(argument[1])
        if all(isinstance(item, str) for item in items):
            return delimiter.join(items)
        return {"Fn::Join": [delimiter, items]}


def _typed(kind: str, value: Json) -> Json:
    """The value of a parameter by its declared type."""
    text = str(value)
    if kind == "CommaDelimitedList":
        return [item.strip() for item in text.split(",")] if text else []
    if kind == "Number" and text:
        number = float(text)
        return int(number) if number.is_integer() and "." not in text else number
    return text
