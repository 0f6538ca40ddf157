"""The backends that can run a model on this machine.

GPU, half precision    if the GPU has hardware for it, as all have since Volta (2017)
GPU, float32
OpenVINO               the forms that ONNX Runtime lacks on x86: bfloat16, and int8 weights
ONNX Runtime           float32, int8, and bfloat16 on Arm

An artifact that is not packaged for a GPU runs on the processor.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Callable, FrozenSet, Iterator, Mapping, Optional, Tuple

from .bundle import BF16, FP16, INT8_WEIGHTS, KIND_WORDS, Bundle, Form
from .hardware import Hardware
from .request_queue import Limits

_TOKENS_PER_THREAD = 256
_RUNS = 2  # concurrent runs, which share the cores
_TWICE = 256_000_000  # bytes; a larger model gets one session only
# Estimated, not measured: RoBERTa-base needs 0.17 GFLOP per token, which takes a GPU of 25 to 60
# TFLOPS 3 to 7 us. Launching its 600 kernels takes 4 to 6 ms, whatever the batch.
_TOKENS_PER_GPU = 16_384
_GPU_OVERHEAD = 1_000
_FIRST_WITH_TENSOR_CORES = 7  # CUDA's compute capability


@dataclass(frozen=True)
class Gpu:
    """A GPU. ``device`` is torch's name for it; ``halves``: half precision is faster on it."""

    name: str
    device: str
    halves: bool


@dataclass(frozen=True)
class Backend:
    """A way to run a model; ``bundle`` is in the form that it computes.

    ``open`` loads the model and returns a session for a run without a concurrent one;
    ``open_concurrent`` returns one for concurrent runs, and is None if the first is for those too.
    ``limits`` are those of one run. ``openvino``: OpenVINO runs it.
    """

    name: str
    bundle: Bundle
    open: Callable[[], Any]
    limits: Limits
    open_concurrent: Optional[Callable[[], Any]] = None
    openvino: bool = False

    @property
    def runs(self) -> int:
        """The number of concurrent runs with the best throughput."""
        return _RUNS if self.open_concurrent else 1


def find_gpu() -> Optional[Gpu]:
    """The GPU that torch sees; None without a GPU or without torch."""
    try:
        import torch  # noqa: PLC0415  # takes seconds, and is needed for nothing else
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    major, _ = torch.cuda.get_device_capability(0)
    return Gpu(torch.cuda.get_device_name(0), "cuda:0", major >= _FIRST_WITH_TENSOR_CORES)


def gpu_backends(bundle: Bundle, find: Callable[[], Optional[Gpu]]) -> Iterator[Backend]:
    """The backends of the GPU, the faster one first; none if there is no GPU to use."""
    gpu = find() if bundle.gpu else None
    if gpu is None:
        return
    limits = Limits(_TOKENS_PER_GPU, bundle.equal_length, _GPU_OVERHEAD)
    for half in (True, False) if gpu.halves else (False,):
        served = replace(bundle.form, precision=FP16) if half else bundle.form
        yield Backend(
            f"{gpu.name}, {'float16' if half else 'float32'}",
            bundle.serving(served),
            _on_gpu(bundle, gpu.device, half=half),
            limits,
        )


_HELPFUL: Mapping[Tuple[str, str], FrozenSet[str]] = {
    (INT8_WEIGHTS, "x86_64"): frozenset({"avx512_vnni", "avx_vnni"}),
    (BF16, "x86_64"): frozenset({"avx512_bf16", "amx_bf16"}),
    (BF16, "aarch64"): frozenset({"bf16"}),
}
"""The extensions, any of which makes a form faster than float32 on a machine."""


def can_gain(precision: str, hardware: Hardware) -> bool:
    """Whether a form can be faster than float32 on this processor; int8 is on all of them."""
    helpful = _HELPFUL.get((precision, hardware.machine))
    if helpful is None:
        return precision not in (INT8_WEIGHTS, BF16)
    return not helpful.isdisjoint(hardware.instructions)


def computable(precision: str, machine: str) -> bool:
    """Whether any processor of an architecture gains by a form; float32 and int8 run anywhere."""
    return precision not in (INT8_WEIGHTS, BF16) or (precision, machine) in _HELPFUL


def in_openvino(precision: str, machine: str) -> bool:
    """Whether OpenVINO, rather than ONNX Runtime, computes a form on a machine."""
    return precision in (INT8_WEIGHTS, BF16) and machine == "x86_64"


