"""The Markdown page of a run, built from its JSON document alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.comparison.competitors import COMPETITORS
from benchmarks.comparison.figures import (
    TITLES,
    Document,
    Figure,
    learners,
    of_cell,
    of_visit,
    ratio,
    short,
    visits,
)
from benchmarks.comparison.headline import ARTICLE, DEFAULT_PATH, DIRECT, NAMES, ON_RAY
from benchmarks.comparison.matrix import CLOSED, OVERLOAD, Cell
from benchmarks.comparison.models import FIVE_CLASSES, REVIEWS, ROBERTA

PRICE = 0.1071
"""Dollars per hour of one ml.c7i.large (2 vCPUs), on demand in us-east-1: the EC2 price of 0.08925
plus the 20 % that SageMaker adds, as of 2026-11, not read from AWS's price list. Costs scale with
it; ``--price`` sets another."""

_ABOUT = {
    REVIEWS: "The pretrained MiniLM (22.7 million parameters, six layers), fine-tuned by fastai on "
    "rated sentences of film reviews, positive or negative. 200 of its own answers are goldens.",
    ROBERTA: "The shape of RoBERTa-base (125 million parameters, twelve layers), **not trained**: "
    "for the speed and memory of that size only. One label wins every text, because random answers "
    "would be nearly tied. 200 of its own answers are goldens, without true labels.",
    FIVE_CLASSES: "The first learner with five classes instead of two, from very negative to very "
    "positive, where near ties abound. No speed was measured.",
}
_ANSWERS = """\
## Right answers

In the same run, 8 clients (one for `learn.predict`) ask each server for texts that are no goldens.
The answers are compared with those of `learn.predict` on the same texts: the labels, and |Δp| of
each probability. Texts of the untrained learner have no true label."""
_OVERLOAD = f"""\
## Overload: {OVERLOAD:g} times the peak

12 tokens; an open loop at {OVERLOAD:g} times the same server's best closed-loop rate, measured
once the queue has filled, in the first round. Unanswered requests had no answer when the load
ended. The client runs on the same cores; the last column is the CPU time that it took, in cores."""
_START = """\
## Start, memory and cost

The start lasts until the first right answer; AWS's own start script alone waits 15 s. Memory is
resident memory after the loads. The cost assumes an ml.c7i.large at {price} dollars an hour (an
assumption; see `PRICE` in `benchmarks/comparison/report.py`) with the speed of this machine, kept
busy at the rate of the mixture."""
_NONE = "-"
_RATIOS = (
    (DEFAULT_PATH, ARTICLE),
    (DEFAULT_PATH, DIRECT),
    (ON_RAY, DIRECT),
    (DIRECT, "fdeploy-none"),
    (DIRECT, "openvino"),
)


def report(document: Document, chart: str, price: float | None) -> str:
    """The page as Markdown; ``chart`` is the name of the chart file beside it."""
    timed = [name for name in learners(document) if name != FIVE_CLASSES]
    parts = [
        _head(document),
        _learners(document),
        _servers(document),
        _throughput(document, chart),
        *(_rates(document, name) for name in timed),
        _latency(document, timed),
        _answers(document),
        _overload(document, timed),
        _size(document, timed, PRICE if price is None else price),
        _method(document),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(document: Document) -> str:
    about = document["about"]
    rounds = max((visit["round"] for visit in document["visits"]), default=0)
    before, after = about["load_before"][0], about["load_after"][0]
    lines = [
        f"""\
# Comparison with other servers

`make bench-comparison` writes this page, its chart, its JSON file and the paragraph about speed in
the README. No figure is entered by hand.

