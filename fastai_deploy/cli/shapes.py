"""The shape of ``--json``: an envelope around every result, and its JSON Schema.

    {"schema": "fdeploy/1", "command": "up", "result": {...}}

``fastai_deploy/cli/results.schema.json`` is the JSON Schema of all commands, written by ``python -m
fastai_deploy.cli.shapes``. A result's shape is its record, or what ``values`` is declared to
return. The number in ``schema`` rises when a member goes or changes its meaning; new members may
come at any time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, Union

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from fastai_deploy.aws.costs import CostReport
from fastai_deploy.batch_invoke.job import BatchCounts
from fastai_deploy.batch_invoke.run import Batch
from fastai_deploy.cli.explain import Explained
from fastai_deploy.cli.results import (
    ChangedSetting,
    Described,
    Exported,
    Inspected,
    InvokeResult,
    Key,
    Lines,
    Opened,
    Presented,
    Result,
    Streamed,
    Versions,
)
from fastai_deploy.evaluation.card import Card
from fastai_deploy.evaluation.difference import Difference
from fastai_deploy.evaluation.drift import MonitorValues
from fastai_deploy.evaluation.result import EvaluationValues
from fastai_deploy.image_file import ImageFile
from fastai_deploy.load.result import Bench
from fastai_deploy.project_setup import Initialized
from fastai_deploy.records import Api, Artifact, Bundle, Endpoint, StoredArtifact, Teardown
from fastai_deploy.settings import Settings
from fastai_deploy.stage_reports import (
    Check,
    Checkup,
    Extra,
    LogLine,
    ModelChange,
    PlannedChange,
    Policies,
    StagePlan,
    Status,
    Templates,
)

SCHEMA = "fdeploy/1"

Text = Annotated[dict[str, Any], Field(description="An answer as in docs/contract.md.")]
Row = Annotated[
    dict[str, Any], Field(description="An answer with its row, from 1, and its text, or an error.")
]
Anatomy = Annotated[dict[str, Any], Field(description="What is in the learner's file.")]
Document = Annotated[dict[str, Any], Field(description="An OpenAPI document.")]
PolicyDocuments = Annotated[
    dict[str, dict[str, Any]], Field(description="IAM policy documents by purpose.")
]
Stacks = Annotated[dict[str, str], Field(description="CloudFormation templates in YAML, by stack.")]


@dataclass(frozen=True)
class BatchValues:
    """How the texts of a file were answered; ``failed`` lists rows, from 1."""

    texts: int
    reused: int
    failed: tuple[int, ...]
    labels: dict[str, int]
    output: str


@dataclass(frozen=True, kw_only=True)
class ExportedValues(Bundle):
    """The bundle's record, and the parity report or null."""

    parity: dict[str, Any] | None
    parity_page: str


@dataclass(frozen=True)
class CostValues:
    """The cost, in ``currency``; null is unknown."""

    least_per_hour: Decimal | None
    most_per_hour: Decimal | None
    least_per_month: Decimal | None
    most_per_month: Decimal | None
    currency: str
    note: str
    extras: tuple[Extra, ...]


@dataclass(frozen=True)
class PlanValues:
    """What ``up`` would change."""

    changed: bool
    changes: tuple[PlannedChange, ...]
    cost: CostValues
    ends: str
    ends_now: str
    model: ModelChange | None


@dataclass(frozen=True)
class CheckupValues:
    """The checks of ``doctor``; ``ok``: none failed."""

    ok: bool
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class SettingValues:
    """A setting, and the file, variable or flag that it comes from."""

    value: Any
    origin: str


@dataclass(frozen=True)
class SettingsValues:
    """Every setting by its dotted name, such as ``endpoint.instance``."""

    root: str
    stage: str
    project: str
    target: str
    target_reason: str
    settings: dict[str, SettingValues]


