"""Writing a rebuilt learner into the folder of a bundle."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from torch import nn

import fastai_deploy
from fastai_deploy.bundle import LearnerSpec, Manifest, ModelSpec, Provenance, TextSpec
from fastai_deploy.files import write
from fastai_deploy.learner.anatomy import Anatomy
from fastai_deploy.learner.losses import raw_scores
from fastai_deploy.learner.rebuilding.classifier import OUTPUT
from fastai_deploy.learner.rebuilding.precision import Served
from fastai_deploy.learner.rebuilding.rebuild import configuration, learner_weights
from fastai_deploy.learner.rebuilding.rebuilt import Rebuilt
from fastai_deploy.learner.rebuilding.safetensors_file import write_safetensors
from fastai_deploy.learner.text.rules import residues
from fastai_deploy.learner.text.serialized import Json, sentencepiece_of
from fastai_deploy.learner.text.unigram import unigram_residues

_CONVERTERS = ("numpy", "onnx", "onnxruntime", "tokenizers", "torch", "transformers")


def write_model(folder: Path, rebuilt: Rebuilt) -> None:
    """Write weights, configuration and tokenizer. Raises FileError or LearnerTruncated."""
    model_config = configuration(rebuilt.classifier.model, rebuilt.classifier.config)
    write(folder / "config.json", render_json(model_config))
    write(folder / "tokenizer.json", render_json(rebuilt.serialized))
    write(folder / "tokenizer_config.json", render_json(_tokenizer_config(rebuilt)))
    weights = learner_weights(rebuilt.anatomy, rebuilt.transformer, rebuilt.classifier.model)
    write_safetensors(folder / "model.safetensors", weights)


def manifest(
    rebuilt: Rebuilt,
    served: Served,
    *,
    name: str,
    origin: LearnerSpec,
    proven: bool,
) -> Manifest:
    """The manifest of the bundle; ``proven``: the learner's own answers were reproduced."""
    text = TextSpec(
        kind="transformers",
        steps=rebuilt.text.steps,
        max_length=rebuilt.max_length,
        padding="mask" if rebuilt.masks_padding else "equal-length",
        pad_token_id=rebuilt.pad_token_id,
    )
    return assemble(
        rebuilt.anatomy,
        served,
        name=name,
        text=text,
        model=model_spec(served, rebuilt.transformer.cls.name, rebuilt.classifier),
        residues=_residues(rebuilt, proven=proven),
        provenance=Provenance(origin, converter()),
    )


def model_spec(served: Served, architecture: str, classifier: nn.Module) -> ModelSpec:
    """What the manifest says of the graph to serve."""
    return ModelSpec(
        file=served.graph.path.name,
        inputs=served.graph.inputs,
        output=OUTPUT,
        architecture=architecture,
        parameters=sum(each.numel() for each in classifier.parameters()),
        precision=served.precision,
        gpu=served.graph.gpu,
    )


def assemble(
    anatomy: Anatomy,
    served: Served,
    *,
    name: str,
    text: TextSpec,
    model: ModelSpec,
    residues: tuple[str, ...],
    provenance: Provenance,
) -> Manifest:
    """The manifest of any family, with what the learner says of its task and labels."""
    return Manifest(
        name=name,
        task="multi-label" if anatomy.task == "multi-label" else "single-label",
        labels=anatomy.labels.names,
        threshold=anatomy.threshold,
        text=text,
        model=model,
        tolerance=served.tolerance,
        residues=residues,
        provenance=provenance,
    )


def _residues(rebuilt: Rebuilt, *, proven: bool) -> tuple[str, ...]:
    """Where the answers may differ from the learner's own."""
    anatomy = rebuilt.anatomy
    found = (
        list(residues(anatomy.tokenizer, python_37=anatomy.python_37)) if anatomy.tokenizer else []
    )
    handed = anatomy.handed
    if handed is not None:
        found.append(f"the tokenizer was handed in ({handed.file.name}); the learner lost its own")
    model = sentencepiece_of(anatomy.tokenizer, handed) if anatomy.tokenizer else None
    if anatomy.tokenizer is not None and model is not None:
        found.extend(unigram_residues(anatomy.tokenizer, model))
    if not rebuilt.mask_known:
        found.append(
            "a text that spells out the padding token: the file does not show whether the learner "
            "attends to it; here it does not"
        )
    found.extend(general_residues(anatomy))
    if not proven:
        found.extend(rebuilt.text.assumptions)
    return tuple(found)


def general_residues(anatomy: Anatomy) -> list[str]:
    """Where the answers may differ, whatever the model is."""
    found: list[str] = []
    if anatomy.loss.raw:
        found.append(raw_scores(anatomy.loss))
    if any(tensor.dtype in ("float16", "bfloat16") for tensor in anatomy.weights.values()):
        found.append("the learner's weights are of half precision; here they work in float32")
    return found


def _tokenizer_config(rebuilt: Rebuilt) -> Json:
    tokenizer = rebuilt.anatomy.tokenizer
    special = tokenizer.special if tokenizer else {}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": rebuilt.max_length,
        **{f"{role}_token": token.text for role, token in special.items()},
    }


def converter() -> dict[str, str]:
    """The versions, without the build (``+cpu``): it changes nothing of what is written."""
    installed = {name: version(name).partition("+")[0] for name in _CONVERTERS}
    return {"fastai-deploy": fastai_deploy.__version__, **installed}


def render_json(value: Json) -> bytes:
    """The same bytes for the same value."""
    text = json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True)
    return text.encode("utf-8") + b"\n"
