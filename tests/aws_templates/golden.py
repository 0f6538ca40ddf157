"""Write the golden documents anew: ``python -m tests.aws_templates.golden``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.aws_templates.scenarios import goldens

GOLDEN = Path(__file__).parent / "golden"


def rendered(document: Any) -> str:
    """A document as its golden file holds it."""
    return json.dumps(document, indent=2) + "\n"


def write() -> None:
    """Write every document, and remove the files of documents that are gone."""
    wanted = {f"{golden.name}.json": rendered(golden.document) for golden in goldens()}
    for path in GOLDEN.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (GOLDEN / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
