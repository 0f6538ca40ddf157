"""Find the AWD-LSTM classifier (ULMFiT) in a model: its sizes, its head, and its weights.

The model is an embedding, a stack of LSTMs over chunks of ``bptt`` tokens that carry their state
from chunk to chunk, pooling of their outputs (last, maximum, mean), and a head of linear layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastai_deploy.learner.examine.modules import Module, Root
from fastai_deploy.learner.reading.graph import Call, Global
from fastai_deploy.learner.reading.tensors import Tensor
from fastai_deploy.learner.text.words import WordRules, words_v1, words_v2

LayerKind = Literal["batch norm", "linear", "relu"]

_ENCODERS = {1: "MultiBatchEncoder", 2: "SentenceEncoder"}
_AROUND = frozenset({"SequentialRNN", *_ENCODERS.values()})
_HEADS: dict[str, LayerKind | None] = {
    "BatchNorm1d": "batch norm", "Linear": "linear", "ReLU": "relu", "Dropout": None,
}  # fmt: skip
_GROUPS = frozenset({"Sequential", "LinBnDrop"})
# The parts of AWD_LSTM, and those that do nothing when the model predicts.
_IDLE = frozenset({"Dropout", "Identity"})
_CORE = frozenset(
    {"Embedding", "EmbeddingDropout", "ModuleList", "WeightDropout", "LSTM", "RNNDropout", *_IDLE}
)
COUNTERS = frozenset({"num_batches_tracked"})
MAX_LAYERS = 64  # of the LSTM stack, and of the head
MAX_POOLED = 16_384  # tokens per step, or pooled tokens; fastai pools 1,440


@dataclass(frozen=True)
class HeadLayer:
    """A layer of the head; ``path`` locates its weights, ``eps`` is that of a batch norm."""

    kind: LayerKind
    path: str
    eps: float = 0.0


@dataclass(frozen=True, eq=False, repr=False)
class AwdLstm:
    """An AWD-LSTM classifier.

    ``path`` is the path of the module of class ``AWD_LSTM``; ``hidden`` is the output size of each
    LSTM. ``bptt`` and ``max_len`` are in tokens: the model runs chunks of ``bptt`` one after the
    other and pools those within the last ``max_len`` tokens (None: all of them); a chunk that
    begins exactly there counts only if ``inclusive``. Pooling leaves out the id ``pad_id`` (None:
    nothing). ``last_skips_padding``: the last output is that of the last token that is not padding.
    ``skips_padded_steps``: a chunk that begins with ``pad_id`` is not run, and clears the state.
    ``problem`` says why the model cannot be rebuilt, and is empty if it can.
    """

    path: str
    vocabulary: int
    emb_sz: int
    n_hid: int
    n_layers: int
    hidden: tuple[int, ...]
    bidirectional: bool
    bptt: int
    max_len: int | None
    inclusive: bool
    pad_id: int | None
    last_skips_padding: bool
    skips_padded_steps: bool
    head: tuple[HeadLayer, ...]
    outputs: int | None
    problem: str = ""

    @property
    def raw_weights(self) -> tuple[str, ...]:
        """The tensors that the encoder uses to predict, by their names in the learner."""
        ends = ("", "_reverse") if self.bidirectional else ("",)
        names = [f"{self.path}.encoder.weight"]
        for layer in range(self.n_layers):
            place = f"{self.path}.rnns.{layer}"
            for end in ends:
                names += [
                    f"{place}.module.weight_ih_l0{end}",
                    self.recurrent(layer, end),
                    f"{place}.module.bias_ih_l0{end}",
                    f"{place}.module.bias_hh_l0{end}",
                ]
        return tuple(names)

    def recurrent(self, layer: int, end: str) -> str:
        """The recurrent weights of a layer as trained, before any dropout.

        Only the forward direction has dropout; the LSTM itself holds a copy of these weights.
        """
        place = f"{self.path}.rnns.{layer}"
        return f"{place}.module.weight_hh_l0{end}" if end else f"{place}.weight_hh_l0_raw"


def find_awd_lstm(major: int, modules: Sequence[Module]) -> AwdLstm | None:
    """The classifier, or None if the model has no ``AWD_LSTM`` with a pooling head."""
    core = _first(modules, "AWD_LSTM")
    head = _first(modules, "PoolingLinearClassifier")
    if core is None or head is None:
        return None
    by_path = {module.path: module for module in modules}
    encoder = by_path.get(core.path.rpartition(".")[0])
    sizes = {name: _whole(core.attributes.get(name)) for name in ("emb_sz", "n_hid", "n_layers")}
    layers = tuple(_head(modules, head))
    rows = _shape(by_path, f"{core.path}.encoder", "weight")
    outer = encoder.attributes if encoder is not None else {}
    ends = [_shape(by_path, each.path, "weight")[:1] for each in layers if each.kind == "linear"]
    max_len, bptt = outer.get("max_len"), _whole(outer.get("bptt"))
    pad = outer.get("pad_idx")
    bidirectional = core.attributes.get("n_dir") == 2  # noqa: PLR2004 - directions
    count = min(sizes["n_layers"], MAX_LAYERS)
    return AwdLstm(
        path=core.path,
        vocabulary=rows[0] if rows else 0,
        emb_sz=sizes["emb_sz"],
        n_hid=sizes["n_hid"],
        n_layers=count,
        hidden=tuple(
            (sizes["emb_sz"] if layer == count - 1 else sizes["n_hid"]) // (1 + bidirectional)
            for layer in range(count)
        ),
        bidirectional=bidirectional,
        bptt=bptt,
        max_len=max_len if type(max_len) is int else None,
        inclusive=major != 1,
        pad_id=pad if type(pad) is int and 0 <= pad < (rows[0] if rows else 0) else None,
        last_skips_padding=major != 1,
        skips_padded_steps=major != 1,
        head=layers,
        outputs=ends[-1][0] if ends and ends[-1] else None,
        problem=next(_problems(major, modules, core, head), ""),
    )


def _problems(major: int, modules: Sequence[Module], core: Module, head: Module) -> Iterator[str]:
    """Every reason why the model cannot be rebuilt, the clearest first."""
    if core.attributes.get("qrnn") is True:
        yield "its AWD-LSTM uses QRNNs (qrnn=True), for which ONNX Runtime has no operator"
    by_path = {module.path: module for module in modules}
    yield from _encoder_problems(major, by_path.get(core.path.rpartition(".")[0]))
    for module in modules:
        if module.changed:
            yield f"a module has {module.changed} ({module.path or 'the model'})"
        if _name(module) == "Embedding" and module.attributes.get("max_norm") is not None:
            yield f"its embedding shortens long vectors (max_norm of {module.path})"
        inside = module.path.startswith(head.path + ".")
        if inside and _name(module) not in {*_HEADS, *_GROUPS}:
            yield f"its head has a layer that fdeploy cannot rebuild ({_name(module)})"
    layers = _whole(core.attributes.get("n_layers"))
    if not 0 < layers <= MAX_LAYERS or not _whole(core.attributes.get("emb_sz")):
        yield "the sizes of its AWD-LSTM are not in the file"
    for layer in range(min(layers, MAX_LAYERS)):
        if _name(by_path.get(f"{core.path}.rnns.{layer}.module")) != "LSTM":
            yield f"layer {layer} of its AWD-LSTM is not an LSTM"
    yield from _foreign(modules, core, head)


def _encoder_problems(major: int, encoder: Module | None) -> Iterator[str]:
    """Why the module that reads whole texts is not one of fastai's."""
    name = _name(encoder)
    if name != _ENCODERS[major] or encoder is None:
        yield f"its AWD-LSTM is called by a {name}, not by fastai's {_ENCODERS[major]}"
        return
    bptt, max_len = _whole(encoder.attributes.get("bptt")), encoder.attributes.get("max_len")
    if not bptt or not (max_len is None or (type(max_len) is int and max_len > bptt)):
        yield f"it reads {bptt} tokens per step and pools {max_len}, which is less than a step"
    elif max(bptt, max_len or 0) > MAX_POOLED:
        most = f"{MAX_POOLED:,} tokens"
        yield f"it reads {bptt} tokens per step and pools {max_len}: more than {most}"


