"""A competitor: its environment, how to start it, where to send requests, and in which format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.comparison.environments import Environment
from benchmarks.comparison.models import Model
from benchmarks.load import text_body

SERVED = Path(__file__).parents[1] / "served"
"""The code that the competitors' own servers run."""

MARK = "FDEPLOY_COMPARISON"
"""The environment variable by which the processes of a server are found."""


class Failed(Exception):
    """A competitor cannot be prepared, did not start, or gave wrong answers."""


@dataclass(frozen=True)
class Site:
    """What a server may use: a Python, an empty folder, and free loopback ports."""

    model: Model
    python: Path
    folder: Path
    ports: tuple[int, ...]

    @property
    def port(self) -> int:
        """The port on which it must answer."""
        return self.ports[0]


@dataclass(frozen=True)
class Launch:
    """How to start a server; ``variables`` are added to a small environment."""

    command: tuple[str, ...]
    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)


def _probabilities(body: Any) -> Mapping[str, float]:
    found: Mapping[str, float] = body["probabilities"]
    return found


@dataclass(frozen=True)
class Competitor:
    """A server of the same learner.

    ``environment`` is None for the Python that runs the benchmark. ``prepare`` makes what it needs
    of a model, once, before the measurement. ``form`` is the fdeploy artifact that it serves.
    ``body`` makes the request of a text, and ``read`` gives the probabilities by label. ``askers``
    is the number of clients that check the answers.
    """

    key: str
    name: str
    about: str
    launch: Callable[[Site], Launch]
    environment: Environment | None = None
    prepare: Callable[[Model, Path], None] | None = None
    form: str | None = None
    path: str = "/invocations"
    body: Callable[[str], object] = text_body
    read: Callable[[Any], Mapping[str, float]] = _probabilities
    askers: int = 8
