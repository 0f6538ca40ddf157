"""The roles of CI, for GitHub and GitLab: ``python -m tests.ci_examples.roles`` writes both.

    Role           the main branch, all stages of the project
    PreviewRole    pull requests, all stages of the project <Project>-pr and of no other

Each may create roles with its own boundary only. The permissions are those that ``fdeploy doctor
--policy`` prints, for any account and region; previews do without autoscaling and without making
the bucket.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fastai_deploy.aws.permissions import Needs, boundary, user_policies
from fastai_deploy.aws.specs import Roles
from fastai_deploy.naming import PROJECT_TAG

Json = Any
EXAMPLES = Path(__file__).parent.parent.parent / "examples"
AUDIENCE = "sts.amazonaws.com"
# What no policy can bind to a project, and previews do not need.
_NOT_IN_PREVIEWS = re.compile("application-autoscaling:(?!Describe)|iam:CreateServiceLinkedRole")


@dataclass(frozen=True)
class Service:
    """A CI service; ``main`` and ``requests`` are the subjects of its tokens.

    ``matches`` is the condition operator of ``requests``. ``repository`` is the pattern of the
    parameter that names the repository.
    """

    name: str
    folder: str
    issuer: str
    repository: str
    main: str
    requests: str
    matches: str

    @property
    def file(self) -> Path:
        """Where its template stands."""
        return EXAMPLES / self.folder / "role.yaml"


GITHUB = Service(
    "GitHub",
    "github-actions",
    "token.actions.githubusercontent.com",
    "[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+",
    "repo:${Repository}:ref:refs/heads/main",
    "repo:${Repository}:pull_request",
    "StringEquals",
)
GITLAB = Service(
    "GitLab",
    "gitlab-ci",
    "gitlab.com",
    "[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+",
    "project_path:${Repository}:ref_type:branch:ref:main",
    "project_path:${Repository}:ref_type:branch:ref:*",
    "StringLike",
)
SERVICES = (GITHUB, GITLAB)
_HEADER = """\
# The roles that {name} assumes to run fdeploy, without a stored key. Create them once:
#
#   aws cloudformation deploy --stack-name fdeploy-{lower} --template-file role.yaml \\
#     --capabilities CAPABILITY_IAM --parameter-overrides Repository={example} Project=my-project
#
# The main branch gets Role. Pull requests get PreviewRole, which can use the stages of the project
# <Project>-pr only. Either can create IAM roles, but only with its own boundary.
#
# An account has one OIDC provider for {name}. If yours exists already, add Provider=<its ARN>.
# The permissions are those that `fdeploy doctor --policy` prints.
"""


def template(service: Service) -> Json:
    """The CloudFormation template."""
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"The roles that {service.name} assumes to run fdeploy",
        "Parameters": {
            "Repository": {
                "Type": "String",
                "AllowedPattern": service.repository,
                "Description": "The repository whose pipelines may deploy: owner/name",
            },
            "Project": {
                "Type": "String",
                "AllowedPattern": "[a-z]([a-z0-9-]{0,25}[a-z0-9])?",
                "Description": "Name of the project in fdeploy.toml, at most 27 characters",
            },
            "Provider": {
                "Type": "String",
                "Default": "",
                "Description": f"ARN of the account's OIDC provider for {service.name}; empty "
                "creates one",
            },
        },
        "Conditions": {"MakesProvider": {"Fn::Equals": [{"Ref": "Provider"}, ""]}},
        "Resources": {
            service.name: {
                "Type": "AWS::IAM::OIDCProvider",
                "Condition": "MakesProvider",
                "Properties": {"Url": f"https://{service.issuer}", "ClientIdList": [AUDIENCE]},
            },
            **_role("", _deploying(), _needs("", "Boundary"), _trust(service, main=True)),
            **_role(
                "Preview",
                _previewing(),
                _needs("-pr", "PreviewBoundary"),
                _trust(service, main=False),
                _guard(),
            ),
        },
        "Outputs": {
            name: {"Description": f"The value for the variable {variable}", "Value": value}
            for name, variable, value in (
                ("RoleArn", "AWS_ROLE", {"Fn::GetAtt": ["Role", "Arn"]}),
                ("BoundaryArn", "AWS_BOUNDARY", {"Ref": "Boundary"}),
                ("PreviewRoleArn", "AWS_PREVIEW_ROLE", {"Fn::GetAtt": ["PreviewRole", "Arn"]}),
                ("PreviewBoundaryArn", "AWS_PREVIEW_BOUNDARY", {"Ref": "PreviewBoundary"}),
            )
        },
    }


def _needs(suffix: str, bound: str) -> Needs:
    return Needs(
        project=f"${{Project}}{suffix}",
        bucket="fdeploy-${AWS::AccountId}-${AWS::Region}",
        partition="${AWS::Partition}",
        roles=Roles(boundary=f"${{{bound}}}"),
        own_image=True,
    )


def _deploying() -> Mapping[str, Json]:
    return user_policies(_needs("", "Boundary"))


def _previewing() -> Mapping[str, Json]:
    """The documents without what concerns all projects of the account."""
    documents = user_policies(_needs("-pr", "PreviewBoundary"))
    return {
        name: {**document, "Statement": [*_kept(document["Statement"])]}
        for name, document in documents.items()
        if name != "bucket"
    }


def _kept(statements: list[Json]) -> Iterator[Json]:
    for statement in statements:
        actions = [each for each in statement["Action"] if not _NOT_IN_PREVIEWS.match(each)]
        if actions:
            yield {**statement, "Action": actions}


def _guard() -> Json:
    """Deny previews the APIs of other projects, which no ARN can name.

    The resources below an API, a usage plan or a domain inherit its tags. Source: "API Gateway
    resources that can be tagged".
    """
    tag = f"aws:ResourceTag/{PROJECT_TAG}"
    return {
        "Effect": "Deny",
        "Action": ["apigateway:*"],
        "Resource": "arn:${AWS::Partition}:apigateway:*::/*",
        "Condition": {
            "StringNotEquals": {tag: "${Project}-pr"},
            "Null": {tag: "false"},
        },
    }


def _role(
    prefix: str, documents: Mapping[str, Json], needs: Needs, trust: Json, guard: Json = None
) -> Json:
    """A role with its policies, and the boundary of the roles that it creates."""
    documents = {f"{prefix}{name.capitalize()}Policy": each for name, each in documents.items()}
    bound = boundary(needs)
    if guard is not None:
        bound = {**bound, "Statement": [*bound["Statement"], guard]}
        first = next(iter(documents))
        statements = [*documents[first]["Statement"], guard]
        documents = {**documents, first: {**documents[first], "Statement": statements}}
    bounds = {f"{prefix}Boundary": bound}
    policies = {
        name: {
            "Type": "AWS::IAM::ManagedPolicy",
            "Properties": {
                "Description": f"fdeploy: {name}",
                "PolicyDocument": _substituted(document),
            },
        }
        for name, document in {**bounds, **documents}.items()
    }
    return {
        **policies,
        f"{prefix}Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "AssumeRolePolicyDocument": trust,
                "ManagedPolicyArns": [{"Ref": name} for name in documents],
                # An endpoint may take half an hour to create; the token must live that long.
                "MaxSessionDuration": 7200,
            },
        },
    }


def _trust(service: Service, *, main: bool) -> Json:
    """Who may assume the role: the main branch, or pull requests of the repository itself."""
    provider = {"Fn::If": ["MakesProvider", {"Ref": service.name}, {"Ref": "Provider"}]}
    subject = {f"{service.issuer}:sub": {"Fn::Sub": service.main if main else service.requests}}
    condition: dict[str, Json] = {"StringEquals": {f"{service.issuer}:aud": AUDIENCE}}
    operator = "StringEquals" if main else service.matches
    condition[operator] = {**condition.get(operator, {}), **subject}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Principal": {"Federated": provider},
                "Condition": condition,
            }
        ],
    }


def _substituted(value: Json) -> Json:
    """Replace every string that has a placeholder by an ``Fn::Sub``."""
    if isinstance(value, dict):
        return {key: _substituted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_substituted(item) for item in value]
    return {"Fn::Sub": value} if isinstance(value, str) and "${" in value else value


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """CloudFormation knows no aliases in YAML."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's own signature
        """Write everything out."""
        return True


def text(service: Service) -> str:
    """The file."""
    example = "me/my-repo" if service is GITHUB else "my-group/my-repo"
    header = _HEADER.format(name=service.name, lower=service.name.lower(), example=example)
    return header + str(yaml.dump(template(service), Dumper=_Dumper, sort_keys=False, width=98))


if __name__ == "__main__":
    for each in SERVICES:
        each.file.write_text(text(each), encoding="utf-8")
