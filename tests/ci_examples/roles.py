"""The role for GitHub Actions: ``python -m tests.github_actions.role_template`` writes it.

Its permissions are those that ``fdeploy doctor --policy`` prints, for any account and region.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fastai_deploy.aws.permissions import Needs, user_policies

FILE = Path(__file__).parent.parent.parent / "examples" / "github-actions" / "role.yaml"
_ISSUER = "token.actions.githubusercontent.com"
_HEADER = """\
# The role that GitHub Actions assumes to run fdeploy, without a stored key. Create it once:
#
#   aws cloudformation deploy --stack-name fdeploy-github --template-file role.yaml \\
#     --capabilities CAPABILITY_IAM --parameter-overrides Repository=me/my-repo Project=my-project
#
# An account has one OIDC provider for GitHub. If yours exists already, add Provider=<its ARN>.
# The permissions are those that `fdeploy doctor --policy` prints.
"""
Json = Any


def template() -> Json:
    """The CloudFormation template."""
    needs = Needs(
        project="${Project}",
        bucket="fdeploy-${AWS::AccountId}-${AWS::Region}",
        partition="${AWS::Partition}",
    )
    policies = {
        f"{name.capitalize()}Policy": {
            "Type": "AWS::IAM::ManagedPolicy",
            "Properties": {
                "Description": f"fdeploy: {name}",
                "PolicyDocument": _substituted(document),
            },
        }
        for name, document in user_policies(needs).items()
    }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "The role that GitHub Actions assumes to run fdeploy",
        "Parameters": {
            "Repository": {
                "Type": "String",
                "AllowedPattern": "[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+",
                "Description": "The repository whose workflows may deploy: owner/name",
            },
            "Project": {
                "Type": "String",
                "AllowedPattern": "[a-z]([a-z0-9-]{0,28}[a-z0-9])?",
                "Description": "Name of the project in fdeploy.toml",
            },
            "Provider": {
                "Type": "String",
                "Default": "",
                "Description": "ARN of the account's OIDC provider for GitHub; empty creates one",
            },
        },
        "Conditions": {"MakesProvider": {"Fn::Equals": [{"Ref": "Provider"}, ""]}},
        "Resources": {
            "GitHub": {
                "Type": "AWS::IAM::OIDCProvider",
                "Condition": "MakesProvider",
                "Properties": {
                    "Url": f"https://{_ISSUER}",
                    "ClientIdList": ["sts.amazonaws.com"],
                },
            },
            **policies,
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "AssumeRolePolicyDocument": _trust(),
                    "ManagedPolicyArns": [{"Ref": name} for name in policies],
                    # An endpoint may take half an hour to create; the token must live that long.
                    "MaxSessionDuration": 7200,
                },
            },
        },
        "Outputs": {
            "RoleArn": {
                "Description": "The value for the repository variable AWS_ROLE_ARN",
                "Value": {"Fn::GetAtt": ["Role", "Arn"]},
            }
        },
    }


def _trust() -> Json:
    """Who may assume the role: the main branch, and pull requests of the repository itself."""
    provider = {"Fn::If": ["MakesProvider", {"Ref": "GitHub"}, {"Ref": "Provider"}]}
    subjects = [
        {"Fn::Sub": "repo:${Repository}:ref:refs/heads/main"},
        {"Fn::Sub": "repo:${Repository}:pull_request"},
    ]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Principal": {"Federated": provider},
                "Condition": {
                    "StringEquals": {
                        f"{_ISSUER}:aud": "sts.amazonaws.com",
                        f"{_ISSUER}:sub": subjects,
                    }
                },
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


def text() -> str:
    """The file."""
    return _HEADER + str(yaml.safe_dump(template(), sort_keys=False, width=98))


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