def _by_openvino(precision: str, machine: str) -> bool:
    """Whether OpenVINO computes a form here.

    The package of a Lambda function has no room for it. There, ONNX Runtime computes in float32
    with the weights that were stored in int8, so that the package has room for the model.
    """
    if precision == INT8_WEIGHTS and find_spec("openvino") is None:
        return False
    return in_openvino(precision, machine)


def _gaining(bundle: Bundle, hardware: Hardware) -> Iterator[Form]:
    """The forms that can gain something here, and the last one."""
    for form in bundle.forms:
        if form is bundle.forms[-1] or can_gain(form.precision, hardware):
            yield form


def leave_out_converter() -> None:
    """Keep OpenVINO from importing its converter, half of its import, with that one's telemetry.

    For processes that serve: elsewhere, others may have a use for it.
    """
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]


def import_libraries(bundle: Bundle, hardware: Hardware) -> None:
    """Import what the processor's backends need, which takes longer than opening one.

    Raises nothing: a backend whose library is missing or broken says so when it is opened.
    """
    forms = _gaining(bundle, hardware)
    for openvino in sorted({_by_openvino(form.precision, hardware.machine) for form in forms}):
        with suppress(Exception):
            import_module(".openvino_session" if openvino else ".session", __package__)


def processor_backends(
    bundle: Bundle, hardware: Hardware, threads: int, *, alone: bool, most_runs: int
) -> Iterator[Backend]:
    """The backends of the processor: its forms that can gain something here, and the last one."""
    for form in _gaining(bundle, hardware):
        served = bundle.serving(form)
        openvino = _by_openvino(form.precision, hardware.machine)
        load = _load_openvino if openvino else _load_onnxruntime
        twice = min(threads, most_runs) >= _RUNS and _pays_twice(served, hardware)
        yield Backend(
            f"{'OpenVINO' if openvino else 'ONNX Runtime'}, {form.precision}",
            served,
            partial(load, served, hardware, threads, 1, alone=alone),
            limits_for(served, threads),
            open_concurrent=partial(load, served, hardware, threads, _RUNS, alone=alone)
            if twice
            else None,
            openvino=openvino,
        )


def _load_onnxruntime(
    bundle: Bundle, hardware: Hardware, threads: int, runs: int, *, alone: bool
) -> Any:
    """A session for one of so many concurrent runs, which share the threads."""
    # A container that serves the original learner has no ONNX Runtime.
    from .session import open_session  # noqa: PLC0415

    return open_session(bundle, hardware, threads // runs, alone=alone)


def _load_openvino(
    bundle: Bundle, hardware: Hardware, threads: int, runs: int, *, alone: bool
) -> Any:
    """A session for so many concurrent runs; its threads never spin, alone or not."""
    del alone
    # Only artifacts with a form for it hold its wheel.
    from .openvino_session import open_openvino  # noqa: PLC0415

    return open_openvino(bundle, hardware, threads, runs)


def limits_for(bundle: Bundle, threads: int) -> Limits:
    """The limits of a run on the CPU: 256 tokens per thread, at least 512.

    Larger runs lower the throughput and make other requests wait longer: int8 RoBERTa-base with 2
    threads answers 225 texts a second in runs of 16 x 12 tokens, 215 in 32 x 12, 170 in 64 x 12.
    """
    return Limits(max(2, threads) * _TOKENS_PER_THREAD, equal_length=bundle.equal_length)


def _on_gpu(bundle: Bundle, device: str, *, half: bool) -> Callable[[], Any]:
    def opened() -> Any:
        import torch  # noqa: PLC0415  # only GPU images have it

        from .torch_session import open_torch  # noqa: PLC0415

        # TF32 would round float32 to three digits, like half precision.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        return open_torch(bundle.folder / bundle.form.file, device, half=half)

    return opened


def _pays_twice(bundle: Bundle, hardware: Hardware) -> bool:
    """Whether a second session is worth its memory.

    Sessions share the embeddings, but each packs the matrices for itself: int8 RoBERTa-base takes
    0.8 times the size of its files with one session and 1.5 times with two. Recurrent models gain
    most from large runs, and concurrent runs are smaller.
    """
    size = bundle.model_bytes
    fits = hardware.memory is None or 4 * size <= hardware.memory
    return fits and size <= _TWICE and bundle.kind != KIND_WORDS
