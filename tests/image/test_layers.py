"""Layers: what is in them, and that nothing is compressed for them."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from fastai_deploy.errors import ImageError
from fastai_deploy.files import sha256
from fastai_deploy.image.base import fetch_base
from fastai_deploy.image.blobs import BlobStore
from fastai_deploy.image.layers import wheel_layer
from fastai_deploy.image.names import Reference
from fastai_deploy.image.registry import Repository
from fastai_deploy.packaging.wheels import Wheel
from tests.image.bases import CONTENT, layer
from tests.registry import digest_of, running_registry

TEXT = b"import this\n" * 9_000
LONG = "a/" * 60 + "long.py"


def wheel(folder: Path, method: int) -> Wheel:
    path = folder / f"a-1-{method}-none-any.whl"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("b.py", TEXT)
        archive.writestr("a.py", b"")
        archive.writestr(LONG, TEXT[:1_000])
        archive.writestr("a-1.data/scripts/run", "#!python")
    return Wheel("a", "1", path, sha256(path))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_layer_has_the_files_of_a_wheel(tmp_path: Path, method: int) -> None:
    store = BlobStore(tmp_path / "image")
    made = wheel_layer(wheel(tmp_path, method), store)
    path = store.find(made.digest, made.size)
    assert path is not None
    assert digest_of(gzip.decompress(path.read_bytes())) == made.diff_id
    with tarfile.open(path) as tar:
        found = {}
        for info in tar:
            content = tar.extractfile(info)
            found[info.name.removeprefix("opt/fdeploy/packages/")] = content and content.read()
    files = {name: data for name, data in found.items() if data is not None}
    assert files == {LONG: TEXT[:1_000], "a.py": b"", "b.py": TEXT}
    assert list(files) == sorted(files)


def test_a_deflated_file_is_not_compressed_again(tmp_path: Path) -> None:
    packed = wheel(tmp_path, zipfile.ZIP_DEFLATED)
    store = BlobStore(tmp_path / "image")
    made = wheel_layer(packed, store)
    path = store.find(made.digest, made.size)
    assert path is not None
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    own = compressor.compress(TEXT) + compressor.flush()
    assert own in packed.path.read_bytes()
    assert own in path.read_bytes()


def test_a_damaged_wheel_is_named(tmp_path: Path) -> None:
    whole = wheel(tmp_path, zipfile.ZIP_DEFLATED)
    data = bytearray(whole.path.read_bytes())
    data[200:230] = bytes(30)
    whole.path.write_bytes(data)
    with pytest.raises(ImageError, match="cannot be unpacked") as caught:
        wheel_layer(whole, BlobStore(tmp_path / "image"))
    assert f"rm {whole.path}" in caught.value.hint
    assert not list((tmp_path / "image/blobs/sha256").iterdir())


def test_a_base_may_have_layers_of_several_gzip_members(tmp_path: Path) -> None:
    tar = gzip.decompress(layer(CONTENT))
    data = b"".join(gzip.compress(tar[at : at + 512], mtime=0) for at in range(0, len(tar), 512))
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
    }
    with running_registry() as registry:
        registry.put_image("library/python", "3.13-slim", layers=[data], config=config)
        named = Reference.parse(f"{registry.address}/library/python:3.13-slim")
        store = BlobStore(tmp_path)
        base = fetch_base(named, "x86_64", store, Repository(named.place), lambda _: None)
    assert base.glibc == 34
