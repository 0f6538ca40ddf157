"""What may compute a model, the fastest first; the first that answers the goldens will serve.

a GPU in half precision     where the GPU is built for it, as all since Volta (2017) are
a GPU in float32
the processor               ONNX Runtime; the only one for an artifact that is not for a GPU
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterator, List, Optional

from .bundle import KIND_WORDS, Bundle
from .hardware import Hardware
from .request_queue import Limits

_TOKENS_PER_THREAD = 256
_RUNS = 2  # at a time, which share the cores
_TWICE = 256_000_000  # bytes; a larger model is in memory only once
# Reckoned, not measured: RoBERTa-base takes 0.17 GFLOP a token, 3 to 7 us where a GPU does 25 to 60
# TFLOPS, and its 600 kernels take 4 to 6 ms to launch, whatever they have to do.
_TOKENS_PER_GPU = 16_384
_GPU_OVERHEAD = 1_000
_FIRST_WITH_TENSOR_CORES = 7  # CUDA's compute capability


@dataclass(frozen=True)
class Gpu:
    """A GPU; ``device`` is torch's name for it, ``halves`` says that half precision is faster."""

    name: str
    device: str
    halves: bool


@dataclass(frozen=True)
class Backend:
    """One way to compute a model; ``limits`` are those of a run.

    ``open`` loads it: one session, or one for a run that is alone and one for a run beside another.
    """

    name: str
    open: Callable[[], List[Any]]
    limits: Limits


def find_gpu() -> Optional[Gpu]:
    """The GPU that torch sees, if there are one and torch."""
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
    """The ways that are open to an artifact on this machine; the last is always the processor."""
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
    """Of the processor: runs of 256 tokens a thread, and 512 at least.

    Beyond, throughput falls and others wait longer: int8 RoBERTa-base with 2 threads answers 225
    texts a second as 16 x 12 tokens, 215 as 32 x 12 and 170 as 64 x 12.
    """
    return Limits(max(2, threads) * _TOKENS_PER_THREAD, equal_length=bundle.equal_length)


def _on_gpu(bundle: Bundle, device: str, *, half: bool) -> Callable[[], List[Any]]:
    def opened() -> List[Any]:
        import torch  # noqa: PLC0415  # it is in GPU images alone

        from .torch_session import open_torch  # noqa: PLC0415

        # float32 is meant as it is said: TF32 rounds after three digits, as half precision does.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        return [open_torch(bundle.folder / bundle.model_file, device, half=half)]

    return opened


def _on_processor(
    bundle: Bundle, hardware: Hardware, threads: int, *, alone: bool, most_runs: int
) -> List[Any]:
    # A learner as it is has no ONNX Runtime.
    from .session import open_session  # noqa: PLC0415

    if min(threads, most_runs) < _RUNS or not _pays_twice(bundle, hardware):
        return [open_session(bundle, hardware, threads, alone=alone)]
    return [
        open_session(bundle, hardware, each, alone=alone) for each in (threads, threads // _RUNS)
    ]


def _pays_twice(bundle: Bundle, hardware: Hardware) -> bool:
    """Whether a second session is worth its memory.

    Each packs the matrices anew: int8 RoBERTa-base takes 0.8 of its files with one session and 1.5
    with two, which share the embeddings. Recurrent models gain the most from large runs,
    which two at a time are not.
    """
    size = bundle.model_bytes
    fits = hardware.memory is None or 4 * size <= hardware.memory
    return fits and size <= _TWICE and bundle.kind != KIND_WORDS
