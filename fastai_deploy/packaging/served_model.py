"""What serving a bundle takes: how large its model is, and whether a Lambda function can hold it.

Read from the manifest alone, so that a model that does not fit is refused before anything is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai_deploy import files
from fastai_deploy.errors import FileError, SettingsError
from fastai_deploy.json_reader import parse
from fastai_deploy.packaging.wheels import FUNCTION
from fastai_deploy.runtime.backends import computable
from fastai_deploy.runtime.bundle import FP32, INT8, INT8_WEIGHTS, KIND_TRANSFORMERS, weights_file

MAX_FUNCTION_MODEL = 1_000_000_000
"""Bytes; reading more from the bucket takes longer than a request may, at every cold start."""
FUNCTION_ROOM = 150_000_000
"""Bytes of a model that fit into a function's package beside the libraries (docs/lambda.md)."""
_MB = 1 << 20
_INSTEAD = (
    "choose another kind: fdeploy config set endpoint.kind real-time (or serverless), and leave "
    "out --lambda"
)


@dataclass(frozen=True)
class ServedModel:
    """What serving a bundle requires: the size of its model, and the Python of a learner.

    ``bytes`` is the size of the model files for a CPU, ``gpu_bytes`` of those for a GPU, None if
    there are none; ``function_bytes`` of those for a Lambda function, and ``function_precision``
    the form that they have. ``python`` is None for a converted model, which runs in any Python.
    ``parameters`` counts a transformer's, 0 if that is not known.
    """

    bytes: int
    gpu_bytes: int | None
    python: str | None
    function_bytes: int = 0
    function_precision: str = FP32
    parameters: int = 0

    @property
    def learner(self) -> bool:
        """Whether the learner is served from its original pickle."""
        return self.python is not None


def served_model(bundle: Path) -> ServedModel | None:
    """Read a bundle's manifest; None if there is no valid one yet."""
    try:
        manifest = parse(files.read(bundle / "manifest.json"))
        python = (manifest.get("runtime") or {}).get("python")
        model = manifest["model"]
        sizes = {name: int(entry["bytes"]) for name, entry in manifest["files"].items()}
        gpu = model.get("gpu")
        graph, precision = _for_function(model, sizes)
        counts = manifest.get("text", {}).get("kind") == KIND_TRANSFORMERS
        return ServedModel(
            bytes=max(graph_bytes(sizes, file) for file in _graphs(model)),
            gpu_bytes=graph_bytes(sizes, gpu) if gpu else None,
            python=str(python) if python else None,
            function_bytes=graph_bytes(sizes, graph),
            function_precision=precision,
            parameters=int(model.get("parameters") or 0) if counts else 0,
        )
    except (FileError, ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None


def _graphs(model: Mapping[str, Any]) -> list[str]:
    """The graphs that may be served; formats 1 and 2 have one."""
    return [form["file"] for form in model["forms"]] if "forms" in model else [model["file"]]


def _for_function(model: Mapping[str, Any], sizes: Mapping[str, int]) -> tuple[str, str]:
    """The graph that is packed for a function, and its form: see ``packed_forms``."""
    forms = [
        (str(form["precision"]), str(form["file"]))
        for form in model.get("forms", ())
        if computable(form["precision"], FUNCTION.machine)
    ]
    if not forms:
        return _graphs(model)[-1], FP32
    chosen = for_function([(each, graph_bytes(sizes, file)) for each, file in forms])
    precision, graph = forms[chosen]
    return graph, precision


def for_function(forms: Sequence[tuple[str, int]]) -> int:
    """Which of a model's forms, with the bytes of their graphs, a function computes.

    int8 if it is among them, else the last one, float32. If that does not fit into the package, but
    could be read from the bucket, it is computed from weights that are stored in int8: a quarter of
    the bytes, which then fit or are read sooner.
    """
    precisions = [precision for precision, _ in forms]
    if INT8 in precisions:
        return precisions.index(INT8)
    last = len(forms) - 1
    if INT8_WEIGHTS in precisions and FUNCTION_ROOM < forms[last][1] <= MAX_FUNCTION_MODEL:
        return precisions.index(INT8_WEIGHTS)
    return last


def graph_bytes(sizes: Mapping[str, int], graph: str) -> int:
    """The bytes of a graph and of the file with its larger weights, where it has one."""
    return sizes[graph] + sizes.get(weights_file(graph), 0)


def check_for_function(served: ServedModel | None) -> None:
    """Raise SettingsError for a model that a Lambda function cannot serve, with what can."""
    if served is None:
        return
    if served.learner:
        raise SettingsError(
            "the learner is served from its original pickle, and torch and fastai do not fit into "
            "the 250 MB of a function",
            hint=_INSTEAD,
        )
    size = served.function_bytes
    if size > MAX_FUNCTION_MODEL:
        raise SettingsError(
            f"the model has {size / _MB:,.0f} MB, and a function reads at most "
            f"{MAX_FUNCTION_MODEL / _MB:,.0f} MB from the bucket within the time of a request",
            hint=f"{_INSTEAD}; or allow a form with fewer bits (quantize in [model])",
        )
