"""Python environments, with pinned packages, for learners served from their original pickle."""
