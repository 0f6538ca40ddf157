"""The AWD-LSTM classifier in torch.

``AwdLstmClassifier`` runs one text as fastai does: chunk by chunk, then pooling.
``BatchedAwdLstm`` runs a batch at once, without a loop whose length a trace would fix; it is the
one that is exported, and its graph's answers are compared with those of ``AwdLstmClassifier``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.examine.awd_lstm import COUNTERS, AwdLstm, HeadLayer, weights_of
from fastai_deploy.learner.examine.unproven import RUNTIME
from fastai_deploy.learner.reading.tensors import Tensor
from fastai_deploy.learner.rebuild.onnx_export import Compared, Ids, Session, relative_difference
from fastai_deploy.learner.rebuild.sketch import check_shared
from fastai_deploy.learner.rebuild.transformer import (
    OUTPUT,
    Exportable,
    by,
    check_names,
    read_finite,
)

State = tuple[torch.Tensor, torch.Tensor]
# Added to the gates of an LSTM, this closes them, whatever else is added: LSTMs of trained models
# add less than a hundred.
_CLOSED = -1e4


class AwdLstmClassifier(nn.Module):
    """Ids of one text, ``(1, sequence)``, to logits ``(1, labels)``."""

    def __init__(self, described: AwdLstm, weights: Mapping[str, torch.Tensor]) -> None:
        """``weights`` are in float32, by their names in the learner."""
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
            skipped = described.skips_padded_steps and int(chunk[0, 0]) == described.pad_id
            for layer, rnn in enumerate(self.rnns):
                value, states[layer] = rnn(value, states[layer])
                if skipped:
                    value, states[layer] = torch.zeros_like(value), None
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


class BatchedAwdLstm(Exportable):
    """The same model for texts padded on the right: ids and mask ``(batch, sequence)`` to logits.

    fastai runs a text in chunks and passes the state on. For a forward LSTM that equals one run
    over the whole text. A backward LSTM reads each chunk from its end, so the tokens of each chunk
    are reversed before it runs, and its outputs afterwards. Padding follows the text, so no output
    within the text depends on it.

    fastai 2 does not run a chunk that begins with padding: its outputs are zero, and the next chunk
    starts without a state. Every LSTM has one more input for this, which is 1 in such a chunk, and
    closes the gates.
    """

    inputs = ("input_ids", "attention_mask")
    name = "an AWD-LSTM"

    def __init__(self, classifier: AwdLstmClassifier) -> None:
        super().__init__()
        self.described = classifier.described
        self.encoder, self.head = classifier.encoder, classifier.head
        ends = ("", "_reverse") if self.described.bidirectional else ("",)
        self.layers = nn.ModuleList(
            nn.ModuleList(_one_way(rnn, end, closes=self._skipped_id is not None) for end in ends)
            for rnn in classifier.rnns
        )
        self.eval().requires_grad_(requires_grad=False)

    @property
    def _skipped_id(self) -> int | None:
        """The id with which a chunk begins that is not run."""
        return self.described.pad_id if self.described.skips_padded_steps else None

    def arguments(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Both."""
        return ids, mask

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The scores of every label, before softmax or sigmoid."""
        lengths = mask.sum(dim=1, keepdim=True)
        positions = torch.arange(ids.shape[1])[None, :]
        turned = self._turned(positions, lengths)
        value = self.encoder(ids)
        skipped = []
        if self._skipped_id is not None:
            begins = ids.gather(1, self._chunk(positions).expand_as(ids)) == self._skipped_id
            skipped = [begins[:, :, None].to(value.dtype)]
        for layer in self.layers:
            value = torch.cat([value, *skipped], dim=2)
            forwards, *backwards = layer.children()
            outputs = [forwards(value)[0]]
            outputs += [_at(rnn(_at(value, turned))[0], turned) for rnn in backwards]
            value = torch.cat(outputs, dim=2)
        scores: torch.Tensor = self.head(self._pool(value, ids, positions, lengths))
        return scores

    def _chunk(self, positions: torch.Tensor) -> torch.Tensor:
        """For each position, the start of its chunk."""
        step = self.described.bptt
        return torch.div(positions, step, rounding_mode="trunc") * step

    def _turned(self, positions: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The positions with every chunk of a text reversed, ``(batch, sequence)``."""
        start = self._chunk(positions)
        end = torch.minimum(start + self.described.bptt, lengths)
        return torch.where(positions < lengths, start + end - 1 - positions, positions)

    def _pool(
        self,
        value: torch.Tensor,
        ids: torch.Tensor,
        positions: torch.Tensor,
        lengths: torch.Tensor,
    ) -> torch.Tensor:
        """The last output, and the maximum and mean of the pooled ones: ``(batch, 3 x size)``."""
        described = self.described
        pooled = positions < lengths
        last = lengths - 1
        if described.max_len is not None:
            # The first multiple of the step that is at least, or above, this many tokens.
            before = lengths - described.max_len
            if described.inclusive:
                before = before.clamp(min=0) + described.bptt - 1
            else:
                before = before.clamp(min=-1) + described.bptt
            pooled = pooled & (positions >= self._chunk(before))
        if described.pad_id is not None:
            padding = ids == described.pad_id
            if described.last_skips_padding:
                ending = padding & pooled & (positions >= lengths - described.bptt)
                last = last - ending.sum(dim=1, keepdim=True)
            pooled = pooled & ~padding
        left_out = ~pooled[:, :, None]
        mean = value.masked_fill(left_out, 0).sum(dim=1) / pooled.sum(dim=1, keepdim=True)
        highest = value.masked_fill(left_out, -float("inf")).amax(dim=1)
        return torch.cat([_at(value, last.clamp(min=0))[:, 0], highest, mean], dim=1)


