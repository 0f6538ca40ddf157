"""A folder that ``save_pretrained`` wrote: which of its files are read, and from where.

    config.json          the architecture and the labels
    model.safetensors    the weights; or shards and their index; or pytorch_model.bin, read by
                         fdeploy's own pickle reader
    tokenizer.json, ...  the tokenizer, in any form that transformers writes

Nothing else in the folder is opened, and nothing in it is run. A file may be a link, but only to
a file in the folder, or to the ``blobs`` of the Hub's cache that the folder belongs to.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.errors import (
    DangerousLearner,
    FileMissing,
    LearnerTruncated,
    NotALearner,
    UnsupportedLearner,
    UsageError,
)
from fastai_deploy.json_reader import Reader, read_object
from fastai_deploy.learner.reading.sources import FileSource

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
PICKLED = "pytorch_model.bin"
INDEX = ".index.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
# Every file from which a tokenizer of transformers is built, whatever its class.
TOKENIZERS = (
    "tokenizer.json", TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "spm.model",
    "sentencepiece.model", "tokenizer.model", "bpe.codes", "emoji.json",
)  # fmt: skip
VOCABULARIES = tuple(
    name for name in TOKENIZERS if not name.endswith(("_config.json", "_map.json", "merges.txt"))
)
# What push_to_hub_fastai writes: the learner, and the libraries that it needs.
LEARNER, PROJECT = "model.pkl", "pyproject.toml"
WRITE_AGAIN = "write the folder again: model.save_pretrained(DIR); tokenizer.save_pretrained(DIR)"
MOST_JSON = 64 << 20  # bytes; the largest tokenizer.json have 20 MB
MOST_SHARDS = 1_000
_SHOWN = 5
_OTHER_FORMATS = {
    "*.gguf": "GGUF", "tf_model.h5": "TensorFlow", "*.msgpack": "Flax", "*.ckpt*": "TensorFlow 1",
    "rust_model.ot": "Rust", "*.onnx": "ONNX", "adapter_model.*": "an adapter (PEFT, LoRA)",
}  # fmt: skip
ADAPTER = "adapter_config.json"
_POINTER = b"version https://git-lfs"


def learner_in(folder: Path) -> Path:
    """What to export from a folder: the folder itself, or the learner file in it.

    Raises NotALearner if there is none, UsageError if there are several, and FileError.
    """
    names = set(files.names_in(folder))
    if not folder.exists():
        raise FileMissing(f"{folder} does not exist", hint="check the path")
    pickles = sorted(name for name in names if name.endswith(".pkl"))
    pretrained = CONFIG in names and _has_architecture(folder)
    if pretrained and LEARNER in pickles:
        raise UsageError(
            f"{folder} holds two models: {LEARNER}, and the one of {CONFIG}",
            hint=f"name the file ({folder / LEARNER}), or move one of them out of the folder",
        )
    if pretrained:
        return folder
    if LEARNER in pickles and PROJECT in names:  # push_to_hub_fastai; other pickles are its data
        return folder / LEARNER
    if len(pickles) > 1:
        raise UsageError(
            f"{folder} holds {len(pickles)} learners: {listed_names(pickles)}",
            hint=f"name one of them, such as {folder / pickles[0]}",
        )
    if pickles:
        return folder / pickles[0]
    if CONFIG in names:
        return folder  # whose configuration says what is missing
    if other_formats(names):
        raise no_weights(str(folder), names)
    raise _no_model(folder, names)


def _has_architecture(folder: Path) -> bool:
    """Whether config.json describes a model; push_to_hub_fastai writes one of the user's notes."""
    held = read_config(folder).value
    return "architectures" in held or "model_type" in held


