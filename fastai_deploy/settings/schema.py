"""The JSON Schema of ``fdeploy.toml``, for editors: ``python -m fastai_deploy.settings.schema``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastai_deploy.settings.model import ProjectFile

SCHEMA_FILE = Path(__file__).with_name("fdeploy.schema.json")


def json_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12), made from the models that check the settings."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ProjectFile.model_json_schema(),
    }


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
