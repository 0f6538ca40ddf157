"""The Markdown page of a run, built from its JSON document alone."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.comparison.competitors import COMPETITORS
from benchmarks.comparison.figures import (
    Document,
    Figure,
    of_cell,
    of_limit,
    of_visit,
    ratio,
    shapes,
    short,
    visits,
)
from benchmarks.comparison.matrix import CLIENTS, FULL_SHAPE, OPEN_SHARE, OVERLOAD, TEXTS

PRICE = 0.1071
"""Dollars per hour of one ml.c7i.large (2 vCPUs), on demand in us-east-1: the EC2 price of 0.08925
plus the 20 % that SageMaker adds, as of 2026-11, not read from AWS's price list. Costs scale with
it; ``--price`` sets another."""

_LEARNER = "article"
_OURS = "fdeploy-local"
_TORCHSERVE, _RAY = "fdeploy-torchserve", "fdeploy-ray"
_NAMES = {each.key: each.name for each in COMPETITORS}
_NONE = "-"
# Multiplications in the matrices of one token, by shape: the encoder's layers, without attention.
_ENCODER = {"roberta-base": 84.9e6, "distilbert": 42.5e6, "minilm": 10.6e6}


def report(document: Document, chart: str, price: float | None) -> str:
    """The page as Markdown; ``chart`` is the name of the chart file beside it."""
    parts = [
        _head(document),
        _servers(),
        _throughput(document, chart),
        *(_shape(document, shape) for shape in shapes(document)),
        _latency(document),
        _open(document),
        _overload(document),
        _size(document, PRICE if price is None else price),
        _images(document),
        _peaks(document),
        _method(document),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(document: Document) -> str:
    about = document["about"]
    rounds = max(visit["round"] for visit in document["visits"])
    before, after = about["load_before"][0], about["load_after"][0]
    run = (
        f"{about['date'][:10]}, {about['cores']} cores of {about['processor']}, "
        f"{about['memory_gb']:.0f} GB, {about['minutes']:.0f} minutes, up to {rounds} rounds; load "
        f"average {before:.1f} before the run and {after:.1f} after it. Values are medians over "
        "the rounds, with the minimum and maximum in brackets."
    )
    generated = (
        "`make bench-comparison` writes this page, its chart and its JSON file. No figure is "
        "entered by hand."
    )
    lines = ["# Comparison with other servers", generated, run]
    if about["quick"]:
        lines.append("**A quick run: it shows that everything works. Its figures mean nothing.**")
    failed = [visit for visit in document["visits"] if "failed" in visit]
    for visit in failed:
        name = _NAMES[visit["competitor"]]
        lines.append(f"Failed in round {visit['round']}: {name}, {visit['shape']}.")
    begun = {f"round {visit['round']}" for visit in document["visits"]}
    skipped = [each for each in document["skipped"] if each.partition(":")[0] in begun]
    if skipped:
        lines.append(f"Skipped when time ran out: {'; '.join(skipped)}.")
    return "\n\n".join(lines)


def _servers() -> str:
    rows = "\n".join(f"- **{each.name}**: {each.about}" for each in COMPETITORS)
    return f"""\
## The servers

{rows}
- **bare session**: not a server but a reference. The ONNX session that fdeploy's server opens (same
  graph, threads and options), in a loop that does nothing else: one text at a time in the columns
  for 1 client, its best batch in the others."""


def _throughput(document: Document, chart: str) -> str:
    seconds = document["about"]["seconds"]
    return f"""\
## Throughput

Requests per second in a closed loop: each client sends its next request when the last one is
answered. Columns give the length of the texts in tokens and the number of clients. The texts of the
mixture have log-normal lengths, with a median of 32 tokens and at most 400. Each cell runs for
{seconds:g} s after a warm-up, and longer until every text has been answered, but 5 s at most. A
dash marks a load that would have taken a slow server too long.

