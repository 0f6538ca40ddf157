"""The server measures the forms that it may serve, and takes the fastest that passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.runtime.backends import Backend, can_gain, processor_backends
from fastai_deploy.runtime.bundle import Bundle, ModelError, open_bundle
from fastai_deploy.runtime.choice import BUDGET, TURNS, Ranked, rank, seconds_per_text
from fastai_deploy.runtime.contract import Encoded, Outcome
from fastai_deploy.runtime.hardware import Hardware
from fastai_deploy.runtime.request_queue import Limits
from tests.runtime.bundles import form, write_bundle

PLAIN = Hardware(cores=2, memory=None, machine="x86_64")
VNNI = replace(PLAIN, instructions=frozenset({"avx2", "avx512_vnni"}))
BF16 = replace(PLAIN, instructions=frozenset({"avx512_vnni", "avx512_bf16"}))
GRAVITON = replace(PLAIN, machine="aarch64", instructions=frozenset({"asimd", "bf16"}))
SAMPLE = Encoded((2, 5, 3), truncated=False)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle with three forms, all of the same graph."""
    made = write_bundle(tmp_path / "bundle")
    made.edit_model(forms=[form("int8-weights"), form("bf16"), form("fp32")])
    return open_bundle(made.folder)


@pytest.mark.parametrize(
    ("hardware", "names"),
    [
        (PLAIN, ["ONNX Runtime, fp32"]),
        (VNNI, ["OpenVINO, int8-weights", "ONNX Runtime, fp32"]),
        (BF16, ["OpenVINO, int8-weights", "OpenVINO, bf16", "ONNX Runtime, fp32"]),
        (GRAVITON, ["ONNX Runtime, bf16", "ONNX Runtime, fp32"]),
        (replace(GRAVITON, instructions=frozenset()), ["ONNX Runtime, fp32"]),
    ],
)
def test_only_forms_that_gain_something_here_are_candidates(
    bundle: Bundle, hardware: Hardware, names: list[str]
) -> None:
    found = processor_backends(bundle, hardware, 2, alone=True, most_runs=1)
    assert [backend.name for backend in found] == names


def test_int8_gains_on_every_processor() -> None:
    assert can_gain("int8", PLAIN)
    assert not can_gain("int8-weights", GRAVITON)


class Clock:
    """Time that passes only when a run takes some."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed:
    """A predictor whose runs take this many seconds for each text.

    The first run of each size takes ``first`` times as long.
    """

    limits = Limits(512, equal_length=False)

    def __init__(self, bundle: Bundle, clock: Clock, seconds: float, first: float = 1.0) -> None:
        self.bundle = bundle
        self._clock = clock
        self._seconds = seconds
        self._first = first
        self._met: set[int] = set()

    def encode(self, text: str) -> Encoded:
        raise NotImplementedError

    def predict(self, texts: Sequence[str]) -> list[Outcome]:
        raise NotImplementedError

    predict_encoded: Any = predict

    def run(self, texts: Sequence[Encoded]) -> list[Outcome]:
        known = len(texts) in self._met
        self._met.add(len(texts))
        self._clock.now += self._seconds * len(texts) * (1.0 if known else self._first)
        return []


class World:
    """Backends with known speeds; ``loaded`` names each load, in order."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.clock = Clock()
        self.loaded: list[str] = []
        self.skipped: list[str] = []

    def backend(self, name: str, seconds: float | Exception, *, openvino: bool = False) -> Backend:
        def load() -> float:
            self.loaded.append(name)
            if isinstance(seconds, Exception):
                raise seconds
            return seconds

        limits = Limits(512, equal_length=False)
        return Backend(name, self.bundle, load, limits, openvino=openvino)

    def rank(self, *backends: Backend, memory: int | None = None) -> list[Ranked]:
        def predictor(backend: Backend, seconds: float) -> Timed:
            return Timed(backend.bundle, self.clock, seconds)

        return rank(
            backends, predictor, SAMPLE, clock=self.clock, skipped=self.skipped, memory=memory
        )


