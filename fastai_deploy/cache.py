"""The caches of this machine: files that can be downloaded or made again at any time.

    <cache>/wheels    wheels, as pip downloads them
    <cache>/image     layers of container images: those of bases, and fdeploy's own

``<cache>`` is ``~/.cache/fastai-deploy``. A file that nobody has used for 30 days is removed by the
next command that uses its cache. The date of a file says when it was last used.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastai_deploy import files

_UNUSED_SECONDS = 30 * 86_400


def cache_folder(name: str) -> Path:
    """The folder of a cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fastai-deploy" / name


@contextmanager
def using(folder: Path) -> Iterator[None]:
    """Use a cache: within the block, no other process removes anything from it.

    First, what was not used for 30 days is removed, unless another process uses the cache. Raises
    FileError.
    """
    with files.opened_folder(folder, make=True) as descriptor:
        with suppress(OSError):  # in use, or a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_unused(folder, time.time() - _UNUSED_SECONDS)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


def mark_used(*paths: Path) -> None:
    """Note that files of a cache are used now."""
    for path in paths:
        with suppress(OSError):  # another user's cache, which may be read
            os.utime(path)


def _remove_unused(folder: Path, before: float) -> None:
    """Remove the files below a folder that are older, and the folders that are empty then."""
    for at, folders, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(at, name)
            with suppress(OSError):
                if path.lstat().st_mtime < before:
                    path.unlink()
        for name in folders:
            with suppress(OSError):  # not empty
                if not Path(at, name).is_symlink():
                    Path(at, name).rmdir()