def _no_model(folder: Path, names: set[str]) -> NotALearner:
    within = sorted(
        name for name in names if (folder / name / CONFIG).is_file() and not name.startswith(".")
    )
    if within:
        return NotALearner(
            f"{folder} holds no model itself, but its folders do: {listed_names(within)}",
            hint=f"name one of them, such as {folder / within[0]}",
        )
    found = f"its files are {listed_names(sorted(names))}" if names else "it is empty"
    return NotALearner(
        f"{folder} holds neither a learner nor a model of transformers: {found}",
        hint="name a .pkl file, or a folder that model.save_pretrained() wrote",
    )


def read_config(folder: Path, name: str = CONFIG) -> Reader:
    """A JSON object in the folder. Raises FileError or DangerousLearner."""
    path = inside(folder, name)
    read = read_object(path, WRITE_AGAIN, most=MOST_JSON)
    return Reader(read.value, str(folder / name), WRITE_AGAIN)


def inside(folder: Path, name: str) -> Path:
    """The real path of a file in the folder. Raises FileError, DangerousLearner for a link out."""
    path = folder / name
    root = folder.resolve()
    with files.file_errors(path):
        real = path.resolve(strict=True)
    allowed = [root]
    if root.parent.name == "snapshots":  # of the Hub's cache
        allowed.append(root.parent.parent / "blobs")
    if not any(real.is_relative_to(each) for each in allowed):
        raise DangerousLearner(
            f"{path} is a link to {real}, outside the folder; fdeploy did not read it",
            hint="find out where this folder comes from, or replace the link with the file",
        )
    return real


@dataclass(frozen=True)
class Listing:
    """The files to read: the tokenizer's, and the weights', in the order of their names.

    ``index`` is the file that says which weight is in which shard; empty if there is one file.
    """

    tokenizer: tuple[str, ...]
    weights: tuple[str, ...]
    index: str = ""

    @property
    def every(self) -> tuple[str, ...]:
        """All of them, with config.json."""
        return (CONFIG, *self.tokenizer, *((self.index,) if self.index else ()), *self.weights)


def listing(folder: Path) -> Listing:
    """The files that the folder's model consists of, chosen as transformers does.

    Raises UnsupportedLearner if its weights are in another format only or have an adapter beside
    them, LearnerTruncated for an index that is damaged, DangerousLearner for one that names files
    elsewhere, and FileError.
    """
    names = set(files.names_in(folder))
    if CONFIG not in names:
        raise _no_model(folder, names)
    check_no_adapter(str(folder), names)
    tokenizer = tuple(name for name in TOKENIZERS if name in names)
    for single in (WEIGHTS, PICKLED):
        if single in names:
            return Listing(tokenizer, (single,))
        index = single + INDEX
        if index in names:
            return Listing(tokenizer, tuple(sorted(set(weight_map(folder, index).values()))), index)
    raise no_weights(str(folder), names)


def weight_map(folder: Path, index: str) -> dict[str, str]:
    """The file of each weight. Raises LearnerTruncated, DangerousLearner or FileError."""
    listed = read_config(folder, index).section("weight_map").value
    found: dict[str, str] = {}
    suffix = Path(index.removesuffix(INDEX)).suffix
    for name, file in listed.items():
        if not isinstance(file, str) or not file.endswith(suffix):
            raise LearnerTruncated(
                f"{folder / index} names no {suffix} file for {name[:80]!a}", hint=WRITE_AGAIN
            )
        if file != Path(file).name or "\\" in file:
            raise DangerousLearner(
                f"{folder / index} names a file outside the folder: {file[:200]!a}; fdeploy did "
                "not read it",
                hint="do not load this model; find out where it comes from",
            )
        found[name] = file
    if not found or len(set(found.values())) > MOST_SHARDS:
        raise LearnerTruncated(
            f"{folder / index} lists {len(set(found.values())):,} files", hint=WRITE_AGAIN
        )
    return found


def other_formats(names: Collection[str]) -> list[str]:
    """The kinds of weights among files, of those that are not read."""
    return [kind for pattern, kind in _OTHER_FORMATS.items() if fnmatch.filter(names, pattern)]