def _foreign(modules: Sequence[Module], core: Module, head: Module) -> Iterator[str]:
    """What the model has in addition to the two parts."""
    for module in modules:
        within = any((module.path + ".").startswith(part.path + ".") for part in (core, head))
        if module.tensors and not within:
            where = module.path or "in the wrapper"
            yield f"the model has weights outside the classifier ({where})"
        around = module.path == "" or core.path.startswith(module.path + ".")
        if around and not module.transparent and _name(module) not in _AROUND:
            yield f"its model is wrapped in a user-defined class ({_name(module)})"
        inside_core = module.path.startswith(core.path + ".")
        if inside_core and _name(module) not in _CORE:
            yield f"its AWD-LSTM has a part that fdeploy does not know ({_name(module)})"
        if not within and not around and not module.transparent and _name(module) not in _IDLE:
            yield f"its model has a part outside the classifier ({_name(module)})"


def _name(module: Module | None) -> str:
    """The name of a class of fastai or torch; for any other, with its module."""
    if module is None or module.cls is None:
        return "?"
    return module.cls.name if _is_library(module.cls) else str(module.cls)


def _is_library(cls: Global) -> bool:
    return cls.module.split(".")[0] in ("fastai", "torch")


def _head(modules: Sequence[Module], head: Module) -> list[HeadLayer]:
    """The layers of the head in calling order."""
    prefix = head.path + "."
    found: list[HeadLayer] = []
    for module in modules:
        kind = _HEADS.get(_name(module))
        if kind is not None and module.path.startswith(prefix) and len(found) < MAX_LAYERS:
            eps = module.attributes.get("eps")
            found.append(HeadLayer(kind, module.path, eps if isinstance(eps, float) else 0.0))
    return found


