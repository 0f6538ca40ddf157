"""Parity: are the answers those of the learner? Goldens, comparison, report and gate."""
