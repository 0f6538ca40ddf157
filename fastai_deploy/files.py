"""Atomic, link-safe file access: reads, writes and removes whole files.

A file is written next to its destination, under a name that starts with a dot and ends with
``.partial``, and renamed when complete, so a reader sees either the old file or the new one. Errors
of the operating system become FileErrors with the path and the reason.

Everything in a folder named ``.fdeploy`` belongs to fdeploy, and symbolic links are not followed.
Each folder is opened from its parent with ``O_NOFOLLOW``, and files are opened, renamed and removed
relative to that descriptor, so that a link swapped in at the same time has no effect. Writing or
removing a file that is a link replaces or removes the link itself, never its target. The part of a
path above ``.fdeploy``, and any other path, belongs to the user and is followed as usual.

Only regular files up to a size limit are read: a named pipe or ``/dev/zero`` would never end.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fastai_deploy.errors import DiskFull, FileDenied, FileError, FileMissing

WORKSPACE = ".fdeploy"
CHUNK = 1 << 20
MOST = 64 << 20  # default size limit, in bytes, of a file that is read whole

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NOT_REGULAR = {errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP}  # opening a socket or a device
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MOUNTS = Path("/proc/self/mountinfo")
_MOUNT_POINT = 4  # the fifth field of a line, see proc(5)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about ``path`` into FileErrors."""
    try:
        yield
    except OSError as error:
        raise _translated(error, path) from error
    except ValueError as error:
        if not _is_about_a_name(error, path):
            raise
        raise FileError(f"{str(path)!a} is not a valid path", hint="check the path") from error


@contextmanager
def needing(size: int, folder: Path) -> Iterator[None]:
    """Say in the error of a full disk that about ``size`` bytes are needed in a folder."""
    try:
        yield
    except DiskFull as error:
        needed = f"it needs about {size:,} bytes"
        with suppress(OSError):
            needed += f", and {folder.absolute()} has {shutil.disk_usage(folder).free:,} free"
        raise DiskFull(f"{error.message}: {needed}", hint=error.hint) from error


