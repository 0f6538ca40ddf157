"""Compare fdeploy with other servers in one run: ``make bench-comparison``.

    python -m benchmarks.comparison [--work FOLDER] [--minutes 19] [--resume] [--quick]

The first run makes environments and learners below FOLDER (default ``~/.cache/fastai-deploy``),
which takes an hour and 20 GB; the time limit starts after that. Run it as root, on Linux, with Java
17 and curl, on a machine that does nothing else. It writes OUT.json after every server, and from
that file alone OUT.md, OUT.svg and the paragraph about speed in README.md (``--report`` writes only
those). ``--resume`` keeps what an interrupted run of the same code has measured. ``--quick`` tests
that everything works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.comparison import headline, matrix
from benchmarks.comparison.chart import chart
from benchmarks.comparison.competitors import COMPETITORS
from benchmarks.comparison.competitors.base import Competitor, Failed
from benchmarks.comparison.environments import TOOLKIT, WORK
from benchmarks.comparison.measuring import Kept, Plan, measure
from benchmarks.comparison.models import Model, fingerprint, prepare
from benchmarks.comparison.report import report

_README = Path(__file__).parents[2] / "README.md"


def main() -> None:
    options = _options()
    # Exit through the context managers, so that the running server is stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    result = options.out.with_suffix(".json")
    if not options.report:
        _measured(options, result)
    if options.prepare:
        return
    document = json.loads(result.read_bytes())
    options.out.with_suffix(".svg").write_text(chart(document), encoding="utf-8")
    text = report(document, options.out.with_suffix(".svg").name, options.price)
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    if headline.complete(document):
        readme = _README.read_text(encoding="utf-8")
        _README.write_text(headline.replaced(readme, document), encoding="utf-8")
    else:
        print("README.md is as it was: the run does not have all that its paragraph quotes")


def _measured(options: argparse.Namespace, result: Path) -> None:
    folder = options.work.expanduser().resolve()
    chosen = [each for each in COMPETITORS if not options.only or each.key in options.only]
    pythons = {
        each.key: each.environment.make(folder / "environments")
        if each.environment
        else Path(sys.executable)
        for each in chosen
    }
    fastai = TOOLKIT.make(folder / "environments")
    names = options.learners or matrix.LEARNERS
    models = [prepare(name, folder / "models", fastai) for name in names]
    unusable = _prepared(chosen, models, pythons)
    if options.prepare:
        return
    began = time.monotonic()
    plan = Plan(
        seconds=0.5 if options.quick else options.seconds,
        rounds=options.rounds or (1 if options.quick else 2),
        deadline=began + 60 * options.minutes,
    )
    about = {
        "date": datetime.now(tz=timezone.utc).isoformat(timespec="minutes"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": psutil.virtual_memory().total / 1e9,
        "python": platform.python_version(),
        "load_before": os.getloadavg(),
        "minutes": 0.0,
        "quick": options.quick,
        "seconds": plan.seconds,
        "code": fingerprint(),
        "libraries": {name: version(name) for name in ("onnxruntime", "tokenizers", "numpy")},
        "unusable": unusable,
    }
    document = {
        "about": about,
        "learners": {model.name: model.facts() for model in models},
        "visits": _earlier(result, about) if options.resume else [],
        "skipped": [],
    }

    def keep() -> None:
        about["minutes"] = (time.monotonic() - began) / 60
        about["load_after"] = os.getloadavg()
        result.write_text(json.dumps(document, indent=1) + "\n")

    keep()
    usable = [each for each in chosen if each.key not in unusable]
    measure(usable, models, pythons, plan, Kept(document, keep))
    keep()


def _prepared(
    chosen: Sequence[Competitor], models: Sequence[Model], pythons: dict[str, Path]
) -> dict[str, str]:
    """Prepare all competitors; the reasons of those that cannot run, by key."""
    reasons = {each.key: _unusable(each, models, pythons[each.key]) for each in chosen}
    return {key: reason for key, reason in reasons.items() if reason}


def _unusable(competitor: Competitor, models: Sequence[Model], python: Path) -> str | None:
    if competitor.prepare:
        try:
            for model in models:
                competitor.prepare(model, python)
        except Failed as error:
            print(f"{competitor.name}: {error}", flush=True)
            return str(error)
    return None


def _earlier(result: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """The visits of an earlier run of the same code with the same length of cells."""
    if not result.exists():
        return []
    earlier = json.loads(result.read_bytes())
    same = all(earlier["about"].get(name) == about[name] for name in ("code", "seconds"))
    visits: list[dict[str, Any]] = earlier["visits"] if same else []
    return visits


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    known = ("avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    extensions = [each for each in known if each in text]
    name = found[1] if found else platform.machine()
    return f"{name} ({', '.join(extensions) or 'no VNNI'})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=Path("docs/comparison"))
    parser.add_argument("--minutes", type=float, default=19.0)
    parser.add_argument("--seconds", type=float, default=1.2, help="per cell")
    parser.add_argument("--rounds", type=int, help="at most (default: 2)")
    parser.add_argument("--only", nargs="+", choices=[each.key for each in COMPETITORS])
    parser.add_argument("--learners", nargs="+", choices=matrix.LEARNERS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument(
        "--prepare", action="store_true", help="only make environments and learners"
    )
    parser.add_argument("--report", action="store_true", help="only write what comes from OUT.json")
    parser.add_argument("--price", type=float, help="of the instance, in dollars per hour")
    return parser.parse_args()


if __name__ == "__main__":
    main()
