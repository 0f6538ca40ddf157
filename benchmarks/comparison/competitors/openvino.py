"""OpenVINO with a small server around it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.comparison.competitors.base import SERVED, Competitor, Launch, Site
from benchmarks.comparison.environments import OPENVINO
from benchmarks.comparison.models import Model

_GRAPH = "openvino.xml"


def _prepare(model: Model, python: Path) -> None:
    graph = model.folder / _GRAPH
    if not graph.exists():
        command = [str(python), str(SERVED / "openvino_convert.py")]
        subprocess.run([*command, str(model.huggingface), str(graph)], check=True)


def _launch(site: Site) -> Launch:
    command = [str(site.python), str(SERVED / "openvino_app.py")]
    command += [str(site.model.folder / _GRAPH), str(site.model.huggingface), str(site.port)]
    return Launch(tuple(command), site.folder)


COMPETITOR = Competitor(
    "openvino",
    "OpenVINO",
    "OpenVINO in bf16 where the processor has it, with the `THROUGHPUT` hint and its own queue of "
    "requests, in a small server of Starlette and uvicorn. OpenVINO Model Server is "
    "not in the package index, and was not measured.",
    _launch,
    environment=OPENVINO,
    prepare=_prepare,
)
