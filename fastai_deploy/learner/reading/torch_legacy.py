"""The file format of torch before 1.6, which a plain pickle also uses for each of its tensors.

In order: a magic number, the protocol, the system, the pickle itself, the keys of its storages
(five pickles), then for each key the number of elements (8 bytes) and the elements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastai_deploy.errors import (
    DangerousLearner,
    LearnerError,
    LearnerTooComplex,
    UnsupportedLearner,
)
from fastai_deploy.learner.reading.machine import Pickled, read_pickle
from fastai_deploy.learner.reading.sources import BytesSource, Slice, Source, truncated
from fastai_deploy.learner.reading.state import Limits
from fastai_deploy.learner.reading.storages import DTYPES, PersistentIds, Storage
from fastai_deploy.learner.reading.stream import Stream
from fastai_deploy.learner.reading.values import Blob, Call, Global, Mapping, Sequence
from fastai_deploy.learner.reading.views import data

if TYPE_CHECKING:
    from collections.abc import Iterable

MAGIC = 0x1950A86A20F9469CFC6C  # what torch.save writes first
PROTOCOL = 1001
LOAD_FROM_BYTES = Global("torch.storage", "_load_from_bytes")

# A storage on its own takes about 30 opcodes.
NESTED_LIMITS = Limits(steps=2_000, memory=1 << 16)
_SHARED = 1 << 18  # bytes that may be read twice
_NESTED_MODULES = frozenset({"collections", "torch", "torch.cuda", "torch.storage"})
_NESTED_NAMES = frozenset({"OrderedDict", *DTYPES})


def read_legacy(stream: Stream, ids: PersistentIds, limits: Limits | None) -> Pickled:
    """Read what follows the magic number, and tell each storage its place.

    Raises LearnerTruncated, UnsupportedLearner and what ``read_pickle`` raises.
    """
    if _read_plain(stream, limits) != PROTOCOL:
        raise truncated("the file is of a torch format that no version of torch writes")
    system = _read_plain(stream, limits)
    if isinstance(system, Mapping) and _is_big_endian(system):
        raise big_endian()
    pickled = read_pickle(stream, persistent_load=ids.load, limits=limits)
    keys = _read_plain(stream, limits)
    if not isinstance(keys, Sequence):
        raise truncated("the list of storages is missing")
    for key in keys.items:
        _place(stream, ids, key)
    for key, found in ids.storages.items():
        if any(storage.data is None for storage in found):
            raise truncated(f"the weights of storage {key} are not in the file")
    return pickled


def _read_plain(stream: Stream, limits: Limits | None) -> object:
    """One of the small pickles around the learner's own."""
    pickled = read_pickle(stream, limits=limits)
    refuse_code(pickled)
    return pickled.root


def refuse_code(pickled: Pickled) -> None:
    """Raise DangerousLearner for a pickle that should hold numbers and text, and imports or calls.

    Loading reads it like the others, and so would run it.
    """
    if pickled.globals or pickled.calls or pickled.patched:
        name = next(iter(pickled.globals), "something")
        raise DangerousLearner(
            f"in front of the learner or behind it is a pickle that would import {name}; "
            "nothing was run",
            hint="do not load this file; ask where it comes from",
        )


def read_nested(calls: Iterable[Call], size: int) -> dict[int, Storage]:
    """The storages that a plain pickle of ``size`` bytes carries, by the call that loads each.

    Raises a LearnerError for one that is damaged or that holds more than numbers, and for many that
    are the same bytes of the file.
    """
    found: dict[int, Storage] = {}
    left = size + _SHARED
    for call in calls:
        if call.func == LOAD_FROM_BYTES:
            source = _nested_source(call)
            left -= source.size
            if left < 0:
                raise LearnerTooComplex(
                    "the tensors within the pickle are more bytes than the file has",
                    hint="the file is damaged or was made to do harm; export the learner again",
                )
            found[id(call)] = _nested(source)
    return found


def big_endian() -> UnsupportedLearner:
    """The error for numbers whose bytes are in the other order."""
    return UnsupportedLearner(
        "the learner was saved on a big-endian machine",
        hint="export it on a little-endian one (any x86 or ARM machine)",
    )


def _is_big_endian(system: Mapping) -> bool:
    return any(key == "little_endian" and value is False for key, value in system.pairs)


def _nested(source: Source) -> Storage:
    ids = PersistentIds()
    stream = Stream(source)
    try:
        if _read_plain(stream, NESTED_LIMITS) != MAGIC:
            raise truncated("a tensor within the pickle is of an unknown format")
        pickled = read_legacy(stream, ids, NESTED_LIMITS)
    except LearnerError as error:
        raise type(error)(
            f"in a tensor within the pickle: {error.message}", hint=error.hint
        ) from error
    strange = [
        name
        for name in pickled.globals
        if name.name not in _NESTED_NAMES or name.module not in _NESTED_MODULES
    ]
    if strange or not isinstance(pickled.root, Storage):
        raise DangerousLearner(
            "a tensor within the pickle is a pickle of its own "
            f"({strange[0] if strange else 'without numbers'}); nothing was run",
            hint="do not load this file; ask where it comes from",
        )
    return pickled.root


def _nested_source(call: Call) -> Source:
    match call.args:
        case (Blob() as blob,):
            return Slice(blob.source, blob.offset, blob.size)
        case (value,) if (held := data(value)) is not None:
            return BytesSource(held)
    raise truncated("a tensor within the pickle holds no bytes")


def _place(stream: Stream, ids: PersistentIds, key: object) -> None:
    """Give the storages called ``key`` the bytes that come next in the file."""
    found = ids.storages.get(key) if isinstance(key, str) else None
    if not found:
        raise truncated("the file holds weights that nothing refers to")
    count = int.from_bytes(stream.read(8), "little", signed=True)
    item_size = found[0].item_size
    if any(count < s.start + s.count or s.item_size != item_size for s in found):
        raise truncated(f"the weights of storage {key} are incomplete")
    placed = Slice(stream.source, stream.offset, count * item_size)
    stream.skip(placed.size)
    for storage in found:
        storage.data = placed
