"""A model in OpenVINO, with the ``run`` of an ONNX Runtime session.

OpenVINO computes in bfloat16 on x86 processors, and multiplies int8 weights by activations that it
quantizes in groups; ONNX Runtime does neither.
"""

from __future__ import annotations

import ctypes
import mmap
import queue
from contextlib import suppress
from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence

import numpy as np
import openvino

from .bundle import BF16, Bundle, ModelError, check_names
from .hardware import Hardware

GROUP = 128
"""Activations that share a scale. Smaller groups are slower and hardly more accurate, because most
of the error is that of the weights (docs/quantization.md)."""

_PREPARED = 1_000
"""Operations for which OpenVINO keeps the code that it has made for a shape; its default is 5,000.

Texts come in hundreds of shapes. After 1,700 of them, a session of MiniLM takes 495 MB with the
default and 333 MB with this, and texts of ever new shapes take 1.05 times as long; RoBERTa-base
takes 698 and 608 MB after 900 shapes, in the same time (docs/benchmarks-stages.md).
"""
_MAPS = Path("/proc/self/maps")
_SHOWN = 300  # characters
_MEMORY_FACTOR = 1.5  # OpenVINO keeps what it has read of the file until the matrices are packed


class OpenVinoSession:
    """A compiled model; ``run`` is thread-safe, for as many runs at a time as it has streams."""

    def __init__(self, compiled: Any, streams: int) -> None:
        self.inputs = {name for port in compiled.inputs for name in port.names}
        self._outputs = {name: port for port in compiled.outputs for name in port.names}
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())

    def run(self, outputs: Optional[Sequence[str]], feed: Mapping[str, Any]) -> List[Any]:
        """The named outputs, or all of them, for int64 inputs ``(batch, sequence)``."""
        request = self._requests.get()
        try:
            found = request.infer(feed, share_inputs=True)
            # Copies, because the request's own arrays are overwritten by its next run.
            return [np.array(found[self._outputs[name]]) for name in outputs or self._outputs]
        finally:
            self._requests.put(request)


def open_openvino(bundle: Bundle, hardware: Hardware, threads: int, runs: int) -> OpenVinoSession:
    """Compile the bundle's form for ``runs`` concurrent runs, which share ``threads`` threads.

    Raises ModelError if the graph differs from the manifest, does not fit into memory, or cannot
    be compiled.
    """
    path = bundle.folder / bundle.form.file
    bundle.require_memory(hardware.memory, _MEMORY_FACTOR, "memory in OpenVINO")
    try:
        session = compile_graph(path, bundle.form.precision, threads, runs)
    except Exception as error:  # noqa: BLE001  # RuntimeError, and pybind11's own
        raise ModelError(f"OpenVINO cannot compile {path.name}: {reason(error)}") from None
    check_names("inputs", bundle.inputs, sorted(session.inputs))
    return session


def compile_graph(path: Path, precision: str, threads: int, runs: int) -> OpenVinoSession:
    """Compile an ONNX file. Raises RuntimeError if OpenVINO cannot."""
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == BF16 else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": runs,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP,
        "CPU_RUNTIME_CACHE_CAPACITY": _PREPARED,
        # Its threads would be tied to the first cores, also where another container's are.
        "ENABLE_CPU_PINNING": False,
    }
    # Where the files really are: of links, OpenVINO takes the weights for those of another folder.
    found = path.resolve()
    compiled = openvino.Core().compile_model(str(found), "CPU", settings)
    with suppress(OSError):  # there is no /proc
        give_back_pages(found.parent)
    return OpenVinoSession(compiled, runs)


def give_back_pages(folder: Path) -> None:
    """Let the system take back the memory in which it holds mapped files of a folder.

    OpenVINO maps the weights and has packed the matrices into memory of its own by now, but the
    mapping stays. What is read again, the embeddings of words, comes back. Only mappings that
    cannot be written to are given back, so nothing can be lost. Raises OSError.
    """
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in _MAPS.read_text(errors="surrogateescape").splitlines():
        addresses, permissions, *_, path = line.split(None, 5)
        if permissions.startswith("r--") and Path(path).parent == folder:
            first, end = (int(address, 16) for address in addresses.split("-"))
            advise(first, end - first, mmap.MADV_DONTNEED)


def reason(error: Exception) -> str:
    """An error's message in one line, without the places in OpenVINO's source that come first."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from", "Check "))]
    return " ".join(told)[:_SHOWN]
