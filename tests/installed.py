"""Checks the installed wheel, away from the repository: ``make dist`` runs this.

python -I tests/installed.py FDEPLOY LEARNER
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    fdeploy, learner = (str(Path(each).absolute()) for each in sys.argv[1:3])

    def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [fdeploy, *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, (arguments, done.returncode, done.stderr)
        return done

    found = importlib.util.find_spec("fastai_deploy")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    assert "site-packages" in package.parts, package
    for name in ("py.typed", "cli/advice.toml", "cli/results.schema.json", "packaging/wheels.lock"):
        assert (package / name).is_file(), name
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copy(learner, folder / "learner.pkl")
        version = importlib.metadata.version("fastai-deploy")
        assert run("--version").stdout == f"fdeploy {version}\n"
        assert run("--help").stdout.startswith("Usage: fdeploy")
        verdict = json.loads(run("inspect", "learner.pkl", "--json").stdout)["result"]["verdict"]
        assert verdict["kind"] == "convertible", verdict
        run("init")
        run("config")
        refused = run("up", status=12)
        assert "pip install 'fastai-deploy[" in refused.stderr, refused.stderr
    print(f"fdeploy {version} works as installed from the wheel")  # noqa: T201


if __name__ == "__main__":
    main()
