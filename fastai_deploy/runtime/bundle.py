"""Reads the unpacked model folder: the manifest, the goldens, and the SHA-256 of every file.

``docs/bundle.md`` is the specification.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from .contract import Model
from .parity import Rules

FORMATS = (1, 2, 3)
"""The formats that can be read. In format 1, the graph's file holds all weights; formats 1 and 2
have one form of the model, and one tolerance for it."""
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
WORDS = "words.json"
GOLDENS = "goldens.json"
STEPS = ("drop-trailing-nul", "prefix-space")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SINGLE_LABEL = "single-label"
MULTI_LABEL = "multi-label"
KIND_TRANSFORMERS = "transformers"
KIND_WORDS = "words"
KIND_LEARNER = "learner"
# The file that turns texts into ids; an original learner does this itself.
TEXT_FILES = {KIND_TRANSFORMERS: TOKENIZER, KIND_WORDS: WORDS, KIND_LEARNER: None}
PADDED = "mask"
EQUAL_LENGTH = "equal-length"

GRAPH_SUFFIX = ".onnx"
_CPU, _GPU = "cpu", "gpu"
_CHUNK = 1 << 20
_READERS = 2
_VERSION_DIGITS = 12


class ModelError(Exception):
    """The model folder cannot be served; the message says which file or setting is wrong."""


@dataclass(frozen=True)
class Golden:
    """A text and its probabilities by label, which every form of the model must reproduce."""

    text: str
    probabilities: Mapping[str, float]


FP32, BF16, FP16, INT8, INT8_WEIGHTS = "fp32", "bf16", "fp16", "int8", "int8-weights"
LEARNER = "learner"
PRECISIONS = (INT8, INT8_WEIGHTS, BF16, FP32)
"""The forms in which a processor can compute a converted model, the fastest first.

