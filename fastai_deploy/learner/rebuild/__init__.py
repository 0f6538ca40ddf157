"""Rebuilding a learner in torch and exporting it; the only part that needs heavy libraries."""
