"""The ONNX Runtime session: threads, memory and start-up, decided from hardware and model."""

from __future__ import annotations

from typing import Any

import onnxruntime

from .bundle import BF16, INT8_WEIGHTS, Bundle, ModelError, check_names
from .hardware import Hardware

SLOWER = ("SkipLayerNormFusion", "BiasGeluFusion")
"""Fusions of ONNX Runtime that cost more than they save; docs/quantization.md has the figures."""

_MEMORY_FACTOR = 1.2
_UNFOLDED_FACTOR = 5.0  # the file with int8 weights, and the float32 ones that it becomes


def open_session(
    bundle: Bundle, hardware: Hardware, threads: int, *, alone: bool
) -> onnxruntime.InferenceSession:
    """Load the form of the model that the bundle serves. The session's ``run`` is thread-safe.

    ONNX Runtime maps the file of large weights, so weights that it uses unchanged (the embeddings)
    are in memory once, however many sessions and processes read them. With ``alone``, no other
    process needs the cores (as on an endpoint), so threads may spin during a run. Raises ModelError
    if the graph differs from the manifest or does not fit into memory. Call
    ``onnx_graph.check_weights`` first: this function does not check which files hold the weights.
    """
    path = bundle.folder / bundle.form.file
    stored = bundle.form.precision == INT8_WEIGHTS
    bundle.require_memory(hardware.memory, _UNFOLDED_FACTOR if stored else _MEMORY_FACTOR)
    try:
        session = onnxruntime.InferenceSession(
            str(path),
            _options(threads, alone=alone, precision=bundle.form.precision),
            providers=["CPUExecutionProvider"],
            disabled_optimizers=SLOWER,
        )
    except Exception as error:  # noqa: BLE001  # its errors have no common base
        reason = str(error).splitlines()[0][:300]
        raise ModelError(f"{bundle.form.file} cannot be loaded: {reason}") from None
    check_names("inputs", bundle.inputs, [node.name for node in session.get_inputs()])
    check_names("output", (bundle.output,), [node.name for node in session.get_outputs()])
    return session


def _options(threads: int, *, alone: bool, precision: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised too, and the server logs them itself
    # ONNX Runtime keeps a memory plan for every shape it has seen; texts come in hundreds of them.
    options.enable_mem_pattern = False
    # Threads that spin between operators are faster (int8 RoBERTa-base, 12 tokens, 2 cores: 6.0 ms
    # against 7.4), but not if other processes need the cores, because each of those interrupts the
    # run (8 x 12 tokens: 111 texts a second against 209). Between runs, threads always sleep.
    if alone:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    else:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if precision == INT8_WEIGHTS:
        # Multiplies the weights out once, instead of in every run: 99 ms instead of 176 for 20
        # words, RoBERTa-base on one core.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if precision == BF16:  # on Arm only; on x86 ONNX Runtime has no bfloat16
        options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "1")
    return options
