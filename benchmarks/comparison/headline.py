"""What README.md says about speed, from the document of a run."""

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
_CELLS = ("12/8", "92/8")


def complete(document: Document) -> bool:
    """Whether everything that the paragraph needs was measured."""
    return not document["about"]["quick"] and _measured(document, REVIEWS)


def _measured(document: Document, learner: str) -> bool:
    return all(
        of_cell(document, learner, key, cell)
        for key in (DEFAULT_PATH, DIRECT, ARTICLE)
        for cell in _CELLS
    )


def replaced(readme: str, document: Document) -> str:
    """The README with the paragraph of this run."""
    head, _, rest = readme.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return f"{head}{_BEGIN}{headline(document)}\n{_END}{tail}"


def headline(document: Document) -> str:
    """The paragraph and its table as Markdown, in lines of at most 139 characters."""
    facts = document["learners"][REVIEWS]
    answers = next(
        visit["answers"]
        for visit in document["visits"]
        if visit["learner"] == REVIEWS
        and visit["competitor"] == DEFAULT_PATH
        and "answers" in visit
    )
    intro = (
        "**It is also faster than `learn.predict`.** Texts a second with default settings, in the "
        "container that fdeploy makes for SageMaker, as a multiple of what others answer with the "
        f"same learner ({document['about']['cores']} cores, 8 clients):"
    )
    rows = [
        "| | texts of 12 tokens | texts of 92 tokens |",
        "|---|---|---|",
        _row("`learn.predict` in AWS's toolkit", document, (ARTICLE,)),
        _row("the faster of AWS's other ways", document, ON_AWS),
        _row("the fastest of all other servers", document, OTHERS),
    ]
    outro = (
        "The learner is MiniLM, fine-tuned with fastai on film reviews. On "
        f"{answers['texts']:,} reviews that it has never seen, its accuracy is "
        f"{facts['learner_accuracy']:.4f}, and that of the form which fdeploy serves "
        f"{answers['accuracy']:.4f}. {_in_aws_image(document)}{_of_roberta(document)}"
        "[docs/comparison.md](docs/comparison.md) has all figures, and how to measure them again."
    )
    return "\n".join([_filled(intro), "", *rows, "", _filled(outro)])


def _filled(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _in_aws_image(document: Document) -> str:
    """A sentence about AWS's own image, if the run has it."""
    few, many = (ratio(document, REVIEWS, ON_RAY, DEFAULT_PATH, cell) for cell in _CELLS)
    if few is None or many is None:
        return ""
    return (
        "AWS's unmodified Ray Serve image, behind AWS's own adapter, answers "
        f"{short(few.middle)} and {short(many.middle)} times as many as the container. "
    )


def _of_roberta(document: Document) -> str:
    """A sentence about the larger model, if the run has it."""
    if not _measured(document, ROBERTA):
        return ""
    few, many = (ratio(document, ROBERTA, DEFAULT_PATH, ARTICLE, cell) for cell in _CELLS)
    return (
        "With a model of the size of RoBERTa-base (random weights, which say nothing about "
        f"accuracy), the container answers {_middle(few)} and {_middle(many)} times as many as "
        "`learn.predict`. "
    )


def _row(what: str, document: Document, others: tuple[str, ...]) -> str:
    """A row of the table: what fdeploy answers, as a multiple of the fastest of the others."""
    cells = []
    for cell in _CELLS:
        best = fastest(document, REVIEWS, others, cell)
        found = _middle(ratio(document, REVIEWS, DEFAULT_PATH, best, cell)) if best else "-"
        cells.append(f"{found} ({NAMES[best]})" if best and len(others) > 1 else found)
    return f"| {what} | {' | '.join(cells)} |"


def _middle(found: Figure | None) -> str:
    return short(found.middle) if found else "-"
