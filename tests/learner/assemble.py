"""The inverse of the reader: turns a graph of records back into the bytes of a pickle.

A test uses it to take a real learner, change one thing in it, and read the result.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping as MappingType
from io import BytesIO

from fastai_deploy.learner.reading.graph import Blob, Call, Global, Mapping, Persistent, Sequence
from fastai_deploy.learner.reading.tensors import DTYPES, Storage

_STORAGE_CLASS = {name: cls for cls, (name, _) in DTYPES.items()}


class Assembler:
    """Writes protocol 2, as torch does, and preserves shared nodes and cycles."""

    def __init__(self) -> None:
        self.out = bytearray(b"\x80\x02")
        self.memo: dict[int, int] = {}
        self.kept: list[object] = []  # keeps objects alive, so that no id is reused

    def finish(self, root: object) -> bytes:
        self.write(root)
        return bytes(self.out + b".")

    def write(self, value: object) -> None:
        if id(value) in self.memo:
            self.out += b"j" + struct.pack("<I", self.memo[id(value)])
        elif isinstance(value, (Call, Mapping, Sequence)):
            self._node(value)
        elif isinstance(value, tuple):
            self._many(value)
            self.out += b"t"
            self._put(value)
        elif isinstance(value, Global):
            self.out += f"c{value.module}\n{value.name}\n".encode()
        elif isinstance(value, Storage):
            cls = Global("torch", _STORAGE_CLASS[value.dtype])
            self.write(("storage", cls, value.key, value.device, value.count))
            self.out += b"Q"
        elif isinstance(value, Persistent):
            self.write(value.pid)
            self.out += b"Q"
        elif isinstance(value, Blob):
            self.write(value.read())
        else:
            self._atom(value)

    def _atom(self, value: object) -> None:
        if isinstance(value, str):
            data = value.encode("utf-8", "surrogatepass")
            self.out += b"X" + struct.pack("<I", len(data)) + data
        elif isinstance(value, bytes):
            self.out += b"B" + struct.pack("<I", len(value)) + value
        else:
            self.out += pickle.dumps(value, 2)[2:-1]

    def _node(self, value: Call | Mapping | Sequence) -> None:
        if isinstance(value, Mapping):
            self.out += b"}"
        elif isinstance(value, Sequence):
            self.out += {"list": b"]", "set": b"\x8f", "frozenset": b"(\x91"}[value.kind]
        else:
            self.write(value.func)
            self.write(value.args)
            if value.kwargs is not None:
                self.write(value.kwargs)
            self.out += b"\x92" if value.kwargs is not None else b"\x81" if value.new else b"R"
        self._put(value)
        if not isinstance(value, Mapping) and value.items:
            self._many(tuple(value.items))
            self.out += b"\x90" if isinstance(value, Sequence) and value.kind == "set" else b"e"
        if not isinstance(value, Sequence) and value.pairs:
            self._many(tuple(part for pair in value.pairs for part in pair))
            self.out += b"u"
        for state in value.states if isinstance(value, Call) else ():
            self.write(state)
            self.out += b"b"

    def _many(self, values: tuple[object, ...]) -> None:
        self.out += b"("
        for value in values:
            self.write(value)

    def _put(self, value: object) -> None:
        if value == ():
            return
        self.memo[id(value)] = len(self.memo)
        self.kept.append(value)
        self.out += b"r" + struct.pack("<I", self.memo[id(value)])


def assemble(root: object) -> bytes:
    """The pickle of a graph."""
    return Assembler().finish(root)


def torch_zip(pickled: bytes, storages: MappingType[str, bytes], name: str = "archive") -> bytes:
    """A zip as torch writes it, around a pickle and the bytes of its storages."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{name}/data.pkl", pickled)
        for key, data in storages.items():
            archive.writestr(f"{name}/data/{key}", data)
        archive.writestr(f"{name}/version", b"3\n")
    return buffer.getvalue()


def new(module: str, name: str, state: MappingType[str, object] | None = None) -> Call:
    """An object of a class, with attributes."""
    made = Call(Global(module, name), (), new=True)
    if state is not None:
        made.states.append(mapping(state))
    return made


def mapping(entries: MappingType[str, object]) -> Mapping:
    """A dict."""
    return Mapping(list(entries.items()))


def listing(*items: object) -> Sequence:
    """A list."""
    return Sequence("list", list(items))
