"""Reads the larger files of a model out of the artifact in S3, for a function too small for them.

    model/parts.json     {"model.onnx.data": {"offset": 1536, "bytes": 498278400, "sha256": [...]}}

An artifact is a tar file in stored gzip blocks (``packaging/artifact.py``), so each byte of a file
has a known place in it. Ranges of a file are read and hashed at the same time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple

from .bundle import ModelError

PARTS = "parts.json"
GZIP_HEADER = 10
BLOCK = 0xFFFF
"""The content of a stored block, whose header has five bytes."""

_BLOCK_HEADER = struct.Struct("<BHH")
_WHOLE = BLOCK + _BLOCK_HEADER.size
_BLOCKS = 128  # in one request: 8 MB
_AT_ONCE = 8  # requests; one connection does not use up a function's network
_SECONDS = 20


@dataclass(frozen=True)
class Part:
    """A file in the artifact: its place in the tar file, and its size, in bytes.

    ``sha256`` has a hash for each range of :func:`ranges`.
    """

    name: str
    offset: int
    bytes: int
    sha256: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Range:
    """A range of a file: ``start`` and ``end`` in it, in bytes, and the blocks that hold it."""

    start: int
    end: int
    first_block: int
    last_block: int

    @property
    def header(self) -> str:
        """The range of the artifact, as HTTP writes it; the last one may end after the file."""
        first = GZIP_HEADER + self.first_block * _WHOLE
        return f"bytes={first}-{GZIP_HEADER + (self.last_block + 1) * _WHOLE - 1}"


def complete(
    packed: Path, stored: str, client: Any = None, temporary: Optional[Path] = None
) -> Path:
    """A folder with all files of a model: the packed ones and those in the artifact.

    ``stored`` is ``s3://bucket/key``. Raises ModelError if the artifact cannot be read or has other
    content, or the folder for temporary files is full. ``client`` is botocore's, and
    ``temporary`` a folder; both have defaults.
    """
    parts = _parts(packed)
    bucket, _, key = stored[len("s3://") :].partition("/")
    folder = (temporary or Path(tempfile.gettempdir())) / "fdeploy-model"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in packed.iterdir():  # a bundle has no folders
            shutil.copyfile(path, folder / path.name)
        client = client or _client()
        for part in parts:
            _read(client, bucket, key, part, folder)
    except OSError as error:
        raise ModelError(f"{folder} cannot be written: {error.strerror}") from None
    return folder


def ranges(offset: int, size: int) -> Iterator[Range]:
    """The ranges of a file at ``offset`` of the tar file, each of whole blocks but for its ends."""
    first, last = offset // BLOCK, (offset + size - 1) // BLOCK
    for block in range(first, last + 1, _BLOCKS):
        end = min(block + _BLOCKS, last + 1)
        start = max(0, block * BLOCK - offset)
        yield Range(start, min(size, end * BLOCK - offset), block, end - 1)


def content(raw: bytes) -> bytes:
    """The content of stored blocks. Raises ModelError for anything else."""
    found: List[bytes] = []
    at = 0
    while at < len(raw):
        try:
            last, size, check = _BLOCK_HEADER.unpack_from(raw, at)
        except struct.error:
            raise _changed() from None
        if size ^ check != BLOCK or last > 1:
            raise _changed()
        at += _BLOCK_HEADER.size
        found.append(raw[at : at + size])
        at += size
        if last:
            break
    return b"".join(found)


def _read(client: Any, bucket: str, key: str, part: Part, folder: Path) -> None:
    """Read a file, several ranges at a time."""

    def read(place: Range, expected: str) -> None:
        data = content(_range(client, bucket, key, place.header))
        begins = place.first_block * BLOCK - part.offset  # where the blocks begin in the file
        data = data[place.start - begins : place.end - begins]
        if hashlib.sha256(data).hexdigest() != expected:
            raise _changed()
        os.pwrite(descriptor, data, place.start)

    descriptor = os.open(folder / part.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        # So that a full disk fails here, and not halfway.
        os.posix_fallocate(descriptor, 0, max(1, part.bytes))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(read, ranges(part.offset, part.bytes), part.sha256):
                pass
    finally:
        os.close(descriptor)


def _range(client: Any, bucket: str, key: str, place: str) -> bytes:
    try:
        answer = client.get_object(Bucket=bucket, Key=key, Range=place)
        data: bytes = answer["Body"].read()
    except Exception as error:  # noqa: BLE001  # botocore's have a base, its connections' do not
        code = getattr(error, "response", {}).get("Error", {}).get("Code", type(error).__name__)
        raise ModelError(f"s3://{bucket}/{key} cannot be read: {code}") from None
    return data


def _client() -> Any:
    import botocore.session  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=5,
        read_timeout=_SECONDS,
        max_pool_connections=_AT_ONCE,
        retries={"total_max_attempts": 4, "mode": "standard"},
    )
    return botocore.session.Session().create_client("s3", config=config)


def _parts(packed: Path) -> List[Part]:
    try:
        listed = json.loads((packed / PARTS).read_bytes())
        return [
            Part(name, int(of["offset"]), int(of["bytes"]), tuple(of["sha256"]))
            for name, of in listed.items()
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise ModelError(f"{PARTS} is missing from the function's package, or damaged") from None


def _changed() -> ModelError:
    return ModelError("the artifact in the bucket is not the one that was deployed")
