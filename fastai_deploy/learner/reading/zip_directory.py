"""The directory of a zip file, read strictly and with bounds.

Python's ``zipfile`` builds a large record for every entry that a hostile directory claims, accepts
names that climb out of the archive, and lets two entries share a name. torch's reader and ours must
never disagree about what a member contains, so all of that is refused here. The layout is that of
PKWARE's APPNOTE 6.3.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from fastai_deploy.errors import LearnerTooComplex
from fastai_deploy.learner.reading.sources import Slice, Source, check_range, truncated

MAX_MEMBERS = 100_000  # a torch archive has one for each tensor; the largest models have thousands
MAX_NAME = 1_024  # bytes
# Total size of deflated members: weights shrink by a tenth, a pickle to a tenth.
MAX_RATIO = 2  # inflated bytes per byte of the file
EXTRA_INFLATED = 16 << 20  # additional bytes

_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x1
_MAX_U32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Member:
    """A file in the archive; ``size`` is in bytes, inflated."""

    name: str
    method: int
    checksum: int
    stored_size: int
    size: int
    header: int


class Inflater:
    """Inflates whole members and keeps the last one: most are read in many consecutive pieces."""

    def __init__(self) -> None:
        self._last: tuple[Inflated, bytes] | None = None

    def inflate(self, member: Inflated) -> bytes:
        """The bytes of a member. Raises LearnerTruncated."""
        if self._last is not None and self._last[0] is member:
            return self._last[1]
        self._last = None  # free it before allocating the next one
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = inflater.decompress(member.source.read(0, member.source.size), member.size + 1)
        except zlib.error as error:
            raise truncated(f"a compressed part of the file is damaged: {error}") from error
        if len(data) != member.size:
            raise truncated("a compressed part of the file is damaged: its size is wrong")
        self._last = (member, data)
        return data


@dataclass(frozen=True, eq=False)
class Inflated:
    """A deflated member; ``size`` is in bytes, inflated."""

    source: Source
    size: int
    inflater: Inflater

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``. Raises LearnerTruncated."""
        check_range(offset, size, self.size)
        return self.inflater.inflate(self)[offset : offset + size]


def read_directory(source: Source) -> dict[str, Member]:
    """The members by name. Raises LearnerTruncated or LearnerTooComplex."""
    start, size, count = _locate(source)
    if count > MAX_MEMBERS or size > MAX_MEMBERS * (MAX_NAME + 128):
        raise _too_complex(f"the archive has {count:,} members")
    members: dict[str, Member] = {}
    for member in _entries(source.read(start, size), count):
        if member.name in members:
            raise truncated(f"the archive contains {member.name!r} twice")
        members[member.name] = member
    _check_sizes(members, source.size)
    return members


def member_data(source: Source, member: Member, inflater: Inflater) -> Source:
    """The bytes of a member, read on demand. Raises LearnerTruncated."""
    header = source.read(member.header, _LOCAL.size)
    magic, _, flags, method, *_rest, name_size, extra_size = _LOCAL.unpack(header)
    name = source.read(member.header + _LOCAL.size, name_size)
    if magic != b"PK\x03\x04" or method != member.method or flags & _ENCRYPTED:
        raise truncated(f"the archive is damaged at {member.name!r}")
    if name != member.name.encode("utf-8"):
        raise truncated(f"the archive gives {member.name!r} two names")
    start = member.header + _LOCAL.size + name_size + extra_size
    check_range(start, member.stored_size, source.size)
    data = Slice(source, start, member.stored_size)
    return data if member.method == _STORED else Inflated(data, member.size, inflater)


