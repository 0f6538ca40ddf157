"""cfn-lint in this process: its findings in a template, as text."""

from __future__ import annotations

import importlib
import json
from typing import Any

Json = Any
_api: Any = importlib.import_module("cfnlint.api")
_config: Any = importlib.import_module("cfnlint.config")
_schemas: Any = importlib.import_module("cfnlint.schema.manager").PROVIDER_SCHEMA_MANAGER


def findings(template: Json, region: str = "eu-central-1") -> list[str]:
    """Errors, warnings and informational notes on a text or a document, for one region."""
    text = template if isinstance(template, str) else json.dumps(template)
    config = _config.ManualArgs(regions=[region], include_checks=["I"])
    return [
        f"{match.rule.id} {'/'.join(map(str, match.path or []))}: {match.message}"
        for match in _api.lint(text, config=config)
    ]


def schema(kind: str) -> dict[str, Any]:
    """The schema of a resource type in CloudFormation's registry."""
    found: dict[str, Any] = _schemas.get_resource_schema(
        region="us-east-1", resource_type=kind
    ).schema
    return found
