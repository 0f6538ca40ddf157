"""Figures, side by side in one run: ``make bench``, or ``python -m benchmarks.startup`` for one."""

import fastai_deploy  # noqa: F401 - switches telemetry off before a benchmark imports a library
