"""Parliament over every policy of the scenarios: ``make check-templates`` runs it.

It runs in parliament's own environment, so it imports nothing of the project. It prints each
finding, and exits with 1 if there is one, or if there was no policy to check.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Not in the project's own environment, so nothing knows its types.
parliament: Any = importlib.import_module("parliament")
DOCUMENTS = Path(sys.argv[1])  # where ``tests.aws_templates.golden`` has written every document
# Values for what only CloudFormation knows.
_PSEUDO = {
    "AWS::Partition": "aws",
    "AWS::Region": "eu-central-1",
    "AWS::AccountId": "123456789012",
    "AWS::URLSuffix": "amazonaws.com",
}
# Accepted findings: document, kind of finding, words in it; and why.
ACCEPTED = {
    ("user-policy-bucket", "RESOURCE_POLICY_PRIVILEGE_ESCALATION", "s3:"): (
        "who makes the bucket sets its policy and lifecycle; it is a document of its own, which "
        "others who work with fdeploy do not get"
    ),
    ("user-policy-stacks", "UNKNOWN_ACTION", "lambda:GetFunctionScalingConfig"): (
        "newer than parliament's list; CloudFormation's handler of AWS::Lambda::Function names it"
    ),
}


def resolved(value: Any) -> Any:
    """A value of a template as CloudFormation would give it."""
    if isinstance(value, list):
        return [resolved(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "Ref" in value:
        return _PSEUDO.get(value["Ref"], "resource")
    if "Fn::Sub" in value:
        return re.sub(r"\$\{([^}]+)\}", lambda m: _PSEUDO.get(m[1], "resource"), value["Fn::Sub"])
    return {key: resolved(item) for key, item in value.items()}


def policies(document: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every permissions policy, which unlike a trust policy names resources, with its location."""
    if isinstance(document, list):
        for index, item in enumerate(document):
            yield from policies(item, f"{where}[{index}]")
    elif isinstance(document, dict):
        statements = document.get("Statement")
        if isinstance(statements, list) and all("Resource" in item for item in statements):
            yield where, resolved(document)
            return
        for key, item in document.items():
            yield from policies(item, f"{where}.{key}")


def findings() -> Iterator[tuple[str, Any]]:
    """Every finding, and where it is."""
    for path in sorted(DOCUMENTS.glob("*.json")):
        for where, policy in policies(json.loads(path.read_text(encoding="utf-8")), path.stem):
            yield where, None  # a policy was looked at
            for finding in parliament.analyze_policy_string(json.dumps(policy)).findings:
                told = parliament.enhance_finding(finding)
                if told.severity != "MUTED":
                    yield where, told


def main() -> int:
    """Print the findings, and the exceptions that are no longer needed."""
    needed = set()
    looked = wrong = 0
    for where, told in findings():
        if told is None:
            looked += 1
            continue
        accepted = [
            key
            for key in ACCEPTED
            if key[0] == where and key[1] == told.issue and key[2] in str(told.detail)
        ]
        needed.update(accepted)
        if not accepted:
            wrong += 1
            sys.stdout.write(f"{where}: {told.severity} {told.issue}: {told.detail}\n")
    stale = sorted(set(ACCEPTED) - needed)
    sys.stdout.writelines(f"no longer needed: {' '.join(key)}\n" for key in stale)
    sys.stdout.write(f"{looked} policies, {wrong} findings, {len(needed)} exceptions\n")
    return int(bool(wrong or stale) or looked == 0)


if __name__ == "__main__":
    sys.exit(main())
