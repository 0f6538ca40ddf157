"""int8: the quantized graph, and the gate that decides whether to serve it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from fastai_deploy.errors import ParityError, UnsupportedLearner
from fastai_deploy.learner.examine.anatomy import examine
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.rebuild.precision import ENOUGH, Served, choose
from fastai_deploy.learner.rebuild.quantize import quantize, quantize_weights
from fastai_deploy.learner.rebuild.rebuilt import Rebuilt, rebuild_learner
from fastai_deploy.parity.compare import Choice, Gate
from fastai_deploy.parity.goldens import Case, Golden
from fastai_deploy.parity.report import Comparison
from fastai_deploy.progress import Event, Step, Warned
from fastai_deploy.runtime.bundle import Form
from fastai_deploy.runtime.hardware import Hardware, detect
from fastai_deploy.runtime.parity import P99, REDUCED, Rules
from tests.learner.files import CONVERTIBLE, learner

TEXTS = ("a great film", "no", "the plot is thin but I like it", "what a movie " * 20)


def write_graph(path: Path) -> None:
    random = np.random.default_rng(0)
    table = random.standard_normal((3_000, 32)).astype(np.float32)
    table[7] *= 50  # an outlier; one scale for the whole table would make every row inaccurate
    weights = random.standard_normal((32, 8)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("MatMul", ["rows", "weights"], ["out"]),
        ],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)


def answers(path: Path, ids: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(onnxruntime.InferenceSession(path).run(None, {"ids": np.array(ids)})[0])


def test_tables_and_matrices_shrink_and_answer_the_same(tmp_path: Path) -> None:
    source, made, again = (tmp_path / name for name in ("s.onnx", "1/m.onnx", "2/m.onnx"))
    write_graph(source)
    quantize(source, made)
    quantize(source, again)
    files = {path.name: path.read_bytes() for path in made.parent.iterdir()}
    assert files == {path.name: path.read_bytes() for path in again.parent.iterdir()}
    assert files.keys() == {"m.onnx", "m.onnx.data"}
    assert sum(map(len, files.values())) < source.stat().st_size / 3
    ids = [1, 2, 3, 2_999]
    expected = answers(source, ids)
    assert np.abs(answers(made, ids) - expected).max() < 0.03 * np.abs(expected).max()


def test_weights_keep_to_seven_bits(tmp_path: Path) -> None:
    write_graph(tmp_path / "s.onnx")
    quantize(tmp_path / "s.onnx", tmp_path / "m.onnx")
    tensors = {each.name: each for each in onnx.load(tmp_path / "m.onnx").graph.initializer}
    weights = numpy_helper.to_array(tensors["weights_int8"]).astype(int)
    assert np.abs(weights).max() == 64
    assert tensors["weights_scale"].dims == [8]
    assert tensors["table_row_scale"].dims == [3_000, 1]


def write_transformer(path: Path) -> None:
    """Every kind of node that is quantized, and a product of two activations."""
    random = np.random.default_rng(1)
    shapes = {"qkv": (32, 96), "b": (96,), "up": (32, 64), "down": (32, 64), "c": (32,)}
    tensors = [
        numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node(
            "Attention", ["x", "qkv", "b"], ["a"], num_heads=2, domain="com.microsoft"
        ),
        helper.make_node("MatMul", ["a", "up"], ["u"]),
        helper.make_node("MatMul", ["a", "up"], ["again"]),
        helper.make_node("Add", ["u", "again"], ["sum"]),
        helper.make_node("Transpose", ["a"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["a", "turned"], ["both"]),
        helper.make_node("ReduceMean", ["both"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMean", ["sum"], ["pooled"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["pooled", "down", "c"], ["out"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "sequence", 32])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 32]),
         helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch"])],
        tensors,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 8
    onnx.save(model, path)


def test_it_answers_as_the_form_that_onnx_runtime_makes(tmp_path: Path) -> None:
    source, made, theirs = (tmp_path / name for name in ("s.onnx", "m.onnx", "t.onnx"))
    write_transformer(source)
    quantize(source, made)
    quantize_dynamic(
        source,
        theirs,
        op_types_to_quantize=["MatMul", "Attention", "Gemm"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT},
    )
    x = np.random.default_rng(2).standard_normal((2, 7, 32)).astype(np.float32)
    ours, reference, plain = (
        onnxruntime.InferenceSession(path).run(None, {"x": x}) for path in (made, theirs, source)
    )
    for our, their, exact in zip(ours, reference, plain, strict=True):
        assert np.array_equal(our, their)
        assert 0 < np.abs(our - exact).max() < 0.1 * np.abs(exact).max()
    kinds = Counter(node.op_type for node in onnx.load(made).graph.node)
    assert (kinds["QAttention"], kinds["MatMulInteger"], kinds["DynamicQuantizeLinear"]) == (
        1,
        3,
        3,
    )
    assert (kinds["MatMul"], kinds["Gemm"]) == (1, 0)  # of two activations


def test_a_graph_without_weights_to_quantize_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph), tmp_path / "s.onnx")
    with pytest.raises(UnsupportedLearner, match="no weight matrices"):
        quantize(tmp_path / "s.onnx", tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_int8_weights_alone(tmp_path: Path) -> None:
    source, made = tmp_path / "model.onnx", tmp_path / "model.int8-weights.onnx"
    write_graph(source)
    quantize_weights(source, made)
    ids = [0, 7, 7, 2_999]
    exact, found = answers(source, ids), answers(made, ids)
    assert 0 < np.abs(found - exact).max() < 0.02 * np.abs(exact).max()
    kinds = Counter(node.op_type for node in onnx.load(made).graph.node)
    assert (kinds["DequantizeLinear"], kinds["MatMul"], kinds["Gather"]) == (1, 1, 2)
    again = tmp_path / "again" / made.name
    again.parent.mkdir()
    quantize_weights(source, again)
    assert again.read_bytes() == made.read_bytes()


@pytest.fixture
def rebuilt() -> Iterator[Rebuilt]:
    with open_archive(learner(CONVERTIBLE[2])) as (source, archive):
        yield rebuild_learner(examine(archive, source.size), ())


PLAIN = Hardware(cores=2, memory=None, machine="x86_64")
WITH_BF16 = replace(PLAIN, instructions=frozenset({"avx512_vnni", "avx512_bf16"}))
HERE = detect()
COMPUTES_BF16 = pytest.mark.skipif(
    HERE.machine != "x86_64" or "avx512f" not in HERE.instructions,
    reason="OpenVINO computes bfloat16, if slowly, from AVX-512 on",
)


@dataclass
class Decision:
    """What was chosen, what was reported, and the report page's comparison."""

    served: Served
    events: list[Event]
    found: Comparison

    @property
    def precisions(self) -> list[str]:
        return [form.precision for form in self.served.forms]

    @property
    def outcomes(self) -> dict[str, str]:
        return {form.precision: form.outcome for form in self.found.forms}


