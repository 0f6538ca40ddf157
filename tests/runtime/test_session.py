"""Sessions of one graph, and the memory that they share."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastai_deploy.learner.rebuild.quantize import quantize_weights
from fastai_deploy.runtime.bundle import ModelError, open_bundle
from fastai_deploy.runtime.hardware import Hardware
from fastai_deploy.runtime.loading import load
from fastai_deploy.runtime.session import SLOWER, open_session
from tests.runtime.bundles import TinyBundle, form, write_bundle

HARDWARE = Hardware(cores=2, memory=None)
FEED = {"input_ids": np.array([[2, 3]]), "attention_mask": np.array([[1, 1]])}


@pytest.fixture
def wide(tmp_path: Path) -> TinyBundle:
    """A bundle with 0.1 MB of embeddings."""
    return write_bundle(tmp_path / "bundle", hidden=256)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows what is mapped")
def test_sessions_map_the_embeddings_and_have_no_copy_of_them(wide: TinyBundle) -> None:
    bundle = open_bundle(wide.folder)
    sessions = [open_session(bundle, HARDWARE, 1, alone=True) for _ in range(2)]
    answers = [session.run(None, FEED)[0] for session in sessions]
    assert (answers[0] == answers[1]).all()
    size = wide.weights.embedding.size * 4
    mappings = [each for each in _mappings("/model.onnx.data") if each["Size"] >= size >> 10]
    assert len(mappings) == len(sessions)
    for each in mappings:
        assert each["Rss"] > 0
        # Not Private_Dirty: that counts pages of the file that the kernel has yet to write, too.
        assert each["Anonymous"] == 0


def _mappings(ending: str) -> Iterator[dict[str, int]]:
    """The sizes that Linux reports for this process's mappings of a file, in kB."""
    lines = Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines()
    starts = [n for n, line in enumerate(lines) if line.endswith(ending)]
    for start in starts:
        rows = (line.split() for line in itertools.islice(lines, start + 1, None))
        yield {
            name.rstrip(":"): int(numbers[0])
            for name, *numbers in itertools.takewhile(lambda row: row[0] != "VmFlags:", rows)
        }


@pytest.mark.parametrize(
    "location", ["/etc/hostname", "../secret", "tokenizer.json", "secret", "./model.onnx.data"]
)
def test_weights_elsewhere_are_not_read(wide: TinyBundle, location: str) -> None:
    for folder in (wide.folder, wide.folder.parent):
        (folder / "secret").write_bytes(bytes(1 << 20))
    model = onnx.load(str(wide.folder / "model.onnx"), load_external_data=False)
    (entry,) = [
        entry
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location" and tensor.name == "embedding"
    ]
    entry.value = location
    (wide.folder / "model.onnx").write_bytes(model.SerializeToString())
    wide.write_goldens([wide.golden("the")])
    with pytest.raises(ModelError, match="takes weights from") as caught:
        load(wide.folder, HARDWARE, 1)
    assert repr(location) in str(caught.value)


def test_weights_that_the_manifest_does_not_list_are_not_read(wide: TinyBundle) -> None:
    files = json.loads((wide.folder / "manifest.json").read_bytes())["files"]
    del files["model.onnx.data"]
    wide.edit_manifest(files=files)
    with pytest.raises(ModelError, match=r"takes weights from 'model.onnx.data'"):
        load(wide.folder, HARDWARE, 1)


def test_a_model_of_another_kind_of_file_is_not_opened(wide: TinyBundle) -> None:
    """ONNX Runtime goes by the suffix: ``.ort`` is another format, with its own file references."""
    (wide.folder / "model.ort").write_bytes((wide.folder / "model.onnx").read_bytes())
    wide.edit_model(forms=[form("fp32", "model.ort")])
    wide.write_goldens([wide.golden("the")])
    with pytest.raises(ModelError, match=r"not a graph: 'model.ort'"):
        open_bundle(wide.folder)


def fused(folder: Path, without: Sequence[str]) -> set[str]:
    """The operators that ONNX Runtime makes of x -> x + bias -> GELU -> + x -> LayerNorm."""
    one = np.ones(8, np.float32)
    weights = {"bias": one, "scale": one, "shift": one, "root": np.float32(2**0.5),
               "unit": np.float32(1), "half": np.float32(0.5)}  # fmt: skip
    nodes = [
        helper.make_node("Add", ["x", "bias"], ["a"]),
        helper.make_node("Div", ["a", "root"], ["b"]),
        helper.make_node("Erf", ["b"], ["c"]),
        helper.make_node("Add", ["c", "unit"], ["d"]),
        helper.make_node("Mul", ["a", "d"], ["e"]),
        helper.make_node("Mul", ["e", "half"], ["f"]),
        helper.make_node("Add", ["f", "x"], ["g"]),
        helper.make_node("LayerNormalization", ["g", "scale", "shift"], ["y"], axis=-1),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3, 8]) for name in "xy")
    made = [numpy_helper.from_array(np.asarray(each), name) for name, each in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", [x], [y], made),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # hides a warning that the file is specific to this CPU
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"], disabled_optimizers=without
    )
    return {node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node}


def test_onnx_runtime_knows_the_disabled_fusions(tmp_path: Path) -> None:
    slow = {"SkipLayerNormalization", "BiasGelu"}
    assert fused(tmp_path, ()) & slow == slow
    assert not fused(tmp_path, SLOWER) & slow


def test_two_runs_at_a_time_answer_as_one(wide: TinyBundle) -> None:
    loaded = load(wide.folder, HARDWARE, 2, most_runs=2)
    assert loaded.runs == 2
    assert loaded.deviation < 1e-5


def test_weights_that_are_stored_in_int8_are_computed_with_in_float32(tmp_path: Path) -> None:
    """As in a Lambda function, whose package has no OpenVINO."""
    made = write_bundle(tmp_path / "bundle", layers=2, hidden=256)
    stored = "model.int8-weights.onnx"
    quantize_weights(made.folder / "model.onnx", made.folder / stored)
    made.edit_model(forms=[form("int8-weights", stored), form("fp32")])
    manifest = json.loads((made.folder / "manifest.json").read_bytes())
    for path in made.folder.glob(f"{stored}*"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest["files"][path.name] = {"sha256": digest, "bytes": path.stat().st_size}
    made.edit_manifest(files=manifest["files"])
    bundle = open_bundle(made.folder)
    (exact,) = open_session(bundle, HARDWARE, 1, alone=True).run(["logits"], FEED)
    served = bundle.serving(bundle.forms[0])
    assert served.model_bytes < bundle.model_bytes
    (found,) = open_session(served, HARDWARE, 1, alone=True).run(["logits"], FEED)
    assert 0 < np.abs(found - exact).max() < 0.02 * np.abs(exact).max()
    little = Hardware(cores=1, memory=4 * served.model_bytes)
    with pytest.raises(ModelError, match=r"int8-weights\.onnx needs about"):
        open_session(served, little, 1, alone=True)
