"""The backends that can run a model, fastest first. The first that reproduces the goldens serves.

GPU, half precision    if the GPU has hardware for it, as all have since Volta (2017)
GPU, float32
CPU                    ONNX Runtime; the only backend of an artifact not packaged for a GPU
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterator, List, Optional

from .bundle import KIND_WORDS, Bundle
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
    """A way to run a model; ``limits`` are those of one run.

    ``open`` loads the model and returns its sessions: one, or two, of which the first is for a run
    without a concurrent one and the second for concurrent runs.
    """

    name: str
    open: Callable[[], List[Any]]
    limits: Limits


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


def backends(
    bundle: Bundle,
    hardware: Hardware,
    threads: int,
    *,
    alone: bool,
    most_runs: int,
    find: Callable[[], Optional[Gpu]] = find_gpu,
) -> Iterator[Backend]:
    """The backends for an artifact on this machine, fastest first; the last is always the CPU."""
    gpu = find() if bundle.gpu else None
    if gpu is not None:
        limits = Limits(_TOKENS_PER_GPU, bundle.equal_length, _GPU_OVERHEAD)
        for half in (True, False) if gpu.halves else (False,):
            name = f"{gpu.name}, {'float16' if half else 'float32'}"
            yield Backend(name, _on_gpu(bundle, gpu.device, half=half), limits)
    yield Backend(
        "processor",
        lambda: _on_processor(bundle, hardware, threads, alone=alone, most_runs=most_runs),
        limits_for(bundle, threads),
    )


def limits_for(bundle: Bundle, threads: int) -> Limits:
    """The limits of a run on the CPU: 256 tokens per thread, at least 512.

    Larger runs lower the throughput and make other requests wait longer: int8 RoBERTa-base with 2
    threads answers 225 texts a second in runs of 16 x 12 tokens, 215 in 32 x 12, 170 in 64 x 12.
    """
    return Limits(max(2, threads) * _TOKENS_PER_THREAD, equal_length=bundle.equal_length)


def _on_gpu(bundle: Bundle, device: str, *, half: bool) -> Callable[[], List[Any]]:
    def opened() -> List[Any]:
        import torch  # noqa: PLC0415  # only GPU images have it

        from .torch_session import open_torch  # noqa: PLC0415

        # TF32 would round float32 to three digits, like half precision.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        return [open_torch(bundle.folder / bundle.model_file, device, half=half)]

    return opened


def _on_processor(
    bundle: Bundle, hardware: Hardware, threads: int, *, alone: bool, most_runs: int
) -> List[Any]:
    # A container that serves the original learner has no ONNX Runtime.
    from .session import open_session  # noqa: PLC0415

    if min(threads, most_runs) < _RUNS or not _pays_twice(bundle, hardware):
        return [open_session(bundle, hardware, threads, alone=alone)]
    return [
        open_session(bundle, hardware, each, alone=alone) for each in (threads, threads // _RUNS)
    ]


def _pays_twice(bundle: Bundle, hardware: Hardware) -> bool:
    """Whether a second session is worth its memory.

    Sessions share the embeddings, but each packs the matrices for itself: int8 RoBERTa-base takes
    0.8 times the size of its files with one session and 1.5 times with two. Recurrent models gain
    most from large runs, and concurrent runs are smaller.
    """
    size = bundle.model_bytes
    fits = hardware.memory is None or 4 * size <= hardware.memory
    return fits and size <= _TWICE and bundle.kind != KIND_WORDS
