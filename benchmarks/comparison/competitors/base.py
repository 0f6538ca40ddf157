"""A competitor: its environment, how to start it, and where to send requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.comparison.environments import Environment
from benchmarks.comparison.models import Model

SERVED = Path(__file__).parents[1] / "served"
"""The code that the competitors' own servers run."""


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


@dataclass(frozen=True)
class Competitor:
    """A server of the same model. Its answers hold ``probabilities`` by label.

    ``environment`` is None for the Python that runs the benchmark. ``tolerance`` bounds
    |Δprobability| against the learner's own answers, one request at a time.
    """

    key: str
    name: str
    about: str
    launch: Callable[[Site], Launch]
    environment: Environment | None = None
    path: str = "/invocations"
    tolerance: float = 0.001
