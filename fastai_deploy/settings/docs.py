"""Generates the JSON Schema and the Markdown reference of ``fdeploy.toml`` from the models.

``make schema`` runs this module, which writes the schema and prints the page.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fastai_deploy.settings.project_file import SECTIONS, ProjectFile

SCHEMA_FILE = Path(__file__).with_name("fdeploy.schema.json")


def json_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12), made from the models that check the settings."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ProjectFile.model_json_schema(),
    }


_NAMES = {
    "string": "text",
    "array": "list of texts",
    "object": "table of texts",
    "number": "number",
    "integer": "integer",
    "boolean": "true or false",
}
_INTRODUCTION = """\
# Settings

Settings stand in `fdeploy.toml`, in the folder where `fdeploy` is run (or where `--config` points).
Every one has a default. A later source wins: the file, the stage's part of the file, a variable
(`FDEPLOY_API_RATE=20`), a flag (`--port 8080`). `fdeploy config` shows each value and where it came
from. Paths are relative to the folder of the file.

A stage is an independent copy of everything (`--stage prod`, or `FDEPLOY_STAGE=prod`). `dev` is
always there; others are declared by what they override:

```toml
[api]
rate = 10

[stages.prod.api]
rate = 200
```

An unknown key, a wrong type or an impossible combination is an error that names the file, the line
and the nearest known key. Editors that read JSON Schema find it in
`fastai_deploy/settings/fdeploy.schema.json`.

This page is made from the code by `make schema`.
"""


def markdown() -> str:
    """The page; one table a section."""
    schema = json_schema()
    parts = [_INTRODUCTION]
    for name, model in SECTIONS.items():
        section = schema["$defs"][model.__name__]
        parts.append(f"## `[{name}]`\n\n{section['description']}\n")
        rows = ["| key | type | default | what it is |", "|---|---|---|---|"]
        rows += [
            f"| `{key}` | {_type(value)} | {_default(value)} | {value['description']} |"
            for key, value in section["properties"].items()
            if not (value.get("deprecated") or f"{name}.{key}" in SECTIONS)
        ]
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _type(value: dict[str, Any]) -> str:
    kinds = [option for option in value.get("anyOf", [value]) if option.get("type") != "null"]
    if "enum" in kinds[0]:
        return " or ".join(f"`{choice}`" for choice in kinds[0]["enum"])
    return _NAMES[kinds[0]["type"]]


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    return "" if default is None else f"`{json.dumps(default)}`"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(markdown())
