"""Decide whether a learner can be rebuilt exactly, and if not, why and what to do instead."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fastai_deploy.learner.examine.architecture import LIBRARIES, Transformer
from fastai_deploy.learner.examine.awd_lstm import Ulmfit
from fastai_deploy.learner.examine.labels import USUAL_ACTIVATION, Labels, Loss
from fastai_deploy.learner.examine.modules import Family, Module
from fastai_deploy.learner.examine.unproven import RUNTIME, Unproven, printable
from fastai_deploy.learner.reading.graph import Global
from fastai_deploy.learner.text.rules import TextRules
from fastai_deploy.learner.text.tokenizer import Tokenizer
from fastai_deploy.learner.text.tokenizer_json import HAND_IN, KNOWN, held_model
from fastai_deploy.learner.text.user_tokenizer import UserTokenizer

# Classes of these are too large for a definitions file; the learner runtime serves them.
_WHOLE_LIBRARIES = ("fastai",)


def is_users(cls: Global) -> bool:
    """Whether a class of the model belongs to neither torch nor transformers."""
    return cls.module.split(".")[0] not in (*LIBRARIES, "torch")


def users_classes(modules: Sequence[Module]) -> tuple[str, ...]:
    """The names of the user-defined classes in the model, each once, outermost first."""
    found = [m.cls.name for m in modules if m.cls is not None and is_users(m.cls)]
    return tuple(dict.fromkeys(found))


def definable(modules: Sequence[Module], transformer: Transformer | None) -> tuple[str, ...]:
    """The user's classes, if only their source is missing; empty if it would not be enough."""
    if transformer is not None and not transformer.problem:
        return ()
    if any(module.cls is None or module.changed for module in modules):
        return ()
    tops = {m.cls.module.split(".")[0] for m in modules if m.cls is not None}
    return () if tops.intersection(_WHOLE_LIBRARIES) else users_classes(modules)


def has_adapters(modules: Sequence[Module]) -> bool:
    """Whether peft's layers stand in the model beside its weights."""
    return any(m.cls is not None and m.cls.module.split(".")[0] == "peft" for m in modules)


def innermost(modules: Sequence[Module]) -> str:
    """The path of the model inside torch's own wrappers, which pass everything through."""
    by_path = {module.path: module for module in modules}
    path = ""
    while (found := by_path[path]).transparent:
        inner = [found.name_of(child) for child in found.children]
        if len(inner) != 1:
            break
        path = inner[0]
    return path


Kind = Literal["convertible", "with-goldens", "with-definitions", "learner-runtime", "refused"]

DEFINITIONS = (
    "put the source of {} (and what its forward() uses) in model_def.py, then: "
    "fdeploy export {} --definitions model_def.py"
)
GOLDENS = (
    "fdeploy export {0} prints a notebook cell that writes the learner's own answers to "
    "golden.jsonl; then: fdeploy export {0} --golden golden.jsonl"
)
_MERGE = (
    "merge them into the weights, such as learn.model = learn.model.merge_and_unload(), and export "
    "the learner again"
)
_OTHER_TASKS: dict[Family, str] = {
    "vision": "it classifies images",
    "tabular": "it works on tables",
    "collaborative filtering": "it recommends items",
    "language model": "it is a language model, which writes text and has no labels",
}


@dataclass(frozen=True)
class Verdict:
    """``reason`` says why; ``hint`` says what to do next.

    Both are empty if the kind is "convertible". "with-goldens": convertible with the learner's own
    answers, which prove what the file does not. "with-definitions": convertible once the user
    supplies the source of the classes.
    """

    kind: Kind
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Findings:
    """The facts that decide a verdict.

    ``definable`` are the classes whose source would make the model convertible; empty if that
    would not be enough. ``adapters``: peft's layers are in the model. ``culprit`` is where in the
    learner the first danger is, ``file`` is the learner's name in hints.
    """

    dangers: tuple[str, ...]
    family: Family
    transformer: Transformer | None
    tokenizers: tuple[Tokenizer, ...]
    text: TextRules | None
    labels: Labels
    loss: Loss
    ulmfit: Ulmfit | None = None
    definable: tuple[str, ...] = ()
    adapters: bool = False
    handed: UserTokenizer | None = None
    unproven: tuple[Unproven, ...] = ()
    file: str = "learner.pkl"
    culprit: str = ""


def judge(found: Findings) -> Verdict:
    """The verdict, by the first reason that applies, the most serious first."""
    for step in (_danger, _task, _labels, _model, _tokenizer, _answers):
        verdict = step(found)
        if verdict is not None:
            return verdict
    return _definitions(found) or _unproven(found) or Verdict("convertible")


def _danger(found: Findings) -> Verdict | None:
    if not found.dangers:
        return None
    return Verdict(
        "refused",
        f"loading this file would {found.dangers[0]}",
        _without(found.culprit),
    )


