"""Builds the Lambda's zip: the gateway and the part of the runtime that it imports.

    fdeploy_runtime/__init__.py
    fdeploy_runtime/contract.py ...      what the gateway imports, found by parsing its imports
    fdeploy_runtime/gateway/...          the handler
    fdeploy_runtime/gateway/openapi.json, page.html      the documents that it serves, if any

The same sources give the same bytes on any machine: members are sorted, have the same date and
mode, and are not compressed, because compressors differ between builds of Python.
"""

from __future__ import annotations

import ast
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from fastai_deploy import files

PACKAGE = "fdeploy_runtime"
HANDLER = f"{PACKAGE}.gateway.handler"
_RUNTIME = Path(__file__).parents[1] / "runtime"
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest date in a zip
_UNIX = 3
_MODE = 0o100644  # a regular file that Lambda's user can read


def build_lambda_package(documents: Mapping[str, bytes] = MappingProxyType({})) -> bytes:
    """Build the zip, including the documents that the handler serves, by name.

    Raises FileError if fdeploy's own files cannot be read.
    """
    members = {f"gateway/{name}": data for name, data in documents.items()}
    for path in _members():
        with files.file_errors(_RUNTIME / path):
            members[path] = (_RUNTIME / path).read_bytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as package:
        for path, source in sorted(members.items()):
            info = zipfile.ZipInfo(f"{PACKAGE}/{path}", _DATE)
            info.create_system = _UNIX
            info.external_attr = _MODE << 16
            package.writestr(info, source)
    return archive.getvalue()


def _members() -> set[str]:
    """The gateway's files and every file they import, relative to the runtime's folder."""
    found: set[str] = set()
    waiting = {f"gateway/{path.name}" for path in (_RUNTIME / "gateway").glob("*.py")}
    waiting.add("__init__.py")
    while waiting:
        path = waiting.pop()
        found.add(path)
        waiting.update(set(_imports(path)) - found)
    return found


def _imports(path: str) -> Iterator[str]:
    """The runtime files that a file imports: ``from .a import b`` and ``from . import a``."""
    with files.file_errors(_RUNTIME / path):
        tree = ast.parse((_RUNTIME / path).read_bytes())
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        folder = PurePosixPath(path).parents[node.level - 1]
        names = [node.module] if node.module else [alias.name for alias in node.names]
        for name in names:
            yield str(folder.joinpath(*name.split("."))) + ".py"
