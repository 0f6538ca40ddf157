"""The double of AWS for schemathesis: ``python -m tests.aws.fuzz_contract [--examples 30]``.

The answers come from ministack's API Gateway as the template configures it, the Lambda's package
and the model server. None may be a 5xx, and each must be one that the served OpenAPI document
lists. Requests have the API's key.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from tests.aws.stage import Stage, fresh_account
from tests.aws_double.process import REGION, running_double
from tests.gateway.fuzz_contract import ask_everything
from tests.packaged import bring, write_model

# With the default limits, most answers would correctly be 429.
_SETTINGS = "[api]\nrate = 10000.0\nburst = 5000\nquota = 1000000\npage = true\n"


def serve(stage: Stage) -> str:
    """Create a stage's API and return its URL."""
    stage.folder.joinpath("fdeploy.toml").write_text(_SETTINGS)
    stage.run.ok("upload", "--region", REGION)
    stage.run.ok("deploy")
    url: str = stage.run.ok("create-api", "--json").json["url"]
    return url


def fuzz(
    stage: Stage,
    url: str,
    *,
    examples: int,
    seed: int,
    phases: str = "examples,coverage,fuzzing",
    document: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run schemathesis against the API at a URL; a return code other than 0 is a finding.

    ``document`` is a file; the default is the API's own document.
    """
    parts = urlsplit(url)
    prefix = parts.path.rpartition("/")[0]
    key = stage.run.ok("key", "show", "--json").json["key"]
    return ask_everything(
        str(document or f"{stage.double.url}{prefix}/openapi.json"),
        {"host": parts.netloc, "x-api-key": key},
        stage.folder,
        *("--url", f"{stage.double.url}{prefix}"),
        *("--phases", phases, "--max-examples", str(examples), "--seed", str(seed)),
    )


def main() -> None:
    """Run many examples and print the findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_double() as double:
        root = Path(folder)
        project = root / "project"
        project.mkdir()
        stage = Stage(double, bring(write_model(root, "model"), project), fresh_account())
        done = fuzz(stage, serve(stage), examples=options.examples, seed=options.seed)
    sys.stdout.write(done.stdout + done.stderr)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
