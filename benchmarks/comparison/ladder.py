"""The form that fdeploy chooses for a fine-tuned learner, against float32 behind the same server.

    python -m benchmarks.comparison.ladder [--rounds 7] [--seconds 1.5] [--learner finetuned-2]

The learner is the comparison's own (``benchmarks.comparison``), exported with default settings and
with ``quantize = "none"``. Both servers run at the same time, and only one is asked: each round
loads them alternately, so that a busy moment of the machine affects both. The ratio is taken within
each round. Both are also asked for the texts that are no goldens.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from benchmarks import load
from benchmarks.comparison import matrix
from benchmarks.comparison.answers import check
from benchmarks.comparison.competitors import fdeploy_local
from benchmarks.comparison.environments import TOOLKIT, WORK
from benchmarks.comparison.figures import Figure
from benchmarks.comparison.matrix import CLOSED, Cell
from benchmarks.comparison.models import Model, prepare
from benchmarks.comparison.running import Server, serving

PAIR = (fdeploy_local.COMPETITOR, fdeploy_local.UNQUANTIZED)


def main() -> None:
    options = _options()
    work = options.work.expanduser().resolve()
    model = prepare(options.learner, work / "models", TOOLKIT.make(work / "environments"))
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(each, model, Path(sys.executable))) for each in PAIR]
        for server in servers:
            print(_answered(server, model), flush=True)
        rates = {
            cell: alternating(servers, model, cell, options.rounds, options.seconds)
            for cell in CLOSED
        }
    head = f"\n{'':<20} {'default':>26} {'float32':>26} {'ratio, by round':>22}"
    print(head)
    for cell, (chosen, plain) in rates.items():
        ratios = Figure(tuple(a / b for a, b in zip(chosen, plain, strict=True)))
        print(f"{cell.name:<20} {Figure(chosen)!s:>26} {Figure(plain)!s:>26} {ratios!s:>22}")


def _answered(server: Server, model: Model) -> str:
    found = check(server.port, server.competitor, model.heldout)
    right = "-" if found.accuracy is None else f"{found.accuracy:.4f}"
    parts = [
        f"{server.competitor.name}: first answer after {server.seconds:.2f} s",
        f"{found.texts} texts, accuracy {right}, {found.changed} labels changed",
        f"|Δp| mean {found.mean:.4f}, 99th percentile {found.p99:.4f}, largest {found.worst:.4f}",
    ]
    return "; ".join(parts)


def alternating(
    servers: list[Server], model: Model, cell: Cell, rounds: int, seconds: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Texts per second of both servers, by round."""
    found: list[list[float]] = [[], []]
    requests = load.requests_of(model.texts[cell.texts], servers[0].competitor.path)
    for number in range(rounds):
        # Each goes first as often as the other.
        for at in (0, 1) if number % 2 else (1, 0):
            met = load.closed_loop(
                servers[at].port,
                requests,
                cell.clients,
                seconds,
                least=1,
                most=seconds,
            )
            found[at].append(met.rate)
    return tuple(found[0]), tuple(found[1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--learner", choices=matrix.LEARNERS, default=matrix.LEARNERS[0])
    return parser.parse_args()


if __name__ == "__main__":
    main()