@pytest.fixture
def world(bundle: Bundle) -> World:
    return World(bundle)


def test_the_fastest_is_first_and_stays_loaded(world: World) -> None:
    ranked = world.rank(
        world.backend("a", 0.004), world.backend("b", 0.001), world.backend("c", 0.002)
    )
    assert [each.backend.name for each in ranked] == ["b", "c", "a"]
    assert ranked[0].speeds == pytest.approx({"a": 250, "b": 1000, "c": 500})
    assert [each.session for each in ranked] == [0.001, None, None]
    assert world.loaded == ["a", "b", "c"]
    assert ranked[0].open() == 0.001
    assert world.loaded == ["a", "b", "c"]
    assert ranked[1].open() == 0.002
    assert world.loaded[3:] == ["c"]


@pytest.mark.parametrize(("seconds", "first"), [(0.0095, "ort"), (0.0085, "openvino")])
def test_onnx_runtime_stays_where_openvino_is_hardly_faster(
    world: World, seconds: float, first: str
) -> None:
    ranked = world.rank(
        world.backend("openvino", seconds, openvino=True), world.backend("ort", 0.01)
    )
    assert ranked[0].backend.name == first


def test_measuring_takes_as_long_as_it_may(world: World) -> None:
    world.rank(*(world.backend(name, 0.001) for name in "abc"))
    warm = 2 * 2 * (1 + 8) * 0.001
    assert BUDGET <= world.clock.now - warm < 1.1 * BUDGET


def test_a_clear_difference_takes_one_turn(world: World) -> None:
    ranked = world.rank(world.backend("a", 0.0001), world.backend("b", 0.00016))
    assert [each.backend.name for each in ranked] == ["a", "b"]
    assert BUDGET / TURNS <= world.clock.now < 1.2 * BUDGET / TURNS


def test_slow_backends_run_once_in_each_turn(world: World) -> None:
    world.rank(world.backend("a", 2.0), world.backend("b", 2.5))
    assert world.clock.now == pytest.approx((1 + TURNS) * (2 + 2.5) * (1 + 8))


def test_the_first_run_of_a_size_does_not_count(bundle: Bundle) -> None:
    clock = Clock()
    runs = {"a": Timed(bundle, clock, 0.1, first=10).run, "b": Timed(bundle, clock, 0.2).run}
    measured = seconds_per_text(runs, SAMPLE, 512, clock, budget=BUDGET, clear=1.5)
    assert measured == pytest.approx({"a": 0.1, "b": 0.2})


def test_one_alone_is_not_measured(world: World) -> None:
    (only,) = world.rank(world.backend("a", 0.1))
    assert (world.clock.now, only.session, only.speeds) == (0, 0.1, {})


def test_a_backend_that_does_not_load_is_skipped_with_its_reason(world: World) -> None:
    ranked = world.rank(
        world.backend("no wheel", ImportError("No module named 'openvino'")),
        world.backend("no memory", ModelError("needs about 900 MB of memory")),
        world.backend("a", 0.004),
    )
    assert [each.backend.name for each in ranked] == ["a"]
    assert world.skipped == [
        "no wheel: No module named 'openvino'",
        "no memory: needs about 900 MB of memory",
    ]


def test_where_memory_is_short_the_second_is_not_loaded_beside_the_first(world: World) -> None:
    enough = 4 * world.bundle.model_bytes
    one, other = world.backend("a", 0.004), world.backend("b", 0.001)
    assert [each.backend.name for each in world.rank(one, other, memory=enough)] == ["b", "a"]
    world.loaded.clear()
    ranked = world.rank(one, other, memory=enough - 1)
    assert [each.backend.name for each in ranked] == ["a", "b"]
    assert world.loaded == ["a"]


def test_none_that_works_leaves_nothing(world: World) -> None:
    assert world.rank(world.backend("a", ValueError("broken"))) == []
