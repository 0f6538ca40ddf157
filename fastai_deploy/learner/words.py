"""Tables of names, written as running text."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of a text, which white space separates."""
    return frozenset(text.split())
