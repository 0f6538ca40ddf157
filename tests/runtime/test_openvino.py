"""Forms in OpenVINO, and what happens where it is missing or refuses a graph."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fastai_deploy.runtime.bundle import ModelError, open_bundle
from fastai_deploy.runtime.contract import Prediction
from fastai_deploy.runtime.hardware import Hardware, detect
from fastai_deploy.runtime.loading import Loaded, load
from fastai_deploy.runtime.session import open_session
from tests.runtime.bundles import TinyBundle, form, write_bundle

openvino_session = pytest.importorskip(
    "fastai_deploy.runtime.openvino_session", reason="OpenVINO is used on x86 and Linux only"
)

HERE = detect()
SMAPS = Path("/proc/self/smaps")
VNNI = Hardware(
    cores=2, memory=None, machine="x86_64", instructions=frozenset({"avx512_vnni", "avx512_bf16"})
)
FEED = {
    "input_ids": np.array([[2, 9, 3], [2, 3, 1]]),
    "attention_mask": np.array([[1, 1, 1], [1, 1, 0]]),
}


@pytest.fixture
def tiny(tmp_path: Path) -> TinyBundle:
    """A bundle that may be served with int8 weights, which OpenVINO computes."""
    made = write_bundle(tmp_path / "bundle")
    made.edit_model(forms=[form("int8-weights"), form("fp32")])
    return made


def test_it_answers_as_onnx_runtime_does(tiny: TinyBundle) -> None:
    bundle = open_bundle(tiny.folder)
    found = openvino_session.open_openvino(bundle, HERE, threads=2, runs=1).run(["logits"], FEED)
    (expected,) = open_session(bundle, HERE, 2, alone=True).run(["logits"], FEED)
    assert found[0] == pytest.approx(expected, abs=1e-5)


def test_a_folder_of_links(tiny: TinyBundle, tmp_path: Path) -> None:
    """As some hosts mount a model, with the weights beside the graph."""
    real, linked = tmp_path / "real", tmp_path / "linked"
    real.mkdir()
    linked.mkdir()
    graph = onnx.load(tiny.folder / "model.onnx")
    onnx.save(
        graph,
        real / "model.onnx",
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    for path in real.iterdir():
        (linked / path.name).symlink_to(path)
    session = openvino_session.compile_graph(linked / "model.onnx", "int8-weights", 2, 1)
    (expected,) = open_session(open_bundle(tiny.folder), HERE, 2, alone=True).run(["logits"], FEED)
    assert session.run(["logits"], FEED)[0] == pytest.approx(expected, abs=1e-5)


def test_the_file_of_the_weights_takes_no_memory(tiny: TinyBundle, tmp_path: Path) -> None:
    """Its matrices are packed, so it would take as much again."""
    graph = onnx.load(tiny.folder / "model.onnx")
    model = tmp_path / "model.onnx"
    onnx.save(graph, model, save_as_external_data=True, location="weights", size_threshold=0)
    session = openvino_session.compile_graph(model, "int8-weights", 2, 1)
    assert _resident(tmp_path / "weights") == ["0 kB"]
    (expected,) = open_session(open_bundle(tiny.folder), HERE, 2, alone=True).run(["logits"], FEED)
    assert session.run(["logits"], FEED)[0] == pytest.approx(expected, abs=1e-5)


def _resident(path: Path) -> list[str]:
    """How much of each mapping of a file is in memory."""
    found = re.findall(rf"{re.escape(str(path))}\n(?:.*\n)*?Rss: +(.*)", SMAPS.read_text())
    return [str(size) for size in found]


def test_concurrent_runs_do_not_share_their_arrays(tiny: TinyBundle) -> None:
    session = openvino_session.open_openvino(open_bundle(tiny.folder), HERE, threads=2, runs=2)
    alone = {n: session.run(None, _feed(n))[0] for n in range(4, 40)}
    together = threading.Barrier(4)

    def ask(first: int) -> dict[int, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        together.wait(timeout=60)
        return {n: session.run(None, _feed(n))[0] for n in range(first, 40, 4)}

    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(ask, range(4, 8)))
    for part in parts:
        for n, logits in part.items():
            assert np.array_equal(logits, alone[n])


def _feed(token: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    ids = np.array([[2, *[token] * (token % 5 + 1), 3]])
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


@pytest.mark.skipif("avx512f" not in HERE.instructions, reason="bfloat16 needs AVX-512")
def test_bf16_rounds_and_passes(tiny: TinyBundle) -> None:
    tiny.edit_model(forms=[form("bf16"), form("fp32")])
    bundle = open_bundle(tiny.folder)
    exact, rounded = (
        openvino_session.open_openvino(bundle.serving(each), HERE, threads=1, runs=1).run(
            None, FEED
        )[0]
        for each in reversed(bundle.forms)
    )
    assert 0 < np.abs(exact - rounded).max() < 0.1


def served(tiny: TinyBundle) -> Loaded:
    loaded = load(tiny.folder, VNNI, 2, alone=True, most_runs=2)
    (answer,) = loaded.predictor.predict(["a great film"])
    assert isinstance(answer, Prediction)
    assert dict(answer.probabilities) == pytest.approx(tiny.expected("a great film"), abs=0.01)
    assert loaded.predictor.bundle.answered_as.precision in loaded.way
    return loaded


def test_the_server_measures_both(tiny: TinyBundle) -> None:
    loaded = served(tiny)
    assert loaded.measured.keys() == {"OpenVINO, int8-weights", "ONNX Runtime, fp32"}
    assert loaded.facts["measured"]
    assert loaded.skipped == ()


def test_too_little_memory_for_openvino(tiny: TinyBundle) -> None:
    bundle = open_bundle(tiny.folder)
    short = replace(HERE, memory=bundle.model_bytes)
    with pytest.raises(ModelError, match="MB of memory in OpenVINO"):
        openvino_session.open_openvino(bundle, short, threads=1, runs=1)


def test_a_graph_that_openvino_cannot_compile(tiny: TinyBundle) -> None:
    model = onnx.load(str(tiny.folder / "model.onnx"), load_external_data=False)
    (last,) = (node for node in model.graph.node if node.output[0] == "logits")
    # An operator of ONNX Runtime alone, which OpenVINO does not know.
    last.op_type, last.domain = "TransposeMatMul", "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    (tiny.folder / "odd.onnx").write_bytes(
        model.SerializeToString().replace(b"model.onnx.data", b"odd.onnx.data00")
    )
    (tiny.folder / "odd.onnx.data00").write_bytes((tiny.folder / "model.onnx.data").read_bytes())
    bundle = open_bundle(tiny.folder)
    broken = replace(bundle, form=replace(bundle.form, file="odd.onnx"))
    with pytest.raises(ModelError, match=r"compile odd.onnx: .*TransposeMatMul"):
        openvino_session.open_openvino(broken, HERE, threads=1, runs=1)


@pytest.mark.parametrize("module", ["raise ImportError('no OpenVINO here')", ""])
def test_onnx_runtime_serves_where_openvino_is_missing(
    tiny: TinyBundle, tmp_path: Path, module: str
) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "openvino.py").write_text(module)
    answered = _loaded_in_a_process(tiny, [tmp_path / "path"])
    assert answered["way"] == "ONNX Runtime, fp32"
    (why,) = answered["passed_over"]
    assert why.startswith("OpenVINO, int8-weights: ")


def _loaded_in_a_process(tiny: TinyBundle, path: Sequence[Path]) -> dict[str, Any]:
    code = (
        "import json, sys; from pathlib import Path; sys.path[:0] = json.loads(sys.argv[2])\n"
        "from fastai_deploy.runtime.hardware import Hardware\n"
        "from fastai_deploy.runtime.loading import load\n"
        "here = Hardware(2, None, 'x86_64', frozenset({'avx512_vnni'}))\n"
        "print(json.dumps(load(Path(sys.argv[1]), here, 2).facts))"
    )
    listed = json.dumps([str(each) for each in path])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny.folder), listed],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts
