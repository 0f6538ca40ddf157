"""The anatomy of a learner: everything that fdeploy can find out without loading it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fastai_deploy.errors import NotALearner, UnsupportedLearner
from fastai_deploy.learner.examine.architecture import Transformer, find_transformer, is_blurr
from fastai_deploy.learner.examine.awd_lstm import Ulmfit, facts, find_ulmfit
from fastai_deploy.learner.examine.callbacks import Callback, find_callbacks
from fastai_deploy.learner.examine.callbacks import unproven as unproven_callbacks
from fastai_deploy.learner.examine.imports import Imported
from fastai_deploy.learner.examine.labels import (
    USUAL_THRESHOLD,
    Labels,
    Loss,
    find_labels,
    find_loss,
    threshold_of,
    with_usual_activation,
    without_threshold,
)
from fastai_deploy.learner.examine.load_safety import Called, load_effects, refuse_danger
from fastai_deploy.learner.examine.modules import (
    Family,
    Module,
    Root,
    family_of,
    find_learner,
    read_modules,
    state_dict,
)
from fastai_deploy.learner.examine.unproven import RUNTIME, UNKNOWN, Forward, Unproven
from fastai_deploy.learner.examine.verdict import Findings, Verdict, definable, has_adapters, judge
from fastai_deploy.learner.reading.formats import Archive, Format, open_archive
from fastai_deploy.learner.reading.graph import Global, Plain
from fastai_deploy.learner.reading.tensors import EmbeddedSource, Tensor
from fastai_deploy.learner.text.rules import TextRules, rules_v1, rules_v2
from fastai_deploy.learner.text.tokenizer import Era, Tokenizer, find_tokenizers
from fastai_deploy.learner.text.tokenizer_json import Json, tokenizer_json
from fastai_deploy.learner.text.user_tokenizer import UserTokenizer
from fastai_deploy.learner.user_code.callback_code import CallbackSemantics
from fastai_deploy.learner.user_code.follow import (
    Followed,
    follow_batch,
    follow_model,
    follow_rest,
    follow_text,
)
from fastai_deploy.learner.user_code.objects import Objects
from fastai_deploy.learner.user_code.values import Term
from fastai_deploy.parity.goldens import Labels as GoldenLabels

_TRANSFORMERS: dict[Era, str] = {
    "2.1": "2.0 or 2.1", "2.2": "2.2 to 2.3", "2.5": "2.4 to 2.11", "3": "3 to 4.14",
}  # fmt: skip


def library_hints(
    major: int,
    file_format: Format,
    names: Iterable[Global],
    config: dict[str, Plain] | None,
    tokenizer: Tokenizer | None,
) -> dict[str, str]:
    """Maps each library to a version or a range of versions."""
    modules = {name.module for name in names}
    hints = {"fastai": _fastai(major, modules)}
    if file_format != "plain":
        hints["torch"] = "1.6 or newer" if file_format == "zip" else "older than 1.6, or saved so"
    written = (config or {}).get("transformers_version")
    if isinstance(written, str):
        hints["transformers"] = written
    elif tokenizer is not None and tokenizer.era in _TRANSFORMERS:
        hints["transformers"] = _TRANSFORMERS[tokenizer.era]
    elif any(module.startswith("transformers.models.") for module in modules):
        hints["transformers"] = "4 or newer"
    elif any(module.startswith("transformers.") for module in modules):
        hints["transformers"] = "older than 4"
    if any(module.startswith("numpy._core") for module in modules):
        hints["numpy"] = "2 or newer"
    return hints


def _fastai(major: int, modules: set[str]) -> str:
    if major == 1:
        return "1"
    if any(module.startswith("fasttransform") for module in modules):
        return "2.8 or newer"
    if any(module.startswith("fastcore.transform") for module in modules):
        return "2 before 2.8"
    return "2"


def inspect(learner: Path) -> dict[str, Any]:
    """Describe a learner file without running anything in it.

    Needs neither torch nor fastai. Raises LearnerError or FileError.
    """
    with open_archive(learner) as (source, archive):
        return summary(learner.name, examine(archive, source.size, file=learner.name))


def summary(name: str, anatomy: Anatomy) -> dict[str, Any]:
    """The anatomy of the learner in the file ``name``, ready for JSON. Sizes are in bytes."""
    return {
        "file": {"name": name, "bytes": anatomy.size, "format": anatomy.format},
        "fastai": anatomy.fastai,
        "learner_class": anatomy.learner_class,
        "libraries": anatomy.libraries,
        "python": anatomy.python,
        "task": anatomy.task,
        "labels": list(anatomy.labels.names),
        "threshold": anatomy.threshold,
        "loss": anatomy.loss.name,
        "raw_scores": anatomy.loss.raw,
        "model": _model(anatomy),
        "tokenizer": _tokenizer(anatomy),
        "text": _text(anatomy),
        "ulmfit": facts(anatomy.ulmfit) if anatomy.ulmfit else None,
        "unproven": [asdict(each) for each in anatomy.unproven],
        "callbacks": [
            {
                "class": each.cls,
                "code_in_file": each.in_file,
                "events": list(each.events),
                "effect": each.effect,
            }
            for each in anatomy.callbacks
        ],
        "imports": _imports(anatomy),
        "calls": _calls(anatomy),
        "loading": _loading(anatomy),
        "sources": [
            {"class": str(source.name), "file": source.file, "text": source.text}
            for source in anatomy.sources
        ],
        "verdict": {
            "kind": anatomy.verdict.kind,
            "reason": anatomy.verdict.reason,
            "hint": anatomy.verdict.hint,
        },
    }


def _imports(anatomy: Anatomy) -> dict[str, list[str]]:
    """The names of each of the three kinds. Among the unknown ones, ``own`` are the user's."""
    unknown = [item for item in anatomy.imports if item.kind in ("unknown", "user")]
    return {
        "dangerous": [item.name for item in anatomy.imports if item.kind == "dangerous"],
        "unknown": [item.name for item in unknown],
        "own": [item.name for item in unknown if item.own],
        "harmless": [item.name for item in anatomy.imports if item.kind == "harmless"],
    }


