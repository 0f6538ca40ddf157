"""The house rules on imports: they point one way, and what is heavy stays where it belongs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastai_deploy

PACKAGE = Path(fastai_deploy.__file__).parent

# A module may import from its own layer and from the layers before it.
LAYERS = (
    ("runtime",),
    (
        "__init__",
        "errors",
        "progress",
        "records",
        "reports",
        "naming",
        "before",
        "refusal",
        "durations",
    ),
    ("files", "json_reader", "extras", "settings", "gzip_stored", "adapters"),
    ("locks", "wheels"),
    (
        "artifact",
        "packed",
        "lambda_package",
        "bundle",
        "goldens",
        "parity",
        "workspace",
        "comparison",
        "comparison_page",
    ),
    ("environments", "public"),
    ("learner", "aws"),
    ("targets",),
    ("project",),
    ("freshness", "verification", "invoking"),
    ("exporting",),
    ("stages", "care"),
    ("cli",),
    ("__main__",),
)
# Where a heavy or telling library may be imported, by path prefix.
HOMES = {
    "boto3": ("aws/", "runtime/gateway/", "targets/local/gateway/"),
    "botocore": ("aws/", "runtime/gateway/", "targets/local/gateway/"),
    "sagemaker": ("aws/images.py",),
    "torch": ("learner/", "runtime/torch_", "runtime/ways.py"),
    "transformers": ("learner/",),
    "onnx": ("learner/",),
    "onnxruntime": ("learner/", "runtime/"),
    "tokenizers": ("learner/", "runtime/"),
    "numpy": ("learner/", "runtime/"),
    "spacy": ("learner/text/spacy_rules.py",),
    "typer": ("cli/",),
    "rich": ("cli/",),
    "pydantic": ("settings/",),
    "uvicorn": ("runtime/", "targets/local/gateway/"),
    "psutil": ("targets/local/", "environments/limited_process.py"),
}
HEAVY = ("torch", "transformers", "onnxruntime", "onnx", "sagemaker", "boto3", "numpy", "spacy")


def modules() -> list[Path]:
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """The absolute names that a module imports, also inside functions."""
    parts = ("fastai_deploy", *path.with_suffix("").parts)
    for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: len(parts) - node.level]) + "." if node.level else ""
            yield from (
                f"{base}{node.module or ''}.{alias.name}".replace("..", ".") for alias in node.names
            )


def layer(part: str) -> int:
    found = [index for index, names in enumerate(LAYERS) if part in names]
    assert found, f"{part} is in no layer; give it one in {__file__}"
    return found[0]


@pytest.mark.parametrize("path", modules(), ids=str)
def test_imports_point_one_way(path: Path) -> None:
    own = layer(path.parts[0].removesuffix(".py"))
    for name in imports(path):
        if name.startswith("fastai_deploy."):
            part = name.split(".")[1]
            part = (
                part
                if (PACKAGE / part).exists() or (PACKAGE / f"{part}.py").exists()
                else ("__init__")
            )
            assert layer(part) <= own, f"{path} imports {name}, which is above it"


@pytest.mark.parametrize("path", modules(), ids=str)
def test_libraries_stay_where_they_belong(path: Path) -> None:
    for name in imports(path):
        homes = HOMES.get(name.split(".")[0])
        if homes is not None:
            assert path.as_posix().startswith(homes), f"{path} imports {name}"


@pytest.mark.parametrize(
    "path", [path for path in modules() if path.parts[0] == "runtime"], ids=str
)
def test_what_ships_imports_nothing_of_the_package(path: Path) -> None:
    inside = [name for name in imports(path) if name.startswith("fastai_deploy")]
    assert all(name.startswith("fastai_deploy.runtime") for name in inside), inside
    source = (PACKAGE / path).read_text(encoding="utf-8")
    assert "fastai_deploy" not in source, "a shipped module has another name in the container"


@pytest.mark.parametrize(
    "path", [path for path in modules() if path.parts[0] == "runtime"], ids=str
)
def test_what_ships_is_read_by_the_oldest_container(path: Path) -> None:
    ast.parse((PACKAGE / path).read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("arguments", [["--help"], ["teardown", "--target", "local"]])
def test_nothing_heavy_is_imported_at_start_up(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import json, sys; from fastai_deploy.cli.app import run\n"
        f"status = run({arguments!r}); print(json.dumps([status, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    status, loaded = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    assert not set(HEAVY).intersection(loaded)
