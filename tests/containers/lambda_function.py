"""The function's package in AWS's own runtime client and Python 3.13, with the limits of Lambda.

    python -m tests.containers.lambda_function [--venvs FOLDER] [--interpreter PYTHON]

It packs a real learner by the real commands and builds the zip with the real wheels. Then it runs
itself again without a network (`unshare -n`, which needs root): the code is mounted read-only, /tmp
is a tmpfs of 512 MB, and a cgroup has the memory of the function. The goldens are asked by direct
invocations and as events of API Gateway. The exit code is 1 if an answer differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fastai_deploy.packaging.function_zip import HANDLER, build_function_package
from fastai_deploy.packaging.wheels import FUNCTION
from tests.containers.families import Family, environment
from tests.flow.learners import CONVERTIBLE, bring
from tests.gateway.aws_events import rest
from tests.gateway.lambda_runtime import function

RUNTIME = Family(
    "lambda", FUNCTION.python, ("awslambdaric==4.2.2", "boto3"), 'kind = "lambda"', "torchserve"
)
MEMORY = 512  # MB; less than the default, so that a leak shows
TMP = 512  # MB
TOLERANCE = 1e-4


def main() -> int:
    """Prepare, then check inside; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.containers.lambda_function")
    parser.add_argument("--venvs", type=Path, default=Path(".venv-containers"))
    parser.add_argument("--interpreter", help="the Python 3.13 to make the environment with")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--python", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return _inside(options.inside, options.python)
    interpreter = options.interpreter or shutil.which(f"python{FUNCTION.python}")
    if not interpreter:
        sys.exit(f"there is no python{FUNCTION.python}; name one with --interpreter")
    python = environment(RUNTIME, Path(interpreter), options.venvs.resolve())
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        artifact = _packaged(base / "project")
        package = build_function_package(artifact, base / "function.zip", {}, python=python)
        print(f"package: {package.bytes:,} bytes, {package.unpacked:,} unpacked", flush=True)
        again = [sys.executable, "-m", "tests.containers.lambda_function", "--inside", str(base)]
        steps = f'ip link set lo up; mount -t tmpfs -o size={TMP}m tmpfs /tmp; exec "$@"'
        moved = Path("/var/tmp", f"fdeploy-{os.getpid()}")  # noqa: S108 - /tmp is covered below
        shutil.copytree(base, moved, ignore=shutil.ignore_patterns(".venv*"))
        again[-1] = str(moved)
        try:
            command = ["unshare", "-n", "-m", "sh", "-c", steps, "sh", *again]
            done = subprocess.run([*command, "--python", str(python)], check=False)
        finally:
            shutil.rmtree(moved)
    return done.returncode


def _packaged(folder: Path) -> Path:
    """The artifact of a real learner for a function, packed by the real commands."""
    folder.mkdir()
    learner, golden = bring(CONVERTIBLE[2], folder)
    (folder / "fdeploy.toml").write_text(
        f'[project]\nregion = "us-east-1"\n[model]\nlearner = "{learner}"\ngolden = "{golden}"\n'
        f"[endpoint]\n{RUNTIME.settings}\n",
        encoding="utf-8",
    )
    for stage in ("export", "package"):
        done = subprocess.run(
            [sys.executable, "-m", "fastai_deploy", stage, "--json"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            check=True,
            stdout=subprocess.PIPE,
        )
    return Path(json.loads(done.stdout)["result"]["path"])


def _inside(base: Path, python: Path) -> int:
    """Ask the goldens; 1 if an answer differs or the code was written to."""
    bundle = base / "project" / ".fdeploy" / "dev" / "bundle"
    goldens = json.loads((bundle / "goldens.json").read_bytes())["goldens"]
    group = Path("/sys/fs/cgroup/memory") / f"fdeploy-{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(MEMORY << 20))
    environ = {
        "FDEPLOY_ENDPOINT": "demo-dev-lambda",
        "FDEPLOY_VERSION": "0123456789ab",
        "AWS_LAMBDA_FUNCTION_NAME": "demo-dev-lambda",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY),
    }
    log = base / "log"
    failed = 0
    try:
        with function(
            (base / "function.zip").read_bytes(),
            base / "run",
            environ,
            log,
            handler=HANDLER,
            python=str(python),
            group=group,
            read_only=True,
        ) as runtime:
            for golden in goldens:
                direct = runtime.invoke({"text": golden["text"]})[1]
                public = runtime.invoke(rest(json.dumps({"text": golden["text"]})))[1]
                for answer in (direct, json.loads(public["body"])):
                    found = answer.get("probabilities", {})
                    wrong = [
                        label
                        for label, expected in golden["probabilities"].items()
                        if abs(found.get(label, -1.0) - expected) > TOLERANCE
                    ]
                    failed += bool(wrong)
            peak = int((group / "memory.max_usage_in_bytes").read_text()) >> 20
    finally:
        group.rmdir()
    ready = next(line for line in log.read_text().splitlines() if '"ready"' in line)
    print(f"{ready}\npeak of the cgroup: {peak} of {MEMORY} MB")
    print(f"{len(goldens)} goldens, asked twice: {failed} differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
