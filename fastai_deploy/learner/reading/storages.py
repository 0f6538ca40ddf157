"""Where the numbers of a learner lie: tensor storages as torch's persistent ids describe them."""

from __future__ import annotations

from dataclasses import dataclass

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.reading.sources import Source, truncated
from fastai_deploy.learner.reading.values import Call, Global, Persistent

# torch's storage classes: the name of the data type, and its bytes per element.
DTYPES: dict[str, tuple[str, int]] = {
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "DoubleStorage": ("float64", 8),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "UntypedStorage": ("uint8", 1),
}
ITEM_SIZE = dict(DTYPES.values())


class Storage:
    """``count`` elements of ``dtype``; ``data`` holds them once their place is known.

    ``start`` is the element of the storage at which a view of it begins, 0 for the storage itself;
    ``device`` is where they lived when they were saved, such as ``cuda:0``.
    """

    __slots__ = ("count", "data", "device", "dtype", "key", "start")

    def __init__(self, key: str, dtype: str, count: int, device: str, start: int = 0) -> None:
        self.key = key
        self.dtype = dtype
        self.count = count
        self.device = device
        self.start = start
        self.data: Source | None = None

    @property
    def item_size(self) -> int:
        """Bytes per element."""
        return ITEM_SIZE[self.dtype]

    def read(self, first: int, count: int) -> bytes:
        """The bytes of ``count`` elements from element ``first``. Raises LearnerTruncated."""
        if self.data is None:
            raise truncated(f"the weights of storage {self.key} are not in the file")
        return self.data.read((self.start + first) * self.item_size, count * self.item_size)


@dataclass(frozen=True)
class EmbeddedSource:
    """The source text of a class, as torch before 1.6 stored it beside the class's name."""

    name: Global
    file: str
    text: str


class PersistentIds:
    """Turns torch's persistent ids into storages and classes, and keeps what it met."""

    def __init__(self) -> None:
        self.storages: dict[str, list[Storage]] = {}
        self.sources: dict[Global, EmbeddedSource] = {}

    def load(self, pid: object) -> object:
        """The value of a persistent id. Raises LearnerTruncated or UnsupportedLearner."""
        match pid:
            case ("module", (Global() | Call()) as cls, file, text):
                if isinstance(cls, Global) and isinstance(file, str) and isinstance(text, str):
                    self.sources.setdefault(cls, EmbeddedSource(cls, file, text))
                return cls
            case ("storage", kind, str(key), str(device), int(count), *view):
                return self._storage(kind, key, device, count, view[0] if view else None)
            case _:
                return Persistent(pid)

    def _storage(self, kind: object, key: str, device: str, count: int, view: object) -> Storage:
        dtype = storage_dtype(kind)
        if count < 0:
            raise truncated(f"storage {key} has {count} elements")
        match view:
            case (_, int(start), int(size)):
                if start < 0 or size < 0 or start + size > count:
                    raise truncated(f"a view lies outside storage {key}")
                storage = Storage(key, dtype, size, device, start)
            case _:
                storage = Storage(key, dtype, count, device)
        self.storages.setdefault(key, []).append(storage)
        return storage


def storage_dtype(kind: object) -> str:
    """The data type of a storage class. Raises UnsupportedLearner for one that is not served."""
    if isinstance(kind, Global) and kind.module.split(".")[0] == "torch" and kind.name in DTYPES:
        return DTYPES[kind.name][0]
    raise UnsupportedLearner(
        f"the learner keeps numbers in a {kind if isinstance(kind, Global) else 'storage'}, "
        "which fdeploy cannot read",
        hint="convert the model to float32 before learn.export() (learn.model.float())",
    )