def spare(name: str) -> bool:
    """Whether a tensor of the learner is unused after training."""
    last = name.rsplit(".", 1)[-1]
    # The LSTM's own recurrent weights are the raw ones after dropout.
    copied = last == "weight_hh_l0" or ".encoder_dp.emb." in name
    return last in COUNTERS or copied


def weights_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that the classifier needs to predict."""
    return {name: tensor for name, tensor in weights.items() if not spare(name)}


def _first(modules: Sequence[Module], name: str) -> Module | None:
    return next((module for module in modules if _name(module) == name), None)


def _whole(value: object) -> int:
    return value if type(value) is int and value > 0 else 0


def _shape(by_path: Mapping[str, Module], path: str, name: str) -> tuple[int, ...]:
    module = by_path.get(path)
    tensor = module.tensors.get(name) if module is not None else None
    return tensor.shape if tensor is not None else ()


@dataclass(frozen=True, eq=False, repr=False)
class Ulmfit:
    """The two parts of a ULMFiT learner."""

    model: AwdLstm
    words: WordRules

    @property
    def mismatch(self) -> str:
        """Why vocabulary and embedding do not match, or an empty string."""
        words, rows = self.words.size, self.model.vocabulary
        if words == rows:
            return ""
        return f"its vocabulary has {words:,} words, but its embedding has {rows:,} rows"


def find_ulmfit(root: Root, modules: Sequence[Module], calls: Iterable[Call]) -> Ulmfit | None:
    """The parts of a ULMFiT learner, or None for any other learner."""
    model = find_awd_lstm(root.major, modules)
    if model is None:
        return None
    return Ulmfit(model, words_v1(root) if root.major == 1 else words_v2(calls))


def facts(ulmfit: Ulmfit) -> dict[str, Any]:
    """The model's facts for ``fdeploy inspect``, ready for JSON; lengths are in tokens."""
    model, words = ulmfit.model, ulmfit.words
    return {
        "emb_sz": model.emb_sz,
        "n_hid": model.n_hid,
        "n_layers": model.n_layers,
        "bidirectional": model.bidirectional,
        "bptt": model.bptt,
        "max_len": model.max_len,
        "head": [layer.kind for layer in model.head],
        "embedding": model.vocabulary,
        "vocabulary": words.size,
        "splitter": words.splitter,
        "language": words.language,
        "splitter_in_file": words.splitting is not None,
        "rules": list(words.described),
        "backwards": words.backwards,
        "assumptions": list(words.assumptions),
    }