![Requests per second]({chart})"""


def _shape(document: Document, shape: str) -> str:
    columns = [
        (kind, clients)
        for kind in TEXTS
        for clients in CLIENTS
        if any(of_cell(document, shape, key, f"{kind}/{clients}") for key in _NAMES)
    ]
    head = ["", *(f"{_tokens(kind)}, {_clients(clients)}" for kind, clients in columns)]
    rows = []
    for key, name in _NAMES.items():
        found = [of_cell(document, shape, key, f"{kind}/{clients}") for kind, clients in columns]
        if any(found):
            rows.append([name, *map(_shown, found)])
    for precision in ("int8", "float32"):
        limit = [
            of_limit(document, shape, precision, kind, "alone" if clients == 1 else "best")
            for kind, clients in columns
        ]
        if any(limit):
            rows.append([f"*bare session, {precision}*", *map(_shown, limit)])
    for title, base in ((_NAMES[_LEARNER], _LEARNER), ("the bare session", "")):
        against = []
        for kind, clients in columns:
            cell = f"{kind}/{clients}"
            to = (
                of_cell(document, shape, base, cell)
                if base
                else of_limit(document, shape, "int8", kind, "alone" if clients == 1 else "best")
            )
            against.append(ratio(of_cell(document, shape, _OURS, cell), to))
        rows.append([f"**ratio: fdeploy (local, int8) to {title}**", *against])
    return f"### {shape}\n\n{_table(head, rows)}"


def _latency(document: Document) -> str:
    rows = []
    cells = [f"{kind}/{clients}" for kind in TEXTS for clients in CLIENTS[:2]]
    cells = [c for c in cells if any(of_cell(document, FULL_SHAPE, k, c) for k in _NAMES)]
    for key, name in _NAMES.items():
        found = []
        for cell in cells:
            each = [of_cell(document, FULL_SHAPE, key, cell, p) for p in ("p50", "p95", "p99")]
            found.append(" / ".join(_middle(one) for one in each))
        if any(one != " / ".join([_NONE] * 3) for one in found):
            rows.append([name, *found])
    if not rows:
        return ""
    loads = [cell.split("/") for cell in cells]
    head = ["", *(f"{_tokens(kind)}, {_clients(int(clients))}" for kind, clients in loads)]
    return (
        f"## Latency\n\n{FULL_SHAPE}, closed loop: p50 / p95 / p99 in ms.\n\n{_table(head, rows)}"
    )


def _open(document: Document) -> str:
    rows = []
    for key, name in _NAMES.items():
        row = [name]
        for kind in ("12", "mixture"):
            cell = f"{kind}/open {OPEN_SHARE:g}"
            each = [of_cell(document, FULL_SHAPE, key, cell, p) for p in ("p50", "p95", "p99")]
            rate = of_cell(document, FULL_SHAPE, key, cell)
            row += [_middle(rate), " / ".join(_middle(one) for one in each)]
        if any(one not in {_NONE, " / ".join([_NONE] * 3)} for one in row[1:]):
            rows.append(row)
    if not rows:
        return ""
    head = ["", "12 tokens, answers per second", "ms", "mixture, answers per second", "ms"]
    return (
        f"## Latency at {OPEN_SHARE:.0%} of the peak\n\n{FULL_SHAPE}. Requests arrive at random "
        f"times, at {OPEN_SHARE:.0%} of the same server's best closed-loop rate. p50 / p95 / p99 "
        f"are in ms, counted from when a request was due.\n\n{_table(head, rows)}"
    )


def _overload(document: Document) -> str:
    rows = []
    shape = FULL_SHAPE if FULL_SHAPE in shapes(document) else shapes(document)[0]
    cell = f"12/open {OVERLOAD:g}"
    for key, name in _NAMES.items():
        found = [visit["cells"].get(cell) for visit in visits(document, shape, key)]
        met = [each for each in found if each]
        if not met:
            continue
        held = Figure(tuple(each["rate"] / each["peak"] for each in met))
        refused = Figure(tuple(each["statuses"].get("503", 0) / each["seconds"] for each in met))
        retried = sum(each["retry_after"] for each in met)
        other = sum(
            count for e in met for status, count in e["statuses"].items() if status not in _USUAL
        )
        client = Figure(tuple(each["client_cores"] for each in met))
        rows.append(
            [
                name,
                short(Figure(tuple(each["peak"] for each in met)).middle),
                str(held),
                short(refused.middle),
                "yes"
                if retried and retried >= sum(e["statuses"].get("503", 0) for e in met)
                else "no",
                f"{Figure(tuple(each['unanswered'] for each in met)).middle:,.0f}",
                f"{other:,}",
                str(client),
            ]
        )
    head = [
        "",
        "peak",
        "share held",
        "503 per second",
        "Retry-After",
        "unanswered",
        "other outcomes",
        "client, cores",
    ]
    return (
        f"## Overload: {OVERLOAD:g} times the peak\n\n{shape}, 12 tokens; an open loop at "
        f"{OVERLOAD:g} times the same server's best closed-loop rate, measured once the queue has "
        "filled. Unanswered requests had no answer when the load ended. The client runs on the "
        "same cores; the last column is the CPU time that it took, in cores.\n\n"
        f"{_table(head, rows)}"
    )


_USUAL = {"200", "503"}


def _size(document: Document, price: float) -> str:
    parts = []
    for shape in shapes(document):
        rows = []
        for key, name in _NAMES.items():
            start = of_visit(document, shape, key, "start_s")
            rates = [
                found.middle
                for clients in CLIENTS
                if (found := of_cell(document, shape, key, f"mixture/{clients}")) and found.middle
            ]
            cost = f"{price / 3600 / max(rates) * 1e6:.2f}" if rates else _NONE
            if start:
                whole = of_visit(document, shape, key, "memory", "whole")
                largest = of_visit(document, shape, key, "memory", "largest")
                deviation = of_visit(document, shape, key, "deviation")
                apart = f"{deviation.middle:.1e}" if deviation else _NONE
                rows.append([name, _shown(start), _middle(whole), _middle(largest), cost, apart])
        head = ["", "start to first answer, s", "all processes, MB", "largest process, MB"]
        head += ["$ per million, mixture", "max \\|Δprobability\\|"]
        about = document["about"]
        packed = {
            server: about["artifact_bytes"][f"{shape} {server}"] / 1e6
            for server in ("local", "torchserve", "ray-serve")
        }
        parts.append(
            f"**{shape}**: learner {about['learner_bytes'][shape] / 1e6:.0f} MB, int8 artifact "
            + ", ".join(f"{size:.0f} MB ({server})" for server, size in packed.items())
            + f".\n\n{_table(head, rows)}"
        )
    return (
        "## Start, memory and cost\n\nMemory is resident memory after the loads. The cost assumes "
        f"an ml.c7i.large at {price} dollars an hour (an assumption; see `PRICE` in "
        "`benchmarks/comparison/report.py`) with the speed of this machine, kept busy at the best "
        "closed-loop rate of the mixture.\n\n" + "\n\n".join(parts)
    )


def _images(document: Document) -> str:
    """TorchServe compared with Ray Serve, for the rule in ``aws/images.py``."""
    rows = []
    for shape in shapes(document):
        alone = of_limit(document, shape, "int8", "12", "alone")
        for key in (_TORCHSERVE, _RAY):
            if not visits(document, shape, key):
                continue
            p50 = of_cell(document, shape, key, "12/1", "p50")
            best = [of_cell(document, shape, key, f"12/{clients}") for clients in CLIENTS]
            overhead = short(p50.middle - 1000 / alone.middle) if p50 and alone else _NONE
            peak = max((each.middle for each in best if each), default=None)
            rows.append(
                [
                    f"{shape}, {'TorchServe' if key == _TORCHSERVE else 'Ray Serve'}",
                    _shown(of_visit(document, shape, key, "start_s")),
                    _middle(of_visit(document, shape, key, "memory", "whole")),
                    overhead,
                    short(peak) if peak else _NONE,
                ]
            )
    head = ["", "start, s", "memory, MB", "overhead of a single request, ms", "peak, 12 tokens"]
    return (
        "## TorchServe or Ray Serve\n\nThe same fdeploy artifact in the software of AWS's two "
        "images. The overhead is the median latency with 12 tokens and 1 client, less the time of "
        "the bare session. AWS's adapter in the Ray Serve image is left out, so Ray Serve's "
        f"overhead does not include it.\n\n{_table(head, rows)}"
    )


def _peaks(document: Document) -> str:
    rows = []
    for precision in ("int8", "float32"):
        shape = shapes(document)[0]
        peak = of_limit(document, shape, precision, "gops", precision)
        if not peak:
            continue
        row = [precision, _shown(peak)]
        for kind in ("12", "92", "400"):
            bound = peak.middle * 1e9 / (2 * _ENCODER[shape] * int(kind))
            bare = of_limit(document, shape, precision, kind, "best")
            row.append(f"{short(bound)} ({short(bare.middle / bound)})" if bare else _NONE)
        rows.append(row)
    head = ["", "GOP/s", *(f"{n} tokens: texts per second (bare session)" for n in (12, 92, 400))]
    return (
        "## The limit of the CPU\n\nThe speed of one large matrix product, by the faster of ONNX "
        f"Runtime and torch, and the texts per second if {shapes(document)[0]} consisted of such "
        "products alone. In brackets after these is the share that the bare session reaches."
        f"\n\n{_table(head, rows)}"
    )


def _method(document: Document) -> str:
    about = document["about"]
    libraries = ", ".join(f"{name} {version}" for name, version in about["libraries"].items())
    return f"""\
## Method

- **Models** have random weights (fixed seed) in the shapes of RoBERTa-base, DistilBERT and MiniLM. Each is a learner
  exported by fastai. The bias of the last layer makes one label win every text, because random answers would be nearly tied.
- **Correctness.** Each server must reproduce the learner's goldens before it is timed: within 0.001 for float32, within
  twice fdeploy's gate for int8. int8 is forced (`quantize = "int8"`) with a stated tolerance; its actual deviation is in
  "Start, memory and cost".
- **Servers** are real processes on free loopback ports. One runs at a time, so that each has the cores and the memory to itself.
- **Rounds.** A round measures every server once before the next round begins, so that a busy moment of the machine affects all.
- **Load** comes from one process on the same cores; "Overload" shows how much of them it took.
- **Versions** are pinned in `benchmarks/comparison/environments.py`; fdeploy's own are {libraries}."""  # noqa: E501


def _tokens(kind: str) -> str:
    return kind if kind == "mixture" else f"{kind} tokens"


def _clients(number: int) -> str:
    return "1 client" if number == 1 else f"{number} clients"


def _shown(found: Figure | None) -> str:
    return str(found) if found else _NONE


def _middle(found: Figure | None) -> str:
    return short(found.middle) if found else _NONE


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
