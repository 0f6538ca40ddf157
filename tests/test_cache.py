"""The caches: what nobody has used for 30 days goes, and nothing that somebody uses."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fastai_deploy.cache import mark_used, using
from fastai_deploy.image.blobs import BlobStore

OLD = time.time() - 31 * 86_400


def put(folder: Path, *paths: str) -> list[Path]:
    """Files that were last used 31 days ago."""
    made = [folder / path for path in paths]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (OLD, OLD))
    return made


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_was_not_used_goes(tmp_path: Path) -> None:
    put(tmp_path, "cp313/numpy/1.0/numpy.whl", "cp313/numpy/2.0/numpy.whl", ".half")
    mark_used(tmp_path / "cp313/numpy/2.0/numpy.whl")
    with using(tmp_path):
        assert left(tmp_path) == [
            *("cp313", "cp313/numpy", "cp313/numpy/2.0", "cp313/numpy/2.0/numpy.whl")
        ]


def test_nothing_goes_while_another_command_uses_it(tmp_path: Path) -> None:
    with using(tmp_path):
        put(tmp_path, "old")
        with using(tmp_path):
            assert left(tmp_path) == ["old"]
    with using(tmp_path):
        assert left(tmp_path) == []


def test_no_link_is_followed(tmp_path: Path) -> None:
    put(tmp_path, "mine/kept")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/link").symlink_to(tmp_path / "mine")
    os.utime(tmp_path / "cache/link", (OLD, OLD), follow_symlinks=False)
    with using(tmp_path / "cache"):
        pass
    assert (tmp_path / "mine/kept").exists()


def test_a_blob_that_is_found_is_used(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    found = [store.add([data], size=4) for data in (b"used", b"left")]
    store.remember("used", {})
    store.remember("left", {})
    for path in tmp_path.rglob("*"):
        os.utime(path, (OLD, OLD))
    later = BlobStore(tmp_path)
    later.find(*found[0])
    later.recall("used")
    with using(tmp_path):
        assert later.find(*found[0])
        assert later.find(*found[1]) is None
        assert later.recall("used") == {}
        assert later.recall("left") is None


def test_a_blob_that_changes_is_not_found(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest, size = store.add([b"good"], size=4)
    path = store.find(digest, size)
    assert path is not None
    path.write_bytes(b"evil")
    assert store.find(digest, size) is None
    path.write_bytes(b"good")
    assert store.find(digest, size) == path
