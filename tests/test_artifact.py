from __future__ import annotations

import ast
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from fastai_deploy.errors import FileError, FileMissing
from fastai_deploy.packaging.artifact import unpack, write_artifact
from fastai_deploy.packaging.wheels import Container

FILES = {
    "model.onnx": b"onnx",
    "model.onnx.data": b"numbers" * 50_000,
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    entries = {}
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
        entries[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    versions = {"numpy": "2.0", "onnxruntime": "1.0", "tokenizers": "0.1", "torch": "2.0"}
    manifest = {"name": "learner", "files": entries, "provenance": {"converter": versions}}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def silent(_done: int, _total: int) -> None:
    pass


def test_the_same_bundle_gives_the_same_bytes(tmp_path: Path, bundle: Path) -> None:
    one = write_artifact(bundle, tmp_path / "1.tar.gz", name="n", notify=silent)
    (bundle / "tokenizer.json").touch()
    two = write_artifact(bundle, tmp_path / "2.tar.gz", name="n", notify=silent)
    data = (tmp_path / "1.tar.gz").read_bytes()
    assert one == two
    assert (tmp_path / "2.tar.gz").read_bytes() == data
    assert one.sha256 == hashlib.sha256(data).hexdigest()
    assert one.bytes == len(data)


def test_what_is_in_it(tmp_path: Path, bundle: Path) -> None:
    write_artifact(bundle, tmp_path / "m.tar.gz", name="renamed", notify=silent)
    unpack(tmp_path / "m.tar.gz", tmp_path / "out")
    out = tmp_path / "out"
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert manifest["name"] == "renamed"
    assert set(manifest["files"]) == {"model.onnx", "model.onnx.data", "tokenizer.json"}
    for name in manifest["files"]:
        assert (out / name).read_bytes() == FILES[name]
    assert not (out / "model.safetensors").exists()
    assert (out / "code/fdeploy_runtime/contract.py").exists()
    assert "input_fn" in (out / "code/inference.py").read_text()
    requirements = (out / "code/requirements.txt").read_text()
    assert requirements == "numpy==2.0\nonnxruntime==1.0\ntokenizers==0.1\n"


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("code/inference.py", 2),
        ("code/handler.py", 2),
        ("code/model_server.py", 2),
        ("deployment.py", 1),  # Ray's replica needs no wheels
    ],
)
def test_container_entry_points_import_existing_names(
    tmp_path: Path, bundle: Path, path: str, number: int
) -> None:
    write_artifact(bundle, tmp_path / "m.tar.gz", name="n", notify=silent)
    unpack(tmp_path / "m.tar.gz", tmp_path / "out")
    imports = [
        node
        for node in ast.parse((tmp_path / "out" / path).read_text()).body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fdeploy_runtime")
    ]
    assert len(imports) == number
    for node in imports:
        module = tmp_path / "out/code" / f"{(node.module or '').replace('.', '/')}.py"
        defined = {getattr(each, "name", None) for each in ast.parse(module.read_text()).body}
        assert {each.name for each in node.names} <= defined, module


def test_a_gpu_is_given_its_own_graph(tmp_path: Path, bundle: Path) -> None:
    path, data = bundle / "manifest.json", b"int8"
    manifest = json.loads(path.read_bytes())
    digest = hashlib.sha256(data).hexdigest()
    for name in ("model.int8.onnx", "model.int8.onnx.data"):
        (bundle / name).write_bytes(data)
        manifest["files"][name] = {"sha256": digest, "bytes": len(data)}
    manifest["model"] = {"file": "model.int8.onnx", "precision": "int8", "gpu": "model.onnx"}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    given = {}
    for gpu in (False, True):
        container = Container("an image", "3.13", "manylinux_2_34_x86_64", gpu=gpu)
        artifact = tmp_path / f"{gpu}.tar.gz"
        write_artifact(bundle, artifact, name="n", notify=silent, container=container)
        unpack(artifact, tmp_path / str(gpu))
        packed = json.loads((tmp_path / str(gpu) / "manifest.json").read_bytes())
        model = packed["model"]
        given[gpu] = (model["file"], model["precision"], model.get("device"))
        parts = {name for name in packed["files"] if ".onnx" in name}
        assert parts == {file.name for file in (tmp_path / str(gpu)).glob("*.onnx*")}
        assert parts == {model["file"], f"{model['file']}.data"}
    assert given == {
        False: ("model.int8.onnx", "int8", None),
        True: ("model.onnx", "fp32", "gpu"),
    }


def test_progress_ends_at_the_total(tmp_path: Path, bundle: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_artifact(bundle, tmp_path / "m.tar.gz", name="n", notify=lambda *at: seen.append(at))
    assert seen[-1][0] == seen[-1][1]
    assert seen == sorted(seen)


def test_a_bundle_that_changed_is_refused(tmp_path: Path, bundle: Path) -> None:
    (bundle / "tokenizer.json").write_bytes(b"[]")
    with pytest.raises(FileError, match=r"tokenizer.json has changed") as caught:
        write_artifact(bundle, tmp_path / "m.tar.gz", name="n", notify=silent)
    assert caught.value.hint == "run fdeploy export"
    assert not (tmp_path / "m.tar.gz").exists()


def test_a_bundle_without_its_files(tmp_path: Path, bundle: Path) -> None:
    (bundle / "model.onnx").unlink()
    with pytest.raises(FileMissing, match=r"model.onnx"):
        write_artifact(bundle, tmp_path / "m.tar.gz", name="n", notify=silent)


@pytest.mark.parametrize("name", ["../outside", "/absolute", "a/../../outside"])
def test_a_member_that_would_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(FileError, match="which no artifact of fdeploy has"):
        unpack(archive, tmp_path / "in" / "out")
    assert not (tmp_path / "outside").exists()


def test_a_link_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar.gz"
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(link)
    with pytest.raises(FileError, match="link"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("keep", [0, 5, 1000])
def test_half_an_archive_is_refused(tmp_path: Path, bundle: Path, keep: int) -> None:
    write_artifact(bundle, tmp_path / "m.tar.gz", name="n", notify=silent)
    half = tmp_path / "half.tar.gz"
    half.write_bytes((tmp_path / "m.tar.gz").read_bytes()[:keep])
    with pytest.raises(FileError, match=r"is damaged or not an artifact"):
        unpack(half, tmp_path / "out")
