"""The packaged artifact in the software of AWS's images, without a network: `make test-containers`.

    python -m tests.containers FAMILY [--venvs FOLDER] [--interpreter PYTHON] [--aws-scripts FOLDER]

It creates the environment and packs the artifact with network access. Then it runs itself again in
a network namespace without a route (`unshare -n`, which needs root), starts the image's own server
there and sends requests to it. Each check prints a line; the exit code is 1 if one failed.
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

from fastai_deploy.packaging.artifact import unpack
from tests.containers import aws_scripts
from tests.containers.checks import Checks
from tests.containers.families import FAMILIES, Family, environment
from tests.flow.learners import CONVERTIBLE, bring

LEARNER = CONVERTIBLE[2]


def main() -> int:
    """Prepare, then check inside; the exit code."""
    options = _options()
    family = FAMILIES[options.family]
    if options.inside:
        return Checks(family, options.python, options.inside).run()
    interpreter = options.interpreter or shutil.which(f"python{family.python}")
    if not interpreter:
        sys.exit(f"there is no python{family.python}; name one with --interpreter")
    python = environment(family, Path(interpreter), options.venvs.resolve())
    with tempfile.TemporaryDirectory() as scratch:
        artifact = _packaged(family, Path(scratch, "project"))
        print(f"artifact: {artifact.stat().st_size:,} bytes", flush=True)
        base = Path(scratch, "ml")
        unpack(artifact, base / "model")
        shutil.copyfile(artifact.parents[2] / "golden.jsonl", base / "golden.jsonl")
        if family.server == "ray-serve":
            whose = aws_scripts.bring(base / "app", options.aws_scripts)
            print(f"start script and adapter: {whose}", flush=True)
        inside = [sys.executable, "-m", "tests.containers", family.name]
        inside += ["--inside", str(base), "--python", str(python)]
        command = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *inside]
        return subprocess.run(command, check=False).returncode


def _packaged(family: Family, folder: Path) -> Path:
    """The artifact of a real learner for the family's image, packed by the real command."""
    folder.mkdir()
    learner, golden = bring(LEARNER, folder)
    (folder / "fdeploy.toml").write_text(
        f'[project]\nregion = "us-east-1"\n[model]\nlearner = "{learner}"\ngolden = "{golden}"\n'
        f"[endpoint]\n{family.settings}\n",
        encoding="utf-8",
    )
    root = Path(__file__).parents[2]
    for stage in ("export", "package"):
        command = [sys.executable, "-m", "fastai_deploy", stage, "--json"]
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(root)},
            check=True,
            stdout=subprocess.PIPE,
        )
    return Path(json.loads(done.stdout)["result"]["path"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.containers")
    parser.add_argument("family", choices=sorted(FAMILIES))
    parser.add_argument("--venvs", type=Path, default=Path(".venv-containers"))
    parser.add_argument("--interpreter", help="the Python to make the environment with")
    parser.add_argument(
        "--aws-scripts",
        type=Path,
        help="a folder with AWS's sagemaker_entrypoint.sh and sagemaker_serve.py; else they are "
        "downloaded",
    )
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--python", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