def decide(
    rebuilt: Rebuilt,
    folder: Path,
    choice: Choice = "auto",
    *,
    worthwhile: int = 0,
    off: float = 0.0,
    own: int = ENOUGH,
    rules: Rules = REDUCED,
    hardware: Hardware = WITH_BF16,
    labels: Sequence[str] | None = None,
    max_accuracy_drop: float | None = 0.5,
) -> Decision:
    """The choice if the goldens' probabilities are off by ``off``."""
    graph = rebuilt.export(folder / "model.onnx")
    answers = rebuilt.answer(TEXTS)
    goldens = [
        Golden(text, (found[0] + off, *found[1:]), "rebuilt", (labels[place],) if labels else None)
        for place, (text, found) in enumerate(zip(TEXTS, answers, strict=True))
    ]
    events: list[Event] = []
    comparison = Comparison()
    cases = [Case(each.text, None, each.expected, 0) for each in goldens]
    comparison.begin(rebuilt.anatomy.labels.names, rebuilt.anatomy.threshold, 1e-4, cases)
    served = choose(
        rebuilt,
        Served(graph, (Form("fp32", "model.onnx"),), 1e-4, 0.0),
        goldens,
        gate=Gate(choice, rules, max_accuracy_drop),
        own=own,
        hardware=hardware,
        found=comparison,
        report=events.append,
        worthwhile=worthwhile,
    )
    return Decision(served, events, comparison)


def test_int8_that_passes_is_the_only_form(rebuilt: Rebuilt, tmp_path: Path) -> None:
    made = decide(rebuilt, tmp_path)
    (form,) = made.served.forms
    assert form == Form("int8", "model.int8.onnx", difference=made.served.difference)
    assert made.outcomes == {"fp32": "passes", "int8": "passes"}
    assert 0 < made.served.difference < P99


