"""Tensors described by a pickle: views of storages, whose numbers are read on demand.

torch's persistent ids describe the storages, its ``_rebuild_*`` calls the views.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingType
from dataclasses import dataclass

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.reading.graph import Call, Global, Persistent, class_name
from fastai_deploy.learner.reading.sources import Source, truncated

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
MAX_DIMENSIONS = 64  # as in torch
MAX_WRAPPERS = 8  # a parameter of a subclass of a view has three

_WRAPPERS = frozenset({"_rebuild_parameter", "_rebuild_parameter_with_state"})
_SUBCLASSES = frozenset({"_rebuild_from_type", "_rebuild_from_type_v2"})
_VIEWS = frozenset({"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"})


class Storage:
    """``count`` elements of ``dtype``; ``data`` holds them once they are located.

    ``start`` is the element at which a view of the storage begins, 0 for the storage itself;
    ``device`` is where it was when it was saved, such as ``cuda:0``.
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
    """The source text of a class, which torch before 1.6 stored next to the class's name."""

    name: Global
    file: str
    text: str


class PersistentIds:
    """Turns torch's persistent ids into storages and classes, and records them."""

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
        f"the learner stores numbers in a {kind if isinstance(kind, Global) else 'storage'}, "
        "which fdeploy cannot read",
        hint="convert the model to float32 before learn.export() (learn.model.float())",
    )


@dataclass(frozen=True, eq=False)
class Tensor:
    """A strided view: ``offset`` and ``stride`` count elements of the storage.

    ``trainable`` is true for parameters that were not frozen.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    trainable: bool

    @property
    def dtype(self) -> str:
        """Name of the data type, as in ``torch``."""
        return self.storage.dtype

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the elements."""
        return self.count * self.storage.item_size

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in the storage in order, without gaps."""
        expected = 1
        for length, step in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if length != 1 and step != expected:
                return False
            expected *= length
        return True

    @property
    def span(self) -> int:
        """Number of elements of the storage from the first to the last of the view."""
        if self.count == 0:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))

    def read(self) -> bytes:
        """The bytes of the ``span``, little-endian. Raises LearnerTruncated."""
        return self.storage.read(self.offset, self.span)


def tensor(value: object, nested: MappingType[int, Storage]) -> Tensor | None:
    """The tensor that a value describes; None for anything else.

    Raises LearnerTruncated for one outside its storage, and UnsupportedLearner for a kind of tensor
    (quantized, sparse, on the meta device) that cannot be served.
    """
    trainable: bool | None = None
    for _ in range(MAX_WRAPPERS):
        if not isinstance(value, Call) or not isinstance(value.func, Global):
            return None
        func = value.func
        name = func.name
        if name in _VIEWS:
            return _view(value, nested, trainable=trainable)
        if name in _WRAPPERS and value.args:
            trainable = value.args[1] is True if len(value.args) > 1 else True
            value = value.args[0]
        elif name in _SUBCLASSES:
            value = _inner(value)
        elif name.startswith("_rebuild_") and func.module.startswith("torch"):
            raise UnsupportedLearner(
                f"the learner contains a special kind of tensor ({name.removeprefix('_rebuild_')})",
                hint="make its weights plain float32 tensors before learn.export()",
            )
        else:
            return None
    return None


def _inner(value: Call) -> object:
    """The tensor that a call would convert to a subclass."""
    match value.args:
        case (func, cls, tuple() as args, *_) if class_name(cls) is not None:
            return Call(func, args)
    return None


def _view(value: Call, nested: MappingType[int, Storage], *, trainable: bool | None) -> Tensor:
    match value.args:
        case (storage, int(offset), shape, stride, *rest):
            found = storage if isinstance(storage, Storage) else nested.get(id(storage))
            sizes, steps = _numbers(shape), _numbers(stride)
            if found is None or sizes is None or steps is None:
                raise truncated("a tensor in the file has no numbers")
            needs_gradient = bool(rest[0]) if rest and isinstance(rest[0], bool) else False
            made = Tensor(
                _typed(found, value, rest),
                offset,
                sizes,
                steps,
                needs_gradient if trainable is None else trainable,
            )
            _check(made)
            return made
    raise truncated("a tensor in the file has an invalid description")


def _typed(storage: Storage, value: Call, rest: list[object]) -> Storage:
    """The storage with the type given by the third version of torch's rebuild function."""
    if not isinstance(value.func, Global) or value.func.name != "_rebuild_tensor_v3":
        return storage
    dtype = rest[2] if len(rest) > 2 else None  # noqa: PLR2004 - requires_grad, hooks, dtype
    if not isinstance(dtype, Global) or dtype.name not in ITEM_SIZE:
        raise UnsupportedLearner(
            f"the learner contains numbers of an unknown type ({getattr(dtype, 'name', 'none')})",
            hint="convert the model to float32 before learn.export() (learn.model.float())",
        )
    size = storage.count * storage.item_size
    typed = Storage(storage.key, dtype.name, 0, storage.device)
    typed.count = size // typed.item_size
    typed.data = storage.data
    return typed


def _numbers(value: object) -> tuple[int, ...] | None:
    """Shape or stride: a tuple of whole numbers, or a ``torch.Size`` of one."""
    if isinstance(value, Call) and class_name(value.func) == Global("torch", "Size") and value.args:
        value = value.args[0]
    if not isinstance(value, tuple) or len(value) > MAX_DIMENSIONS:
        return None
    numbers = tuple(item for item in value if type(item) is int and item >= 0)
    return numbers if len(numbers) == len(value) else None


def _check(made: Tensor) -> None:
    if len(made.shape) != len(made.stride) or made.offset < 0:
        raise truncated("a tensor in the file has an invalid description")
    # A view that repeats elements could make a small file take any amount of memory.
    if made.offset + made.span > made.storage.count or made.count > made.storage.count:
        raise truncated("a tensor in the file lies outside its numbers")
