"""``manifest.json``: how to serve a bundle, where it came from, and the hashes of its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from fastai_deploy.json_reader import Reader
from fastai_deploy.runtime.bundle import FORMATS, MULTI_LABEL, PRECISIONS, Form
from fastai_deploy.runtime.bundle import LEARNER as LEARNER_PRECISION
from fastai_deploy.runtime.parity import REDUCED, Rules

Activation = Literal["softmax", "sigmoid"]

KIND = "learner"  # text.kind and runtime.kind of an original learner
LEARNER = "learner.pkl"
REQUIREMENTS = "requirements.txt"
LOCK = "requirements.lock"  # the packages of the environment in which the goldens were checked


@dataclass(frozen=True)
class RuntimeSpec:
    """How to load the original learner.

    ``python`` is the version that it needs (``3.11``), ``fastai`` the major version.
    ``definitions`` is the bundle's file with the user's classes; the pickle looks up those in
    ``names`` in ``__main__``. ``activation`` turns raw scores into probabilities, if the learner
    returns raw scores.
    """

    python: str
    fastai: str
    definitions: str | None
    names: tuple[str, ...]
    activation: Activation | None
    kind: str = KIND


FORMAT = 3
EXPORT_AGAIN = "run fdeploy export again"

Task = Literal["single-label", "multi-label"]
Padding = Literal["mask", "equal-length"]


@dataclass(frozen=True)
class TextSpec:
    """How a text becomes the model's input; ``max_length`` is in tokens."""

    kind: str
    steps: tuple[str, ...]
    max_length: int
    padding: Padding
    pad_token_id: int


@dataclass(frozen=True)
class ModelSpec:
    """The graphs: int64 inputs of shape (batch, sequence), one float32 output (batch, labels).

    ``forms`` are those that may be served, the fastest first; the last one runs on any processor.
    ``gpu`` is the file of the graph that runs on a GPU, None if there is none.
    """

    forms: tuple[Form, ...]
    inputs: tuple[str, ...]
    output: str
    architecture: str
    parameters: int
    gpu: str | None = None


@dataclass(frozen=True)
class LearnerSpec:
    """The learner that a bundle was made from; ``fastai`` is the major version.

    A folder of transformers has no fastai, and its hash is that of its files' names and hashes.
    ``hub`` is ``owner/name@commit`` if it came from the Hugging Face Hub, and omitted if not.
    """

    file: str
    sha256: str
    bytes: int
    fastai: str
    hub: str = ""


@dataclass(frozen=True)
class Provenance:
    """Where a bundle came from: the learner, and the libraries that converted it."""

    learner: LearnerSpec
    converter: Mapping[str, str]


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """All of ``manifest.json``; ``threshold`` is None for single-label models.

    ``tolerance`` is that of float32, ``gate`` holds the rules for forms with fewer bits.
    ``unproven`` lists what neither the learner's file nor its own answers prove; the key is omitted
    if the list is empty. ``runtime`` is None for a converted learner, and the key is then omitted.
    """

    name: str
    task: Task
    labels: tuple[str, ...]
    threshold: float | None
    text: TextSpec
    model: ModelSpec
    tolerance: float
    residues: tuple[str, ...]
    provenance: Provenance
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    format: int = FORMAT
    runtime: RuntimeSpec | None = None
    unproven: tuple[str, ...] = ()
    gate: Rules = REDUCED

    @property
    def several(self) -> bool:
        """Whether several labels may apply to a text."""
        return self.task == MULTI_LABEL

    def rules(self, precision: str) -> Rules:
        """What answers computed in a precision must keep to."""
        known = (form for form in self.model.forms if form.precision == precision)
        return next(known, Form(precision, "")).rules(Rules.exact(self.tolerance), self.gate)

    def listing(self, files: Mapping[str, FileEntry]) -> Manifest:
        """The same with these files."""
        return replace(self, files=dict(files))


def render_manifest(manifest: Manifest) -> bytes:
    """The bytes of ``manifest.json``; the same manifest gives the same bytes."""
    values = asdict(manifest)
    values["model"]["forms"] = [form_entry(form) for form in manifest.model.forms]
    del values["gate"]["most"]  # only float32 has one, the tolerance
    if manifest.runtime is None:
        del values["runtime"]
    if not manifest.unproven:
        del values["unproven"]
    if not manifest.provenance.learner.hub:
        del values["provenance"]["learner"]["hub"]
    text = json.dumps(values, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False)
    return text.encode("utf-8") + b"\n"


def form_entry(form: Form) -> dict[str, Any]:
    """An entry of ``model.forms``."""
    values = asdict(form)
    del values["weights_file"]  # the name follows from the graph's
    return values


