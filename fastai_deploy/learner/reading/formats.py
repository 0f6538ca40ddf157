"""All file formats that ``learn.export()`` has ever written, and files passed by mistake.

    zip      torch 1.6 and later: a zip with ``data.pkl`` and one member for each storage
    legacy   torch before 1.6: pickles, then the storages, in one stream
    plain    a pickle written without torch; each of its tensors is a legacy file within it

This reads no weights: it only records where the numbers of each storage are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastai_deploy.errors import (
    DangerousLearner,
    LearnerError,
    LearnerTooComplex,
    LearnerTruncated,
    NotALearner,
    NotAPickle,
    UnsupportedLearner,
)
from fastai_deploy.learner.reading.graph import Blob, Call, Global, Mapping, Sequence, data
from fastai_deploy.learner.reading.pickle_reader import Limits, Pickled, limits_of, read_pickle
from fastai_deploy.learner.reading.sources import (
    BytesSource,
    FileSource,
    Slice,
    Source,
    Stream,
    truncated,
)
from fastai_deploy.learner.reading.tensors import DTYPES, EmbeddedSource, PersistentIds, Storage
from fastai_deploy.learner.reading.zip_directory import (
    Inflater,
    Member,
    member_data,
    read_directory,
)

Format = Literal["zip", "legacy", "plain"]

MAGIC = 0x1950A86A20F9469CFC6C  # what torch.save wrote first before 1.6, and its protocol next
PROTOCOL = 1001
LOAD_FROM_BYTES = Global("torch.storage", "_load_from_bytes")
# A tensor within a plain pickle takes about 30 opcodes, and imports only these names.
NESTED_LIMITS = Limits(steps=2_000, memory=1 << 16)
NESTED_MODULES = frozenset({"collections", "torch", "torch.cuda", "torch.storage"})
NESTED_NAMES = frozenset({"OrderedDict", *DTYPES})
NESTED_TWICE = 1 << 18  # bytes of such tensors that may overlap in the file

UNPACK = "unpack it and use the .pkl file in it"
EXPORT = "use the .pkl file that learn.export() wrote"
EXPORT_ONE = "export one learner to its own file with learn.export()"


@dataclass(frozen=True, eq=False, repr=False)
class Archive:
    """A learner file, read.

    ``sources`` are the classes whose source text it embeds; ``nested`` are the storages that a
    plain pickle embeds as separate files, by the identity of the call that would load them.
    """

    format: Format
    pickled: Pickled
    sources: tuple[EmbeddedSource, ...]
    nested: dict[int, Storage]


@contextmanager
def open_archive(path: Path, limits: Limits | None = None) -> Iterator[tuple[FileSource, Archive]]:
    """Read the learner at ``path``; its tensors can be read until the block ends.

    Raises FileMissing, FileDenied or FileError, and a LearnerError for anything wrong in the file.
    """
    source = FileSource(path)
    try:
        yield source, read_archive(source, limits)
    finally:
        source.close()


def read_archive(source: Source, limits: Limits | None = None) -> Archive:
    """Read a learner. Raises only a LearnerError, whatever the bytes are."""
    limits = limits or limits_of(source.size)
    head = source.read(0, min(source.size, 512))
    ids = PersistentIds()
    if head.startswith(b"PK\x03\x04"):
        return _archive("zip", _read_zip(source, ids, limits), ids, source.size)
    mistake = _recognise(head)
    if mistake is not None:
        raise NotAPickle(f"this is {mistake.what}, not a learner", hint=mistake.hint)
    stream = Stream(source)
    first = _read_first(stream, ids, limits, sure=head.startswith(b"\x80"))
    if type(first.root) is int and first.root == MAGIC:
        _refuse_code(first)
        pickled = _read_legacy(stream, ids, limits)
        _refuse_more(stream, "its end")
        return _archive("legacy", pickled, ids, source.size)
    _refuse_more(stream, "the first pickle in it")
    return _archive("plain", first, ids, source.size)


def _archive(kind: Format, pickled: Pickled, ids: PersistentIds, size: int) -> Archive:
    nested = _read_nested(pickled.calls, size)
    return Archive(kind, pickled, tuple(ids.sources.values()), nested)


def _read_first(stream: Stream, ids: PersistentIds, limits: Limits, *, sure: bool) -> Pickled:
    """Read the first pickle; a file that does not begin like one is not a damaged pickle."""
    try:
        return read_pickle(stream, persistent_load=ids.load, limits=limits)
    except LearnerTruncated as error:
        if sure:
            raise
        raise NotAPickle("the file is not a pickle", hint=EXPORT) from error


def _refuse_more(stream: Stream, after: str) -> None:
    """Raise NotALearner if a second learner may follow, because torch would read only the first."""
    if stream.left:
        raise NotALearner(
            f"the file continues for {stream.left:,} bytes after {after}", hint=EXPORT_ONE
        )


# The zip of torch 1.6 and later.


def _read_zip(source: Source, ids: PersistentIds, limits: Limits) -> Pickled:
    """Read the pickle in a zip, and locate each storage."""
    members = read_directory(source)
    inflater = Inflater()
    root = _root(members)
    byte_order = members.get(root + "byteorder")
    if byte_order is not None and _text(member_data(source, byte_order, inflater)) != "little":
        raise _big_endian()
    stream = Stream(member_data(source, members[root + "data.pkl"], inflater))
    pickled = read_pickle(stream, persistent_load=ids.load, limits=limits)
    for key, storages in ids.storages.items():
        member = members.get(f"{root}data/{key}")
        if member is None:
            raise truncated(f"the weights of storage {key} are not in the file")
        content = member_data(source, member, inflater)
        for storage in storages:
            if (storage.start + storage.count) * storage.item_size > content.size:
                raise truncated(f"the weights of storage {key} are incomplete")
            storage.data = content
    return pickled


def _root(members: dict[str, Member]) -> str:
    """The folder in the zip that contains the pickle, with its slash."""
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if not pickles:
        raise NotAPickle("this is a zip file, but not one that learn.export() wrote", hint=UNPACK)
    if len(pickles) > 1:
        raise NotALearner("the archive contains more than one pickle", hint=EXPORT_ONE)
    root = pickles[0].removesuffix("data.pkl")
    if root + "constants.pkl" in members:
        raise NotALearner("this is a TorchScript model, not a learner", hint=EXPORT_ONE)
    return root


def _text(member: Source) -> str:
    return member.read(0, min(member.size, 16)).decode("latin-1").strip()


def _big_endian() -> UnsupportedLearner:
    return UnsupportedLearner(
        "the learner was saved on a big-endian machine",
        hint="export it on a little-endian one (any x86 or ARM machine)",
    )


# The stream of torch before 1.6. In order: a magic number, the protocol, the system, the pickle
# itself, the keys of its storages (five pickles), then for each key the number of elements (8
# bytes) and the elements.


def _read_legacy(stream: Stream, ids: PersistentIds, limits: Limits) -> Pickled:
    """Read what follows the magic number, and locate each storage."""
    if _read_data(stream, limits) != PROTOCOL:
        raise truncated("the file has a format that no version of torch writes")
    system = _read_data(stream, limits)
    if isinstance(system, Mapping) and any(
        key == "little_endian" and value is False for key, value in system.pairs
    ):
        raise _big_endian()
    pickled = read_pickle(stream, persistent_load=ids.load, limits=limits)
    keys = _read_data(stream, limits)
    if not isinstance(keys, Sequence):
        raise truncated("the list of storages is missing")
    for key in keys.items:
        _place(stream, ids, key)
    for key, storages in ids.storages.items():
        if any(storage.data is None for storage in storages):
            raise truncated(f"the weights of storage {key} are not in the file")
    return pickled


def _read_data(stream: Stream, limits: Limits) -> object:
    """One of the small pickles around the learner's own."""
    pickled = read_pickle(stream, limits=limits)
    _refuse_code(pickled)
    return pickled.root