class AwdLstmChecks(Compared):
    """Batches of random texts, with the answers of the learner's model to each text alone.

    The lengths are just below and above every boundary: a chunk, the pooled part, the longest text
    (``longest``, in tokens).
    """

    def __init__(self, classifier: AwdLstmClassifier, *, longest: int) -> None:
        described = classifier.described
        step, pooled = described.bptt, described.max_len or 0
        near = [length + more for length in (step, pooled, pooled + step) for more in (-1, 0, 1)]
        batches: Sequence[Sequence[int]] = (
            (1,),
            (5, 2, 9, 1),
            [length for length in near if 0 < length <= longest],
            (longest,),
        )
        self._asked = [_random_batch(described, each, n) for n, each in enumerate(batches)]
        with torch.no_grad():
            self._answers = [
                np.concatenate(
                    [
                        classifier(torch.from_numpy(ids[row : row + 1, :length])).numpy()
                        for row, length in enumerate(mask.sum(axis=1))
                    ]
                )
                for ids, mask in self._asked
            ]

    def difference_of(self, session: Session) -> float:
        """The largest |Δlogit|, relative to the largest logit where that is above 1."""
        return max(
            relative_difference(
                session.run([OUTPUT], dict(zip(BatchedAwdLstm.inputs, asked, strict=True)))[0],
                theirs,
            )
            for asked, theirs in zip(self._asked, self._answers, strict=True)
        )


def _one_way(rnn: nn.Module, end: str, *, closes: bool) -> nn.LSTM:
    """One direction of an LSTM, as a forward LSTM.

    ``closes``: with one more input, last; where it is 1, the LSTM has neither state nor output.
    """
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    weights: dict[str, torch.Tensor] = {name: rnn.get_parameter(name + end) for name in names}
    if closes:
        gates = torch.tensor([_CLOSED, _CLOSED, 0.0, _CLOSED])  # in, forget, cell, out
        column = gates.repeat_interleave(len(weights["weight_ih_l0"]) // len(gates))
        weights["weight_ih_l0"] = torch.cat([weights["weight_ih_l0"], column[:, None]], dim=1)
    rows, columns = weights["weight_ih_l0"].shape
    made = nn.LSTM(columns, rows // 4, batch_first=True)
    made.load_state_dict(weights, strict=True)
    return made


def _at(value: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The rows of a value ``(batch, sequence, size)`` at these positions of the sequence."""
    return value.gather(1, places[:, :, None].expand(-1, -1, value.shape[2]))


def _random_batch(described: AwdLstm, lengths: Sequence[int], seed: int) -> tuple[Ids, Ids]:
    """Ids and mask of texts that contain padding, but not at an end.

    In the last of them a chunk begins with it.
    """
    pad = described.pad_id or 0
    shape = (len(lengths), max(lengths))
    ids = np.random.default_rng(seed).integers(0, described.vocabulary, shape)
    ids[ids == pad] = (pad + 1) % described.vocabulary
    mask = np.arange(max(lengths))[None, :] < np.array(lengths)[:, None]
    for row, length in enumerate(lengths):
        if length > 2 and described.pad_id is not None:  # noqa: PLR2004 - ends and a middle
            ids[row, length - 2] = pad
    if described.bptt < lengths[-1] - 1:
        ids[-1, described.bptt] = pad
    ids[~mask] = pad
    return ids, mask.astype(np.int64)


def rebuild_awd_lstm(described: AwdLstm, tensors: Mapping[str, Tensor]) -> AwdLstmClassifier:
    """The classifier with the learner's weights.

    Raises UnsupportedLearner unless names and shapes match and every number is finite.
    """
    used = weights_of(tensors)
    wanted = {*described.raw_weights, *head_weights(described, used)}
    check_names(wanted, used.keys(), "are not those of an AWD-LSTM classifier")
    check_shared({name: used[name] for name in wanted})
    _check_sizes(described, used)
    try:
        with torch.device("meta"):  # compares shapes without allocating memory
            AwdLstmClassifier(described, {name: torch.empty(used[name].shape) for name in wanted})
        weights = {name: read_finite(name, used[name]).float() for name in wanted}
        return AwdLstmClassifier(described, weights)
    except (RuntimeError, ValueError, IndexError, TypeError, OverflowError) as error:
        raise UnsupportedLearner(
            f"the learner's weights do not fit its AWD-LSTM: {str(error).splitlines()[-1].strip()}",
            hint=RUNTIME,
        ) from error


def _check_sizes(described: AwdLstm, used: Mapping[str, Tensor]) -> None:
    """Raise UnsupportedLearner if the weights of an LSTM differ from its declared sizes."""
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
    """The names of the head's weights; a linear layer may have no bias."""
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
