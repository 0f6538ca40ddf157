"""A GPU serves if it reproduces the goldens, in half precision if that is accurate enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fastai_deploy.runtime.backends import Gpu
from fastai_deploy.runtime.bundle import ModelError
from fastai_deploy.runtime.contract import Prediction
from fastai_deploy.runtime.hardware import Hardware
from fastai_deploy.runtime.loading import Loaded, load
from tests.runtime.bundles import TinyBundle, write_bundle

HARDWARE = Hardware(cores=1, memory=None)
# The CPU in place of a GPU; torch computes the same there.
NEW = Gpu("a new GPU", "cpu", halves=True)
OLD = Gpu("an old GPU", "cpu", halves=False)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyBundle:
    """A bundle for a GPU."""
    bundle = write_bundle(tmp_path / "bundle")
    bundle.edit_model(device="gpu")
    return bundle


def served(bundle: TinyBundle, find: Callable[[], Gpu | None]) -> Loaded:
    loaded = load(bundle.folder, HARDWARE, 1, find=find)
    (answer,) = loaded.predictor.predict(["no"])
    assert isinstance(answer, Prediction)
    assert dict(answer.probabilities) == pytest.approx(bundle.expected("no"), abs=0.01)
    return loaded


def test_half_precision_where_it_is_good_enough(tiny: TinyBundle) -> None:
    loaded = served(tiny, lambda: NEW)
    assert (loaded.way, loaded.skipped) == ("a new GPU, float16", ())
    assert loaded.deviation > 0
    assert loaded.predictor.bundle.answered_as.precision == "fp16"


def test_float32_where_half_precision_is_off(tiny: TinyBundle) -> None:
    tiny.edit_manifest(gate={"margin": 0.05, "mean": 1e-6, "p99": 0.05})
    loaded = served(tiny, lambda: NEW)
    assert loaded.way == "a new GPU, float32"
    (why,) = loaded.skipped
    assert why.startswith("a new GPU, float16: ")
    assert "goldens are not reproduced" in why


def test_float32_on_a_gpu_that_is_no_faster_in_half_precision(tiny: TinyBundle) -> None:
    loaded = served(tiny, lambda: OLD)
    assert (loaded.way, loaded.skipped) == ("an old GPU, float32", ())


def test_a_gpu_takes_more_texts_at_a_time(tiny: TinyBundle) -> None:
    on_gpu, on_processor = served(tiny, lambda: OLD), served(tiny, lambda: None)
    assert on_gpu.predictor.limits.tokens > 10 * on_processor.predictor.limits.tokens


def test_without_a_gpu_the_cpu_serves(tiny: TinyBundle) -> None:
    loaded = served(tiny, lambda: None)
    assert (loaded.way, loaded.skipped) == ("ONNX Runtime, fp32", ())


def test_the_processor_where_the_gpu_fails(tiny: TinyBundle) -> None:
    loaded = served(tiny, lambda: Gpu("a broken GPU", "no such device", halves=True))
    assert loaded.way == "ONNX Runtime, fp32"
    assert [why.partition(":")[0] for why in loaded.skipped] == [
        "a broken GPU, float16",
        "a broken GPU, float32",
    ]


def test_an_artifact_without_a_gpu_does_not_look_for_one(tmp_path: Path) -> None:
    def find() -> Gpu:
        raise AssertionError("looked for")

    assert served(write_bundle(tmp_path / "bundle"), find).way == "ONNX Runtime, fp32"


def test_a_model_that_is_wrong_everywhere_is_refused(tiny: TinyBundle) -> None:
    probabilities = {"negative": 1.0, "neutral": 0.0, "positive": 0.0}
    tiny.write_goldens([{"text": "no", "probabilities": probabilities, "source": "rebuilt"}])
    with pytest.raises(ModelError, match="goldens are not reproduced"):
        load(tiny.folder, HARDWARE, 1, find=lambda: NEW)


def test_an_unknown_device_is_refused(tiny: TinyBundle) -> None:
    tiny.edit_model(device="abacus")
    with pytest.raises(ModelError, match=r"model\.device"):
        load(tiny.folder, HARDWARE, 1)
