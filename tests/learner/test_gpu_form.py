"""The graphs of real learners can be computed by torch, as on a GPU, with the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastai_deploy.bundle import read_bundle
from fastai_deploy.learner.convert import convert
from fastai_deploy.learner.rebuild.onnx_export import gpu_form
from fastai_deploy.progress import silent
from fastai_deploy.runtime.backends import Gpu
from fastai_deploy.runtime.hardware import Hardware
from fastai_deploy.runtime.loading import load
from fastai_deploy.runtime.torch_session import open_torch
from tests.flow.learners import ULMFIT
from tests.learner.files import CONVERTIBLE, learner, write_goldens
from tests.runtime.bundles import write_bundle
from tests.runtime.one_device import ELSEWHERE, OneDevice
from tests.runtime.test_torch_session import FEED

HALF = 0.01  # |Δprobability|; tolerance for half precision in these tiny models


@pytest.mark.parametrize("name", [*CONVERTIBLE[:3], *ULMFIT])
def test_a_learner_answers_on_a_gpu(name: str, tmp_path: Path) -> None:
    golden = write_goldens(name, tmp_path / "golden.jsonl")
    bundle = convert(learner(name), tmp_path / "bundle", golden=golden, tolerance=1e-4, name="x",
                     report=silent)  # fmt: skip
    manifest, _ = read_bundle(bundle.path)
    assert manifest.model.gpu == "model.onnx"
    graph = bundle.path / manifest.model.gpu
    session = open_torch(graph, ELSEWHERE, half=True)
    feed = {each: FEED[each] for each in manifest.model.inputs}
    with OneDevice(), pytest.raises(NotImplementedError, match="no data"):
        session.run(None, feed)

    path = bundle.path / "manifest.json"
    gate = {"margin": HALF, "mean": HALF, "p99": HALF}
    for halves, way in ((False, "float32"), (True, "float16")):
        document = json.loads(path.read_bytes())
        document["model"]["device"] = "gpu"
        path.write_text(json.dumps({**document, "gate": gate}), encoding="utf-8")
        gpu = Gpu("a GPU", "cpu", halves)
        loaded = load(bundle.path, Hardware(1, None), 1, find=lambda gpu=gpu: gpu)  # type: ignore[misc]
        assert loaded.way == f"a GPU, {way}"
        assert loaded.skipped == ()


def test_a_graph_that_torch_answers_otherwise_is_left_to_the_processor(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle").folder / "model.onnx"
    assert gpu_form(path, lambda session: session.run(None, FEED)[0].max() * 0) == "model.onnx"
    assert gpu_form(path, lambda _: 1e-3) is None
    assert gpu_form(path, lambda session: session.run(["no such output"], FEED)) is None
    path.write_bytes(b"no graph")
    assert gpu_form(path, lambda _: 0.0) is None
