"""What an artifact was packed for, read from the file itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from fastai_deploy import files
from fastai_deploy.errors import FileError
from fastai_deploy.packaging.artifact import ArtifactContents, read_contents, write_artifact
from fastai_deploy.packaging.wheels import Container, Wheel
from tests.runtime.bundles import form, write_bundle

RAY = Container("ray-serve image", "3.13", "manylinux_2_34_x86_64")
P2 = Container("torchserve image", "3.8", "manylinux_2_31_x86_64")
ARM = Container("torchserve image", "3.12", "manylinux_2_35_aarch64")
OF_RAY = (
    "onnxruntime-1.27-cp313-cp313-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "tokenizers-0.23-cp39-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "pure-1-py3-none-any.whl",
)


def pack(
    folder: Path, container: Container | None, names: Sequence[str] = (), learner: str = ""
) -> ArtifactContents:
    bundle = write_bundle(folder / "bundle").folder
    if learner:
        manifest = json.loads((bundle / "manifest.json").read_bytes())
        manifest["runtime"] = {
            "kind": "learner", "python": learner, "fastai": "2", "definitions": None, "names": [],
            "activation": None,
        }  # fmt: skip
        manifest["model"]["forms"] = [form("learner")]
        (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        (bundle / "requirements.txt").write_text("fastai==2.8.12\n", encoding="utf-8")
    wheels = []
    for name in names:
        path = folder / name
        path.write_bytes(name.encode())
        wheels.append(Wheel(name.partition("-")[0], "1", path, files.sha256(path)))
    write_artifact(
        bundle,
        folder / "model.tar.gz",
        name="demo",
        notify=lambda _done, _total: None,
        container=container,
        wheels=wheels,
    )
    return read_contents(folder / "model.tar.gz")


def test_an_artifact_fits_what_it_was_packed_for_alone(tmp_path: Path) -> None:
    packed = pack(tmp_path, RAY, OF_RAY)
    assert packed == ArtifactContents(
        "3.13", "x86_64", tuple(sorted(OF_RAY, key=OF_RAY.index)), None
    )
    assert list(packed.mismatches(RAY)) == []
    onnxruntime, tokenizers, _ = OF_RAY
    assert list(packed.mismatches(P2)) == [
        "it is packed for Python 3.13",
        f"these wheels in it do not run there: {onnxruntime}, {tokenizers}",
    ]
    assert list(packed.mismatches(ARM)) == [
        "it is packed for Python 3.13",
        "it is packed for x86_64",
        f"these wheels in it do not run there: {onnxruntime}, {tokenizers}",
    ]


def test_the_stable_abi_runs_in_later_pythons(tmp_path: Path) -> None:
    packed = pack(tmp_path, None, ())
    assert packed == ArtifactContents(None, None, (), None)
    stable = ArtifactContents("3.12", "aarch64", ("t-1-cp39-abi3-manylinux2014_aarch64.whl",), None)
    assert list(stable.mismatches(ARM)) == []
    newer = ArtifactContents("3.12", "aarch64", ("t-1-cp313-abi3-manylinux2014_aarch64.whl",), None)
    assert len(list(newer.mismatches(ARM))) == 1


def test_a_glibc_that_is_newer_than_the_images(tmp_path: Path) -> None:
    packed = pack(tmp_path, P2, ("o-1-cp38-cp38-manylinux_2_34_x86_64.whl",))
    assert [reason[:15] for reason in packed.mismatches(P2)] == ["these wheels in"]


def test_an_original_learner_needs_its_python(tmp_path: Path) -> None:
    packed = pack(tmp_path, RAY, (), learner="3.11")
    assert packed.learner == "3.11"
    assert list(packed.mismatches(RAY)) == ["its learner needs Python 3.11"]


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_files_that_are_not_artifacts(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.tar.gz"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"is damaged or not an artifact"):
        read_contents(path)
    with pytest.raises(FileError):
        read_contents(tmp_path / "none.tar.gz")
