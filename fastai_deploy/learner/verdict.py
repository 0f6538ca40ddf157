"""Whether a learner can be rebuilt exactly, and if not, why and what to do instead."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from fastai_deploy.learner.architecture import Transformer
from fastai_deploy.learner.callbacks import Callback
from fastai_deploy.learner.family import Family
from fastai_deploy.learner.labels import Labels
from fastai_deploy.learner.losses import Loss
from fastai_deploy.learner.text.found import Tokenizer
from fastai_deploy.learner.text.handed import Handed
from fastai_deploy.learner.text.rules import TextRules
from fastai_deploy.learner.text.serialized import HAND_IN
from fastai_deploy.learner.text.unigram import KNOWN, held_model
from fastai_deploy.learner.ulmfit import Ulmfit

Kind = Literal["convertible", "with-definitions", "learner-runtime", "refused"]

RUNTIME = (
    "serve the pickle itself: fdeploy export --runtime learner --definitions model_def.py "
    "--trust-pickle"
)
DEFINITIONS = (
    "write the source of {} (and what its forward() uses) into model_def.py, then: "
    "fdeploy export {} --definitions model_def.py"
)
GOLDENS = (
    "bring texts with the learner's own probabilities, which tell whether the answers stay the "
    "same: fdeploy export {} --golden texts.jsonl; or "
)
_OTHER_TASKS: dict[Family, str] = {
    "vision": "it classifies images",
    "tabular": "it works on tables",
    "collaborative filtering": "it recommends items",
    "language model": "it is a language model, which writes text and has no labels",
}


@dataclass(frozen=True)
class Verdict:
    """``reason`` says why in words; ``hint`` what to do next.

    Both are empty when convertible, unless only ``with_goldens`` that the learner answered itself.
    "with-definitions": convertible once the user hands in the source of the classes.
    """

    kind: Kind
    reason: str = ""
    hint: str = ""
    with_goldens: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Findings:
    """What a verdict is made from.

    ``definable`` are the classes whose source would make the model convertible; none where that
    would not be enough. ``file`` is what the hints call the learner.
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
    handed: Handed | None = None
    callbacks: tuple[Callback, ...] = ()
    file: str = "learner.pkl"


def judge(found: Findings) -> Verdict:
    """The verdict; the first reason counts, the gravest first."""
    for step in (_danger, _task, _model, _tokenizer, _answers):
        verdict = step(found)
        if verdict is not None:
            return verdict
    return _definitions(found) or _callbacks(found) or Verdict("convertible")


def _danger(found: Findings) -> Verdict | None:
    if not found.dangers:
        return None
    return Verdict(
        "refused",
        f"loading this file would {found.dangers[0]}",
        "do not load this file; if a colleague made it, ask for a new learn.export()",
    )


def _task(found: Findings) -> Verdict | None:
    if found.family in _OTHER_TASKS:
        return Verdict(
            "refused",
            f"this learner is not a text classifier: {_OTHER_TASKS[found.family]}",
            "hand in a learner that gives labels to texts",
        )
    if found.labels.targets == "number" or found.loss.regression:
        return Verdict(
            "refused",
            f"this learner predicts numbers (loss {found.loss.name}), not labels",
            "hand in a learner that gives labels to texts",
        )
    return None


def _model(found: Findings) -> Verdict | None:
    if found.ulmfit is not None:
        return _ulmfit(found.ulmfit)
    transformer = found.transformer
    if found.definable:
        return None  # the last thing to ask for, when all else is well
    if transformer is None:
        return Verdict("learner-runtime", "its model is none that fdeploy can rebuild", RUNTIME)
    if transformer.problem:
        return Verdict("learner-runtime", transformer.problem, RUNTIME)
    if transformer.forward.processes:
        return Verdict(
            "learner-runtime",
            f"its wrapper changes the scores with {transformer.forward.processes}()",
            RUNTIME,
        )
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
    reason = "its model is of the user's own classes"
    if transformer is not None:
        reason = transformer.problem or (
            f"its wrapper changes the scores with {transformer.forward.processes}()"
        )
    names = ", ".join(map(_printable, found.definable))
    file = shlex.quote(_printable(found.file))
    return Verdict("with-definitions", reason, DEFINITIONS.format(names, file))


def _callbacks(found: Findings) -> Verdict | None:
    """Convertible, but only where the learner's own answers show what a callback does to them."""
    changing = [each for each in found.callbacks if each.effect == "may change scores"]
    if not changing:
        return None
    names = ", ".join(_printable(each.cls) for each in changing)
    file = shlex.quote(_printable(found.file))
    return Verdict(
        "convertible",
        f"what its callback {names} does to the scores can be seen from its own answers alone",
        GOLDENS.format(file) + RUNTIME,
        with_goldens=True,
    )


def _printable(name: str) -> str:
    """A name from the file, which must not paint on the terminal of who reads the hint."""
    return name if name.isprintable() else ascii(name)[1:-1]


def _tokenizer(found: Findings) -> Verdict | None:
    if found.ulmfit is not None:
        return None
    if not found.tokenizers:
        return Verdict("learner-runtime", "no tokenizer is in the file", RUNTIME)
    if len(found.tokenizers) > 1:
        return Verdict("learner-runtime", "more than one tokenizer is in the file", RUNTIME)
    tokenizer = found.tokenizers[0]
    if not _complete(tokenizer, found.handed):
        return Verdict(
            "learner-runtime",
            f"the vocabulary of its tokenizer ({tokenizer.cls.name}) is not in the file",
            f"{HAND_IN}; or {RUNTIME}",
        )
    if found.text is None or found.text.problem:
        return Verdict(
            "learner-runtime", found.text.problem if found.text else "it has no text rules", RUNTIME
        )
    return None


def _complete(tokenizer: Tokenizer, handed: Handed | None) -> bool:
    """Whether the tokenizer can be rebuilt from the file and what was handed in."""
    if tokenizer.kind not in ("SentencePiece", "unknown"):
        return True
    if handed is not None and handed.serialized is not None:
        return True
    held = handed is not None or held_model(tokenizer) is not None
    return held and tokenizer.cls.name in KNOWN


def _answers(found: Findings) -> Verdict | None:
    labels, transformer = found.labels, found.transformer
    if labels.problem:
        return Verdict("refused", labels.problem, "export the learner again, with its labels")
    # How many scores a class of the user's gives shows when it runs.
    outputs = transformer.outputs if transformer and not found.definable else None
    if found.ulmfit is not None:
        outputs = found.ulmfit.model.outputs
    if outputs is not None and outputs != len(labels.names):
        return Verdict(
            "refused",
            f"its model has {outputs} outputs, but it has {len(labels.names)} labels",
            "export the learner again, with the labels that it was trained on",
        )
    expected = {"one": "softmax", "several": "sigmoid"}.get(labels.targets)
    if found.loss.activation != expected:
        return Verdict(
            "learner-runtime",
            f"how its scores become probabilities is unknown (loss {found.loss.name})",
            RUNTIME,
        )
    return None
