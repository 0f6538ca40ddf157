"""The zip of a function with its model: what is in it, and that the same artifact gives it."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.bundle.manifest import FileEntry
from fastai_deploy.errors import FileError, SettingsError
from fastai_deploy.packaging.artifact import needs_openvino, packed_forms, write_artifact
from fastai_deploy.packaging.function_zip import PACKAGE, build_function_package
from fastai_deploy.packaging.wheels import FUNCTION, Container, Wheel
from fastai_deploy.runtime.bundle import Form
from tests.packaged import Model, write_model

_FILES = {
    "numpy/__init__.py": "value = 1\n" * 500,
    "numpy/tests/test_all.py": "",
    "numpy/f2py/__init__.py": "",
    "numpy/__init__.pyi": "",
    "numpy/_core/include/numpy.h": "",
    "onnxruntime/capi/state.so": "binary" * 1_000,
    "onnxruntime/capi/libonnxruntime.so.1.32.0": "the same again",
    "onnxruntime/quantization/tool.py": "",
    "numpy-2.0.dist-info/LICENSE": "who may use it",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_model(tmp_path_factory.mktemp("model"), "tiny", container=FUNCTION)


@pytest.fixture
def artifact(model: Model, tmp_path: Path) -> Path:
    """An artifact with a wheel, compressed as real ones are."""
    wheel = tmp_path / "numpy-2.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _FILES.items():
            archive.writestr(name, text)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    path = tmp_path / "model.tar.gz"
    write_artifact(
        model.bundle.folder,
        path,
        name="tiny",
        notify=lambda _done, _total: None,
        container=FUNCTION,
        wheels=[Wheel("numpy", "2.0", wheel, digest)],
    )
    return path


def names(path: Path) -> dict[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return archive.NameToInfo


def test_it_holds_the_code_the_libraries_and_the_model(artifact: Path, tmp_path: Path) -> None:
    made = build_function_package(artifact, tmp_path / "a.zip", {"page.html": b"<p>"}, python=None)
    found = names(made.path)
    assert {
        f"{PACKAGE}/hosts/lambda_function.py",
        f"{PACKAGE}/gateway/gateway.py",
        f"{PACKAGE}/gateway/page.html",
        "model/manifest.json",
        "model/model.onnx",
        "model/tokenizer.json",
        "numpy/__init__.py",
        "numpy-2.0.dist-info/LICENSE",
        "onnxruntime/capi/state.so",
    } <= set(found)
    assert not [name for name in found if name.startswith((".wheels", "code", "MAR-INF"))]
    assert made.bytes == made.path.stat().st_size
    assert made.sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()
    assert made.unpacked == sum(info.file_size for info in found.values())


def test_what_serving_never_imports_is_left_out(artifact: Path, tmp_path: Path) -> None:
    made = build_function_package(artifact, tmp_path / "a.zip", {}, python=None)
    of_wheels = {name for name in names(made.path) if not name.startswith((PACKAGE, "model"))}
    assert of_wheels == {
        "numpy/__init__.py",
        "onnxruntime/capi/state.so",
        "numpy-2.0.dist-info/LICENSE",
    }


def test_files_of_wheels_stay_compressed_and_the_rest_is_not(
    artifact: Path, tmp_path: Path
) -> None:
    made = build_function_package(artifact, tmp_path / "a.zip", {}, python=None)
    found = names(made.path)
    library = found["onnxruntime/capi/state.so"]
    assert library.compress_size < library.file_size
    with zipfile.ZipFile(made.path) as archive:
        assert archive.read(library) == b"binary" * 1_000
    assert found["model/model.onnx"].compress_type == zipfile.ZIP_STORED
    assert {info.external_attr >> 16 for info in found.values()} == {0o100644}


def test_the_same_artifact_gives_the_same_bytes(artifact: Path, tmp_path: Path) -> None:
    one = build_function_package(artifact, tmp_path / "a.zip", {"a": b"1"}, python=None)
    other = build_function_package(artifact, tmp_path / "b.zip", {"a": b"1"}, python=None)
    changed = build_function_package(artifact, tmp_path / "c.zip", {"a": b"2"}, python=None)
    assert one.sha256 == other.sha256 != changed.sha256


def test_sources_are_compiled_for_the_python_that_runs_them(artifact: Path, tmp_path: Path) -> None:
    python = Path(sys.executable)
    made = build_function_package(artifact, tmp_path / "a.zip", {}, python=python)
    assert made.compiled
    compiled = importlib.util.cache_from_source("numpy/__init__.py")
    with zipfile.ZipFile(made.path) as archive:
        header = archive.read(compiled)[:8]
        assert f"{PACKAGE}/__pycache__" in {str(Path(name).parent) for name in archive.namelist()}
    # PEP 552: by a hash of the source that is not checked, so that dates do not matter.
    assert header == importlib.util.MAGIC_NUMBER + b"\1\0\0\0"


def test_a_model_that_does_not_fit_stays_in_the_bucket(artifact: Path, tmp_path: Path) -> None:
    whole = build_function_package(artifact, tmp_path / "a.zip", {}, python=None)
    room = whole.unpacked + 64 * 1024 - 1
    made = build_function_package(artifact, tmp_path / "b.zip", {}, python=None, room=room)
    assert made.reads
    with zipfile.ZipFile(made.path) as archive:
        parts = json.loads(archive.read("model/parts.json"))
        assert "model/manifest.json" in archive.namelist()
        assert not set(archive.namelist()) & {f"model/{name}" for name in parts}
    assert "model.onnx" in parts
    with pytest.raises(SettingsError, match="Lambda takes 1,000") as error:
        build_function_package(artifact, tmp_path / "c.zip", {}, python=None, room=1_000)
    assert "kind" in error.value.hint


@pytest.mark.parametrize("content", [b"", b"not an artifact"])
def test_a_damaged_artifact_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.tar.gz"
    path.write_bytes(content)
    with pytest.raises(FileError, match="damaged"):
        build_function_package(path, tmp_path / "a.zip", {}, python=None)


def test_an_artifact_for_another_container_has_no_public_api(tmp_path: Path) -> None:
    other = Container("image", "3.13", "manylinux_2_34_x86_64")
    for container, expected in ((FUNCTION, True), (other, False)):
        model = write_model(tmp_path / str(expected), "tiny", container=container)
        data = io.BytesIO(Path(model.artifact.path).read_bytes())
        assert (b"fdeploy_runtime/gateway/gateway.py" in data.getvalue()) is expected


@dataclass(frozen=True)
class _Manifest:
    """What ``packed_forms`` reads of a manifest; ``megabytes`` are those of float32."""

    precisions: tuple[str, ...]
    megabytes: int
    gpu: None = None

    @property
    def model(self) -> Any:
        return self

    @property
    def forms(self) -> tuple[Form, ...]:
        return tuple(Form(each, f"{each}.onnx") for each in self.precisions)

    @property
    def files(self) -> dict[str, FileEntry]:
        size = self.megabytes * 1_000_000
        quarter = {"int8", "int8-weights"}
        return {
            f"{each}.onnx": FileEntry("", size // 4 if each in quarter else size)
            for each in self.precisions
        }


@pytest.mark.parametrize(
    ("forms", "megabytes", "packed"),
    [
        (("int8", "int8-weights", "bf16", "fp32"), 500, "int8"),
        (("int8-weights", "bf16", "fp32"), 90, "fp32"),
        (("int8-weights", "bf16", "fp32"), 500, "int8-weights"),  # which float32 does not fit
        (("bf16", "fp32"), 500, "fp32"),
        (("int8-weights", "fp32"), 1_400, "fp32"),  # no function serves it
        (("fp32",), 90, "fp32"),
    ],
)
def test_the_one_form_is_what_onnx_runtime_computes_and_the_package_holds(
    forms: tuple[str, ...], megabytes: int, packed: str
) -> None:
    manifest: Any = _Manifest(forms, megabytes)
    (form,) = packed_forms(manifest, FUNCTION)
    assert form.precision == packed
    assert not needs_openvino(manifest, FUNCTION)