RESULTS: Mapping[str, tuple[Any, ...]] = {
    "init": (Initialized,),
    "inspect": (Anatomy, Card),
    "export": (ExportedValues,),
    "package": (Artifact,),
    "image": (ImageFile,),
    "upload": (StoredArtifact,),
    "deploy": (Endpoint,),
    "create-api": (Api,),
    "up": (Api,),
    "invoke": (Text, Row, BatchValues, BatchCounts),
    "batch": (BatchCounts,),
    "evaluate": (EvaluationValues,),
    "diff": (Difference,),
    "monitor": (MonitorValues,),
    "bench": (Bench,),
    "key": (Key,),
    "openapi": (Document,),
    "open": (Opened,),
    "teardown": (Teardown,),
    "config": (SettingsValues, ChangedSetting),
    "explain": (Explained,),
    "plan": (PlanValues,),
    "cost": (CostReport,),
    "status": (Status,),
    "logs": (LogLine,),
    "versions": (Versions,),
    "rollback": (Endpoint,),
    "doctor": (CheckupValues, PolicyDocuments),
    "template": (Stacks,),
}
"""What each command prints with ``--json``."""


def enveloped(command: str, result: Any) -> dict[str, Any]:
    """A result in its envelope."""
    return {"schema": SCHEMA, "command": command, "result": result}


def streamed(result: Result | Streamed) -> Iterator[Any] | None:
    """The lines of a result that has an envelope for each of them, else None."""
    match result:
        case Lines(lines):
            return (asdict(line) for line in lines)
        case Batch(output=None):
            return (each.values() for each in result.answers)
    return None


def values(result: Result | Streamed) -> Any:
    """A result as plain data."""
    match result:
        case (
            InvokeResult(body)
            | Inspected(body)
            | Described(body)
            | Policies(body)
            | Templates(body)
        ):
            return dict(body)
        case Presented() if not isinstance(result, Settings):
            found = result.values()
            plain = not is_dataclass(found) or isinstance(found, type)
            return found if plain else asdict(found)
        case _:
            return asdict(_shape(result))


def _shape(result: Any) -> Any:
    """The dataclass whose members are a result's."""
    match result:
        case Batch(output=str() as output):
            return BatchValues(
                len(result.answers),
                result.reused,
                tuple(answer.row for answer in result.failures),
                dict(result.counts()),
                output,
            )
        case Exported(bundle, parity, page):
            return ExportedValues(**_members(bundle), parity=parity, parity_page=page)
        case StagePlan(changes, cost, ends, ends_now, model):
            monthly = CostValues(
                **_members(cost),
                least_per_month=cost.least_per_month,
                most_per_month=cost.most_per_month,
            )
            return PlanValues(result.changed, changes, monthly, ends, ends_now, model)
        case Checkup(checks):
            return CheckupValues(not result.failed, checks)
        case Settings():
            return SettingsValues(
                root=str(result.root),
                stage=result.stage,
                project=result.project_name,
                target=result.target,
                target_reason=result.target_reason,
                settings={
                    ".".join(key): SettingValues(value, origin.where)
                    for key, value, origin in result.values()
                },
            )
        case _:
            return result


def _members(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


class _Written(GenerateJsonSchema):
    """Every member is required: a result is written with all of them."""

    def field_is_required(self, field: Any, total: bool) -> bool:  # noqa: ARG002, FBT001 - pydantic's
        return True

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def json_schema() -> dict[str, Any]:
    """The JSON Schema of what any command prints on stdout with ``--json``, line by line."""
    mode: Literal["serialization"] = "serialization"
    adapters: list[tuple[str, Any, TypeAdapter[Any]]] = [
        (name, mode, TypeAdapter(Union[kinds]))  # type: ignore[arg-type]  # noqa: UP007 - of a tuple
        for name, kinds in RESULTS.items()
    ]
    found, definitions = TypeAdapter.json_schemas(adapters, schema_generator=_Written)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What fdeploy prints on stdout with --json: one envelope, or one for each line",
        "oneOf": [
            {
                "type": "object",
                "required": ["schema", "command", "result"],
                "properties": {
                    "schema": {"const": SCHEMA},
                    "command": {"const": name},
                    "result": found[name, mode],
                },
            }
            for name in RESULTS
        ],
        **definitions,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2, sort_keys=True) + "\n")
