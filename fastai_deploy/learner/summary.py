"""An anatomy as plain data: what ``fdeploy inspect`` answers, and nothing that lies elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastai_deploy.learner.anatomy import Anatomy, examine
from fastai_deploy.learner.reading.archive import open_archive
from fastai_deploy.learner.ulmfit import facts


def inspect(learner: Path) -> dict[str, Any]:
    """Take a learner file apart, without running anything in it.

    Needs neither torch nor fastai. Raises LearnerError or FileError.
    """
    with open_archive(learner) as (source, archive):
        return summary(learner.name, examine(archive, source.size, file=learner.name))


def summary(name: str, anatomy: Anatomy) -> dict[str, Any]:
    """The anatomy of the learner in the file ``name``, ready for JSON; sizes are in bytes."""
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
    """The names of each of the three kinds; of the unknown ones, ``own`` are the user's."""
    unknown = [item for item in anatomy.imports if item.kind in ("unknown", "user")]
    return {
        "dangerous": [item.name for item in anatomy.imports if item.kind == "dangerous"],
        "unknown": [item.name for item in unknown],
        "own": [item.name for item in unknown if item.own],
        "harmless": [item.name for item in anatomy.imports if item.kind == "harmless"],
    }


def _calls(anatomy: Anatomy) -> dict[str, list[str]]:
    """What loading would call, of each of the three kinds, in words that follow "would"."""
    unknown = [call for call in anatomy.calls if call.kind in ("unknown", "user")]
    return {
        "dangerous": [call.what for call in anatomy.calls if call.kind == "dangerous"],
        "unknown": [call.what for call in unknown],
        "own": [call.what for call in unknown if call.kind == "user" and not call.name],
        "harmless": [call.what for call in anatomy.calls if call.kind == "harmless"],
    }


def _loading(anatomy: Anatomy) -> str:
    """The gravest kind of all that loading would import and call."""
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