def _refuse_code(pickled: Pickled) -> None:
    """Raise DangerousLearner for a pickle of numbers and text that imports or calls something.

    Loading reads it like the others, and so would run it.
    """
    if pickled.globals or pickled.calls or pickled.patched:
        name = next(iter(pickled.globals), "something")
        raise DangerousLearner(
            f"a pickle before or after the learner would import {name}; fdeploy only read the file "
            "and ran nothing",
            hint="do not load this file; find out where it comes from",
        )


def _place(stream: Stream, ids: PersistentIds, key: object) -> None:
    """Assign the next bytes in the file to the storages called ``key``."""
    storages = ids.storages.get(key) if isinstance(key, str) else None
    if not storages:
        raise truncated("the file contains weights that nothing refers to")
    count = int.from_bytes(stream.read(8), "little", signed=True)
    item_size = storages[0].item_size
    if any(count < s.start + s.count or s.item_size != item_size for s in storages):
        raise truncated(f"the weights of storage {key} are incomplete")
    content = stream.skip(count * item_size)
    for storage in storages:
        storage.data = content


# Tensors within a plain pickle: bytes in the format of torch before 1.6.


def _read_nested(calls: Iterable[Call], size: int) -> dict[int, Storage]:
    """The storages within a plain pickle of ``size`` bytes, by the call that loads each.

    Raises a LearnerError for one that is damaged or contains more than numbers, and if too many are
    the same bytes of the file.
    """
    found: dict[int, Storage] = {}
    left = size + NESTED_TWICE
    for call in calls:
        if call.func == LOAD_FROM_BYTES:
            source = _nested_source(call)
            left -= source.size
            if left < 0:
                raise LearnerTooComplex(
                    "the tensors within the pickle have more bytes than the file",
                    hint="the file is damaged or malicious; export the learner again",
                )
            found[id(call)] = _nested_storage(source)
    return found