def _without(culprit: str) -> str:
    """What to do about a file that is dangerous to load."""
    if not culprit:
        return "do not load this file; find out where it comes from"
    return (
        f"do not load this file unless you trained it yourself: then remove {culprit}, which would "
        "do this, from the learner and call learn.export() again"
    )


def _task(found: Findings) -> Verdict | None:
    if found.family in _OTHER_TASKS:
        return Verdict(
            "refused",
            f"this learner is not a text classifier: {_OTHER_TASKS[found.family]}",
            "use a learner that assigns labels to texts",
        )
    if found.labels.targets == "number" or found.loss.regression:
        return Verdict(
            "refused",
            f"this learner predicts numbers (loss {found.loss.name}), not labels",
            "use a learner that assigns labels to texts",
        )
    return None


def _labels(found: Findings) -> Verdict | None:
    """Labels that cannot be used; the learner runtime could not name its answers either."""
    labels = found.labels
    return Verdict("refused", labels.problem, labels.advice) if labels.problem else None


def _model(found: Findings) -> Verdict | None:
    if found.ulmfit is not None:
        return _ulmfit(found.ulmfit)
    if found.adapters:
        return Verdict("learner-runtime", "its adapters (peft) are not merged", _MERGE)
    transformer = found.transformer
    if found.definable:
        return None  # asked for last, when everything else is fine
    if transformer is None:
        return Verdict("learner-runtime", "fdeploy cannot rebuild its model", RUNTIME)
    if transformer.problem:
        return Verdict("learner-runtime", transformer.problem, RUNTIME)
    return None


def _ulmfit(ulmfit: Ulmfit) -> Verdict | None:
    problem = ulmfit.model.problem or ulmfit.words.problem
    if problem:
        return Verdict("learner-runtime", problem, RUNTIME)
    if ulmfit.mismatch:
        return Verdict(
            "refused",
            ulmfit.mismatch,
            "export the learner again, with the vocabulary that it was trained on",
        )
    return None


def _definitions(found: Findings) -> Verdict | None:
    if not found.definable:
        return None
    transformer = found.transformer
    own = "its model uses user-defined classes"
    reason = transformer.problem if transformer is not None else own
    names = ", ".join(map(printable, found.definable))
    file = shlex.quote(printable(found.file))
    return Verdict("with-definitions", reason, DEFINITIONS.format(names, file))


def _unproven(found: Findings) -> Verdict | None:
    """Convertible, but only with the learner's own answers."""
    if not found.unproven:
        return None
    more = len(found.unproven) - 1
    first = found.unproven[0]
    file = shlex.quote(printable(found.file))
    return Verdict(
        "with-goldens",
        f"the file does not prove how it computes its answers: {first}"
        + (f"; and {more} more" if more else ""),
        GOLDENS.format(file),
    )


def _tokenizer(found: Findings) -> Verdict | None:
    if found.ulmfit is not None:
        return None
    if not found.tokenizers:
        return Verdict("learner-runtime", "the file does not contain its tokenizer", RUNTIME)
    if len(found.tokenizers) > 1:
        return Verdict("learner-runtime", "the file contains more than one tokenizer", RUNTIME)
    tokenizer = found.tokenizers[0]
    if not _complete(tokenizer, found.handed):
        return Verdict(
            "learner-runtime",
            f"the vocabulary of its tokenizer ({tokenizer.cls.name}) is not in the file",
            f"{HAND_IN}; or {RUNTIME}",
        )
    if found.text is None or found.text.problem:
        return Verdict(
            "learner-runtime",
            found.text.problem if found.text else "it has no text rules",
            RUNTIME,
        )
    return None


def _complete(tokenizer: Tokenizer, handed: UserTokenizer | None) -> bool:
    """Whether the tokenizer can be rebuilt from the file and what the user supplied."""
    if tokenizer.kind not in ("SentencePiece", "unknown"):
        return True
    if handed is not None and handed.serialized is not None:
        return True
    held = handed is not None or held_model(tokenizer) is not None
    return held and tokenizer.cls.name in KNOWN


def _answers(found: Findings) -> Verdict | None:
    labels, transformer = found.labels, found.transformer
    # How many scores a user-defined class gives is known only when it runs.
    outputs = transformer.outputs if transformer and not found.definable else None
    if found.ulmfit is not None:
        outputs = found.ulmfit.model.outputs
    fits = outputs is None or outputs == len(labels.names)
    loss = found.loss
    # An unknown loss may be made for another number of outputs, so it is reported first.
    if loss.activation != USUAL_ACTIVATION.get(labels.targets) or (loss.assumed and not fits):
        return Verdict(
            "learner-runtime",
            f"how its loss turns scores into probabilities is unknown ({printable(loss.name)})",
            RUNTIME,
        )
    if not fits:
        return Verdict(
            "refused",
            f"its model has {_count(outputs, 'output')}, but it has "
            f"{_count(len(labels.names), 'label')}",
            "export the learner again, with the labels that it was trained on",
        )
    return None


def _count(number: int | None, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
