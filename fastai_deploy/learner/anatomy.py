"""Everything that can be known of a learner without loading it, in one record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fastai_deploy.errors import NotALearner
from fastai_deploy.goldens import Labels as GoldenLabels
from fastai_deploy.learner.architecture import Transformer, find_transformer, is_blurr
from fastai_deploy.learner.callbacks import Callback, find_callbacks
from fastai_deploy.learner.callbacks import unproven as unproven_callbacks
from fastai_deploy.learner.code.callback_code import CallbackSemantics
from fastai_deploy.learner.code.follow import (
    Followed,
    follow_batch,
    follow_model,
    follow_rest,
    follow_text,
)
from fastai_deploy.learner.code.objects import Objects
from fastai_deploy.learner.code.values import Term
from fastai_deploy.learner.definable import definable
from fastai_deploy.learner.family import Family, family_of
from fastai_deploy.learner.forward import UNKNOWN, Forward
from fastai_deploy.learner.globals import Imported
from fastai_deploy.learner.hints import library_hints
from fastai_deploy.learner.labels import Labels, find_labels, threshold_of
from fastai_deploy.learner.loading import Called, loading, refuse_danger
from fastai_deploy.learner.losses import Loss, find_loss, with_usual_activation
from fastai_deploy.learner.modules import Module, read_modules, state_dict
from fastai_deploy.learner.reading.archive import Archive, Format
from fastai_deploy.learner.reading.storages import EmbeddedSource
from fastai_deploy.learner.reading.tensors import Tensor
from fastai_deploy.learner.roots import Root, find_learner
from fastai_deploy.learner.text.found import Tokenizer, find_tokenizers
from fastai_deploy.learner.text.handed import Handed
from fastai_deploy.learner.text.rules import TextRules
from fastai_deploy.learner.text.rules_v1 import rules_v1
from fastai_deploy.learner.text.rules_v2 import rules_v2
from fastai_deploy.learner.ulmfit import Ulmfit, find_ulmfit
from fastai_deploy.learner.unproven import Unproven
from fastai_deploy.learner.verdict import Findings, Verdict, judge

Task = Literal["single-label", "multi-label", "regression", "unknown"]
_TASKS: dict[str, Task] = {"one": "single-label", "several": "multi-label", "number": "regression"}


@dataclass(frozen=True)
class ModuleSize:
    """A module of the model: parameters and bytes, with everything in it, buffers included."""

    path: str
    cls: str
    parameters: int
    size: int


@dataclass(frozen=True, eq=False, repr=False)
class Anatomy:
    """A learner, taken apart. ``weights`` maps the names of the model's tensors to where they are.

    ``imports`` and ``calls`` are what loading it would import and call, ``unknown`` the names among
    them that fdeploy neither knows to be harmless nor to be the user's own notebook's.
    ``python`` is the version that loading the file needs, None when any will do; ``threshold`` is
    the probability above which a multi-label learner gives a label; ``unproven`` is everything on
    the way from a text to its answer that the file does not prove.
    """

    format: Format
    size: int
    fastai: Literal[1, 2]
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
    handed: Handed | None
    verdict: Verdict
    unproven: tuple[Unproven, ...] = ()

    def golden_labels(self, tolerance: float) -> GoldenLabels:
        """What goldens of this learner are checked against."""
        return GoldenLabels(
            self.labels.names,
            several=self.task == "multi-label",
            raw=self.loss.raw or self.loss.assumed,
            tolerance=tolerance,
        )

    @property
    def python_37(self) -> bool:
        """Whether the learner works in the Python of its time, which is taken to be 3.7.

        Torch before 1.6 needs 3.8 or older.
        """
        return self.format == "legacy"


def examine(
    archive: Archive, size: int, handed: Handed | None = None, *, file: str = "learner.pkl"
) -> Anatomy:
    """Take a learner apart; ``size`` is that of the file in bytes, ``file`` what hints call it.

    ``handed`` is the user's own tokenizer, where one was handed in.

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
        assumed = f"the tokenizer handed in ({handed.file.name}) is taken to be the learner's own"
        text = replace(text, assumptions=(*text.assumptions, assumed))
    ulmfit = None if transformer else find_ulmfit(root, modules, pickled.calls)
    labels = find_labels(root, pickled.calls, objects)
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
    found = loading(pickled)
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
        threshold=_threshold(root, labels),
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
        return Forward("none")  # it hands the tokenizer's own mask to the transformer
    return Forward(model.run.mask, model.run.pad) if model.run is not None else UNKNOWN


def _threshold(root: Root, labels: Labels) -> float | None:
    """0.5 is the default of ``learn.predict`` in fastai 1 and of the loss in fastai 2."""
    if labels.targets != "several":
        return None
    stored = threshold_of(root.loss) if root.major != 1 else None
    return 0.5 if stored is None else stored


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