def _calls(anatomy: Anatomy) -> dict[str, list[str]]:
    """What loading would call, by kind, in words that follow "would"."""
    unknown = [call for call in anatomy.calls if call.kind in ("unknown", "user")]
    return {
        "dangerous": [call.what for call in anatomy.calls if call.kind == "dangerous"],
        "unknown": [call.what for call in unknown],
        "own": [call.what for call in unknown if call.kind == "user" and not call.name],
        "harmless": [call.what for call in anatomy.calls if call.kind == "harmless"],
    }


def _loading(anatomy: Anatomy) -> str:
    """The most serious kind of everything that loading would import and call."""
    if anatomy.dangers:
        return "dangerous"
    kinds = {each.kind for each in anatomy.imports} | {call.kind for call in anatomy.calls}
    return "harmless" if kinds <= {"harmless"} else "unknown"


def _model(anatomy: Anatomy) -> dict[str, Any]:
    transformer = anatomy.transformer
    return {
        "family": anatomy.family,
        "architecture": transformer.cls.name if transformer else _architecture(anatomy),
        "path": transformer.path if transformer else None,
        "head": list(transformer.head) if transformer else [],
        "outputs": _outputs(anatomy),
        "mask": transformer.forward.mask if transformer else None,
        "config": dict(transformer.config) if transformer else {},
        "parameters": anatomy.parameters,
        "bytes": anatomy.weights_size,
        "modules": [
            {
                "path": module.path,
                "class": module.cls,
                "parameters": module.parameters,
                "bytes": module.size,
            }
            for module in anatomy.modules
        ],
    }


def _architecture(anatomy: Anatomy) -> str | None:
    return "AWD_LSTM" if anatomy.ulmfit else None


def _outputs(anatomy: Anatomy) -> int | None:
    if anatomy.ulmfit:
        return anatomy.ulmfit.model.outputs
    return anatomy.transformer.outputs if anatomy.transformer else None


def _tokenizer(anatomy: Anatomy) -> dict[str, Any] | None:
    tokenizer = anatomy.tokenizer
    if tokenizer is None:
        return None
    return {
        "class": tokenizer.cls.name,
        "kind": tokenizer.kind,
        "era": tokenizer.era,
        "vocabulary": tokenizer.vocabulary_size,
        "special_tokens": {role: token.text for role, token in tokenizer.special.items()},
        "max_length": tokenizer.max_length,
    }


def _text(anatomy: Anatomy) -> dict[str, Any] | None:
    text = anatomy.text
    if text is None:
        return None
    return {
        "max_length": text.max_length,
        "rules": list(text.rules),
        "assumptions": list(text.assumptions),
    }


