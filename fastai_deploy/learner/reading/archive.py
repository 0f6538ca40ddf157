"""Opening a learner in any format that ``learn.export()`` ever wrote.

    zip      torch 1.6 and later (``torch_zip``)
    legacy   torch before 1.6 (``torch_legacy``)
    plain    a pickle written without torch; each of its tensors is a legacy file within it

Nothing of the weights is read here: a storage only learns where its numbers lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastai_deploy.errors import LearnerTruncated, NotALearner, NotAPickle
from fastai_deploy.learner.reading.machine import Pickled, read_pickle
from fastai_deploy.learner.reading.signatures import EXPORT, recognise
from fastai_deploy.learner.reading.sources import FileSource, Source
from fastai_deploy.learner.reading.state import Limits, limits_of
from fastai_deploy.learner.reading.storages import EmbeddedSource, PersistentIds, Storage
from fastai_deploy.learner.reading.stream import Stream
from fastai_deploy.learner.reading.torch_legacy import MAGIC, read_legacy, read_nested, refuse_code
from fastai_deploy.learner.reading.torch_zip import read_torch_zip

Format = Literal["zip", "legacy", "plain"]


@dataclass(frozen=True, eq=False, repr=False)
class Archive:
    """A learner file, read.

    ``sources`` are the classes whose source text it embeds; ``nested`` are the storages that a
    plain pickle carries as files of their own, by the identity of the call that would load them.
    """

    format: Format
    pickled: Pickled
    sources: tuple[EmbeddedSource, ...]
    nested: dict[int, Storage]


@contextmanager
def open_archive(path: Path, limits: Limits | None = None) -> Iterator[tuple[FileSource, Archive]]:
    """Read the learner at ``path``; its tensors can be read until the block ends.

    Raises FileMissing, FileDenied or FileError, and for whatever is in the file a LearnerError.
    """
    source = FileSource(path)
    try:
        yield source, read_archive(source, limits)
    finally:
        source.close()


def read_archive(source: Source, limits: Limits | None = None) -> Archive:
    """Read a learner. Raises a LearnerError and nothing else, whatever the bytes are."""
    limits = limits or limits_of(source.size)
    head = source.read(0, min(source.size, 512))
    ids = PersistentIds()
    if head.startswith(b"PK\x03\x04"):
        pickled = read_torch_zip(source, ids, limits)
        return _archive("zip", pickled, ids, source.size)
    known = recognise(head)
    if known is not None:
        raise NotAPickle(f"this is {known.what}, not a learner", hint=known.hint)
    stream = Stream(source)
    first = _first_pickle(stream, ids, limits, sure=head.startswith(b"\x80"))
    if type(first.root) is int and first.root == MAGIC:
        refuse_code(first)
        pickled = read_legacy(stream, ids, limits)
        _refuse_more(stream, "its end")
        return _archive("legacy", pickled, ids, source.size)
    _refuse_more(stream, "the first pickle in it")
    return _archive("plain", first, ids, source.size)


def _archive(kind: Format, pickled: Pickled, ids: PersistentIds, size: int) -> Archive:
    nested = read_nested(pickled.calls, size)
    return Archive(kind, pickled, tuple(ids.sources.values()), nested)


def _refuse_more(stream: Stream, after: str) -> None:
    """Raise NotALearner where a second learner may follow: torch would read the first alone."""
    if stream.left:
        raise NotALearner(
            f"the file goes on for {stream.left:,} bytes after {after}",
            hint="export one learner to a file of its own with learn.export()",
        )


def _first_pickle(stream: Stream, ids: PersistentIds, limits: Limits, *, sure: bool) -> Pickled:
    """Read the first pickle; a file that does not even begin as one is no damaged pickle."""
    try:
        return read_pickle(stream, persistent_load=ids.load, limits=limits)
    except LearnerTruncated as error:
        if sure:
            raise
        raise NotAPickle("the file is no pickle", hint=EXPORT) from error