def parse_manifest(value: Any, where: str) -> Manifest:
    """Parse and check a manifest. Raises FileError with the key and what is wrong with it."""
    top = Reader(value, where, EXPORT_AGAIN)
    if top.value.get("format") not in FORMATS:
        top.wrong("format", f"this fdeploy reads formats {', '.join(map(str, FORMATS))}")
    text, model = top.section("text"), top.section("model")
    provenance = top.section("provenance")
    learner = provenance.section("learner")
    converter = provenance.section("converter")
    files = top.section("files")
    manifest = Manifest(
        name=top.text("name"),
        task="multi-label"
        if top.choice("task", "single-label", "multi-label") == "multi-label"
        else "single-label",
        labels=top.texts("labels"),
        threshold=top.number("threshold") if top.has("threshold") else None,
        text=TextSpec(
            kind=text.text("kind"),
            steps=text.texts("steps"),
            max_length=text.whole("max_length"),
            padding="mask"
            if text.choice("padding", "mask", "equal-length") == "mask"
            else "equal-length",
            pad_token_id=text.whole("pad_token_id"),
        ),
        model=ModelSpec(
            forms=_forms(model, original="runtime" in top.value),
            inputs=model.texts("inputs"),
            output=model.text("output"),
            architecture=model.text("architecture"),
            parameters=model.whole("parameters"),
            gpu=model.text("gpu") if model.has("gpu") else None,
        ),
        tolerance=top.number("tolerance"),
        residues=top.texts("residues"),
        provenance=Provenance(
            LearnerSpec(
                file=learner.text("file"),
                sha256=learner.text("sha256"),
                bytes=learner.whole("bytes"),
                fastai=learner.text("fastai"),
                hub=learner.text("hub") if learner.has("hub") else "",
            ),
            {name: converter.text(name) for name in converter.value},
        ),
        files={
            name: FileEntry(files.section(name).text("sha256"), files.section(name).whole("bytes"))
            for name in files.value
        },
        runtime=_runtime(top.section("runtime")) if "runtime" in top.value else None,
        unproven=top.texts("unproven") if "unproven" in top.value else (),
        format=top.whole("format"),
        gate=_gate(top),
    )
    _check(top, manifest)
    return manifest


def _forms(model: Reader, *, original: bool) -> tuple[Form, ...]:
    """The forms of the model; formats 1 and 2 have one."""
    if not model.has("forms"):
        return (
            Form(LEARNER_PRECISION if original else model.text("precision"), model.text("file")),
        )
    known = (LEARNER_PRECISION,) if original else PRECISIONS
    return tuple(
        Form(
            precision=each.choice("precision", *known),
            file=each.text("file"),
            proven=each.truth("proven"),
            difference=each.number("difference") if each.has("difference") else None,
        )
        for each in model.sections("forms")
    )


def _gate(top: Reader) -> Rules:
    if not top.has("gate"):
        return Rules.tied(top.number("tolerance"))
    gate = top.section("gate")
    return Rules(
        margin=gate.number("margin") if gate.has("margin") else None,
        mean=gate.number("mean") if gate.has("mean") else None,
        p99=gate.number("p99") if gate.has("p99") else None,
    )


def _runtime(section: Reader) -> RuntimeSpec:
    activation: Activation | None = None
    if section.has("activation"):
        chosen = section.choice("activation", "softmax", "sigmoid")
        activation = "softmax" if chosen == "softmax" else "sigmoid"
    return RuntimeSpec(
        python=section.text("python"),
        fastai=section.text("fastai"),
        definitions=section.text("definitions") if section.has("definitions") else None,
        names=section.texts("names"),
        activation=activation,
        kind=section.choice("kind", KIND),
    )


def _check(top: Reader, manifest: Manifest) -> None:
    if not manifest.labels or len(set(manifest.labels)) != len(manifest.labels):
        top.wrong("labels", "there must be at least one label, and no duplicates")
    if (manifest.threshold is not None) != (manifest.task == "multi-label"):
        top.wrong("threshold", "multi-label models need a number, single-label models null")
    if not 0 < manifest.tolerance < 1:
        top.wrong("tolerance", "it must be between 0 and 1")
    if "input_ids" not in manifest.model.inputs and manifest.runtime is None:
        top.wrong("model.inputs", "input_ids is missing")
    if not manifest.model.forms:
        top.wrong("model.forms", "there must be at least one")
    for form in manifest.model.forms:
        if form.file not in manifest.files:
            top.wrong("files", f"{form.file} is missing")
    for name in manifest.files:
        if name.startswith(".") or "/" in name or "\\" in name:
            top.wrong("files", f"{name!r} is not a valid file name in a bundle")
