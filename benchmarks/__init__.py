"""Figures, side by side in one run: ``make bench``, or ``python -m benchmarks.startup`` for one."""
