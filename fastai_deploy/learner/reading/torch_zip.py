"""The file format of torch since 1.6: a zip with ``data.pkl`` and one member for each storage."""

from __future__ import annotations

from fastai_deploy.errors import NotALearner, NotAPickle
from fastai_deploy.learner.reading.machine import Pickled, read_pickle
from fastai_deploy.learner.reading.sources import Source, truncated
from fastai_deploy.learner.reading.state import Limits
from fastai_deploy.learner.reading.storages import PersistentIds
from fastai_deploy.learner.reading.stream import Stream
from fastai_deploy.learner.reading.torch_legacy import big_endian
from fastai_deploy.learner.reading.zip_directory import (
    Inflater,
    Member,
    member_data,
    read_directory,
)

EXPORT = "export one learner to a file of its own with learn.export()"


def read_torch_zip(source: Source, ids: PersistentIds, limits: Limits) -> Pickled:
    """Read the pickle in a zip, and tell each storage its place.

    Raises NotAPickle, NotALearner, and what ``read_directory`` and ``read_pickle`` raise.
    """
    members = read_directory(source)
    inflater = Inflater()
    root = _root(members)
    byte_order = members.get(root + "byteorder")
    if byte_order is not None and _text(member_data(source, byte_order, inflater)) != "little":
        raise big_endian()
    stream = Stream(member_data(source, members[root + "data.pkl"], inflater))
    pickled = read_pickle(stream, persistent_load=ids.load, limits=limits)
    for key, storages in ids.storages.items():
        member = members.get(f"{root}data/{key}")
        if member is None:
            raise truncated(f"the weights of storage {key} are not in the file")
        data = member_data(source, member, inflater)
        for storage in storages:
            if (storage.start + storage.count) * storage.item_size > data.size:
                raise truncated(f"the weights of storage {key} are incomplete")
            storage.data = data
    return pickled


def _root(members: dict[str, Member]) -> str:
    """The folder of the archive in which the pickle lies, with its slash."""
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if not pickles:
        raise NotAPickle(
            "this is a zip file, but not one that learn.export() wrote",
            hint="unpack it and name the .pkl file in it",
        )
    if len(pickles) > 1:
        raise NotALearner("the archive holds more than one pickle", hint=EXPORT)
    root = pickles[0].removesuffix("data.pkl")
    if root + "constants.pkl" in members:
        raise NotALearner("this is a TorchScript model, not a learner", hint=EXPORT)
    return root


def _text(member: Source) -> str:
    return member.read(0, min(member.size, 16)).decode("latin-1").strip()