def _locate(source: Source) -> tuple[int, int, int]:
    """Offset, size and number of entries of the central directory."""
    tail_size = min(source.size, _END.size + 0xFFFF)
    tail_start = source.size - tail_size
    tail = source.read(tail_start, tail_size)
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or found + _END.size > len(tail):
        raise truncated("the archive has no end: the file is incomplete")
    end = tail_start + found
    _, disk, first_disk, _, count, size, start, comment = _END.unpack_from(tail, found)
    if disk or first_disk or end + _END.size + comment != source.size:
        raise truncated("the end of the archive is damaged")
    wide = _locate64(source, end)
    if wide is not None:
        end, *wide_numbers = wide
        narrow = zip((start, size, count), wide_numbers, (_MAX_U32, _MAX_U32, 0xFFFF), strict=True)
        if any(short not in (long, limit) for short, long, limit in narrow):
            raise truncated("the archive gives two locations for its directory")
        start, size, count = wide_numbers
    if start + size != end:
        raise truncated("the directory of the archive is not where it should be")
    return start, size, count


def _locate64(source: Source, end: int) -> tuple[int, int, int, int] | None:
    """The zip64 record's offset, and the directory according to it; None if there is none."""
    position = end - _LOCATOR64.size
    if position < 0:
        return None
    magic, _, record, _ = _LOCATOR64.unpack(source.read(position, _LOCATOR64.size))
    if magic != b"PK\x06\x07":
        return None
    check_range(record, _END64.size, position)
    magic, *_rest, count, size, start = _END64.unpack(source.read(record, _END64.size))
    if magic != b"PK\x06\x06":
        raise truncated("the zip64 record of the archive is damaged")
    return record, start, size, count


def _entries(directory: bytes, count: int) -> Iterator[Member]:
    position = 0
    for _ in range(count):
        if position + _ENTRY.size > len(directory):
            raise truncated("the directory of the archive is incomplete")
        entry = _ENTRY.unpack_from(directory, position)
        magic, flags, method = entry[0], entry[3], entry[4]
        name_size, extra_size, comment_size = entry[10:13]
        if magic != b"PK\x01\x02" or method not in (_STORED, _DEFLATED) or flags & _ENCRYPTED:
            raise truncated("the directory of the archive is damaged or of an unknown kind")
        position += _ENTRY.size
        raw_name = directory[position : position + name_size]
        extra = directory[position + name_size : position + name_size + extra_size]
        position += name_size + extra_size + comment_size
        stored_size, size, header = _sizes(entry[8], entry[9], entry[16], extra)
        yield Member(_name(raw_name), method, entry[7], stored_size, size, header)
    if position != len(directory):
        raise truncated("the directory of the archive is longer than it says")


def _name(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise truncated("the archive has a member whose name is not text") from error
    parts = name.removesuffix("/").split("/")
    if not 0 < len(raw) <= MAX_NAME or {"", ".", ".."} & set(parts) or set("\\:\0") & set(name):
        raise truncated(f"the archive has a member with an unsafe name: {name[:80]!r}")
    return name


def _sizes(stored_size: int, size: int, header: int, extra: bytes) -> tuple[int, int, int]:
    """The three numbers of an entry, taken from its zip64 field if they do not fit."""
    wide = b""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            wide = extra[position + 4 : position + 4 + length]
        position += 4 + length
    numbers: list[int] = []
    for number in (size, stored_size, header):
        if number != _MAX_U32:
            numbers.append(number)
        elif len(wide) >= 8:  # noqa: PLR2004 - bytes of one 64-bit number
            numbers.append(int.from_bytes(wide[:8], "little"))
            wide = wide[8:]
        else:
            raise truncated("the directory of the archive lacks a size")
    return numbers[1], numbers[0], numbers[2]


def _check_sizes(members: dict[str, Member], file_size: int) -> None:
    inflated = 0
    for member in members.values():
        if member.method == _STORED and member.stored_size != member.size:
            raise truncated(f"the archive gives two sizes for {member.name!r}")
        if member.method == _DEFLATED:
            inflated += member.size
    if inflated > MAX_RATIO * file_size + EXTRA_INFLATED:
        raise _too_complex(f"the archive inflates to {inflated:,} bytes")
    if sum(member.stored_size for member in members.values()) > file_size:
        raise truncated("members of the archive overlap")


def _too_complex(what: str) -> LearnerTooComplex:
    return LearnerTooComplex(
        f"{what}, more than any learner needs",
        hint="the file is damaged or malicious; export the learner again",
    )
