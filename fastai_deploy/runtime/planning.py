"""How to share the cores between runs of the model."""

from __future__ import annotations

from dataclasses import dataclass

from .hardware import Hardware

_CORES_PER_RUN = 8


@dataclass(frozen=True)
class Plan:
    """How to compute: ``workers`` runs at a time, sharing ``threads`` threads in all."""

    threads: int
    workers: int


def plan(hardware: Hardware) -> Plan:
    """One run at a time uses every core, for the shortest answer to a lone request.

    Small batches stop gaining beyond some cores, so from 16 cores on several runs share them.
    """
    return Plan(threads=hardware.cores, workers=max(1, hardware.cores // _CORES_PER_RUN))