def expanded(path: Path) -> Path:
    """Expand ``~`` in a path. Raises FileError for the home folder of an unknown user."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise FileError(
            f"{path} is in the home folder of a user that does not exist",
            hint=f"check the path, or type ./{path} for a name that starts with ~",
        ) from None


@contextmanager
def opened_folder(path: Path, *, make: bool = False) -> Iterator[int]:
    """Open a folder as a descriptor; with ``make``, create it if it does not exist.

    Raises FileError for a link or another user's folder in fdeploy's part of the path.
    """
    with file_errors(path):
        descriptor = _open_folder(path, make=make)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_regular(
    path: Path, flags: int = os.O_RDONLY, *, mode: int = 0o644, follow: bool = True
) -> int:
    """Open a regular file as a descriptor; never a pipe, a device, a socket or a folder.

    With ``follow=False``, and always in fdeploy's own folder, links are refused. Raises FileError.
    """
    # Without O_NONBLOCK, opening a named pipe would wait forever for its other end.
    flags |= os.O_NONBLOCK | os.O_CLOEXEC
    own = _is_own(path)
    if own or not follow:
        flags |= os.O_NOFOLLOW
    try:
        with file_errors(path):
            if own:
                with opened_folder(path.parent) as folder:
                    descriptor = os.open(path.name, flags, mode, dir_fd=folder)
            else:
                descriptor = os.open(path, flags, mode)
    except FileError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _NOT_REGULAR:
            raise _not_regular(path) from None
        if isinstance(cause, OSError) and cause.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            raise _is_a_link(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    return descriptor


@contextmanager
def reading(path: Path, *, follow: bool = True) -> Iterator[BinaryIO]:
    """Open a regular file for reading. Raises FileError."""
    descriptor = open_regular(path, follow=follow)
    with file_errors(path), os.fdopen(descriptor, "rb") as file:
        yield file


def read(path: Path, *, most: int = MOST, follow: bool = True) -> bytes:
    """Read a whole regular file of at most ``most`` bytes. Raises FileError."""
    with reading(path, follow=follow) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise too_large(path, most)
        data = file.read(most + 1)
    if len(data) > most:
        raise too_large(path, most)
    return data


def size_of(path: Path) -> int | None:
    """The size of a regular file in bytes; None if there is no such file."""
    try:
        with reading(path) as file:
            return os.fstat(file.fileno()).st_size
    except FileError:
        return None


def sha256(
    path: Path,
    *,
    most: int | None = None,
    notify: Callable[[int], None] = lambda _bytes: None,
) -> str:
    """The SHA-256 of a regular file in hexadecimal.

    ``notify`` is called with the number of bytes read so far. Raises FileError, also if the file
    has more than ``most`` bytes.
    """
    digest = hashlib.sha256()
    done = 0
    with reading(path) as file:
        if most is not None and os.fstat(file.fileno()).st_size > most:
            raise too_large(path, most)
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            notify(done)
    return digest.hexdigest()


def names_in(path: Path) -> list[str]:
    """The sorted names in a folder; empty if it does not exist. Raises FileError."""
    try:
        with opened_folder(path) as folder, file_errors(path):
            return sorted(os.listdir(folder))  # noqa: PTH208 - of a descriptor
    except FileMissing:
        return []


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A binary file that replaces ``path`` if the block succeeds and is discarded otherwise.

    A link at ``path`` is replaced; its target is not touched. Raises FileError, also if a folder, a
    pipe or a device is in the way.
    """
    partial = f".{path.name}.partial"
    with opened_folder(path.parent, make=True) as folder, file_errors(path):
        _check_replaceable(folder, path)
        if _is_own(path):
            _remove_entry(folder, path.with_name(partial), os.fstat(folder).st_dev)
        _unlink(folder, partial)
        descriptor = os.open(partial, _NEW, mode, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with suppress(OSError):
                _unlink(folder, partial)


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file atomically. Raises FileError."""
    with replacing(path, mode=mode) as file:
        file.write(data)


def copy(source: Path, destination: Path) -> None:
    """Copy a regular file atomically. Raises FileError."""
    with reading(source) as file, replacing(destination) as made:
        shutil.copyfileobj(file, made, CHUNK)


@contextmanager
def fresh(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Create an empty file at ``path``, removing any old one instead of writing into it."""
    with opened_folder(path.parent, make=True) as folder, file_errors(path):
        _check_replaceable(folder, path)
        _unlink(folder, path.name)
        with os.fdopen(os.open(path.name, _NEW, mode, dir_fd=folder), "wb") as file:
            yield file


@contextmanager
def creating(path: Path) -> Iterator[BinaryIO]:
    """Create a file that must not exist yet. Raises FileError."""
    with (
        opened_folder(path.parent, make=True) as folder,
        file_errors(path),
        os.fdopen(os.open(path.name, _NEW, 0o644, dir_fd=folder), "wb") as file,
    ):
        yield file


def make_folder(path: Path) -> None:
    """Create a folder and its parents if they do not exist. Raises FileError."""
    with opened_folder(path, make=True):
        pass


def new_folder(parent: Path, prefix: str) -> Path:
    """Create a private folder (mode 0700) with an unpredictable name in ``parent``."""
    path = parent / f"{prefix}{secrets.token_hex(6)}"
    with opened_folder(parent, make=True) as folder, file_errors(path):
        os.mkdir(path.name, 0o700, dir_fd=folder)
    return path


def rename(old: Path, new: Path) -> None:
    """Rename a file or folder within its parent folder. Raises FileError."""
    with opened_folder(old.parent) as folder, file_errors(old):
        os.replace(old.name, new.name, src_dir_fd=folder, dst_dir_fd=folder)


def remove(path: Path) -> None:
    """Remove a file or a link (not its target) if it exists. Raises FileError."""
    with suppress(FileMissing), opened_folder(path.parent) as folder, file_errors(path):
        _unlink(folder, path.name)


def remove_tree(path: Path) -> None:
    """Remove a folder and its contents if it exists.

    Links are removed, never followed. Nothing is removed if a file system is mounted inside it.
    Raises FileError.
    """
    mounted = _mounts_in(path)
    if mounted:
        raise _mounted(mounted[0])
    with suppress(FileMissing), opened_folder(path.parent) as folder, file_errors(path):
        try:
            _remove_entry(folder, path, os.fstat(folder).st_dev)
        except RecursionError:
            raise FileError(f"{path} is nested too deeply", hint=f"rm -r {_quoted(path)}") from None


def too_large(path: Path, most: int) -> FileError:
    """The error for a file above its size limit."""
    return FileError(
        f"{path} is larger than the limit of {most:,} bytes for such a file",
        hint="check that it is the right file",
    )


def _open_folder(path: Path, *, make: bool) -> int:
    start, own = _parts(path)
    if make:
        start.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(start, _FOLDER)
    place = start
    for name in own:
        place /= name
        try:
            inner = _open_inner(descriptor, place, make=make)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def _open_inner(outer: int, place: Path, *, make: bool) -> int:
    """Open one of fdeploy's own folders from its parent."""
    if make:
        with suppress(FileExistsError):
            os.mkdir(place.name, dir_fd=outer)
    try:
        descriptor = os.open(place.name, _FOLDER | os.O_NOFOLLOW, dir_fd=outer)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and _is_link(outer, place.name):
            raise _is_a_link(place) from None
        raise _translated(error, place) from error
    owner = os.fstat(descriptor).st_uid
    if owner not in (os.geteuid(), os.fstat(outer).st_uid):
        os.close(descriptor)
        raise FileDenied(
            f"{place} belongs to another user (uid {owner}), who could change its contents",
            hint=f"rename it, or run fdeploy in your own folder: mv {_quoted(place)} "
            f"{_quoted(place.with_name(place.name + '.old'))}",
        )
    return descriptor


def _is_about_a_name(error: ValueError, path: Path) -> bool:
    """Whether the path itself is invalid: it holds a NUL or a lone surrogate."""
    if isinstance(error, UnicodeEncodeError):
        return error.object in (str(path), path.name)
    return "\0" in str(path) and "embedded null" in str(error)


def _parts(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Split a path into the user's part and fdeploy's own folders below it."""
    parts = path.absolute().parts
    if WORKSPACE not in parts:
        return path, ()
    at = len(parts) - 1 - parts[::-1].index(WORKSPACE)
    own = parts[at:]
    if ".." in own:
        raise FileError(f"{path} leads out of {WORKSPACE}", hint="type the path without ..")
    return Path(*parts[:at]), own


def _is_own(path: Path) -> bool:
    return bool(_parts(path.parent)[1])


def _is_link(folder: int, name: str) -> bool:
    with suppress(OSError):
        return stat.S_ISLNK(os.lstat(name, dir_fd=folder).st_mode)
    return False


def _check_replaceable(folder: int, path: Path) -> None:
    """Raise FileError if anything other than a regular file or a link is at the path."""
    try:
        kind = os.lstat(path.name, dir_fd=folder).st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
        raise _not_regular(path)


def _unlink(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _remove_entry(folder: int, path: Path, device: int) -> None:
    """Remove an entry, recursively, from an opened folder on file system ``device``."""
    try:
        inner = os.open(path.name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise _translated(error, path) from error
        _unlink(folder, path.name)
        return
    try:
        if os.fstat(inner).st_dev != device:
            raise _mounted(path)
        for name in os.listdir(inner):  # noqa: PTH208 - of a descriptor
            _remove_entry(inner, path / name, device)
    finally:
        os.close(inner)
    with suppress(FileNotFoundError):
        os.rmdir(path.name, dir_fd=folder)


def _mounts_in(path: Path) -> list[Path]:
    """The mount points at or below a path, bind mounts of the same file system included."""
    with file_errors(path):  # a link that goes away at this moment is an OSError
        real = Path(os.path.realpath(path.parent)) / path.name
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:  # not Linux
        return []
    points = (Path(os.fsdecode(_unescaped(line.split()[_MOUNT_POINT]))) for line in lines)
    return [point for point in points if point.is_relative_to(real)]


def _unescaped(field: bytes) -> bytes:
    """Decode a path in mountinfo, which writes spaces and backslashes as octal escapes."""
    first, *rest = field.split(b"\\")
    return first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest)


def _mounted(path: Path) -> FileError:
    return FileError(
        f"{path} is a mount point, so nothing in it was removed",
        hint=f"umount {_quoted(path)}, then run the same command again",
    )


def _is_a_link(path: Path) -> FileError:
    if not _parts(path)[1]:
        return FileError(
            f"{path} is a symbolic link, and fdeploy does not follow it here",
            hint="use the path of the file itself",
        )
    return FileError(
        f"{path} is a symbolic link, and fdeploy does not follow links in its own folder",
        hint=f"run rm {_quoted(path)} (this removes the link, not its target), then run the same "
        "command again",
    )


def _not_regular(path: Path) -> FileError:
    if _is_own(path):
        return FileError(
            f"{path} is not a regular file",
            hint=f"rm -r {_quoted(path)}, then run the same command again",
        )
    return FileError(f"{path} is not a regular file", hint="check the path and try again")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _translated(error: OSError, path: Path) -> FileError:
    # With a folder descriptor, the error holds only the last component of the path.
    subject = path
    if error.filename and not isinstance(error.filename, int):
        named = Path(os.fsdecode(error.filename))
        subject = named if named.is_absolute() else path
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return DiskFull(
            f"{subject} cannot be written: {reason}",
            hint="free some space and run the same command again; no partial file was kept",
        )
    if error.errno in _DENIED:
        return FileDenied(
            f"{subject} cannot be accessed: {reason}", hint=f"check the permissions of {subject}"
        )
    if error.errno == errno.ENOENT:
        return FileMissing(f"{subject} does not exist", hint="check the path and try again")
    return FileError(f"{subject}: {reason}", hint="check the path and try again")
