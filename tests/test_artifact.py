from __future__ import annotations

import ast
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from fastai_deploy.errors import FileError, FileMissing
from fastai_deploy.packaging.artifact import serving_versions, unpack, write_artifact
from fastai_deploy.packaging.wheels import Container
from fastai_deploy.parity.goldens import CARRIED
from fastai_deploy.runtime.bundle import open_bundle, read_goldens
from fastai_deploy.runtime.parity import undecided
from tests.runtime.bundles import WORDS, TinyBundle, form, write_bundle

KEPT = {"goldens.json", "model.onnx", "model.onnx.data", "tokenizer.json"}


@pytest.fixture
def tiny(tmp_path: Path) -> TinyBundle:
    made = write_bundle(tmp_path / "bundle")
    (made.folder / "model.safetensors").write_bytes(b"weights")
    made.list_files()
    return made


@pytest.fixture
def bundle(tiny: TinyBundle) -> Path:
    return tiny.folder


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
    assert set(manifest["files"]) == KEPT
    for name in KEPT - {"goldens.json"}:
        assert (out / name).read_bytes() == (bundle / name).read_bytes()
    assert not (out / "model.safetensors").exists()
    assert (out / "code/fdeploy_runtime/contract.py").exists()
    assert "input_fn" in (out / "code/inference.py").read_text()
    requirements = (out / "code/requirements.txt").read_text()
    assert requirements == "numpy==2.2.6\nonnxruntime==1.22.0\ntokenizers==0.22.0\n"


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


def with_forms(tiny: TinyBundle, *precisions: str) -> None:
    """Give a bundle a graph for each form; bf16 takes that of fp32."""
    forms = []
    for precision in precisions:
        file = f"model.{precision}.onnx" if precision.startswith("int8") else "model.onnx"
        for name in (file, f"{file}.data"):
            if not (tiny.folder / name).exists():
                (tiny.folder / name).write_bytes(precision.encode())
        forms.append(form(precision, file))
    tiny.edit_model(forms=forms, gpu="model.onnx")
    tiny.list_files()


INTEL = Container("an image", "3.13", "manylinux_2_34_x86_64")
GRAVITON = Container("an image", "3.13", "manylinux_2_34_aarch64")
NVIDIA = Container("an image", "3.13", "manylinux_2_34_x86_64", gpu=True)


@pytest.mark.parametrize(
    ("forms", "container", "packed"),
    [
        (("int8",), INTEL, ["int8"]),
        (("int8",), NVIDIA, ["fp32"]),
        (("int8-weights", "bf16", "fp32"), INTEL, ["int8-weights", "bf16", "fp32"]),
        (("int8-weights", "bf16", "fp32"), GRAVITON, ["bf16", "fp32"]),
        (("int8-weights", "fp32"), NVIDIA, ["fp32"]),
        (("fp32",), INTEL, ["fp32"]),
    ],
)
def test_an_artifact_has_the_forms_that_its_container_can_compute(
    tmp_path: Path,
    tiny: TinyBundle,
    forms: tuple[str, ...],
    container: Container,
    packed: list[str],
) -> None:
    with_forms(tiny, *forms)
    write_artifact(tiny.folder, tmp_path / "m.tar.gz", name="n", notify=silent, container=container)
    out = tmp_path / "out"
    unpack(tmp_path / "m.tar.gz", out)
    manifest = json.loads((out / "manifest.json").read_bytes())
    model = manifest["model"]
    assert [each["precision"] for each in model["forms"]] == packed
    assert model.get("device") == ("gpu" if container.gpu else None)
    graphs = {each["file"] for each in model["forms"]}
    graphs |= {f"{file}.data" for file in graphs}
    assert {file.name for file in out.glob("*.onnx*")} == graphs
    assert {name for name in manifest["files"] if ".onnx" in name} == graphs
    wheels = serving_versions(tiny.folder, container)
    assert ("openvino" in wheels) == ("bf16" in packed and container is INTEL)


def test_an_artifact_carries_some_of_many_goldens(tmp_path: Path, tiny: TinyBundle) -> None:
    texts = [f"a {word} film and {other}" for word in WORDS[:20] for other in WORDS[:20]]
    tiny.write_goldens([tiny.golden(text) for text in texts])
    write_artifact(tiny.folder, tmp_path / "m.tar.gz", name="n", notify=silent)
    unpack(tmp_path / "m.tar.gz", tmp_path / "out")
    bundle = open_bundle(tmp_path / "out")  # which checks the hashes
    goldens = read_goldens(bundle)
    assert len(goldens) == CARRIED
    margins = [undecided(list(each.probabilities.values()), None) for each in goldens]
    assert margins == sorted(margins)
    assert {each.text for each in goldens} < set(texts)


def test_a_bundle_of_format_2_is_packed_with_its_one_form(tmp_path: Path, tiny: TinyBundle) -> None:
    document = json.loads((tiny.folder / "manifest.json").read_bytes())
    del document["gate"], document["model"]["forms"]
    document["model"].update(file="model.onnx", precision="fp32")
    document["format"] = 2
    (tiny.folder / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    write_artifact(tiny.folder, tmp_path / "m.tar.gz", name="n", notify=silent)
    unpack(tmp_path / "m.tar.gz", tmp_path / "out")
    assert [each.precision for each in open_bundle(tmp_path / "out").forms] == ["fp32"]


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