Task = Literal["single-label", "multi-label", "regression", "unknown"]
_TASKS: dict[str, Task] = {"one": "single-label", "several": "multi-label", "number": "regression"}


@dataclass(frozen=True)
class ModuleSize:
    """A module of the model: its parameters and bytes, including submodules and buffers."""

    path: str
    cls: str
    parameters: int
    size: int


@dataclass(frozen=True, eq=False, repr=False)
class Anatomy:
    """A learner, taken apart. ``weights`` maps the names of the model's tensors to their location.

    ``format`` is "folder", and ``fastai`` None, for a folder that ``save_pretrained`` wrote.
    ``imports`` and ``calls`` are what loading would import and call; ``unknown`` are the names
    among them that fdeploy neither knows to be harmless nor recognises as the user's own.
    ``python`` is the version needed to load the file, or None if any will do. ``threshold`` is the
    probability above which a multi-label learner predicts a label. ``unproven`` lists every step
    from a text to its answer that the file does not prove.
    """

    format: Format | Literal["folder"]
    size: int
    fastai: Literal[1, 2] | None
    libraries: dict[str, str]
    python: str | None
    learner_class: str
    family: Family
    modules: tuple[ModuleSize, ...]
    parameters: int
    weights_size: int
    weights: dict[str, Tensor]
    tree: tuple[Module, ...]
    transformer: Transformer | None
    ulmfit: Ulmfit | None
    tokenizer: Tokenizer | None
    text: TextRules | None
    labels: Labels
    loss: Loss
    task: Task
    threshold: float | None
    callbacks: tuple[Callback, ...]
    imports: tuple[Imported, ...]
    calls: tuple[Called, ...]
    dangers: tuple[str, ...]
    unknown: tuple[str, ...]
    sources: tuple[EmbeddedSource, ...]
    handed: UserTokenizer | None
    verdict: Verdict
    unproven: tuple[Unproven, ...] = ()

    def golden_labels(self, tolerance: float) -> GoldenLabels:
        """The labels and tolerance that goldens of this learner are checked against."""
        return GoldenLabels(
            self.labels.names,
            several=self.task == "multi-label",
            raw=self.loss.raw or self.loss.assumed,
            tolerance=tolerance,
        )

    @property
    def pretrained(self) -> bool:
        """Whether this is a folder of transformers, and not a learner."""
        return self.format == "folder"

    @property
    def owner(self) -> str:
        """Whose answers the goldens hold, for messages: the learner's or the model's."""
        return "model" if self.pretrained else "learner"

    @property
    def python_37(self) -> bool:
        """Whether the learner needs an old Python, taken to be 3.7.

        Torch before 1.6 needs 3.8 or older.
        """
        return self.format == "legacy"

    def tokenizer_json(self) -> Json:
        """The tokenizer as a ``tokenizer.json``, without truncation and padding.

        Raises UnsupportedLearner for one that neither the file nor the user supplied completely.
        """
        if self.tokenizer is None or self.text is None:
            raise UnsupportedLearner("the learner has no tokenizer of transformers", hint=RUNTIME)
        return tokenizer_json(
            self.tokenizer,
            prefix_space=self.text.prefix_space,
            python_37=self.python_37,
            handed=self.handed,
        )