{about["date"][:10]}, {about["cores"]} cores of {about["processor"]}, {about["memory_gb"]:.0f} GB,
{about["minutes"]:.0f} minutes, up to {rounds} rounds; load average {before:.1f} before the run
and {after:.1f} after it. Values are medians over the rounds, with the minimum and maximum in
brackets."""
    ]
    if about["quick"]:
        lines.append("**A quick run: it shows that everything works. Its figures mean nothing.**")
    for key, reason in about["unusable"].items():
        lines.append(f"Not measured: {NAMES[key]}, because {reason}.")
    for visit in document["visits"]:
        if "failed" in visit:
            name, learner = NAMES[visit["competitor"]], visit["learner"]
            lines.append(f"Failed in round {visit['round']}: {name}, {learner}.")
    if document["skipped"]:
        lines.append(f"Skipped when time ran out: {'; '.join(document['skipped'])}.")
    return "\n\n".join(lines)


def _learners(document: Document) -> str:
    parts = ["## The learners"]
    for name in learners(document):
        facts = document["learners"][name]
        lines = [f"**{TITLES[name]}** (`{name}`). {_ABOUT[name]}"]
        if facts["learner_accuracy"] is not None:
            lines.append(
                f"The accuracy of `learn.predict` is {facts['learner_accuracy']:.4f} on "
                f"{facts['heldout']:,} reviews that are in neither its training nor its goldens."
            )
        for form, said in facts["exports"].items():
            if "refused" in said:
                lines.append(f'`quantize = "{form}"` was refused by the gate: {_why(said)}')
        parts.append(" ".join(lines))
    return "\n\n".join(parts)


def _why(said: Document) -> str:
    """The message of an error in JSON, or all of it."""
    try:
        error = json.loads(said["refused"])
        return str((error.get("error") or error)["message"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return str(said["refused"])


def _servers(document: Document) -> str:
    measured = {visit["competitor"] for visit in document["visits"]}
    rows = [f"- **{each.name}**: {each.about}" for each in COMPETITORS if each.key in measured]
    return "## The servers\n\n" + "\n".join(rows)


def _throughput(document: Document, chart: str) -> str:
    seconds = document["about"]["seconds"]
    return f"""\
## Throughput

Requests per second in a closed loop: each client sends its next request when the last one is answered. Columns give the
length of the texts in tokens and the number of clients. The texts of the mixture have log-normal lengths, with a median of
32 tokens and at most 400. Each cell runs for {seconds:g} s after a warm-up, and longer until every text has been answered, but 4 s
at most. A dash marks a load that would have taken a slow server too long. Ratios are taken within each round.

![Requests per second, the fine-tuned learner]({chart})"""  # noqa: E501


def _rates(document: Document, learner: str) -> str:
    rows = _rows(document, learner, lambda key, cell: _shown(of_cell(document, learner, key, cell)))
    for of, to in _RATIOS:
        found = [ratio(document, learner, of, to, cell.name) for cell in CLOSED]
        if any(found):
            rows.append([f"**{NAMES[of]} : {NAMES[to]}**", *map(_shown, found)])
    return f"### {TITLES[learner]}\n\n{_table(['', *map(_titled, CLOSED)], rows)}"


def _latency(document: Document, timed: Sequence[str]) -> str:
    parts = ["## Latency", "p50 / p95 in ms, in the same closed loops."]
    for learner in timed:

        def both(key: str, cell: str, learner: str = learner) -> str:
            each = [of_cell(document, learner, key, cell, p) for p in ("p50", "p95")]
            return " / ".join(map(_middle, each)) if any(each) else _NONE

        table = _table(["", *map(_titled, CLOSED)], _rows(document, learner, both))
        parts.append(f"**{TITLES[learner]}**\n\n{table}")
    return "\n\n".join(parts)


def _rows(document: Document, learner: str, value: Callable[[str, str], str]) -> list[list[str]]:
    """One row for each competitor that was measured, one column for each closed loop."""
    rows = []
    for key, name in NAMES.items():
        if visits(document, learner, key):
            rows.append([name, *(value(key, cell.name) for cell in CLOSED)])
    return rows


def _answers(document: Document) -> str:
    head = [
        "",
        "texts",
        "accuracy",
        "labels changed",
        "mean \\|Δp\\|",
        "99th percentile",
        "largest",
    ]
    parts = [_ANSWERS]
    for learner in learners(document):
        rows = [
            [name, _form(visit), *_judged(visit["answers"])]
            for key, name in NAMES.items()
            for visit in visits(document, learner, key)
            if "answers" in visit
        ]
        parts.append(f"**{TITLES[learner]}**\n\n{_table(head, rows)}")
    return "\n\n".join(parts)


def _form(visit: Document) -> str:
    """What fdeploy's answers say about their model, besides its name and version."""
    said = {key: value for key, value in visit["model"].items() if key not in _IDENTITY}
    return ", ".join(map(str, said.values())) or _NONE


_IDENTITY = {"name", "version"}


