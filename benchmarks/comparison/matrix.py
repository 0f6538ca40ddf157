"""The loads for each competitor: the full matrix for one shape, a reduced one for the others."""

from __future__ import annotations

from dataclasses import dataclass

FULL_SHAPE = "roberta-base"
SHAPES = (FULL_SHAPE, "distilbert", "minilm")
TEXTS = ("12", "92", "400", "mixture")
CLIENTS = (1, 8, 32)
OPEN_SHARE = 0.8
OVERLOAD = 10.0


@dataclass(frozen=True)
class Cell:
    """One load: ``clients`` in a closed loop, or an open loop at a share of their best rate."""

    texts: str
    clients: int = 0
    share: float = 0.0

    @property
    def name(self) -> str:
        """The key in the results."""
        return f"{self.texts}/{self.clients or f'open {self.share:g}'}"


def takes_part(competitor: str, shape: str) -> bool:
    """Whether to measure a competitor with a shape; the images are compared with one shape only."""
    return shape == FULL_SHAPE or competitor not in {"fdeploy-torchserve", "fdeploy-ray"}


def cells(shape: str, *, quick: bool) -> list[Cell]:
    """The cells in order; the overload comes last, because the server may not recover from it."""
    if quick:
        return [Cell("12", 1), Cell("12", 8), Cell("mixture", 8), Cell("12", share=OVERLOAD)]
    if shape != FULL_SHAPE:
        return [Cell("12", 1), Cell("12", 8), Cell("92", 8), Cell("mixture", 8)]
    closed = [Cell(texts, clients) for texts in TEXTS for clients in CLIENTS]
    closed.remove(Cell("400", 32))  # no server is fast enough
    return [
        *closed,
        Cell("12", share=OPEN_SHARE),
        Cell("mixture", share=OPEN_SHARE),
        Cell("12", share=OVERLOAD),
    ]
