"""Files that people hand in by mistake, told by their first bytes."""

from __future__ import annotations

from dataclasses import dataclass

UNPACK = "unpack it and name the .pkl file in it"
EXPORT = "name the .pkl file that learn.export() wrote"


@dataclass(frozen=True)
class Known:
    """What a file is, and what to do instead."""

    what: str
    hint: str


_SIGNATURES: tuple[tuple[bytes, Known], ...] = (
    (b"\x1f\x8b", Known("a gzip archive", UNPACK)),
    (b"BZh", Known("a bzip2 archive", UNPACK)),
    (b"\xfd7zXZ\x00", Known("an xz archive", UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", Known("a 7-Zip archive", UNPACK)),
    (b"\x28\xb5\x2f\xfd", Known("a Zstandard archive", UNPACK)),
    (b"PK\x05\x06", Known("an empty zip file", EXPORT)),
    (b"\x89HDF\r\n\x1a\n", Known("an HDF5 file (a Keras model, perhaps)", EXPORT)),
    (b"\x93NUMPY", Known("a NumPy array", EXPORT)),
    (b"GGUF", Known("a GGUF model", EXPORT)),
    (
        b"version https://git-lfs",
        Known("a Git LFS pointer, which stands for the file", "run: git lfs pull"),
    ),
)
_MARKUP = (b"<!doctype html", b"<html", b"<?xml")


def recognise(head: bytes) -> Known | None:
    """What a file that begins with ``head`` is, where that is known not to be a pickle."""
    if not head:
        return Known("an empty file", "copy or download the file again")
    for signature, known in _SIGNATURES:
        if head.startswith(signature):
            return known
    if head.lstrip().lower().startswith(_MARKUP):
        return Known("a web page", "download the file itself (the raw file, not its page)")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27:
        return Known("a safetensors file (weights without a learner)", EXPORT)
    return None
