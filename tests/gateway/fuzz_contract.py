"""A gateway for schemathesis: ``python -m tests.gateway.fuzz_contract [--examples 30]``.

``tests.aws.fuzz_contract`` does the same with the AWS double.

Schemathesis reads the OpenAPI document from the running gateway and sends everything it allows, and
much that it does not. No answer may be a 5xx, and every answer must be one that the document lists.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fastai_deploy.api_docs.demo_page import page
from fastai_deploy.api_docs.openapi import ApiDescription, encoded
from fastai_deploy.packaging.lambda_zip import build_lambda_package
from tests.gateway.conftest import gateways
from tests.gateway.servers import Script, Server
from tests.page.reviews import LABELS, reviews

FACE = ApiDescription("film-reviews", "/classify", "key", 100_000, labels=LABELS, page=True)
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "positive_data_acceptance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)


def fuzz(
    folder: Path,
    *,
    examples: int,
    seed: int,
    script: Script = reviews,
    phases: str = "examples,coverage,fuzzing",
) -> subprocess.CompletedProcess[str]:
    """Run schemathesis against a gateway in front of ``script``; not 0 if it finds something."""
    package = folder / "lambda.zip"
    documents = {"openapi.json": encoded(FACE), "page.html": page(FACE, ["a text"])}
    package.write_bytes(build_lambda_package(documents))
    with Server(script).running() as model, gateways(folder, model) as start:
        gateway = start(package=str(package), page=True, max_body=FACE.max_body)
        return ask_everything(
            f"http://127.0.0.1:{gateway.port}/openapi.json",
            {"x-api-key": gateway.key},
            folder,
            *("--phases", phases, "--max-examples", str(examples), "--seed", str(seed)),
        )


def ask_everything(
    document: str, headers: Mapping[str, str], folder: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run schemathesis against the API described by the OpenAPI document at a URL."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", document, "--no-color"),
            *(part for name, value in headers.items() for part in ("--header", f"{name}: {value}")),
            *("--checks", ",".join(CHECKS), "--continue-on-failure", *options),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def main() -> None:
    """Run many examples and print the findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = fuzz(Path(folder), examples=options.examples, seed=options.seed)
    sys.stdout.write(done.stdout + done.stderr)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
