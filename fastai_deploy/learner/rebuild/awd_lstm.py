"""The AWD-LSTM classifier in torch, as fastai runs it on one text: chunk by chunk, then pooled."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.examine.awd_lstm import COUNTERS, AwdLstm, HeadLayer, weights_of
from fastai_deploy.learner.examine.unproven import RUNTIME
from fastai_deploy.learner.reading.tensors import Tensor
from fastai_deploy.learner.rebuild.sketch import check_shared
from fastai_deploy.learner.rebuild.transformer import by, check_names, read_finite

State = tuple[torch.Tensor, torch.Tensor]


class AwdLstmClassifier(nn.Module):
    """Ids of one text, ``(1, sequence)``, to logits ``(1, labels)``."""

    def __init__(self, described: AwdLstm, weights: Mapping[str, torch.Tensor]) -> None:
        """``weights`` are by their names in the learner, in float32."""
        super().__init__()
        self.described = described
        embedding = weights[f"{described.path}.encoder.weight"]
        self.encoder = nn.Embedding(*embedding.shape)
        self.encoder.load_state_dict({"weight": embedding}, strict=True)
        inputs = (described.emb_sz, *(size * self._directions for size in described.hidden[:-1]))
        self.rnns = nn.ModuleList(
            nn.LSTM(size, hidden, batch_first=True, bidirectional=described.bidirectional)
            for size, hidden in zip(inputs, described.hidden, strict=True)
        )
        self.head = nn.Sequential(*(_layer(each, weights) for each in described.head))
        for layer, rnn in enumerate(self.rnns):
            rnn.load_state_dict(_recurrent(described, layer, weights), strict=True)
        self.eval()

    @property
    def _directions(self) -> int:
        return 2 if self.described.bidirectional else 1

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The scores of every label, before softmax or sigmoid."""
        described = self.described
        length, step = ids.shape[1], described.bptt
        states: list[State | None] = [None] * len(self.rnns)
        outputs, kept = [], []
        for start in range(0, length, step):
            chunk = ids[:, start : start + step]
            value = self.encoder(chunk)
            for layer, rnn in enumerate(self.rnns):
                value, states[layer] = rnn(value, states[layer])
            if self._is_pooled(start, length):
                outputs.append(value)
                kept.append(chunk)
        scores: torch.Tensor = self.head(
            self._pool(torch.cat(outputs, dim=1), torch.cat(kept, dim=1))
        )
        return scores

    def _is_pooled(self, start: int, length: int) -> bool:
        described = self.described
        if described.max_len is None:
            return True
        first = length - described.max_len
        return start >= first if described.inclusive else start > first

    def _pool(self, output: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Last, maximum and mean of outputs ``(1, sequence, size)``, padding left out."""
        described = self.described
        padding = torch.zeros_like(ids, dtype=torch.bool)
        if described.pad_id is not None:
            padding = ids == described.pad_id
        last = -1
        if described.last_skips_padding:
            last -= int(padding[:, -described.bptt :].sum())
        shown = padding[:, :, None]
        mean = output.masked_fill(shown, 0).sum(dim=1) / (~padding).sum(dim=1)[:, None]
        highest = output.masked_fill(shown, -float("inf")).max(dim=1)[0]
        return torch.cat([output[:, last], highest, mean], dim=1)


def rebuild_awd_lstm(described: AwdLstm, tensors: Mapping[str, Tensor]) -> AwdLstmClassifier:
    """The classifier with the learner's weights.

    Raises UnsupportedLearner unless names and shapes agree and every number is finite.
    """
    used = weights_of(tensors)
    wanted = {*described.raw_weights, *head_weights(described, used)}
    check_names(wanted, used.keys(), "are not those of an AWD-LSTM classifier")
    check_shared({name: used[name] for name in wanted})
    _check_sizes(described, used)
    try:
        with torch.device("meta"):  # whose tensors have shapes alone: do they fit its sizes?
            AwdLstmClassifier(described, {name: torch.empty(used[name].shape) for name in wanted})
        weights = {name: read_finite(name, used[name]).float() for name in wanted}
        return AwdLstmClassifier(described, weights)
    except (RuntimeError, ValueError, IndexError, TypeError, OverflowError) as error:
        raise UnsupportedLearner(
            f"the learner's weights do not fit its AWD-LSTM: {str(error).splitlines()[-1].strip()}",
            hint=RUNTIME,
        ) from error


def _check_sizes(described: AwdLstm, used: Mapping[str, Tensor]) -> None:
    """Raise UnsupportedLearner where the weights of an LSTM are not of the sizes that it claims."""
    inputs = described.emb_sz
    for layer, hidden in enumerate(described.hidden):
        for end in ("", "_reverse") if described.bidirectional else ("",):
            name = f"{described.path}.rnns.{layer}.module.weight_ih_l0{end}"
            if used[name].shape != (4 * hidden, inputs):
                raise UnsupportedLearner(
                    f"{name} is {by(used[name].shape)} in the learner, but its sizes (emb_sz "
                    f"{described.emb_sz:,}, n_hid {described.n_hid:,}) make it "
                    f"{by((4 * hidden, inputs))}",
                    hint=RUNTIME,
                )
        inputs = hidden * (2 if described.bidirectional else 1)


def head_weights(described: AwdLstm, found: Mapping[str, object]) -> list[str]:
    """The names of the weights of the head; a linear layer may have no bias."""
    names: list[str] = []
    for layer in described.head:
        if layer.kind == "batch norm":
            ends = ("weight", "bias", "running_mean", "running_var")
            names += [f"{layer.path}.{end}" for end in ends]
        elif layer.kind == "linear":
            bias = f"{layer.path}.bias"
            names += [f"{layer.path}.weight", *([bias] if bias in found else [])]
    return names


def _recurrent(
    described: AwdLstm, layer: int, weights: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    place = f"{described.path}.rnns.{layer}.module"
    found = {}
    for end in ("", "_reverse") if described.bidirectional else ("",):
        for name in ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0"):
            found[name + end] = weights[f"{place}.{name}{end}"]
        found["weight_hh_l0" + end] = weights[described.recurrent(layer, end)]
    return found


def _layer(layer: HeadLayer, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    if layer.kind == "relu":
        return nn.ReLU()
    weight = weights[f"{layer.path}.weight"]
    made: nn.Module
    if layer.kind == "linear":
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=f"{layer.path}.bias" in weights)
        names = ["weight", "bias"] if made.bias is not None else ["weight"]
    else:
        made = nn.BatchNorm1d(weight.shape[0], eps=layer.eps, track_running_stats=True)
        names = ["weight", "bias", "running_mean", "running_var"]
    counters = {name: each for name, each in made.named_buffers() if name in COUNTERS}
    found = {name: weights[f"{layer.path}.{name}"] for name in names}
    made.load_state_dict({**found, **counters}, strict=True)
    return made
