"""fdeploy's own model server, as ``fdeploy deploy --target local`` starts it."""

from __future__ import annotations

import sys

from benchmarks.comparison.competitors.base import Competitor, Launch, Site
from benchmarks.comparison.models import DEFAULT, FLOAT32, INT8


def _launch(site: Site, form: str) -> Launch:
    model = site.model.artifact(form, "local")
    command = [sys.executable, "-m", "fdeploy_runtime.server", "--model-dir", str(model)]
    command += ["--announce", str(site.folder / "ready"), "--port", str(site.port)]
    return Launch(tuple(command), site.folder, {"PYTHONPATH": str(model / "code")})


def competitor(key: str, name: str, about: str, form: str) -> Competitor:
    """The server with a form of the model."""
    return Competitor(key, name, about, lambda site: _launch(site, form), form=form)


COMPETITOR = competitor(
    "fdeploy-local",
    "fdeploy (local)",
    "The artifact with default settings in the model server of the `local` target.",
    DEFAULT,
)
UNQUANTIZED = competitor(
    "fdeploy-none",
    'fdeploy (local, `quantize = "none"`)',
    "The same with the float32 weights only.",
    FLOAT32,
)
FORCED_INT8 = competitor(
    "fdeploy-int8",
    'fdeploy (local, `quantize = "int8"`)',
    "The same with int8 or nothing, where the gate lets it pass.",
    INT8,
)
