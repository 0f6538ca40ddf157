"""Writes a rebuilt learner into a bundle: weights, tokenizer or words, and the manifest."""

from __future__ import annotations

import json
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from torch import nn

import fastai_deploy
from fastai_deploy.bundle import LearnerSpec, Manifest, ModelSpec, Provenance, TextSpec
from fastai_deploy.files import write
from fastai_deploy.learner.examine.anatomy import Anatomy
from fastai_deploy.learner.examine.awd_lstm import facts, weights_of
from fastai_deploy.learner.examine.labels import raw_scores
from fastai_deploy.learner.reading.safetensors_file import write_safetensors
from fastai_deploy.learner.rebuild.precision import Served
from fastai_deploy.learner.rebuild.rebuilt import Rebuilt
from fastai_deploy.learner.rebuild.transformer import OUTPUT, configuration, learner_weights
from fastai_deploy.learner.rebuild.ulmfit import RebuiltUlmfit
from fastai_deploy.learner.text.rules import residues
from fastai_deploy.learner.text.tokenizer_json import Json, sentencepiece_of, unigram_residues
from fastai_deploy.runtime.bundle import KIND_WORDS, WORDS
from fastai_deploy.runtime.word_tokenizer import LONGEST_WORD

_CONVERTERS = (
    "numpy", "onnx", "onnxruntime", "openvino", "tokenizers", "torch", "transformers",
)  # fmt: skip


def write_model(folder: Path, rebuilt: Rebuilt) -> None:
    """Write weights, configuration and tokenizer. Raises FileError or LearnerTruncated."""
    model_config = configuration(rebuilt.classifier.model, rebuilt.classifier.config)
    write(folder / "config.json", render_json(model_config))
    write(folder / "tokenizer.json", render_json(rebuilt.serialized))
    write(folder / "tokenizer_config.json", render_json(_tokenizer_config(rebuilt)))
    weights = rebuilt.anatomy.weights  # of a folder, under the names that transformers reads
    if not rebuilt.anatomy.pretrained:
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
    """The manifest's description of the graph to serve."""
    return ModelSpec(
        forms=served.forms,
        inputs=served.graph.inputs,
        output=OUTPUT,
        architecture=architecture,
        parameters=sum(each.numel() for each in classifier.parameters()),
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
    """The manifest of a learner of any family; task, labels and threshold are the learner's."""
    return Manifest(
        name=name,
        task="multi-label" if anatomy.task == "multi-label" else "single-label",
        labels=anatomy.labels.names,
        threshold=anatomy.threshold,
        text=text,
        model=model,
        tolerance=served.tolerance,
        gate=served.rules,
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
        found.append(
            f"the tokenizer is the one passed with --tokenizer ({handed.file.name}), because the "
            "learner lost its own"
        )
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
    """Where the answers may differ, for any kind of model."""
    found: list[str] = []
    if anatomy.loss.raw:
        found.append(raw_scores(anatomy.loss))
    if any(tensor.dtype in ("float16", "bfloat16") for tensor in anatomy.weights.values()):
        found.append("the learner has weights in half precision; the bundle computes in float32")
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
    """The libraries' versions without the build (``+cpu``), which does not affect the output."""
    present = (name for name in _CONVERTERS if find_spec(name) is not None)
    installed = {name: version(name).partition("+")[0] for name in present}
    return {"fastai-deploy": fastai_deploy.__version__, **installed}


def render_json(value: Json) -> bytes:
    """The same bytes for the same value."""
    text = json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True)
    return text.encode("utf-8") + b"\n"


_ARCHITECTURE = "AWD_LSTM"


def write_ulmfit(folder: Path, rebuilt: RebuiltUlmfit) -> None:
    """Write weights, configuration and words. Raises FileError or LearnerTruncated."""
    configuration = {"architectures": [_ARCHITECTURE], **facts(rebuilt.ulmfit)}
    write(folder / "config.json", render_json(configuration))
    write(folder / WORDS, render_json(dict(rebuilt.document)))
    weights = weights_of(rebuilt.anatomy.weights)
    write_safetensors(folder / "model.safetensors", weights)


def ulmfit_manifest(
    rebuilt: RebuiltUlmfit,
    served: Served,
    *,
    name: str,
    origin: LearnerSpec,
    proven: bool,
) -> Manifest:
    """The manifest of the bundle; ``proven``: the learner's own answers were reproduced."""
    spacy = {"spacy": rebuilt.spacy} if rebuilt.spacy else {}
    text = TextSpec(
        kind=KIND_WORDS,
        steps=(),
        max_length=rebuilt.max_length,
        padding="mask",
        pad_token_id=rebuilt.ulmfit.model.pad_id or 0,
    )
    return assemble(
        rebuilt.anatomy,
        served,
        name=name,
        text=text,
        model=model_spec(served, _ARCHITECTURE, rebuilt.classifier),
        residues=_ulmfit_residues(rebuilt, proven=proven),
        provenance=Provenance(origin, {**converter(), **spacy}),
    )


def _ulmfit_residues(rebuilt: RebuiltUlmfit, *, proven: bool) -> tuple[str, ...]:
    """Where the answers may differ from the learner's own."""
    model, words = rebuilt.ulmfit.model, rebuilt.text
    found = general_residues(rebuilt.anatomy)
    if rebuilt.spacy:
        found.append(
            f"words with signs in them: the learner asks the spaCy beside it, whose version is not "
            f"in the file; here they are split as spaCy {rebuilt.spacy} does, and versions differ "
            "on a few texts in a thousand"
        )
    pooled = f", and the last {model.max_len:,} of them weigh most" if model.max_len else ""
    found.append(
        f"a text of more than {rebuilt.max_length:,} tokens: the learner reads all of it{pooled}; "
        f"here the last {rebuilt.max_length:,} are read, and the answer says that it was truncated"
    )
    if words.splitter == "spaCy":
        found.append(f"a word of more than {LONGEST_WORD:,} characters is not split")
    if model.pad_id is not None:
        found.append(
            "a text that spells out xxpad: fastai fails on some such texts; here they are answered"
        )
    if not proven:
        found.extend(words.assumptions)
    return tuple(found)
