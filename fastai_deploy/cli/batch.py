"""What ``fdeploy invoke`` shows of many answers."""

from __future__ import annotations

import json
from collections.abc import Iterator

from fastai_deploy.cli.visible import visible
from fastai_deploy.invoking.answered import Answered, Batch

_BAR = 10
_LABEL = 24
_LEAST_TEXT = 12


def batch_lines(batch: Batch, *, as_json: bool, width: int | None) -> Iterator[str]:
    """The answers, or where a file holds them their summary; ``width`` is that of the terminal."""
    if batch.output is not None:
        yield from [json.dumps(_summary(batch))] if as_json else _told(batch)
    elif as_json:
        yield from (answer.encode().decode().rstrip("\n") for answer in batch.answers)
    else:
        yield from (_line(answer, width) for answer in batch.answers)


def _summary(batch: Batch) -> dict[str, object]:
    return {
        "texts": len(batch.answers),
        "reused": batch.reused,
        "failed": [answer.row for answer in batch.failures],
        "labels": dict(batch.counts()),
        "output": batch.output,
    }


def _told(batch: Batch) -> Iterator[str]:
    failed = len(batch.failures)
    answered = len(batch.answers) - failed
    yield f"answers  {batch.output}"
    yield (
        f"texts    {len(batch.answers)}: {answered} answered"
        + (f" ({batch.reused} of them before)" if batch.reused else "")
        + (f", {failed} failed" if failed else "")
    )
    counts = batch.counts()
    wide = max((len(visible(label)) for label, _ in counts), default=0)
    for label, count in counts:
        bar = "█" * round(3 * _BAR * count / max(answered, 1))
        yield f"  {visible(label):<{wide}}  {count:>7,}  {bar}".rstrip()


def _line(answer: Answered, width: int | None) -> str:
    """One text: its row, its labels, its probability as a bar, and as much of it as fits."""
    if answer.failed:
        error = answer.body["error"]
        head = f"{answer.row:>5}  FAILED {error['code']}: {error['message']}  "
    else:
        labels = ", ".join(answer.labels) or "(no label)"
        score = max(answer.body["probabilities"].values(), default=0.0)
        bar = "█" * round(score * _BAR)
        head = f"{answer.row:>5}  {visible(labels)[:_LABEL]:<12}  {score:.4f}  {bar:<{_BAR}}  "
    text = visible(answer.text)
    room = None if width is None else max(_LEAST_TEXT, width - len(head))
    if room is not None and len(text) > room:
        text = text[: room - 1] + "…"
    return (head + text).rstrip()