@COMPUTES_BF16
def test_forms_that_pass_where_int8_fails(rebuilt: Rebuilt, tmp_path: Path) -> None:
    report = decide(rebuilt, tmp_path).found.forms[1]
    assert report.precision == "int8"
    assert report.mean
    made = decide(rebuilt, tmp_path, rules=Rules(mean=report.mean * 0.9))
    *_, bf16, fp32 = made.served.forms
    assert (bf16.precision, bf16.file, fp32) == ("bf16", "model.onnx", Form("fp32", "model.onnx"))
    assert made.outcomes.keys() == {"fp32", "int8", "int8-weights", "bf16"}
    assert (made.outcomes["int8"], made.outcomes["bf16"]) == ("fails", "passes")
    assert not list(tmp_path.glob("model.int8.*"))
    said = [event.message for event in made.events if isinstance(event, Step)]
    assert any("int8 is not served: the int8 model does not pass the gate" in each for each in said)
    assert any("goldens reproduced in bf16: |Δprobability|" in each for each in said)


def test_a_form_that_this_processor_lacks_is_to_be_proven(rebuilt: Rebuilt, tmp_path: Path) -> None:
    made = decide(rebuilt, tmp_path, hardware=PLAIN, rules=Rules(mean=1e-12))
    assert [(form.precision, form.proven) for form in made.served.forms] == [
        ("int8-weights", False),
        ("bf16", False),
        ("fp32", True),
    ]
    assert made.outcomes["bf16"] == "to be proven"


@COMPUTES_BF16
def test_float32_where_nothing_else_passes(rebuilt: Rebuilt, tmp_path: Path) -> None:
    made = decide(rebuilt, tmp_path, off=0.2)
    assert made.precisions == ["fp32"]
    assert set(made.outcomes.values()) == {"passes", "fails"}
    assert not list(tmp_path.glob("model.int8*"))


@COMPUTES_BF16
@pytest.mark.parametrize("choice", ["int8", "int8-weights", "bf16"])
def test_this_form_or_nothing(rebuilt: Rebuilt, tmp_path: Path, choice: Choice) -> None:
    with pytest.raises(ParityError, match=f"the {choice} model does not pass the gate: the mean"):
        decide(rebuilt, tmp_path, choice, off=0.2)
    assert not list(tmp_path.glob("model.int8*"))
    chosen = decide(rebuilt, tmp_path, choice)
    assert chosen.precisions == (["int8"] if choice == "int8" else [choice, "fp32"])


@COMPUTES_BF16
def test_without_texts_of_ones_own_int8_is_not_tried(rebuilt: Rebuilt, tmp_path: Path) -> None:
    made = decide(rebuilt, tmp_path, own=ENOUGH - 1)
    assert made.precisions == ["bf16", "fp32"]
    (warned,) = [event for event in made.events if isinstance(event, Warned)]
    assert "only 99 of the goldens are texts of your own" in warned.message
    assert "--golden texts.txt" in warned.hint
    assert decide(rebuilt, tmp_path, "int8", own=0).precisions == ["int8"]


def test_a_form_that_loses_accuracy(rebuilt: Rebuilt, tmp_path: Path) -> None:
    names = rebuilt.anatomy.labels.names
    right = [names[0]] * len(TEXTS)  # what the goldens say, and the model does not
    with pytest.raises(ParityError, match=r"accuracy drops by [0-9.]+ points on 4 labelled texts"):
        decide(rebuilt, tmp_path, "int8", off=1.0, labels=right, rules=Rules())
    allowed = decide(
        rebuilt, tmp_path, "int8", off=1.0, labels=right, rules=Rules(), max_accuracy_drop=None
    )
    assert allowed.precisions == ["int8"]
    assert allowed.found.summary()["accuracy"]["int8"]["texts"] == len(TEXTS)


def test_goldens_of_one_label_do_not_let_int8_pass(rebuilt: Rebuilt, tmp_path: Path) -> None:
    made = decide(rebuilt, tmp_path, off=1.0, rules=Rules())
    assert "int8" not in made.outcomes
    (warned,) = [event for event in made.events if isinstance(event, Warned)]
    assert "gives every golden the same label" in warned.message


@pytest.mark.parametrize(("choice", "worthwhile"), [("auto", 10**9), ("none", 0)])
def test_a_small_model_is_not_tried(
    rebuilt: Rebuilt, tmp_path: Path, choice: Choice, worthwhile: int
) -> None:
    made = decide(rebuilt, tmp_path, choice, worthwhile=worthwhile)
    assert (made.precisions, made.events) == (["fp32"], [])