def check_no_adapter(where: str, names: Collection[str]) -> None:
    """Raise UnsupportedLearner for an adapter beside whole weights.

    If peft is installed, transformers adds it, and to the model that it names, which may be other
    weights than these.
    """
    if ADAPTER in names and not {WEIGHTS, PICKLED, WEIGHTS + INDEX, PICKLED + INDEX}.isdisjoint(
        names
    ):
        raise UnsupportedLearner(
            f"{where} has weights and an adapter (PEFT, LoRA) beside them, so it is not certain "
            "which answers are meant",
            hint="save the merged model in a folder of its own: "
            "model.merge_and_unload().save_pretrained(DIR); or, if the weights contain the adapter "
            f"already, remove {ADAPTER}",
        )


def no_weights(where: str, names: Collection[str]) -> UnsupportedLearner:
    """The error for a model whose files, with these names, hold no weights that can be read."""
    kinds = other_formats(names)
    if not kinds:
        return UnsupportedLearner(
            f"{where} has no weights: neither {WEIGHTS} nor {PICKLED}", hint=WRITE_AGAIN
        )
    merge = "merge it into its model with merge_and_unload(), then " if "PEFT" in kinds[0] else ""
    return UnsupportedLearner(
        f"{where} has its weights only as {' and '.join(kinds)}, which fdeploy does not read",
        hint=f"{merge}load the model with the library that wrote it, and save it for PyTorch: "
        "model.save_pretrained(DIR)",
    )


@dataclass(frozen=True, eq=False, repr=False)
class Opened:
    """The files of a folder, held open, so that what was checked is what is used."""

    path: Path
    listing: Listing
    sources: dict[str, FileSource]

    @property
    def size(self) -> int:
        """Bytes of all the files."""
        return sum(source.size for source in self.sources.values())

    def read(self, name: str) -> bytes:
        """A whole file, of at most ``MOST_JSON`` bytes. Raises FileError."""
        source = self.sources[name]
        if source.size > MOST_JSON:
            raise files.too_large(self.path / name, MOST_JSON)
        return source.read(0, source.size)

    def digest(self, notify: Callable[[int], None] = lambda _bytes: None) -> str:
        """The SHA-256 of the files' names and hashes; ``notify`` gets the bytes read so far."""
        whole, before = hashlib.sha256(), 0
        for name, source in sorted(self.sources.items()):
            done = before

            def tell(size: int, done: int = done) -> None:
                notify(done + size)

            whole.update(f"{source.digest(tell)}  {name}\n".encode())
            before += source.size
        return whole.hexdigest()

    @property
    def modified_ns(self) -> int:
        """When the last of the files was changed."""
        return max(source.fingerprint.modified_ns for source in self.sources.values())

    def check_unchanged(self) -> None:
        """Raise LearnerTruncated if a file was written to since it was opened."""
        for source in self.sources.values():
            source.check_unchanged()

    def changed(self) -> LearnerTruncated:
        """The error for a folder that has changed since it was opened."""
        return LearnerTruncated(
            f"{self.path} changed while fdeploy was reading it",
            hint="wait until it is completely written, then try again",
        )


@contextmanager
def opened_folder(folder: Path) -> Iterator[Opened]:
    """Open the files of a folder until the block ends.

    Raises FileError, DangerousLearner, LearnerTruncated, UnsupportedLearner or NotALearner.
    """
    listed = listing(folder)
    with ExitStack() as stack:
        sources: dict[str, FileSource] = {}
        for name in listed.every:
            source = FileSource(inside(folder, name))
            stack.callback(source.close)
            if source.read(0, min(source.size, len(_POINTER))) == _POINTER:
                raise LearnerTruncated(
                    f"{folder / name} is a Git LFS pointer, not the file itself",
                    hint=f"run: git -C {folder} lfs pull",
                )
            sources[name] = source
        yield Opened(folder, listed, sources)


def listed_names(names: list[str]) -> str:
    """The first names, on one line."""
    shown = ", ".join(ascii(name)[1:-1] for name in names[:_SHOWN])
    return f"{shown}, ..." if len(names) > _SHOWN else shown
