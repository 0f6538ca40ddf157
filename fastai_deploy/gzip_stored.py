"""A gzip stream whose bytes depend on the input alone.

Deflate libraries differ in the bytes that they make for the same input (zlib, zlib-ng, Intel's,
and versions of each), so an artifact made with one could not be compared with another's by its
hash. The weights of a model hardly compress (7.5 % for a 499 MB learner, at 17 MB/s; see
docs/benchmarks.md), so the stream here is written with stored blocks (RFC 1951, 3.2.4): any gzip
reader reads it, every machine writes the same, and it is as fast as its checksum.
"""

from __future__ import annotations

import struct
import zlib
from typing import Protocol

# RFC 1952: magic, deflate, no flags, no time, no extra flags, unknown operating system.
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_BLOCK = 0xFFFF  # the longest stored block


class Writable(Protocol):
    """What the stream is written to."""

    def write(self, data: bytes | memoryview) -> int:
        """Write all of the data; return its length."""


class StoredGzip:
    """A write-only binary file that wraps ``raw``; ``close`` writes the trailer, not ``raw``'s."""

    def __init__(self, raw: Writable) -> None:
        self._raw = raw
        self._crc = 0
        self._size = 0
        self._pending = bytearray()
        raw.write(_HEADER)

    def write(self, data: bytes | memoryview) -> int:
        """Append ``data``; full blocks are written at once, so that the cuts never vary."""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._pending += data
        whole = len(self._pending) - len(self._pending) % _BLOCK
        with memoryview(self._pending) as view:
            for start in range(0, whole, _BLOCK):
                with view[start : start + _BLOCK] as block:
                    self._block(block, last=False)
        del self._pending[:whole]
        return len(data)

    def close(self) -> None:
        """End the stream."""
        with memoryview(self._pending) as block:
            self._block(block, last=True)
        self._raw.write(struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))

    def _block(self, data: memoryview, *, last: bool) -> None:
        size = len(data)
        self._raw.write(struct.pack("<BHH", last, size, size ^ 0xFFFF))
        self._raw.write(data)
