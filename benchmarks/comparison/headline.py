"""The paragraph about speed in README.md, from the document of a run."""

from __future__ import annotations

import textwrap

from benchmarks.comparison.competitors import COMPETITORS
from benchmarks.comparison.figures import Document, Figure, fastest, of_cell, ratio, short
from benchmarks.comparison.models import REVIEWS, ROBERTA

DEFAULT_PATH, DIRECT, ARTICLE = "fdeploy-image", "fdeploy-local", "article"
ON_RAY = "fdeploy-ray"
ON_AWS = ("toolkit-pipeline", "huggingface")
"""Other ways that AWS has images for."""
OTHERS = tuple(
    each.key for each in COMPETITORS if "fdeploy" not in each.key and each.key != ARTICLE
)
NAMES = {each.key: each.name for each in COMPETITORS}

_BEGIN = "<!-- speed: written by make bench-comparison -->\n"
_END = "<!-- end of speed -->\n"
_WIDTH = 139


def complete(document: Document) -> bool:
    """Whether everything that the paragraph needs was measured."""
    return not document["about"]["quick"] and _measured(document, REVIEWS)


def _measured(document: Document, learner: str) -> bool:
    return all(
        of_cell(document, learner, key, cell)
        for key in (DEFAULT_PATH, DIRECT, ARTICLE)
        for cell in ("12/8", "92/8")
    )


def replaced(readme: str, document: Document) -> str:
    """The README with the paragraph of this run."""
    head, _, rest = readme.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return f"{head}{_BEGIN}{headline(document)}\n{_END}{tail}"


def headline(document: Document) -> str:
    """The paragraph as Markdown, in lines of at most 139 characters."""
    facts = document["learners"][REVIEWS]
    answers = next(
        visit["answers"]
        for visit in document["visits"]
        if visit["learner"] == REVIEWS
        and visit["competitor"] == DEFAULT_PATH
        and "answers" in visit
    )
    text = (
        f"**It is also faster than `learn.predict`.** MiniLM, fine-tuned with fastai on film "
        f"reviews, with default settings in the container that fdeploy makes for SageMaker, on "
        f"{document['about']['cores']} cores and with 8 clients: "
        f"{_times(document, REVIEWS, DEFAULT_PATH, ARTICLE)} as `learn.predict` in AWS's toolkit, "
        f"and {_against(document, REVIEWS, DEFAULT_PATH, ON_AWS)}. Of all servers that were "
        f"compared, it answers {_against(document, REVIEWS, DEFAULT_PATH, OTHERS)}. "
        f"{_in_aws_image(document)}Its accuracy on "
        f"{answers['texts']:,} reviews that it has never seen is {answers['accuracy']:.4f}; the "
        f"learner's own is {facts['learner_accuracy']:.4f}. {_of_roberta(document)}"
        "[docs/comparison.md](docs/comparison.md) has all figures, and how to measure them again."
    )
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _in_aws_image(document: Document) -> str:
    """A sentence about AWS's own image, if the run has it."""
    few, many = (ratio(document, REVIEWS, ON_RAY, DEFAULT_PATH, cell) for cell in ("12/8", "92/8"))
    if few is None or many is None:
        return ""
    return (
        "AWS's unmodified Ray Serve image, behind AWS's own adapter, gives "
        f"{short(few.middle)} and {short(many.middle)} of that. "
    )


def _of_roberta(document: Document) -> str:
    """A sentence about the larger model, if the run has it."""
    if not _measured(document, ROBERTA):
        return ""
    return (
        "A model of the size of RoBERTa-base (random weights, which say nothing about accuracy) "
        f"gets {_times(document, ROBERTA, DEFAULT_PATH, ARTICLE)} as `learn.predict`. "
    )


def _times(document: Document, learner: str, of: str, to: str) -> str:
    few, many = (_middle(ratio(document, learner, of, to, cell)) for cell in ("12/8", "92/8"))
    return f"{few} times as many texts of 12 tokens and {many} times as many of 92 tokens"


def _against(document: Document, learner: str, of: str, others: tuple[str, ...]) -> str:
    """How it compares with the fastest of the others, by the length of the texts."""
    parts = []
    for cell in ("12/8", "92/8"):
        best = fastest(document, learner, others, cell)
        found = _middle(ratio(document, learner, of, best, cell)) if best else "-"
        parts.append((found, NAMES[best] if best else "-"))
    (few, first), (many, second) = parts
    if first == second:
        return f"{few} and {many} times as many as {first}, the fastest of the others"
    return (
        f"{few} times as many of 12 tokens as {first} and {many} times as many of 92 tokens as "
        f"{second}, each the fastest of the others"
    )


def _middle(found: Figure | None) -> str:
    return short(found.middle) if found else "-"
