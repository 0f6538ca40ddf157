"""The page of a run, from its document alone."""

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
"""Dollars an hour of one ml.c7i.large (2 vCPUs), on demand in us-east-1: the EC2 price of 0.08925
and the fifth that SageMaker adds, noted 2026-11 and not asked of AWS's price list. Costs scale with
it; ``--price`` sets another."""

_ARTICLE = "article"
_OURS = "fdeploy-local"
_TORCHSERVE, _RAY = "fdeploy-torchserve", "fdeploy-ray"
_NAMES = {each.key: each.name for each in COMPETITORS}
_NONE = "-"
# Multiplications in the matrices of one token, by shape: the encoder's layers, without attention.
_ENCODER = {"roberta-base": 84.9e6, "distilbert": 42.5e6, "minilm": 10.6e6}


def report(document: Document, chart: str, price: float | None) -> str:
    """Markdown; ``chart`` is the file beside it."""
    parts = [_head(document, chart)]
    parts += [_shape(document, shape) for shape in shapes(document)]
    parts += [
        _latency(document),
        _open(document),
        _overload(document),
        _size(document, PRICE if price is None else price),
        _images(document),
        _peaks(document),
        _method(document),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(document: Document, chart: str) -> str:
    about = document["about"]
    rounds = max(visit["round"] for visit in document["visits"])
    before, after = about["load_before"][0], about["load_after"][0]
    told = (
        "`make bench-comparison` writes this page, its chart and its JSON file; no figure here is "
        "written by hand. "
        f"{about['date'][:10]}, {about['cores']} cores of {about['processor']}, "
        f"{about['memory_gb']:.0f} GB, {about['minutes']:.0f} minutes, up to {rounds} "
        f"rounds; load of the machine before it {before:.1f}, after it {after:.1f}. Figures are "
        "medians over the rounds (least to most), requests a second unless something else is said."
    )
    lines = ["# Compared", told]
    if about["quick"]:
        lines.append("**A quick run, which only shows that everything works: read no figure.**")
    failed = [visit for visit in document["visits"] if "failed" in visit]
    for visit in failed:
        name = _NAMES[visit["competitor"]]
        lines.append(f"Failed in round {visit['round']}: {name}, {visit['shape']}.")
    begun = {f"round {visit['round']}" for visit in document["visits"]}
    skipped = [each for each in document["skipped"] if each.partition(":")[0] in begun]
    if skipped:
        lines.append(f"Left out for want of time: {'; '.join(skipped)}.")
    lines.append(f"![Requests a second]({chart})")
    return "\n\n".join(lines)


def _shape(document: Document, shape: str) -> str:
    columns = [
        (kind, clients)
        for kind in TEXTS
        for clients in CLIENTS
        if any(of_cell(document, shape, key, f"{kind}/{clients}") for key in _NAMES)
    ]
    head = ["", *(f"{_tokens(kind)}, {clients} cl." for kind, clients in columns)]
    rows = []
    for key, name in _NAMES.items():
        found = [of_cell(document, shape, key, f"{kind}/{clients}") for kind, clients in columns]
        if any(found):
            rows.append([name, *map(_told, found)])
    for precision in ("int8", "float32"):
        limit = [
            of_limit(document, shape, precision, kind, "alone" if clients == 1 else "best")
            for kind, clients in columns
        ]
        if any(limit):
            rows.append([f"*bare session, {precision}*", *map(_told, limit)])
    for title, base in (("the article's way", _ARTICLE), ("the bare session", "")):
        against = []
        for kind, clients in columns:
            cell = f"{kind}/{clients}"
            to = (
                of_cell(document, shape, base, cell)
                if base
                else of_limit(document, shape, "int8", kind, "alone" if clients == 1 else "best")
            )
            against.append(ratio(of_cell(document, shape, _OURS, cell), to))
        rows.append([f"**fdeploy, local, int8 : {title}**", *against])
    return f"## {shape}\n\n{_table(head, rows)}"


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
    head = ["", *(f"{_tokens(c.split('/')[0])}, {c.split('/')[1]} cl." for c in cells)]
    return (
        f"## How long an answer takes\n\n{FULL_SHAPE}; p50 / p95 / p99 in ms, closed loop.\n\n"
        f"{_table(head, rows)}"
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
    head = ["", "12 tokens, answered a second", "ms", "mixture, answered a second", "ms"]
    return (
        f"## At {OPEN_SHARE:.0%} of the peak\n\n{FULL_SHAPE}; requests come at random moments at "
        f"{OPEN_SHARE:.0%} of the best closed-loop rate of the same server. p50 / p95 / p99 from "
        f"the moment at which a request was due.\n\n{_table(head, rows)}"
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
        told = sum(each["retry_after"] for each in met)
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
                "yes" if told and told >= sum(e["statuses"].get("503", 0) for e in met) else "no",
                f"{Figure(tuple(each['unanswered'] for each in met)).middle:,.0f}",
                str(other),
                str(client),
            ]
        )
    head = [
        "",
        "peak",
        "held of it",
        "503 a second",
        "Retry-After",
        "left waiting",
        "other ends",
        "client's cores",
    ]
    return (
        f"## At {OVERLOAD:g} times the peak\n\n{shape}, 12 tokens; an open loop at {OVERLOAD:g} "
        "times the best closed-loop rate of the same server, after the line has filled. Left "
        "waiting are requests that had no answer when the load ended. The client runs on the same "
        "cores; what it took of them stands in the last column.\n\n"
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
                rows.append([name, _told(start), _middle(whole), _middle(largest), cost, apart])
        head = ["", "start to first answer, s", "all processes, MB", "the largest, MB"]
        head += ["$ a million, mixture", "max abs. Δprobability"]
        about = document["about"]
        packed = {
            server: about["artifact_bytes"][f"{shape} {server}"] / 1e6
            for server in ("local", "torchserve", "ray-serve")
        }
        parts.append(
            f"{shape}: learner {about['learner_bytes'][shape] / 1e6:.0f} MB, int8 artifact "
            + ", ".join(f"{size:.0f} MB ({server})" for server, size in packed.items())
            + f".\n\n{_table(head, rows)}"
        )
    return (
        "## Start, memory, cost\n\nResident memory after the loads. The cost is that of an "
        f"ml.c7i.large at {price} dollars an hour (an assumption; see `PRICE` in "
        "`benchmarks/comparison/report.py`), had it this speed, kept busy at the best closed-loop "
        "rate of the mixture.\n\n" + "\n\n".join(parts)
    )


def _images(document: Document) -> str:
    """TorchServe against Ray Serve, for the rule in ``aws/images.py``."""
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
                    _told(of_visit(document, shape, key, "start_s")),
                    _middle(of_visit(document, shape, key, "memory", "whole")),
                    overhead,
                    short(peak) if peak else _NONE,
                ]
            )
    head = ["", "start, s", "memory, MB", "a lone request beyond the model, ms", "peak, 12 tokens"]
    return (
        "## Which image\n\nThe same artifact of fdeploy in the software of AWS's two images. AWS's "
        "adapter in the Ray Serve image is left out, so that Ray Serve's overhead is here without "
        f"it.\n\n{_table(head, rows)}"
    )


