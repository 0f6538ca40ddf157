"""The layer with bytecode: what Python finds there, and that it is never out of date."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from fastai_deploy.errors import FileError
from fastai_deploy.image.bytecode import BYTECODE, bytecode_layer
from fastai_deploy.packaging.bytecode import compile_folder
from fastai_deploy.packaging.wheels import Container
from tests.image.bases import CONTENT, SmallWheels, based, put_base
from tests.registry import Registry

# The Python that runs the tests stands for Python 3.13.
PYTHON = Path(sys.executable)
SUFFIX = f"{sys.implementation.cache_tag}.pyc"
LIBRARY = "usr/local/lib/python3.13"
CODE = {"fdeploy_runtime/served.py": b"import sys\nanswer = 42\n", "sbom.cdx.json": b"{}"}


def layer_of(registry: Registry, folder: Path) -> dict[str, bytes]:
    """The files of the layer for the base in the registry."""
    base, store = based(registry, folder)
    wheels = SmallWheels(folder / "wheels")(Container("a", "3.13", base.platform), {"numpy": "2.0"})
    layer = bytecode_layer(base, wheels, CODE, PYTHON, store)
    path = store.find(layer.digest, layer.size)
    assert path is not None
    found = {}
    with tarfile.open(path) as tar:
        for info in tar:
            content = tar.extractfile(info)
            if content is not None:
                found[info.name] = content.read()
    return found


def test_where_python_looks_for_it(registry: Registry, tmp_path: Path) -> None:
    library = {
        f"{LIBRARY}/json/__init__.py": b"kept = 1\n",
        f"{LIBRARY}/json/old.py": b"",
        f"{LIBRARY}/broken.py": b"print 'Python 2'\n",
        f"{LIBRARY}/tkinter/__init__.py": b"",
        f"{LIBRARY}/../../../outside.py": b"",
        f"{LIBRARY}/lib-dynload/_json.so": b"",
        "usr/local/bin/tool.py": b"",
    }
    put_base(registry, {**CONTENT, **library}, {f"{LIBRARY}/json/.wh.old.py": b""})
    assert sorted(layer_of(registry, tmp_path)) == [
        f"{BYTECODE}/opt/fdeploy/code/fdeploy_runtime/served.{SUFFIX}",
        f"{BYTECODE}/opt/fdeploy/packages/numpy/__init__.{SUFFIX}",
        f"{BYTECODE}/opt/fdeploy/packages/numpy/more.{SUFFIX}",
        f"{BYTECODE}/{LIBRARY}/json/__init__.{SUFFIX}",
    ]


def test_python_uses_it_only_for_the_source_that_it_was_made_of(
    registry: Registry, tmp_path: Path
) -> None:
    put_base(registry)
    found = layer_of(registry, tmp_path)
    source = tmp_path / "served.py"
    compiled = tmp_path / "__pycache__" / f"served.{SUFFIX}"
    compiled.parent.mkdir()
    compiled.write_bytes(found[f"{BYTECODE}/opt/fdeploy/code/fdeploy_runtime/served.{SUFFIX}"])

    def imported() -> tuple[str, bool]:
        command = [sys.executable, "-B", "-v", "-c", "import served; print(served.answer)"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return ran.stdout.strip(), f"code object from {source}" not in ran.stderr

    source.write_bytes(CODE["fdeploy_runtime/served.py"])
    assert imported() == ("42", True)
    source.write_bytes(CODE["fdeploy_runtime/served.py"].replace(b"42", b"43"))
    assert imported() == ("43", False)


def test_the_same_sources_make_the_same_bytes(registry: Registry, tmp_path: Path) -> None:
    folder = Path(json.__file__).parent
    library = {f"{LIBRARY}/json/{each.name}": each.read_bytes() for each in folder.glob("*.py")}
    put_base(registry, {**CONTENT, **library})
    one, other = (layer_of(registry, tmp_path / name) for name in ("one", "other"))
    assert len(one) > len(library)
    assert one == other


def test_a_python_that_cannot_compile_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "python3.13"
    broken.write_text("#!/bin/sh\necho 'No module named compileall' >&2\nexit 1\n")
    broken.chmod(0o755)
    sources = tmp_path / "sources"
    sources.mkdir()
    assert compile_folder(broken, sources, "/", checked=True) == {}
    (sources / "served.py").write_text("answer = 42\n")
    with pytest.raises(
        FileError, match=r"python3\.13 compiles nothing: No module named compileall"
    ):
        compile_folder(broken, sources, "/", checked=True)
