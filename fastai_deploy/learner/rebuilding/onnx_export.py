"""The rebuilt classifier as an ONNX graph, proved equal to torch before it is kept.

The tracing exporter with eager attention writes a graph whose attention ONNX Runtime's optimizer
recognises and fuses; the fused graph is kept when it answers as torch does, also where the padding
id stands in the middle of a text, else the plain one.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.files import file_errors, write
from fastai_deploy.learner.rebuilding.agreement import AGREEMENT, Checks
from fastai_deploy.learner.rebuilding.classifier import OUTPUT, Classifier

OPSET = 17  # the first with LayerNormalization; ONNX Runtime 1.13 and later read it
LARGEST = 2 << 30  # bytes; what one protobuf file can hold
_EXAMPLE = (2, 9)  # (batch, sequence) of the trace
_TRACED, _FUSED = ".traced.onnx", ".fused.onnx"


@dataclass(frozen=True)
class Graph:
    """An exported model.

    ``path`` is the ONNX file; ``fused`` counts the attention nodes that were fused;
    ``difference`` is the largest relative |Δlogit| to torch that was seen.
    """

    path: Path
    inputs: tuple[str, ...]
    fused: int
    difference: float


def export_onnx(classifier: Classifier, path: Path, checks: Checks) -> Graph:
    """Write the graph of a classifier to ``path``.

    The same classifier gives the same bytes. Raises UnsupportedLearner when its graph would not fit
    into one file or would answer differently, and FileError.
    """
    size = sum(value.numel() * value.element_size() for value in classifier.state_dict().values())
    if size >= LARGEST:
        raise UnsupportedLearner(
            f"the model has {size:,} bytes; an ONNX file can hold {LARGEST:,}",
            hint="train a smaller model (base instead of large)",
        )
    traced, fused = path.with_name(_TRACED), path.with_name(_FUSED)
    try:
        with file_errors(path):
            _trace(classifier, traced)
            attention = _fuse(classifier, traced, fused)
            candidates = [(fused, attention)] if attention else []
            for candidate, count in (*candidates, (traced, 0)):
                difference = checks.difference(candidate)
                if difference <= AGREEMENT:
                    candidate.replace(path)
                    return Graph(path, classifier.inputs, count, difference)
    finally:
        traced.unlink(missing_ok=True)
        fused.unlink(missing_ok=True)
    raise UnsupportedLearner(
        f"the exported graph answers differently from torch (by {difference:.1e})",
        hint="report this with the output of: fdeploy inspect",
    )


def _trace(classifier: Classifier, path: Path) -> None:
    ids = torch.ones(_EXAMPLE, dtype=torch.int64).cumsum(dim=1) + 3
    axes = {name: {0: "batch", 1: "sequence"} for name in classifier.inputs}
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            classifier,
            classifier.arguments(ids, torch.ones_like(ids)),
            str(path),
            input_names=list(classifier.inputs),
            output_names=[OUTPUT],
            dynamic_axes={**axes, OUTPUT: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )


def _fuse(classifier: Classifier, traced: Path, fused: Path) -> int:
    """Write the graph with fused attention; the number of its nodes, 0 where nothing was fused."""
    options = FusionOptions("bert")
    # The mask itself instead of the length of the text: padding may stand in the middle of it.
    options.use_raw_attention_mask(use_raw_mask=True)
    options.enable_embed_layer_norm = False  # it would derive that length from the mask
    model = onnx.load(traced)
    try:
        with _quiet():
            made = optimizer.optimize_model(
                model,
                model_type="bert",
                num_heads=_size(classifier, "num_attention_heads"),
                hidden_size=_size(classifier, "hidden_size"),
                opt_level=0,
                optimization_options=options,
            )
            statistics = made.get_fused_operator_statistics()
    except Exception:  # noqa: BLE001 - its errors have no common base; the plain graph remains
        return 0
    attention = sum(int(statistics.get(name, 0)) for name in ("Attention", "MultiHeadAttention"))
    if attention:
        write(fused, made.model.SerializeToString(deterministic=True))
    return attention


def _size(classifier: Classifier, name: str) -> int:
    """A number of the configuration; 0 lets the optimizer find it out."""
    value = getattr(classifier.model.config, name, 0)
    return value if isinstance(value, int) else 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter and the optimizer say of themselves; nothing of it outlives this.

    The shapes that a trace might have fixed are what ``Checks`` looks at.
    """
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of the exporter itself
        warnings.filterwarnings("ignore", category=UserWarning)  # of models that are traced
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined] # public, but torch does not list it
        logging.disable(logging.WARNING)  # the optimizer logs under a dozen names of its own
        try:
            yield
        finally:
            logging.disable(disabled)