def _peaks(document: Document) -> str:
    rows = []
    for precision in ("int8", "float32"):
        shape = shapes(document)[0]
        peak = of_limit(document, shape, precision, "gops", precision)
        if not peak:
            continue
        row = [precision, _told(peak)]
        for kind in ("12", "92", "400"):
            bound = peak.middle * 1e9 / (2 * _ENCODER[shape] * int(kind))
            bare = of_limit(document, shape, precision, kind, "best")
            row.append(f"{short(bound)} ({short(bare.middle / bound)})" if bare else _NONE)
        rows.append(row)
    head = ["", "GOP/s", *(f"{n} tokens: texts a second (bare session)" for n in (12, 92, 400))]
    return (
        "## The processor\n\nOne large matrix product, by whichever of ONNX Runtime and torch is "
        f"quicker, and what it would give if {shapes(document)[0]} were made of such products "
        f"alone; in brackets the share of it that the bare session reaches.\n\n{_table(head, rows)}"
    )


def _method(document: Document) -> str:
    about = document["about"]
    rows = "\n".join(f"- **{each.name}**: {each.about}" for each in COMPETITORS)
    libraries = ", ".join(f"{name} {version}" for name, version in about["libraries"].items())
    return f"""\
## How it was measured

{rows}

The bare session is the one that the server opens (same graph, threads and options) in a loop that does nothing
else: one text at a time beside 1 client, its best batch otherwise. Versions stand in
`benchmarks/comparison/environments.py`; fdeploy's are {libraries}.

Models have random weights (fixed seed) in the shapes of RoBERTa-base, DistilBERT and MiniLM; each is a learner that fastai
exported, and each server must answer its goldens (0.001 for float32, twice fdeploy's gate for int8) before anything is
timed. The bias of the last layer lets one label win everywhere, since random answers are nearly tied. int8 is
asked for (`quantize = "int8"`) with a stated tolerance; what it is off by stands above.

Servers are real processes on free ports of the loopback, one at a time, so that each has both the cores and the memory to itself. A
round visits all of them, then the next round begins, so that a busy moment of the machine hits all. A cell is
{about["seconds"]:g} s after a warm-up (longer until every text was answered, but 5 s at most), with {" / ".join(map(str, CLIENTS))} clients that send the
next request when the last one is answered. The texts of the mixture have log-normal lengths, 32 tokens in the
middle and 400 at most. A dash is a load that would have taken a slow server too long. The load comes from one
process on the same cores; what it takes of them at ten times the peak stands above."""  # noqa: E501


def _tokens(kind: str) -> str:
    return kind if kind == "mixture" else f"{kind} tok."


def _told(found: Figure | None) -> str:
    return str(found) if found else _NONE


def _middle(found: Figure | None) -> str:
    return short(found.middle) if found else _NONE


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