def _nested_source(call: Call) -> Source:
    match call.args:
        case (Blob() as blob,):
            return Slice(blob.source, blob.offset, blob.size)
        case (value,) if (held := data(value)) is not None:
            return BytesSource(held)
    raise truncated("a tensor within the pickle has no bytes")


def _nested_storage(source: Source) -> Storage:
    ids = PersistentIds()
    stream = Stream(source)
    try:
        if _read_data(stream, NESTED_LIMITS) != MAGIC:
            raise truncated("a tensor within the pickle has an unknown format")
        pickled = _read_legacy(stream, ids, NESTED_LIMITS)
    except LearnerError as error:
        raise type(error)(
            f"in a tensor within the pickle: {error.message}", hint=error.hint
        ) from error
    strange = [
        name
        for name in pickled.globals
        if name.name not in NESTED_NAMES or name.module not in NESTED_MODULES
    ]
    if strange or not isinstance(pickled.root, Storage):
        raise DangerousLearner(
            "a tensor within the pickle is itself a pickle "
            f"({strange[0] if strange else 'without numbers'}); fdeploy ran nothing",
            hint="do not load this file; find out where it comes from",
        )
    return pickled.root


# Files that people pass by mistake, recognised by their first bytes.


@dataclass(frozen=True)
class _Mistake:
    """The kind of file, and what to do instead."""

    what: str
    hint: str


_SIGNATURES: tuple[tuple[bytes, _Mistake], ...] = (
    (b"\x1f\x8b", _Mistake("a gzip archive", UNPACK)),
    (b"BZh", _Mistake("a bzip2 archive", UNPACK)),
    (b"\xfd7zXZ\x00", _Mistake("an xz archive", UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", _Mistake("a 7-Zip archive", UNPACK)),
    (b"\x28\xb5\x2f\xfd", _Mistake("a Zstandard archive", UNPACK)),
    (b"PK\x05\x06", _Mistake("an empty zip file", EXPORT)),
    (b"\x89HDF\r\n\x1a\n", _Mistake("an HDF5 file (a Keras model, perhaps)", EXPORT)),
    (b"\x93NUMPY", _Mistake("a NumPy array", EXPORT)),
    (b"GGUF", _Mistake("a GGUF model", EXPORT)),
    (
        b"version https://git-lfs",
        _Mistake("a Git LFS pointer, not the file itself", "run: git lfs pull"),
    ),
)
_MARKUP = (b"<!doctype html", b"<html", b"<?xml")


def _recognise(head: bytes) -> _Mistake | None:
    """The kind of a file that begins with ``head``, if it is known not to be a pickle."""
    if not head:
        return _Mistake("an empty file", "copy or download the file again")
    for signature, mistake in _SIGNATURES:
        if head.startswith(signature):
            return mistake
    if head.lstrip().lower().startswith(_MARKUP):
        return _Mistake("a web page", "download the file itself (the raw file, not its page)")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27:
        return _Mistake("a safetensors file (weights without a learner)", EXPORT)
    return None
