"""What CloudFormation's handlers may call: ``python -m tests.aws_templates.handlers`` writes it.

By the resource types of the templates, from CloudFormation's registry. The double checks these
permissions and has no registry.
"""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path

from tests.aws_templates.linting import schema
from tests.aws_templates.scenarios import goldens

FILE = Path(__file__).parent.parent / "aws_double" / "handler_permissions.json"
VERBS = ("create", "read", "update", "delete")
# What handlers may call for properties that the templates do not use, by pattern.
UNUSED = {
    "codedeploy:*": "fdeploy moves the alias itself",
    "elasticfilesystem:*": "the function mounts nothing",
    "s3files:*": "likewise",
    "firehose:*": "logs go to log groups",
    "s3:REST.PUT.OBJECT": "likewise",
    "s3:getObject": "an API is made of resources and not of a file",
    "iam:*PermissionsBoundary": "a role is made with its boundary; with another it is another role",
    "iam:AttachRolePolicy": "the roles have policies of their own",
    "lambda:*CodeSigningConfig": "the code is not signed",
    "lambda:GetLayerVersion": "there are no layers",
    "lambda:PutRuntimeManagementConfig": "the runtime is AWS's to update",
    "lambda:PutFunctionRecursionConfig": "it does not call itself",
    "lambda:PutFunctionScalingConfig": "no instances are managed",
    "lambda:PassCapacityProvider": "likewise",
    "lambda:AssociateRuntimeAlias": "likewise",
    "logs:*DataProtectionPolicy": "the log groups have none",
    "logs:*IndexPolicy": "likewise",
    "logs:DeleteResourcePolicy": "likewise",
    "logs:PutBearerTokenAuthentication": "likewise",
    "logs:PutLogGroupDeletionProtection": "likewise",
    "application-autoscaling:*ScheduledAction": "nothing is scaled by schedule",
    "apigateway:AddCertificateToDomain": "domains ask clients for no certificates (mutual TLS)",
    "apigateway:RemoveCertificateFromDomain": "likewise",
    "apigateway:UpdateRestApiPolicy": "the APIs have none",
    "apigateway:TagResource": "an action of API Gateway's own, which it checks as PUT on /tags",
    "apigateway:UntagResource": "likewise, as DELETE",
}


def permissions() -> dict[str, dict[str, list[str]]]:
    """The permissions of every handler, by type and verb, without those that are not needed."""
    kinds = {
        item["Type"]
        for golden in goldens()
        for item in golden.document.get("Resources", {}).values()
    }
    return {kind: {verb: _needed(kind, verb) for verb in VERBS} for kind in sorted(kinds)}


def _needed(kind: str, verb: str) -> list[str]:
    listed = schema(kind).get("handlers", {}).get(verb, {}).get("permissions", [])
    # Endpoints are scaled, and no functions.
    unused = [*UNUSED, *(["lambda:*"] if "AutoScaling" in kind else [])]
    return [each for each in listed if not any(fnmatch.fnmatch(each, one) for one in unused)]


def text() -> str:
    """The file."""
    return json.dumps(permissions(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
