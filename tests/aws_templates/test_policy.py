"""The printed policy allows what a deploy needs, and fits into a managed policy."""

from __future__ import annotations

import ast
import fnmatch
import json
import re
from collections.abc import Iterator
from pathlib import Path

import fastai_deploy
from fastai_deploy.aws.client_errors import permission
from fastai_deploy.aws.permissions import MAX_CHARACTERS, Needs, user_policies
from tests.aws_templates.linting import schema
from tests.aws_templates.scenarios import BUCKET, KMS_KEY, goldens

LONGEST = Needs(
    "p" * 30,
    "fdeploy-123456789012-ap-southeast-1",
    partition="aws-us-gov",
    kms_key=KMS_KEY,
    signs_requests=True,
)
# What handlers may call for properties that the templates do not use, by pattern.
UNUSED = {
    "ec2:*": "the function is in no VPC",
    "elasticfilesystem:*": "the function mounts nothing",
    "s3files:*": "likewise",
    "firehose:*": "logs go to log groups",
    "s3:REST.PUT.OBJECT": "likewise",
    "s3:getObject": "an API is made of resources and not of a file",
    "iam:*PermissionsBoundary": "the roles have none",
    "iam:AttachRolePolicy": "the roles have policies of their own",
    "lambda:*CodeSigningConfig": "the code is not signed",
    "lambda:GetLayerVersion": "there are no layers",
    "lambda:*ProvisionedConcurrencyConfig": "endpoints are scaled, not functions",
    "lambda:PutRuntimeManagementConfig": "the runtime is AWS's to update",
    "lambda:PutFunctionRecursionConfig": "it does not call itself",
    "lambda:PutFunctionScalingConfig": "no instances are managed",
    "lambda:PassCapacityProvider": "likewise",
    "lambda:PublishVersion": "there is one version",
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


def actions(needs: Needs) -> set[str]:
    """All actions that the documents allow."""
    return {
        action
        for document in user_policies(needs).values()
        for item in document["Statement"]
        for action in item["Action"]
    }


def test_each_document_fits_into_a_managed_policy() -> None:
    for name, document in user_policies(LONGEST).items():
        assert len(re.sub(r"\s", "", json.dumps(document))) <= MAX_CHARACTERS, name


def test_no_action_is_a_pattern() -> None:
    assert not [action for action in actions(LONGEST) if "*" in action]


def test_what_is_changed_is_the_projects_own() -> None:
    for document in user_policies(Needs("demo", BUCKET)).values():
        for item in document["Statement"]:
            if item["Resource"] == "*":
                verbs = {action.split(":")[1] for action in item["Action"]}
                changing = {verb for verb in verbs if not re.match("Describe|Get|List", verb)}
                assert all(
                    "LogDelivery" in verb or verb == "PutResourcePolicy" for verb in changing
                )


def test_cloudformation_may_do_all_that_its_handlers_do() -> None:
    granted = actions(LONGEST)
    for golden in goldens():
        for item in golden.document.get("Resources", {}).values():
            handlers = schema(item["Type"]).get("handlers", {})
            for verb in ("create", "read", "update", "delete"):
                for needed in handlers.get(verb, {}).get("permissions", []):
                    unused = any(fnmatch.fnmatch(needed, pattern) for pattern in UNUSED)
                    assert needed in granted or unused, f"{item['Type']} {verb}: {needed}"


def test_fdeploy_may_do_all_that_it_does_itself() -> None:
    granted = actions(LONGEST) | {"sts:GetCallerIdentity"}
    for path, service, operation in calls():
        name = "".join(part.capitalize() for part in operation.split("_"))
        needed = permission(service, name)
        assert needed in granted, f"{path.name}: {needed}"


def calls() -> Iterator[tuple[Path, str, str]]:
    """Every ``….call("service", "operation", …)`` and ``….pages(…)`` below aws/ and targets/."""
    package = Path(fastai_deploy.__file__).parent
    for path in sorted([*(package / "aws").rglob("*.py"), *(package / "targets").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            words = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)]
            asks = node.func.attr in {"call", "pages", "_ask", "_delete"}
            if asks and len(words) == 2:
                yield path, str(words[0]), str(words[1])
