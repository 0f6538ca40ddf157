"""Benchmarks: ``make bench`` runs the main ones, ``python -m benchmarks.startup`` a single one."""

import fastai_deploy  # noqa: F401 - switches telemetry off before a benchmark imports a library
