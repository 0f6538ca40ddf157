"""Checkov over the templates of the scenarios: ``make check-templates`` runs it.

It runs in checkov's own environment, so it imports nothing of the project. It prints each failed
check without an exception and each exception that is not needed; if there are any, it exits with 1.
"""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPLATES = Path(sys.argv[1])  # where ``tests.aws_templates.golden`` has written every document


@dataclass(frozen=True)
class Accepted:
    """A check that may fail in these files and resources (patterns), and why."""

    check: str
    files: str
    resources: str
    reason: str


ACCEPTED = (
    Accepted(
        "CKV_AWS_158",
        "*",
        "AWS::Logs::LogGroup.*",
        "log groups are encrypted with AWS's own keys unless kms_key in [project] names one; a "
        "customer key costs, and its policy must let CloudWatch Logs use it",
    ),
    Accepted(
        "CKV_AWS_173",
        "api-*",
        "AWS::Lambda::Function.Function",
        "the variables hold no secret (the endpoint's name, the route, limits); kms_key in "
        "[project] encrypts them with a customer key",
    ),
    Accepted(
        "CKV_AWS_115",
        "api-*",
        "AWS::Lambda::Function.Function",
        "reserved concurrency is taken from the whole account's; the API is throttled before it, "
        "and concurrency in [api] reserves some",
    ),
    Accepted(
        "CKV_AWS_116",
        "api-*",
        "AWS::Lambda::Function.Function",
        "a dead letter queue is for asynchronous events; API Gateway waits for the answer",
    ),
    Accepted(
        "CKV_AWS_117",
        "api-*",
        "AWS::Lambda::Function.Function",
        "it talks to the SageMaker runtime alone, over TLS; in a VPC it would need an endpoint or "
        "a NAT gateway that costs more than it does",
    ),
    Accepted(
        "CKV_AWS_73",
        "api-rest-*",
        "AWS::ApiGateway::Stage.ApiStage",
        "X-Ray costs by request; the access log and the Lambda's line tell the same times",
    ),
    Accepted(
        "CKV_AWS_120",
        "api-rest-*",
        "AWS::ApiGateway::Stage.ApiStage",
        "the answers to POST are not for a cache, which would also keep users' texts",
    ),
    Accepted(
        "CKV_AWS_76",
        "api-rest-iam",
        "AWS::ApiGateway::Stage.ApiStage",
        "this example sets access_logs = false; they are on by default",
    ),
    Accepted(
        "CKV_AWS_370",
        "endpoint-serverless",
        "AWS::SageMaker::Model.Model",
        "Serverless Inference does not support network isolation; every other kind has it",
    ),
)


def failed_checks() -> list[Any]:
    """checkov's findings, one record per check, file and resource."""
    command = [
        *(str(Path(sys.executable).parent / "checkov"), "--directory", str(TEMPLATES)),
        *("--framework", "cloudformation", "--output", "json", "--quiet"),
    ]
    # Keeps checkov from asking the package index for a newer version.
    environ = {**os.environ, "CKV_SKIP_PACKAGE_UPDATE_CHECK": "true"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    checks: list[Any] = report["results"]["failed_checks"]
    templates = len([*TEMPLATES.glob("*.json")]) - len([*TEMPLATES.glob("user-policy*.json")])
    looked = {check["file_path"] for check in checks}
    sys.stdout.write(
        f"{templates} templates, {report['summary']['passed']} checks passed, {len(checks)} not, "
        f"in {len(looked)} files; {report['summary']['parsing_errors']} unreadable\n"
    )
    if report["summary"]["parsing_errors"] or not report["summary"]["passed"]:
        sys.exit("checkov could not look at the templates")
    return checks


def main() -> int:
    """Print the findings."""
    needed: set[Accepted] = set()
    wrong = 0
    for check in failed_checks():
        file = Path(check["file_path"]).stem
        accepted = [
            one
            for one in ACCEPTED
            if one.check == check["check_id"]
            and fnmatch.fnmatch(file, one.files)
            and fnmatch.fnmatch(check["resource"], one.resources)
        ]
        needed.update(accepted)
        if not accepted:
            wrong += 1
            sys.stdout.write(
                f"{file}: {check['check_id']} {check['check_name']}: {check['resource']}\n"
            )
    stale = [one for one in ACCEPTED if one not in needed]
    sys.stdout.writelines(f"no longer needed: {one.check} in {one.files}\n" for one in stale)
    sys.stdout.write(f"{wrong} findings, {len(needed)} exceptions\n")
    return int(bool(wrong or stale))


if __name__ == "__main__":
    sys.exit(main())
