"""The ONNX Runtime session: threads, memory and start-up, decided from hardware and model."""

from __future__ import annotations

from typing import Any, List

import onnxruntime

from .bundle import Bundle, ModelError
from .hardware import Hardware

SLOWER = ("SkipLayerNormFusion", "BiasGeluFusion")
"""ONNX Runtime's fusions that cost more than they save: see docs/quantization.md."""

_MEMORY_FACTOR = 1.2


def open_session(
    bundle: Bundle, hardware: Hardware, threads: int, *, alone: bool
) -> onnxruntime.InferenceSession:
    """Load the model; its ``run`` may be called from many threads.

    Large weights stay in their file, which ONNX Runtime maps: sessions, and processes, have those
    that they use as they are (the embeddings) in memory once. ``alone`` says that the machine has
    nothing else to do, as an endpoint's has: threads may then spin while a run lasts. Raises
    ModelError when the graph is not the manifest's or does not fit into the memory; where its
    weights are is not looked at here (``onnx_graph.check_weights``).
    """
    path = bundle.folder / bundle.model_file
    needed = int(bundle.model_bytes * _MEMORY_FACTOR)
    if hardware.memory is not None and needed > hardware.memory:
        raise ModelError(
            f"{bundle.model_file} needs about {needed >> 20} MB of memory; "
            f"{hardware.memory >> 20} MB are there"
        )
    try:
        session = onnxruntime.InferenceSession(
            str(path),
            _options(threads, alone=alone),
            providers=["CPUExecutionProvider"],
            disabled_optimizers=SLOWER,
        )
    except Exception as error:  # noqa: BLE001  # its errors have no common base
        reason = str(error).splitlines()[0][:300]
        raise ModelError(f"{bundle.model_file} cannot be loaded: {reason}") from None
    _check_names("inputs", bundle.inputs, [node.name for node in session.get_inputs()])
    _check_names("output", (bundle.output,), [node.name for node in session.get_outputs()])
    return session


def _options(threads: int, *, alone: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised as well, and told in the server's own log
    # Plans are kept for every shape ever seen, and texts come in hundreds of shapes.
    options.enable_mem_pattern = False
    # Threads that spin between operators answer faster (int8 RoBERTa-base, 12 tokens, 2 cores: 6.0
    # ms against 7.4), unless others need the cores: then each turn of theirs stops a run that spins
    # (8 x 12 tokens: 111 texts a second against 209). Between runs they always sleep.
    if alone:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    else:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _check_names(what: str, expected: Any, found: List[str]) -> None:
    if sorted(expected) != sorted(found):
        raise ModelError(f"the {what} of the graph are {found}; the manifest says {list(expected)}")
