"""What is asked of each competitor: the full matrix for one shape, a reduced one for the others."""

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
    """One load: so many clients in a closed loop; or none, and a share of the best rate of them."""

    texts: str
    clients: int = 0
    share: float = 0.0

    @property
    def name(self) -> str:
        """As in the results."""
        return f"{self.texts}/{self.clients or f'open {self.share:g}'}"


def takes_part(competitor: str, shape: str) -> bool:
    """Whether a competitor is measured with a shape; two images need to be told apart only once."""
    return shape == FULL_SHAPE or competitor not in {"fdeploy-torchserve", "fdeploy-ray"}


def cells(shape: str, *, quick: bool) -> list[Cell]:
    """In the order in which they are measured; an overload, which may leave ruins, comes last."""
    if quick:
        return [Cell("12", 1), Cell("12", 8), Cell("mixture", 8), Cell("12", share=OVERLOAD)]
    if shape != FULL_SHAPE:
        return [Cell("12", 1), Cell("12", 8), Cell("92", 8), Cell("mixture", 8)]
    closed = [Cell(texts, clients) for texts in TEXTS for clients in CLIENTS]
    closed.remove(Cell("400", 32))  # which no server is quick enough for
    return [
        *closed,
        Cell("12", share=OPEN_SHARE),
        Cell("mixture", share=OPEN_SHARE),
        Cell("12", share=OVERLOAD),
    ]
