"""The AWD-LSTM classifier as an ONNX graph over batches of padded texts.

fastai runs a text in chunks and carries the state on, which for an LSTM that reads forwards is one
run over the whole text; each text's own length goes into the operator, so that padding on the right
is never read. The direction that reads backwards turns round within each chunk: for it the tokens
of each chunk are turned round before, and what it gives is turned round again.

The graph is written by hand, node by node: what a tracer makes of chunks depends on the example.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.rebuild.awd_lstm import AwdLstmClassifier
from fastai_deploy.learner.rebuild.onnx_export import (
    AGREEMENT,
    OPSET,
    Graph,
    Session,
    gpu_form,
    open_graph,
    relative_difference,
)
from fastai_deploy.learner.rebuild.onnx_file import write_onnx
from fastai_deploy.learner.rebuild.transformer import OUTPUT

INPUTS = ("input_ids", "attention_mask")
_IR = 8  # of ONNX 1.13, which every ONNX Runtime that reads the operators reads


def export_awd_lstm(classifier: AwdLstmClassifier, path: Path, *, longest: int) -> Graph:
    """Write the graph; ``longest`` is the length of the longest text, in tokens.

    The same classifier gives the same bytes. Raises UnsupportedLearner when the graph would answer
    differently, and FileError.
    """
    model = _Graph(classifier).model()
    weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    del model.graph.initializer[:]
    write_onnx(path, model, weights)
    difference = _difference(classifier, open_graph(path), longest)
    if difference > AGREEMENT:
        raise UnsupportedLearner(
            f"the exported graph answers differently from torch (by {difference:.1e})",
            hint="report this with the output of: fdeploy inspect",
        )
    gpu = gpu_form(path, lambda session: _difference(classifier, session, longest))
    return Graph(path, INPUTS, 0, difference, gpu)


class _Graph:
    """The nodes, in the order of the computation; every method names the value that it makes.

    Sequences lie as (sequence, batch, size), as the LSTM of ONNX has them.
    """

    def __init__(self, classifier: AwdLstmClassifier) -> None:
        self._classifier = classifier
        self._described = classifier.described
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def model(self) -> onnx.ModelProto:
        """The whole graph."""
        logits = self._logits()
        self._nodes.append(helper.make_node("Identity", [logits], [OUTPUT]))
        shape = ["batch", "sequence"]
        graph = helper.make_graph(
            self._nodes,
            "awd_lstm",
            [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in INPUTS],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", "labels"])],
            list(self._constants.values()),
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR,
            producer_name="fastai-deploy",
        )

    def _logits(self) -> str:
        ids = self._do("Transpose", INPUTS[0], perm=[1, 0])
        lengths = self._do("ReduceSum", INPUTS[1], self._numbers(1), keepdims=0)  # (batch,)
        count = self._do("Squeeze", self._do("Shape", ids, start=0, end=1))
        counted = self._do("Range", self._number(0), count, self._number(1))
        positions = self._do("Unsqueeze", counted, self._numbers(1))  # (sequence, 1)
        turned = self._turned(positions, lengths) if self._described.bidirectional else None
        value = self._do("Gather", self._weight(self._classifier.encoder.weight), ids)
        short = self._do("Cast", lengths, to=TensorProto.INT32)
        for rnn in self._classifier.rnns:
            value = self._layer(value, rnn, short, turned)
        return self._head(self._pooled(value, ids, positions, lengths))

    def _layer(self, value: str, rnn: nn.Module, lengths: str, turned: str | None) -> str:
        """One layer in its directions: (sequence, batch, input) to (sequence, batch, output)."""
        forwards = self._lstm(value, rnn, "", lengths)
        if turned is None:
            return forwards
        backwards = self._lstm(self._reorder(value, turned), rnn, "_reverse", lengths)
        return self._do("Concat", forwards, self._reorder(backwards, turned), axis=2)

    def _lstm(self, value: str, rnn: nn.Module, end: str, lengths: str) -> str:
        weights = dict(rnn.named_parameters())
        bias = torch.cat([_gates(weights[f"bias_{each}_l0{end}"]) for each in ("ih", "hh")])
        hidden = weights[f"weight_hh_l0{end}"].shape[1]
        made = self._do(
            "LSTM",
            value,
            self._weight(_gates(weights[f"weight_ih_l0{end}"])[None]),
            self._weight(_gates(weights[f"weight_hh_l0{end}"])[None]),
            self._weight(bias[None]),
            lengths,
            hidden_size=hidden,
        )
        return self._do("Squeeze", made, self._numbers(1))

    def _turned(self, positions: str, lengths: str) -> str:
        """Where each token goes when each chunk is turned round: (sequence, batch)."""
        step = self._number(self._described.bptt)
        start = self._do("Mul", self._do("Div", positions, step), step)
        end = self._do("Min", self._do("Add", start, step), lengths)
        sum_ = self._do("Sub", self._do("Add", start, end), self._number(1))
        inside = self._do("Less", positions, lengths)
        return self._do("Where", inside, self._do("Sub", sum_, positions), positions)

    def _reorder(self, value: str, places: str) -> str:
        """The same with its rows at other places along the sequence."""
        wide = self._do("Unsqueeze", places, self._numbers(2))
        shape = self._do("Shape", value)
        return self._do("GatherElements", value, self._do("Expand", wide, shape), axis=0)

    def _pooled(self, value: str, ids: str, positions: str, lengths: str) -> str:
        """Last, maximum and mean of what is pooled: (batch, 3 x size)."""
        begin = self._begin(lengths)
        kept = self._do(
            "And",
            self._do("GreaterOrEqual", positions, begin),
            self._do("Less", positions, lengths),
        )
        last = self._do("Sub", lengths, self._number(1))
        if self._described.pad_id is not None:
            padding = self._do("Equal", ids, self._number(self._described.pad_id))
            if self._described.last_skips_padding:
                last = self._do("Sub", last, self._ending(padding, kept, positions, lengths))
            kept = self._do("And", kept, self._do("Not", padding))
        shown = self._do("Unsqueeze", kept, self._numbers(2))
        lowest = self._weight(torch.tensor(-float("inf")))
        highest = self._reduced("ReduceMax", self._do("Where", shown, value, lowest))
        summed = self._do(
            "ReduceSum",
            self._do("Where", shown, value, self._weight(torch.tensor(0.0))),
            self._numbers(0),
            keepdims=0,
        )
        numbers = self._do("Cast", shown, to=TensorProto.FLOAT)
        mean = self._do("Div", summed, self._do("ReduceSum", numbers, self._numbers(0), keepdims=0))
        place = self._do("Max", last, self._number(0))
        row = self._do("Unsqueeze", self._do("Unsqueeze", place, self._numbers(0)),
                       self._numbers(2))  # fmt: skip
        wide = self._do(
            "Expand",
            row,
            self._do("Concat", self._numbers(1), self._do("Shape", value, start=1, end=3), axis=0),
        )
        taken = self._do("GatherElements", value, wide, axis=0)
        return self._do(
            "Concat", self._do("Squeeze", taken, self._numbers(0)), highest, mean, axis=1
        )

    def _begin(self, lengths: str) -> str:
        """Where the first chunk that is pooled begins: (batch,)."""
        described, step = self._described, self._number(self._described.bptt)
        if described.max_len is None:
            return self._do("Mul", lengths, self._number(0))
        # The first multiple of the step that is at least (inclusive) or above this many tokens.
        before = self._do("Sub", lengths, self._number(described.max_len))
        if described.inclusive:
            raised = self._do("Add", self._do("Max", before, self._number(0)),
                              self._number(described.bptt - 1))  # fmt: skip
        else:
            raised = self._do("Add", self._do("Max", before, self._number(-1)), step)
        return self._do("Mul", self._do("Div", raised, step), step)

    def _ending(self, padding: str, kept: str, positions: str, lengths: str) -> str:
        """How many of the last chunk's number of tokens are padding: (batch,)."""
        near = self._do("Sub", lengths, self._number(self._described.bptt))
        late = self._do("And", kept, self._do("GreaterOrEqual", positions, near))
        counted = self._do("Cast", self._do("And", padding, late), to=TensorProto.INT64)
        return self._do("ReduceSum", counted, self._numbers(0), keepdims=0)

    def _head(self, value: str) -> str:
        for layer in self._classifier.head:
            if isinstance(layer, nn.Linear):
                bias = [] if layer.bias is None else [self._weight(layer.bias)]
                value = self._do("Gemm", value, self._weight(layer.weight), *bias, transB=1)
            elif isinstance(layer, nn.BatchNorm1d):
                value = self._do("BatchNormalization", value, *self._statistics(layer),
                                 epsilon=layer.eps)  # fmt: skip
            else:
                value = self._do("Relu", value)
        return value

    def _statistics(self, layer: nn.BatchNorm1d) -> list[str]:
        mean, variance = layer.running_mean, layer.running_var
        found = (layer.weight, layer.bias, mean, variance)
        return [self._weight(each) for each in found if each is not None]

    def _reduced(self, kind: str, value: str) -> str:
        return self._do(kind, value, axes=[0], keepdims=0)

    def _do(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node; its output."""
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def _weight(self, value: torch.Tensor) -> str:
        name = f"weight_{len(self._constants)}"
        array = value.detach().contiguous().numpy()
        self._constants[name] = numpy_helper.from_array(array, name)
        return name

    def _number(self, value: int) -> str:
        name = f"number_{value}"
        self._constants[name] = numpy_helper.from_array(np.array(value, dtype=np.int64), name)
        return name

    def _numbers(self, value: int) -> str:
        name = f"numbers_{value}"
        self._constants[name] = numpy_helper.from_array(np.array([value], dtype=np.int64), name)
        return name


def _gates(weights: torch.Tensor) -> torch.Tensor:
    """Rows by gate, from torch's order (input, forget, cell, output) to that of ONNX."""
    entering, forget, cell, leaving = weights.chunk(4)
    return torch.cat([entering, leaving, forget, cell])


def _difference(classifier: AwdLstmClassifier, session: Session, longest: int) -> float:
    """The largest |Δlogit| between a batch in the graph and its texts alone in torch.

    It is relative to the largest logit where that is above 1. Lengths lie on both sides of every
    border: a chunk, what is pooled, the longest text.
    """
    return max(
        _batch_difference(classifier, session, lengths, seed)
        for seed, lengths in enumerate(_lengths(classifier, longest))
    )


def _lengths(classifier: AwdLstmClassifier, longest: int) -> Sequence[Sequence[int]]:
    described = classifier.described
    step, pooled = described.bptt, described.max_len or 0
    near = [length + more for length in (step, pooled, pooled + step) for more in (-1, 0, 1)]
    return (
        (1,),
        (5, 2, 9, 1),
        [length for length in near if 0 < length <= longest],
        (longest,),
    )


def _batch_difference(
    classifier: AwdLstmClassifier,
    session: Session,
    lengths: Sequence[int],
    seed: int,
) -> float:
    described = classifier.described
    random = np.random.default_rng(seed)
    pad = described.pad_id or 0
    ids = random.integers(0, described.vocabulary, (len(lengths), max(lengths)))
    # A padding id in a text is rare; at its ends and alone it is none that fastai survives.
    ids[ids == pad] = (pad + 1) % described.vocabulary
    mask = np.arange(max(lengths))[None, :] < np.array(lengths)[:, None]
    for row, length in enumerate(lengths):
        if length > 2 and described.pad_id is not None:  # noqa: PLR2004 - ends and a middle
            ids[row, length - 2] = pad
    ids[~mask] = pad
    feed = dict(zip(INPUTS, (ids, mask.astype(np.int64)), strict=True))
    ours = session.run([OUTPUT], feed)[0]
    with torch.no_grad():
        theirs = np.concatenate(
            [
                classifier(torch.from_numpy(ids[row : row + 1, :length])).numpy()
                for row, length in enumerate(lengths)
            ]
        )
    return relative_difference(ours, theirs)
