"""Exports the rebuilt classifier to ONNX and checks that the graph answers as torch does."""

from __future__ import annotations

import ctypes
import io
import logging
import mmap
import os
import re
import sys
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from torch import nn

from fastai_deploy.errors import FdeployError, UnsupportedLearner
from fastai_deploy.files import file_errors
from fastai_deploy.learner.examine.unproven import OTHER_ARCHITECTURE, RUNTIME
from fastai_deploy.learner.rebuild.exporter_gaps import Filled
from fastai_deploy.learner.rebuild.onnx_file import write_onnx
from fastai_deploy.learner.rebuild.transformer import OUTPUT, Classifier, Exportable
from fastai_deploy.runtime.hardware import trim_memory
from fastai_deploy.runtime.torch_operators import OPERATORS
from fastai_deploy.runtime.torch_session import open_torch

ALIGNMENT = 64  # bytes, one cache line


class OffloadedWeights:
    """Moves the parameters of a module to a memory-mapped file.

    The module works as before; :meth:`evict` frees their memory while it is not in use. The file is
    anonymous and disappears with the module. On systems without ``madvise``, nothing is moved.
    """

    def __init__(self, module: nn.Module, folder: Path) -> None:
        """Write the parameters to a file on the disk of ``folder``. Raises FileError."""
        self._map: mmap.mmap | None = None
        parameters = [each for each in module.parameters() if each.numel()]
        if not parameters or not hasattr(mmap, "MADV_DONTNEED"):
            return
        starts: list[int] = []
        with file_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
            for each in parameters:
                starts.append(file.seek(-(-file.tell() // ALIGNMENT) * ALIGNMENT))
                whole = each.detach().contiguous().flatten()
                file.write(whole.view(torch.uint8).numpy().data)
            file.flush()
            # Copy on write: a change to a parameter would not reach the file.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        for each, start in zip(parameters, starts, strict=True):
            mapped = torch.frombuffer(self._map, dtype=each.dtype, count=each.numel(), offset=start)
            each.data = mapped.view(each.shape)
        trim_memory()

    def evict(self) -> None:
        """Free the memory of the parameters; the next use reads them from the file again."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)
        trim_memory()


# float32 has 7 digits, and the order of additions differs; a wrong graph is off by far more.
AGREEMENT = 1e-4
SHAPES = ((1, 2), (1, 7), (4, 16))  # (batch, sequence); a text of maximum length is added
# The limit for that text, in tokens: attention needs quadratic memory, 0.8 GB in a BERT-base.
LONGEST = 4_096
_MIDDLE = 3  # tokens; shorter texts get no padding id in the middle

FAILURES = (
    RuntimeError,
    IndexError,
    TypeError,
    ValueError,
    OverflowError,
)  # what models raise on ids that they do not support

Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"
Ids: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.int64]]"
Session: TypeAlias = Any
"""A session of ONNX Runtime, or anything with its ``run``."""


class Compared(ABC):
    """Texts with torch's answers, which a graph must reproduce."""

    def difference(self, graph: Path) -> float:
        """The difference of ONNX Runtime's answers; infinite if it cannot run the graph."""
        try:
            return self.difference_of(open_graph(graph))
        except Exception:  # noqa: BLE001 - its errors have no common base
            return float("inf")

    @abstractmethod
    def difference_of(self, session: Session) -> float:
        """The largest |Δlogit|, relative to the largest logit where that is above 1."""


class Checks(Compared):
    """Random texts, padded on the right, with torch's answers.

    ``vocabulary`` is the number of ids; ``max_length`` is the length of the longest text in tokens,
    capped at ``LONGEST``; ``pad`` is the padding id, which also occurs in the middle of a text.
    """

    def __init__(
        self, classifier: Exportable, *, vocabulary: int, max_length: int, pad: int
    ) -> None:
        self._feeds: list[dict[str, Ids]] = []
        self._answers: list[Array] = []
        for seed, shape in enumerate((*SHAPES, (1, min(max_length, LONGEST)))):
            ids, mask = _texts(shape, vocabulary, pad, seed)
            try:
                self._answers.append(_answer(classifier, ids, mask))
            except FAILURES as error:
                if shape == SHAPES[0]:  # some models cannot pool a text of two tokens
                    continue
                raise _failed(shape, error) from error
            arguments = classifier.arguments(torch.from_numpy(ids), torch.from_numpy(mask))
            self._feeds.append(
                dict(zip(classifier.inputs, (each.numpy() for each in arguments), strict=True))
            )

    def difference_of(self, session: Session) -> float:
        """The largest |Δlogit|, relative to the largest logit where that is above 1."""
        answers = [session.run([OUTPUT], feed)[0] for feed in self._feeds]
        return max(
            relative_difference(ours, theirs)
            for ours, theirs in zip(answers, self._answers, strict=True)
        )


def masks_padding(classifier: Classifier, *, vocabulary: int, pad: int) -> bool:
    """Whether a text gets the same answer alone and padded on the right in a batch.

    It does not if a model reads its answer at the last position (XLNet), mixes positions
    (convolutions, pooling), or was trained without a mask.
    """
    ids, mask = _texts(SHAPES[-1], vocabulary, pad, seed=len(SHAPES))
    try:
        together = _answer(classifier, ids, mask)
        alone = [
            _answer(classifier, row[None, :length], kept[None, :length])[0]
            for row, kept, length in zip(ids, mask, mask.sum(axis=1), strict=True)
        ]
    except FAILURES:
        return False
    return relative_difference(together, np.stack(alone)) <= AGREEMENT


def _answer(classifier: Exportable, ids: Ids, mask: Ids) -> Array:
    arguments = classifier.arguments(torch.from_numpy(ids), torch.from_numpy(mask))
    with torch.no_grad():
        return np.asarray(classifier(*arguments).numpy())


def relative_difference(ours: Array, theirs: Array) -> float:
    """The largest difference, relative to the largest number if that exceeds 1."""
    return float(np.abs(ours - theirs).max() / max(1.0, float(np.abs(theirs).max())))


def _failed(shape: tuple[int, int], error: Exception) -> UnsupportedLearner:
    return UnsupportedLearner(
        f"the rebuilt model fails on {shape[0]} texts of {shape[1]} tokens: {error}",
        hint=RUNTIME,
    )


def open_graph(graph: Path, *, bf16: bool = False) -> onnxruntime.InferenceSession:
    """A session on the CPU that logs nothing; ``bf16`` has an effect on Arm only."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised too
    if bf16:
        options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "1")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _texts(shape: tuple[int, int], vocabulary: int, pad: int, seed: int) -> tuple[Ids, Ids]:
    """Ids and mask of a batch of texts, longest first."""
    batch, sequence = shape
    ids = np.random.default_rng(seed).integers(0, vocabulary, shape)
    mask = np.ones(shape, dtype=np.int64)
    for row in range(1, batch):
        mask[row, -row:] = 0
    ids[mask == 0] = pad
    if sequence >= _MIDDLE:
        ids[0, sequence // 2] = pad
    return ids, mask


OPSET = 17  # the first with LayerNormalization; ONNX Runtime 1.13 and later read it
MESSAGE = 2 << 30  # bytes; the limit of one protobuf message
SMALL = 1 << 14  # elements; smaller weights may be copied freely
_REARRANGING = ("Concat", "Slice", "Transpose", "Unsqueeze")
_OUTPUT = 1  # the file descriptor of stdout
_NO_EQUIVALENT = re.compile(r"Exporting the operator '\w+::(\w+)' to ONNX opset version \d+ is not")
_INTERNAL = re.compile(r"^.*INTERNAL ASSERT FAILED at .*?, please report a bug to PyTorch\. *")
_SAID = 200  # characters of an error
_EXAMPLE = (2, 9)  # (batch, sequence) of the traced call

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Graph:
    """An exported model.

    ``path`` is the graph's file; ``fused`` is the number of fused attention nodes; ``difference``
    is the largest relative |Δlogit| against torch. ``gpu`` is the name of the file that the torch
    backend runs on a GPU, or None.
    """

    path: Path
    inputs: tuple[str, ...]
    fused: int
    difference: float
    gpu: str | None = None


def export_onnx(
    classifier: Exportable, path: Path, checks: Compared, *, most: int = MESSAGE
) -> Graph:
    """Write the graph of a classifier to ``path``, and its weights beside it.

    If the weights of attention have ``most`` bytes or more, they exceed what the optimizer can
    handle, and attention is not fused.

    The same classifier gives the same bytes. Raises UnsupportedLearner if the graph answers
    differently from torch, and FileError.
    """
    difference = float("inf")
    offloaded = OffloadedWeights(classifier, path.parent)
    model, weights = _trace(classifier, path)
    fused, attention = _fuse(classifier, model, weights, offloaded, most)
    offloaded.evict()
    candidates = [(fused, attention)] if attention else []
    for candidate, count in (*candidates, (model, 0)):
        taken = _take(candidate, weights)
        write_onnx(path, candidate, {name: each.numpy() for name, each in taken.items()})
        offloaded.evict()
        difference = checks.difference(path)
        if difference <= AGREEMENT:
            offloaded.evict()
            gpu = gpu_form(path, checks.difference_of)
            return Graph(path, classifier.inputs, count, difference, gpu)
    done = f"answers differently (by {difference:.1e})" if difference < float("inf") else "fails"
    raise _not_exported(
        classifier, f"the graph {done} on texts of other lengths than it was made of"
    )


def _trace(classifier: Exportable, path: Path) -> tuple[onnx.ModelProto, Weights]:
    """Trace the classifier. The graph takes its weights as inputs; they are returned by name."""
    ids = torch.ones(_EXAMPLE, dtype=torch.int64).cumsum(dim=1) + 3
    axes = {name: {0: "batch", 1: "sequence"} for name in classifier.inputs}
    traced = path.with_name(".traced.onnx")
    try:
        with file_errors(traced), quiet(), torch.no_grad(), Filled():
            torch.onnx.export(
                classifier,
                classifier.arguments(ids, torch.ones_like(ids)),
                str(traced),
                input_names=list(classifier.inputs),
                output_names=[OUTPUT],
                dynamic_axes={**axes, OUTPUT: {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
                export_params=False,
                do_constant_folding=False,
            )
        model = _with_inputs(onnx.load(traced), classifier.inputs)
    except FdeployError:
        raise
    except Exception as error:  # the exporter's errors have no common base
        raise _not_exported(classifier, _why(error)) from error
    finally:
        traced.unlink(missing_ok=True)
    weights = {**dict(classifier.named_parameters()), **dict(classifier.named_buffers())}
    return model, _rearrange({name: value.detach() for name, value in weights.items()}, model)


def _not_exported(classifier: Exportable, reason: str) -> UnsupportedLearner:
    return UnsupportedLearner(
        f"{classifier.name} cannot be exported to ONNX: {reason}", hint=OTHER_ARCHITECTURE
    )


def _why(error: Exception) -> str:
    """What the exporter could not do, without its advice to report a bug to PyTorch."""
    said = (str(error) or repr(error)).splitlines()[0]
    missing = _NO_EQUIVALENT.match(said)
    if missing:
        return f"ONNX has no equivalent of torch's {missing[1]}"
    return f"torch's exporter fails on it ({_INTERNAL.sub('', said)[:_SAID]})"


def _with_inputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The graph with every input, also one that the model ignores: FNet's mask is an example."""
    found = {value.name for value in model.graph.input}
    for name in names:
        if name not in found:
            model.graph.input.append(
                onnx.helper.make_tensor_value_info(
                    name, onnx.TensorProto.INT64, ["batch", "sequence"]
                )
            )
    return model


def _rearrange(weights: Weights, model: onnx.ModelProto) -> Weights:
    """Apply the graph's rearrangements of weights once, and remove those nodes from the graph.

    Linear layers transpose their weights, and LSTMs reorder their gates for ONNX.
    """
    nodes = model.graph.node
    constants: Weights = {}
    found = dict(weights)
    for node in list(nodes):
        if node.op_type == "Constant" and (value := _constant(node)) is not None:
            constants[node.output[0]] = value
        if node.op_type not in _REARRANGING or found.keys().isdisjoint(node.input):
            continue
        inputs = [found.get(name, constants.get(name)) for name in node.input]
        if all(each is not None for each in inputs):
            made = OPERATORS[node.op_type](inputs, _attributes(node))
            found[node.output[0]] = made
            nodes.remove(node)
            model.graph.input.append(
                onnx.helper.make_tensor_value_info(
                    node.output[0], onnx.TensorProto.FLOAT, list(made.shape)
                )
            )
    used = {name for node in nodes for name in node.input}
    for value in list(model.graph.input):
        if value.name in found and value.name not in used:
            model.graph.input.remove(value)
    for node in list(nodes):
        if node.op_type == "Constant" and node.output[0] not in used:
            nodes.remove(node)
    return found


def _constant(node: onnx.NodeProto) -> torch.Tensor | None:
    value = _attributes(node).get("value")
    return None if value is None else torch.from_numpy(onnx.numpy_helper.to_array(value).copy())


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def _fuse(
    classifier: Exportable,
    model: onnx.ModelProto,
    weights: Weights,
    offloaded: OffloadedWeights,
    most: int,
) -> tuple[onnx.ModelProto, int]:
    """The graph with fused attention, and the number of fused nodes, which may be 0.

    The optimizer merges the projections of an attention, so it needs their weights. It gets no
    larger ones, because it copies everything several times.
    """
    hidden = _size(classifier, "hidden_size")
    largest = max(hidden * hidden, SMALL)
    inputs = {value.name for value in model.graph.input}
    given = {
        name: each for name, each in weights.items() if name in inputs and each.numel() <= largest
    }
    if sum(each.nbytes for each in given.values()) >= most:
        return model, 0
    inner = _with_initializers(model, given)
    offloaded.evict()
    options = FusionOptions("bert")
    # Pass the mask, not the length of the text: there may be padding in the middle of a text.
    options.use_raw_attention_mask(use_raw_mask=True)
    options.enable_embed_layer_norm = False  # it would derive that length from the mask
    # These fusions are slower than their parts: see ``SLOWER`` in ``runtime.session``.
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = False
    options.enable_bias_gelu = False
    with quiet():
        try:
            made = optimizer.optimize_model(
                inner,
                model_type="bert",
                num_heads=_size(classifier, "num_attention_heads"),
                hidden_size=hidden,
                opt_level=0,
                optimization_options=options,
            )
            statistics = made.get_fused_operator_statistics()
        except Exception:  # noqa: BLE001 - its errors have no common base; the plain graph remains
            return model, 0
    attention = sum(int(statistics.get(name, 0)) for name in ("Attention", "MultiHeadAttention"))
    compact = onnx.ModelProto()
    compact.CopyFrom(made.model)  # a message keeps the memory of fields removed from it
    return compact, attention


def _with_initializers(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """A copy of the graph that contains these weights instead of taking them as inputs."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for name, weight in _take(made, weights).items():
        array = weight.contiguous().numpy()
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return made


def _take(model: onnx.ModelProto, weights: Weights) -> Weights:
    """Remove the inputs that are weights from the graph, and return those weights."""
    taken: Weights = {}
    for value in list(model.graph.input):
        if value.name in weights:
            taken[value.name] = weights[value.name]
            model.graph.input.remove(value)
    return taken


def _size(classifier: Exportable, name: str) -> int:
    """A number in the configuration; with 0 the optimizer determines it itself."""
    value = getattr(classifier.config, name, 0)
    return value if isinstance(value, int) else 0


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter and the optimizer inside the block.

    Their warnings about shapes fixed by a trace are not needed, because ``Checks`` tests for that.
    """
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # in the exporter itself
        warnings.filterwarnings("ignore", category=UserWarning)  # in traced models
        # On failure, the optimizer leaves a temporary folder to the garbage collector.
        warnings.filterwarnings("ignore", category=ResourceWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined] # public, but torch does not list it
        logging.disable(logging.WARNING)  # the optimizer uses a dozen loggers
        try:
            with redirect_stdout(io.StringIO()), _no_output():  # on failure they print the graph
                yield
        finally:
            logging.disable(disabled)


@contextmanager
def _no_output() -> Iterator[None]:
    """Discard what C++ code writes to stdout: the whole graph if an export fails."""
    try:
        kept = os.dup(_OUTPUT)
    except OSError:  # stdout is closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
            os.dup2(nowhere.fileno(), _OUTPUT)
        yield
    finally:
        if sys.platform != "win32":
            ctypes.CDLL(None).fflush(None)  # C's buffer may still hold output
        os.dup2(kept, _OUTPUT)
        os.close(kept)


def gpu_form(path: Path, difference: Callable[[Session], float]) -> str | None:
    """The name of the file if torch, node by node, computes the same answers; else None.

    ``difference`` returns a session's largest difference from the model.
    """
    try:
        alike = difference(open_torch(path, "cpu", half=False)) <= AGREEMENT
    except Exception:  # noqa: BLE001 - torch's errors have no common base; the CPU can serve
        return None
    return path.name if alike else None
