"""The roles of CI: who becomes them, and what pull requests cannot do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from fastai_deploy.aws.permissions import MAX_CHARACTERS
from tests.aws_templates.linting import findings
from tests.ci_examples.roles import GITHUB, GITLAB, SERVICES, Service, template, text

Json = Any
EACH = pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.folder)
# The longest values that the placeholders of a policy can have.
_LONGEST = {
    "AWS::Partition": "aws-us-gov",
    "AWS::AccountId": "1" * 12,
    "AWS::Region": "ap-southeast-1",
    "Project": "p" * 27,
    "Boundary": "b" * 120,
    "PreviewBoundary": "b" * 120,
}


def resources(service: Service) -> dict[str, Json]:
    return {name: each["Properties"] for name, each in template(service)["Resources"].items()}


def statements(service: Service, role: str) -> Iterator[Json]:
    """What a role may do."""
    of = resources(service)
    for policy in of[role]["ManagedPolicyArns"]:
        yield from of[policy["Ref"]]["PolicyDocument"]["Statement"]


def listed(resource: Json) -> list[str]:
    found = resource if isinstance(resource, list) else [resource]
    return [each["Fn::Sub"] if isinstance(each, dict) else each for each in found]


@EACH
def test_the_files_are_up_to_date(service: Service) -> None:
    command = "python -m tests.ci_examples.roles"
    assert service.file.read_text(encoding="utf-8") == text(service), command
    assert yaml.safe_load(text(service)) == template(service)


@EACH
@pytest.mark.parametrize("region", ["eu-central-1", "us-east-1"])
def test_the_template_passes_cfn_lint(service: Service, region: str) -> None:
    assert findings(template(service), region) == []


@EACH
def test_every_policy_fits_into_a_managed_policy(service: Service) -> None:
    for name, properties in resources(service).items():
        if "PolicyDocument" in properties:
            plain = json.dumps(properties["PolicyDocument"], separators=(",", ":"))
            plain = re.sub(r'\{"Fn::Sub":("[^"]*")\}', r"\1", plain)
            plain = re.sub(r"\$\{([\w:]+)\}", lambda match: _LONGEST[match[1]], plain)
            assert len(plain) <= MAX_CHARACTERS, name


@pytest.mark.parametrize(
    ("service", "role", "operator", "subject"),
    [
        (GITHUB, "Role", "StringEquals", "repo:${Repository}:ref:refs/heads/main"),
        (GITHUB, "PreviewRole", "StringEquals", "repo:${Repository}:pull_request"),
        (GITLAB, "Role", "StringEquals", "project_path:${Repository}:ref_type:branch:ref:main"),
        (GITLAB, "PreviewRole", "StringLike", "project_path:${Repository}:ref_type:branch:ref:*"),
    ],
)
def test_nobody_else_can_assume_a_role(
    service: Service, role: str, operator: str, subject: str
) -> None:
    (statement,) = resources(service)[role]["AssumeRolePolicyDocument"]["Statement"]
    conditions = statement["Condition"]
    assert conditions["StringEquals"][f"{service.issuer}:aud"] == "sts.amazonaws.com"
    assert conditions[operator][f"{service.issuer}:sub"] == {"Fn::Sub": subject}


@EACH
def test_previews_change_nothing_of_another_project(service: Service) -> None:
    """By name, or for what API Gateway names itself, by tag."""
    for item in statements(service, "PreviewRole"):
        changing = {
            action
            for action in item["Action"]
            if not re.match(r"[\w-]+:(BatchGet|Describe|Filter|Get|List|Simulate)", action)
        }
        # Log deliveries of an account cannot be named; they are set through CloudFormation alone.
        changing = {each for each in changing if not re.search("LogDelivery|ResourcePolicy", each)}
        if item["Effect"] == "Deny" or not changing:
            continue
        for resource in listed(item["Resource"]):
            if ":apigateway:" not in resource:
                own = f"{resource}/"  # its repository is the whole of that name
                assert "${Project}-pr-" in own or "/fdeploy/${Project}-pr/" in own, item


@EACH
def test_previews_cannot_use_the_apis_of_another_project(service: Service) -> None:
    documents = [
        list(statements(service, "PreviewRole")),
        resources(service)["PreviewBoundary"]["PolicyDocument"]["Statement"],
    ]
    for found in documents:
        (denied,) = [item for item in found if item["Effect"] == "Deny"]
        tag = "aws:ResourceTag/fdeploy:project"
        assert denied["Condition"] == {
            "StringNotEquals": {tag: {"Fn::Sub": "${Project}-pr"}},
            "Null": {tag: "false"},
        }
        assert denied["Action"] == ["apigateway:*"]


@EACH
@pytest.mark.parametrize("prefix", ["", "Preview"])
def test_nobody_makes_himself_an_administrator(service: Service, prefix: str) -> None:
    """Every role that is made has the boundary, which nobody can change, and which makes none."""
    for item in statements(service, f"{prefix}Role"):
        if {"iam:CreateRole", "iam:PutRolePolicy"} & set(item["Action"]):
            bound = item["Condition"]["StringEquals"]["iam:PermissionsBoundary"]
            assert bound == {"Fn::Sub": f"${{{prefix}Boundary}}"}
        for action in item["Action"]:
            assert not re.match(
                r"iam:(Attach|CreatePolicy|CreateUser|SetDefault|.*RolePermissionsBoundary)", action
            )
    within = resources(service)[f"{prefix}Boundary"]["PolicyDocument"]["Statement"]
    for item in within:
        for action in item["Action"]:
            assert not re.match(r"iam:(Create|Put|Attach|Pass|Update)|sts:|\*", action)
