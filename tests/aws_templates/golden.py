"""Rewrite the golden documents: ``python -m tests.aws_templates.golden``.

The golden files show a reviewer the resources of a few stages, with all parameters resolved. With a
folder as argument, every document is written there as JSON, for checkov and parliament.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from tests.aws_templates.scenarios import Golden, goldens

GOLDEN = Path(__file__).parent / "golden"
KEPT = (
    "endpoint-real-time-cpu",
    "endpoint-own-image",
    "endpoint-async",
    "api-rest-full",
    "api-http-jwt",
    "api-rest-lambda",
    "api-url-lambda",
    "function-full",
    "expiry",
    "batch",
)


def kept() -> dict[str, str]:
    """The expected golden files, by name."""
    return {name(golden): rendered(golden) for golden in goldens() if is_kept(golden)}


def is_kept(golden: Golden) -> bool:
    """Whether a document has a golden file: every policy, and a few templates."""
    return golden.template is None or golden.name in KEPT


def name(golden: Golden) -> str:
    """The name of a document's golden file."""
    return f"{golden.name}.{'yaml' if golden.template else 'json'}"


def rendered(golden: Golden) -> str:
    """A document in the format of its golden file."""
    if golden.template is None:
        return json.dumps(golden.document, indent=2) + "\n"
    return str(yaml.safe_dump(golden.document, sort_keys=False, width=100, allow_unicode=True))


def write() -> None:
    """Write the golden files, and remove those without a document."""
    wanted = kept()
    for path in GOLDEN.iterdir():
        if path.name not in wanted:
            path.unlink()
    for file, text in wanted.items():
        (GOLDEN / file).write_text(text, encoding="utf-8")


def write_all(folder: Path) -> None:
    """Write every document into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for golden in goldens():
        path = folder / f"{golden.name}.json"
        path.write_text(json.dumps(golden.document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_all(Path(sys.argv[1])) if sys.argv[1:] else write()