def _judged(answers: Document) -> list[str]:
    accuracy = _NONE if answers["accuracy"] is None else f"{answers['accuracy']:.4f}"
    spread = [f"{answers[name]:.1e}" for name in ("mean", "p99", "worst")]
    return [f"{answers['texts']:,}", accuracy, str(answers["changed"]), *spread]


def _overload(document: Document, timed: Sequence[str]) -> str:
    head = ["", "peak", "share held", "503 per second", "Retry-After", "unanswered"]
    head += ["other outcomes", "client, cores"]
    parts = [_OVERLOAD]
    for learner in timed:
        rows = []
        for key, name in NAMES.items():
            for visit in visits(document, learner, key):
                met = visit["cells"].get(Cell("12", share=OVERLOAD).name)
                if met:
                    rows.append([name, *_under_load(met)])
        if rows:
            parts.append(f"**{TITLES[learner]}**\n\n{_table(head, rows)}")
    return "\n\n".join(parts)


def _under_load(met: Document) -> list[str]:
    statuses: dict[str, Any] = {str(status): count for status, count in met["statuses"].items()}
    refused = statuses.get("503", 0)
    other = sum(count for status, count in statuses.items() if status not in {"200", "503"})
    return [
        short(met["peak"]),
        short(met["rate"] / met["peak"]),
        short(refused / met["seconds"]),
        "yes" if refused and met["retry_after"] >= refused else "no",
        f"{met['unanswered']:,}",
        f"{other:,}",
        short(met["client_cores"]),
    ]


def _size(document: Document, timed: Sequence[str], price: float) -> str:
    parts = [_START.format(price=price)]
    head = ["", "start to first right answer, s", "all processes, MB", "largest process, MB"]
    head += ["$ per million, mixture"]
    for learner in timed:
        rows = []
        for key, name in NAMES.items():
            start = of_visit(document, learner, key, "start_s")
            if not start:
                continue
            rate = of_cell(document, learner, key, "mixture/8")
            memory = [of_visit(document, learner, key, "memory", each) for each in _MEMORY]
            cost = f"{price / 3600 / rate.middle * 1e6:.2f}" if rate and rate.middle else _NONE
            rows.append([name, str(start), *map(_middle, memory), cost])
        facts = document["learners"][learner]
        packed = [
            f"{size / 1e6:.0f} MB ({server})"
            for server, size in facts["exports"]["default"]["bytes"].items()
        ]
        sizes = f"learner {facts['learner_bytes'] / 1e6:.0f} MB, artifact {', '.join(packed)}"
        parts.append(f"**{TITLES[learner]}**: {sizes}.\n\n{_table(head, rows)}")
    return "\n\n".join(parts)


_MEMORY = ("whole", "largest")


def _method(document: Document) -> str:
    about = document["about"]
    libraries = ", ".join(f"{name} {version}" for name, version in about["libraries"].items())
    return f"""\
## Method

- **Settings** of fdeploy are its defaults, but for `quantize` where a row names it. No gate is loosened.
- **The same learner** for all: `learner.pkl` for `learn.predict` and fdeploy, and the same weights and tokenizer written by
  `save_pretrained` for the others. They have their documented batching, one worker with all cores, and 512 tokens at most.
- **Servers** are real processes on free loopback ports. One runs at a time, so that each has the cores and the memory to itself.
- **Rounds.** A round measures every server once before the next round begins, so that a busy moment of the machine affects all.
- **fdeploy's own image** is built by the real code on a base of Debian, unpacked by `umoci` and run by `runc`: a read-only root file system,
  a user that is not root, 512 MB.
- **AWS's Ray Serve image** is its software (Ray Serve, Python 3.13) in a virtual environment, with AWS's start script and adapter
  as they are, but for paths and ports. TorchServe runs likewise.
- **Load** comes from one process on the same cores; "Overload" shows how much of them it took.
- **Versions** are pinned in `benchmarks/comparison/environments.py`; fdeploy's own are {libraries}."""  # noqa: E501


def _titled(cell: Cell) -> str:
    kind = cell.texts if cell.texts == "mixture" else f"{cell.texts} tokens"
    return f"{kind}, 1 client" if cell.clients == 1 else f"{kind}, {cell.clients} clients"


def _shown(found: Figure | None) -> str:
    return str(found) if found else _NONE


def _middle(found: Figure | None) -> str:
    return short(found.middle) if found else _NONE


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
