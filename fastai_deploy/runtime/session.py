"""The ONNX Runtime session: threads, memory and start-up, decided from hardware and model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import onnxruntime

from .bundle import Bundle, ModelError
from .hardware import Hardware
from .onnx_graph import read_graph

SLOWER = ("SkipLayerNormFusion", "BiasGeluFusion")
"""ONNX Runtime's fusions that cost more than they save: see docs/quantization.md."""

_MEMORY_FACTOR = 1.2
_LARGE = 100_000  # bytes of a table that is worth sharing


class Session:
    """A loaded model; ``run`` may be called from many threads."""

    def __init__(self, session: onnxruntime.InferenceSession, tables: Mapping[str, Any]) -> None:
        self._session = session
        self._tables = tables  # ONNX Runtime only points at them

    def run(self, outputs: Optional[Sequence[str]], feed: Mapping[str, Any]) -> Any:
        """As ONNX Runtime's."""
        return self._session.run(outputs, feed)


def open_session(
    bundle: Bundle,
    hardware: Hardware,
    threads: int,
    *,
    alone: bool,
    tables: Optional[Mapping[str, Any]] = None,
) -> Session:
    """Load the model.

    ``alone`` says that the machine has nothing else to do, as an endpoint's has: threads may then
    spin while a run lasts. ``tables`` are of ``read_tables``, for sessions that share them. Raises
    ModelError when the graph is not the manifest's or does not fit into the memory.
    """
    tables = tables or {}
    path = bundle.folder / bundle.model_file
    needed = int(path.stat().st_size * _MEMORY_FACTOR)
    if hardware.memory is not None and needed > hardware.memory:
        raise ModelError(
            f"{bundle.model_file} needs about {needed >> 20} MB of memory; "
            f"{hardware.memory >> 20} MB are there"
        )
    options = _options(threads, alone=alone)
    for name, table in tables.items():
        options.add_initializer(name, table)
    try:
        session = onnxruntime.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=SLOWER,
        )
    except Exception as error:  # noqa: BLE001  # its errors have no common base
        reason = str(error).splitlines()[0][:300]
        raise ModelError(f"{bundle.model_file} cannot be loaded: {reason}") from None
    _check_names("inputs", bundle.inputs, [node.name for node in session.get_inputs()])
    _check_names("output", (bundle.output,), [node.name for node in session.get_outputs()])
    return Session(session, tables)


def read_tables(path: Path) -> Dict[str, Any]:
    """What a run reads only rows of, the embeddings, by its name in the graph.

    Sessions of the same graph that are given it have it in memory once. Empty where the graph has
    something that is not read here; each session then loads its own.
    """
    try:
        graph = read_graph(path)
    except ValueError:
        return {}
    gathers = [node for node in graph.nodes if node.operator == "Gather"]
    names = {name for node in gathers for name in node.inputs[:1]}
    large = {name: graph.weights[name] for name in names & graph.weights.keys()}
    # Copies: what stays in the file would change with it.
    return {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(array.copy())
        for name, array in large.items()
        if array.nbytes >= _LARGE
    }


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
