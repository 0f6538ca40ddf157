"""Compare fdeploy with other servers in one run: ``make bench-comparison``.

    python -m benchmarks.comparison [--environments FOLDER] [--minutes 28] [--quick]

The first run creates environments and learners below FOLDER (default ``~/.cache/fastai-deploy``),
which takes a long time and 20 GB; the time limit starts after that. Run it as root, on Linux, with
Java 17, on a machine that does nothing else. It writes OUT.json, and from that file alone OUT.md
and OUT.svg (``--report`` writes only those two). ``--quick`` tests that everything works; its
figures mean nothing.
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
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.comparison import matrix
from benchmarks.comparison.chart import chart
from benchmarks.comparison.competitors import COMPETITORS
from benchmarks.comparison.environments import TOOLKIT
from benchmarks.comparison.measuring import Plan, measure
from benchmarks.comparison.models import prepare
from benchmarks.comparison.report import report

_CACHE = Path("~/.cache/fastai-deploy/comparison")


def main() -> None:
    options = _options()
    # Exit through the context managers, so that the running server is stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if not options.report:
        document = _measured(options)
        if not document["visits"]:  # --prepare
            return
        options.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    document = json.loads(options.out.with_suffix(".json").read_bytes())
    options.out.with_suffix(".svg").write_text(chart(document), encoding="utf-8")
    text = report(document, options.out.with_suffix(".svg").name, options.price)
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    folder = options.environments.expanduser().resolve()
    chosen = [each for each in COMPETITORS if not options.only or each.key in options.only]
    pythons = {
        each.key: each.environment.make(folder / "environments")
        if each.environment
        else Path(sys.executable)
        for each in chosen
    }
    fastai = TOOLKIT.make(folder / "environments")
    shapes = options.shapes or (["minilm"] if options.quick else matrix.SHAPES)
    models = [prepare(shape, folder / "models", fastai, fresh=options.fresh) for shape in shapes]
    plan = Plan(
        seconds=1.0 if options.quick else options.seconds,
        rounds=options.rounds or (1 if options.quick else 3),
        deadline=time.monotonic() + 60 * options.minutes,
        quick=options.quick,
    )
    if options.prepare:
        return {"visits": []}
    began = time.monotonic()
    about = {
        "date": datetime.now(tz=timezone.utc).isoformat(timespec="minutes"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": psutil.virtual_memory().total / 1e9,
        "python": platform.python_version(),
        "load_before": os.getloadavg(),
        "quick": options.quick,
        "seconds": plan.seconds,
        "libraries": {name: version(name) for name in ("onnxruntime", "tokenizers", "numpy")},
        "artifact_bytes": {
            f"{model.shape} {server}": model.artifact_bytes("int8", server)
            for model in models
            for server in ("local", "torchserve", "ray-serve")
        },
        "learner_bytes": {model.shape: model.learner.stat().st_size for model in models},
    }
    results = measure(chosen, models, pythons, plan)
    about["minutes"] = (time.monotonic() - began) / 60
    about["load_after"] = os.getloadavg()
    return {"about": about, **vars(results)}


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    extensions = [each for each in ("avx512_vnni", "avx_vnni", "amx_int8") if each in text]
    name = found[1] if found else platform.machine()
    return f"{name} ({', '.join(extensions) or 'no VNNI'})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--environments", type=Path, default=_CACHE)
    parser.add_argument("--out", type=Path, default=Path("docs/comparison"))
    parser.add_argument("--minutes", type=float, default=28.0)
    parser.add_argument("--seconds", type=float, default=1.5, help="per cell")
    parser.add_argument("--rounds", type=int, help="at most (default: 3)")
    parser.add_argument("--only", nargs="+", choices=[each.key for each in COMPETITORS])
    parser.add_argument("--shapes", nargs="+", choices=matrix.SHAPES)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--prepare", action="store_true", help="only create environments and learners"
    )
    parser.add_argument("--fresh", action="store_true", help="export the cached learners again")
    parser.add_argument(
        "--report", action="store_true", help="only write the page, from the JSON file"
    )
    parser.add_argument("--price", type=float, help="of the instance, in dollars per hour")
    return parser.parse_args()


if __name__ == "__main__":
    main()