def examine(
    archive: Archive, size: int, handed: UserTokenizer | None = None, *, file: str = "learner.pkl"
) -> Anatomy:
    """Take a learner apart.

    ``size`` is the size of the file in bytes, ``file`` its name in hints, and ``handed`` the user's
    own tokenizer, if one was supplied.
    Raises DangerousLearner or NotALearner for a pickle that holds no learner, and LearnerTruncated,
    LearnerTooComplex or UnsupportedLearner for one whose parts cannot be read.
    """
    pickled = archive.pickled
    try:
        root = find_learner(pickled.root)
    except NotALearner:
        refuse_danger(pickled)
        raise
    modules = read_modules(root.model, archive.nested)
    weights = state_dict(modules)
    objects = Objects(pickled.calls, archive.sources)
    transformer = find_transformer(modules)
    tokenizers = find_tokenizers(pickled.calls)
    tokenizer = tokenizers[0] if len(tokenizers) == 1 else None
    brought = definable(modules, transformer)
    needs_text = transformer is not None or brought
    text = _text_rules(root, archive, tokenizer, objects) if needs_text and tokenizer else None
    if text is not None and handed is not None:
        assumed = f"the supplied tokenizer ({handed.file.name}) is assumed to be the learner's own"
        text = replace(text, assumptions=(*text.assumptions, assumed))
    ulmfit = None if transformer else find_ulmfit(root, modules, pickled.calls)
    labels = find_labels(root, pickled.calls, objects)
    threshold = _threshold(root, labels)
    if labels.targets == "several" and threshold is None:
        labels = without_threshold(labels)
    loss = with_usual_activation(find_loss(root.major, root.loss, objects), labels.targets)
    around = CallbackSemantics(
        objects,
        transformer.node if transformer else None,
        transformer.model_type if transformer else "",
        tokenizer.node if tokenizer else None,
        transformer.outputs if transformer else None,
    )
    model = Followed()
    if transformer is not None and not is_blurr(transformer.wrapper):
        model = follow_model(root.model, transformer.wrapper, around, objects)
    if transformer is not None:
        transformer = replace(transformer, forward=_forward(transformer, model))
    callbacks = find_callbacks(root, objects, around, model.answers or Term("output"))
    family = "transformers" if transformer else family_of(root, pickled.globals, modules)
    unproven = (
        *(text.unproven if text else ()),
        *(follow_batch(root, objects) if ulmfit and root.major != 1 else ()),
        *model.unproven,
        *loss.unproven,
        *unproven_callbacks(callbacks),
        *follow_rest(root, modules, objects, transformer.path if transformer else ""),
    )
    found = load_effects(pickled)
    distinct = {(id(t.storage.data), t.offset, t.shape): t for t in weights.values()}.values()
    return Anatomy(
        format=archive.format,
        size=size,
        fastai=root.major,
        libraries=library_hints(
            root.major,
            archive.format,
            pickled.globals,
            transformer.config if transformer else None,
            tokenizer,
        ),
        python=objects.python,
        learner_class=str(root.cls or "unknown"),
        family=family,
        modules=_sizes(modules),
        parameters=sum(tensor.count for tensor in distinct),
        weights_size=sum(tensor.size for tensor in distinct),
        weights=weights,
        tree=modules,
        transformer=transformer,
        ulmfit=ulmfit,
        tokenizer=tokenizer,
        text=text,
        labels=labels,
        loss=loss,
        task=_TASKS.get(labels.targets, "unknown"),
        threshold=threshold,
        callbacks=callbacks,
        imports=found.imports,
        calls=found.calls,
        dangers=found.dangers,
        unknown=found.unknown,
        sources=archive.sources,
        handed=handed,
        verdict=judge(
            Findings(
                found.dangers,
                family,
                transformer,
                tokenizers,
                text,
                labels,
                loss,
                ulmfit=ulmfit,
                definable=brought,
                adapters=has_adapters(modules),
                handed=handed,
                unproven=unproven,
                file=file,
                culprit=found.culprit,
            )
        ),
        unproven=unproven,
    )


def _text_rules(root: Root, archive: Archive, tokenizer: Tokenizer, objects: Objects) -> TextRules:
    if root.major == 1:
        return rules_v1(root, tokenizer)
    followed = follow_text(root, objects, tokenizer)
    return rules_v2(archive.pickled.calls, tokenizer, objects, followed)


def _forward(transformer: Transformer, model: Followed) -> Forward:
    if is_blurr(transformer.wrapper):
        return Forward("none")  # the wrapper passes the tokenizer's own mask
    return Forward(model.run.mask, model.run.pad) if model.run is not None else UNKNOWN


def _threshold(root: Root, labels: Labels) -> float | None:
    """The threshold of labels of which a text may have several; None if there is not one."""
    if labels.targets != "several":
        return None
    return USUAL_THRESHOLD if root.major == 1 else threshold_of(root.loss)


def _sizes(modules: tuple[Module, ...]) -> tuple[ModuleSize, ...]:
    parameters: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for module in modules:
        count = sum(tensor.count for tensor in module.tensors.values())
        size = sum(tensor.size for tensor in module.tensors.values())
        path = module.path
        while True:
            parameters[path] = parameters.get(path, 0) + count
            sizes[path] = sizes.get(path, 0) + size
            if not path:
                break
            path = path.rpartition(".")[0]
    return tuple(
        ModuleSize(m.path, m.cls.name if m.cls else "?", parameters[m.path], sizes[m.path])
        for m in modules
    )