int8            weights and activations, with one scale for each activation
int8-weights    weights; activations in groups of their own scale
bf16            the float32 model's matrices multiplied in bfloat16
fp32            float32
"""


_SLACK = 2.0  # a busy server forms other batches, on which the scales of int8 depend
_LEAST = 1e-3


@dataclass(frozen=True)
class Form:
    """A form of the model that may be served: what it computes in, and its graph.

    ``weights_file`` holds the larger weights of the graph; it is None if the graph holds them all.
    ``proven`` is false if the exporting machine could not compute it; the goldens then prove it
    where it is served. ``difference`` is the largest |Δprobability| with which the gate was passed;
    None for float32, for a form that is to be proven, and in formats 1 and 2.
    """

    precision: str
    file: str
    weights_file: Optional[str] = None
    proven: bool = True
    difference: Optional[float] = None

    def rules(self, exact: Rules, gate: Rules) -> Rules:
        """What answers in this form must keep to, given the rules for float32 and the gate's.

        A form that has passed the gate must answer as it did then. A few goldens, near ties first,
        would be off by more on average than all of them.
        """
        if self.precision in (FP32, LEARNER):
            return exact
        if self.difference is None:
            return gate
        return Rules(most=max(_SLACK * self.difference, _LEAST))


@dataclass(frozen=True)
class Bundle:
    """The parts of the manifest that serving needs.

    ``max_length`` is in tokens, including special ones. ``kind`` selects what turns texts into ids.
    ``gpu``: the graph is meant for a GPU. ``runtime`` tells how to load an original learner; it is
    empty for a converted one. ``unproven``: part of the conversion is proven neither by the
    learner's file nor by its own answers. ``forms`` are those that may be served, the last one on
    any processor; ``form`` is the one that is. ``exact`` holds for float32, ``reduced`` for others.
    ``files`` has the SHA-256 of each file, by its path in the folder.
    """

    folder: Path
    name: str
    version: str
    labels: Tuple[str, ...]
    threshold: Optional[float]
    steps: Tuple[str, ...]
    max_length: int
    equal_length: bool
    pad_token_id: int
    inputs: Tuple[str, ...]
    output: str
    forms: Tuple[Form, ...]
    form: Form
    exact: Rules
    reduced: Rules
    kind: str = KIND_TRANSFORMERS
    gpu: bool = False
    runtime: Mapping[str, Any] = field(default_factory=dict)
    unproven: bool = False
    files: Mapping[str, str] = field(default_factory=dict)

    def serving(self, form: Form) -> Bundle:
        """The same bundle, served in another form."""
        return replace(self, form=form)

    @property
    def rules(self) -> Rules:
        """What the answers to the goldens must keep to."""
        return self.form.rules(self.exact, self.reduced)

    @property
    def model_bytes(self) -> int:
        """The size of the graph and its weights file."""
        names = (self.form.file, self.form.weights_file)
        return sum((self.folder / name).stat().st_size for name in names if name)

    def require_memory(
        self, available: Optional[int], factor: float, where: str = "memory"
    ) -> None:
        """Raise ModelError if the model, ``factor`` times its files, is larger than what there is.

        ``available`` is in bytes, None if it is not known.
        """
        needed = int(self.model_bytes * factor)
        if available is not None and needed > available:
            raise ModelError(
                f"{self.form.file} needs about {needed >> 20} MB of {where}, "
                f"but only {available >> 20} MB are available"
            )

    @property
    def answered_as(self) -> Model:
        """The model as described in the answers."""
        return Model(self.name, self.version, self.threshold, self.unproven, self.form.precision)


def check_names(what: str, expected: Sequence[str], found: Sequence[str]) -> None:
    """Raise ModelError if the names in a graph differ from those in the manifest."""
    if sorted(expected) != sorted(found):
        raise ModelError(
            f"the {what} of the graph are {list(found)}, but the manifest has {list(expected)}"
        )


def weights_file(graph: str) -> str:
    """The name of the file with a graph's larger weights, in ONNX's external data format."""
    return f"{graph}.data"


def open_bundle(folder: Path, version: Optional[str] = None) -> Bundle:
    """Read the manifest and check every file that it lists against its SHA-256.

    ``version`` names the artifact; the default is the manifest's hash. Raises ModelError.
    """
    bundle = read_bundle(folder, version)
    check_files(bundle)
    return bundle


def read_bundle(folder: Path, version: Optional[str] = None) -> Bundle:
    """The same, without a look at the files. Raises ModelError."""
    raw = _read(folder / MANIFEST)
    manifest = _object(_json(raw, MANIFEST), MANIFEST)
    if manifest.get("format") not in FORMATS:
        raise ModelError(f"{MANIFEST} has a format that this server does not know")
    bundle = _bundle(folder, manifest, version or hashlib.sha256(raw).hexdigest()[:_VERSION_DIGITS])
    text_file = TEXT_FILES[bundle.kind]
    graphs = [form.file for form in bundle.forms]
    for name in [*graphs, GOLDENS, *([text_file] if text_file else [])]:
        if name not in bundle.files:
            raise ModelError(f"{MANIFEST} does not list {name}, so the file cannot be verified")
    return bundle


def check_files(bundle: Bundle) -> None:
    """Check every file that the manifest lists against its SHA-256. Raises ModelError."""

    def differs(name: str) -> bool:
        return _sha256(bundle.folder / name) != bundle.files[name]

    # Hashing is done without the interpreter's lock, so two cores take half the time.
    with ThreadPoolExecutor(_READERS) as readers:
        for name, wrong in zip(bundle.files, readers.map(differs, bundle.files)):  # noqa: B905  # not in Python 3.8
            if wrong:
                raise ModelError(f"{name} does not match {MANIFEST}: its SHA-256 differs")


def read_goldens(bundle: Bundle) -> Tuple[Golden, ...]:
    """The goldens, at least one. Raises ModelError."""
    content = _object(_json(_read(bundle.folder / GOLDENS), GOLDENS), GOLDENS)
    try:
        goldens = tuple(
            Golden(str(each["text"]), {str(k): float(v) for k, v in each["probabilities"].items()})
            for each in content["goldens"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{GOLDENS} is damaged ({type(error).__name__})") from None
    if not goldens:
        raise ModelError(f"{GOLDENS} holds no goldens, so the model cannot be verified")
    return goldens


def _bundle(folder: Path, manifest: Mapping[str, Any], version: str) -> Bundle:
    try:
        task, text, model = manifest["task"], manifest["text"], manifest["model"]
        forms = _forms(manifest)
        exact, reduced = _rules(manifest)
        bundle = Bundle(
            folder=folder,
            name=str(manifest["name"]),
            version=version,
            labels=tuple(str(label) for label in manifest["labels"]),
            threshold=float(manifest["threshold"]) if task == MULTI_LABEL else None,
            steps=tuple(text["steps"]),
            max_length=int(text["max_length"]),
            equal_length=_known("text.padding", text["padding"], (PADDED, EQUAL_LENGTH))
            == EQUAL_LENGTH,
            pad_token_id=int(text.get("pad_token_id") or 0),
            inputs=tuple(model["inputs"]),
            output=str(model["output"]),
            forms=forms,
            form=forms[-1],
            exact=exact,
            reduced=reduced,
            kind=str(text["kind"]),
            gpu=_known("model.device", model.get("device", _CPU), (_CPU, _GPU)) == _GPU,
            runtime=dict(manifest.get("runtime") or {}),
            unproven=bool(manifest.get("unproven")),
            files=_files(_object(manifest.get("files"), f"{MANIFEST}: files")),
        )
    except KeyError as error:
        raise ModelError(f"{MANIFEST} lacks the key {error.args[0]!r}") from None
    except (TypeError, ValueError, AttributeError):
        raise ModelError(f"{MANIFEST} holds a value of the wrong type") from None
    _known("task", task, (SINGLE_LABEL, MULTI_LABEL))
    kinds = (KIND_LEARNER,) if bundle.runtime else (KIND_TRANSFORMERS, KIND_WORDS)
    _known("text.kind", bundle.kind, kinds)
    for step in bundle.steps:
        _known("text.steps", step, STEPS)
    for name in bundle.inputs:
        _known("model.inputs", name, INPUTS)
    for form in bundle.forms:
        _known("model.forms", form.precision, (*PRECISIONS, LEARNER))
        if not bundle.runtime and not form.file.endswith(GRAPH_SUFFIX):
            raise ModelError(f"{MANIFEST} has a model file that is not a graph: {form.file!r}")
    if not bundle.labels or len(set(bundle.labels)) != len(bundle.labels):
        raise ModelError(f"{MANIFEST} has no labels, or duplicate ones")
    return bundle


def _forms(manifest: Mapping[str, Any]) -> Tuple[Form, ...]:
    """The forms of the model. Raises KeyError, TypeError or ModelError."""
    model = manifest["model"]
    listed = _object(manifest.get("files"), f"{MANIFEST}: files")
    entries = model.get("forms") or [
        {
            "file": model["file"],
            "precision": LEARNER if manifest.get("runtime") else model.get("precision", FP32),
        }
    ]
    forms = []
    for entry in entries:
        name = str(entry["file"])
        beside = weights_file(name)
        forms.append(
            Form(
                precision=str(entry["precision"]),
                file=name,
                weights_file=beside if beside in listed else None,
                proven=bool(entry.get("proven", True)),
                difference=None if entry.get("difference") is None else float(entry["difference"]),
            )
        )
    return tuple(forms)


def _rules(manifest: Mapping[str, Any]) -> Tuple[Rules, Rules]:
    """The rules for float32, and for forms with fewer bits. Raises KeyError or TypeError."""
    tolerance = float(manifest["tolerance"])
    if "gate" not in manifest:
        return Rules.exact(tolerance), Rules.tied(tolerance)
    limits = {
        name: None if limit is None else float(limit)
        for name, limit in manifest["gate"].items()
        if name in ("margin", "mean", "p99")
    }
    return Rules.exact(tolerance), Rules(**limits)


def _known(key: str, value: Any, known: Tuple[str, ...]) -> Any:
    if value not in known:
        raise ModelError(f"{MANIFEST} has a {key} that this server does not know: {value!r}")
    return value


def _files(listed: Mapping[str, Any]) -> Dict[str, str]:
    """The SHA-256 of each file; empty, which is none, for an entry that has no hash."""
    for name in listed:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ModelError(f"{MANIFEST} lists a file outside the model folder: {name!r}")
    return {
        name: str(entry.get("sha256", "")) if isinstance(entry, dict) else ""
        for name, entry in listed.items()
    }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(_CHUNK), b""):
                digest.update(chunk)
    except OSError as error:
        raise _unreadable(path, error) from None
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> ModelError:
    if isinstance(error, FileNotFoundError):
        return ModelError(f"{path.name} is missing from the model folder {path.parent}")
    return ModelError(f"{path} cannot be read: {error.strerror}")


def _json(raw: bytes, name: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise ModelError(f"{name} is damaged: it is not JSON") from None


def _object(value: Any, name: str) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise ModelError(f"{name} is not a JSON object")
    return value
