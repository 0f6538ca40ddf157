"""The check of the caller's permissions: policies are evaluated, and missing actions reported.

The documents that ``doctor --policy`` prints are attached to a user or a role of the double,
complete or with a part removed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from fastai_deploy.stage_reports import Check
from fastai_deploy.targets.aws.operations import AwsOperations
from tests.aws.stage import Stage
from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.aws_double.process import REGION
from tests.conftest import Fdeploy
from tests.packaged import Model, bring

Json = Any
SSO_PATH = "/aws-reserved/sso.amazonaws.com/"


@dataclass
class Caller:
    """An account whose caller has exactly the attached policies."""

    world: World
    model: Model

    def allowed(self, change: Callable[[Json], None] = lambda _statement: None) -> dict[str, Json]:
        """The printed documents; ``change`` may edit each statement."""
        printed = AwsOperations(self.world.target()).policies().documents
        documents: dict[str, Json] = json.loads(json.dumps(printed))
        for document in documents.values():
            for statement in document["Statement"]:
                change(statement)
            document["Statement"] = [each for each in document["Statement"] if each["Action"]]
        return documents

    def user(self, policies: dict[str, Json], **options: Any) -> str:
        """Call as a user with these policies from now on."""
        iam = self.world.client("iam")
        arn = iam.create_user(UserName="ada", **options)["User"]["Arn"]
        for name, policy in policies.items():
            iam.put_user_policy(UserName="ada", PolicyName=name, PolicyDocument=json.dumps(policy))
        self.behave(caller=arn)
        return str(arn)

    def role(self, policies: dict[str, Json], path: str = "/") -> str:
        """Call as a session of a role with these policies from now on."""
        iam = self.world.client("iam")
        arn = iam.create_role(RoleName="deployer", Path=path, AssumeRolePolicyDocument="{}")
        for name, policy in policies.items():
            iam.put_role_policy(
                RoleName="deployer", PolicyName=name, PolicyDocument=json.dumps(policy)
            )
        self.behave(caller=f"arn:aws:sts::{self.world.account}:assumed-role/deployer/session")
        return str(arn["Role"]["Arn"])

    def behave(self, **behaviour: Any) -> None:
        self.world.double.behave(self.world.account, **behaviour)

    def check(self) -> Check:
        """The doctor's check of the permissions."""
        checks = AwsOperations(self.world.target()).doctor(self.model.artifact).checks
        (check,) = [check for check in checks if check.name == "permissions"]
        return check

    def run(self) -> Fdeploy:
        """The real command, as the same caller."""
        folder = bring(self.model, self.world.root / "project")
        return Stage(self.world.double, folder, self.world.account).run


@pytest.fixture
def caller(world: World, model: Model) -> Caller:
    return Caller(world, model)


def without(*actions: str) -> Callable[[Json], None]:
    def change(statement: Json) -> None:
        statement["Action"] = [each for each in statement["Action"] if each not in actions]

    return change


def test_the_printed_documents_are_enough(caller: Caller) -> None:
    arn = caller.user(caller.allowed())
    check = caller.check()
    assert check.outcome == "passed"
    assert arn in check.message
    assert f"permissions: {check.message}" in caller.run().ok("doctor", "--region", REGION).stdout
    assert "does not consider policies of sessions" in check.message


def test_what_is_missing_is_named(caller: Caller) -> None:
    lost = ("sagemaker:CreateEndpoint", "iam:PassRole", "apigateway:PATCH", "s3:CreateBucket")
    arn = caller.user(caller.allowed(without(*lost)))
    check = caller.check()
    assert check.outcome == "failed"
    assert check.message == f"for {arn}, no policy allows {', '.join(sorted(lost))}"
    assert check.hint == f"attach the policies that fdeploy doctor --policy prints to {arn}"
    checked = caller.run()("doctor", "--region", REGION)
    assert checked.status == 13
    assert f"permissions: {check.message}" in checked.stdout
    completed = check.hint.replace("doctor", f"doctor --region {REGION}")
    assert f"try: {completed}" in checked.stdout
    # A plan makes the same check first, and continues.
    planned = caller.run()("plan", "--region", REGION)
    assert planned.status == 15
    assert "no policy allows apigateway:PATCH" in planned.stderr


def test_a_policy_for_other_places_does_not_count(caller: Caller) -> None:
    """A policy for another project, another service to pass the role to, or one resource type."""

    def elsewhere(statement: Json) -> None:
        if "sagemaker:CreateModel" in statement["Action"]:
            statement["Resource"] = statement["Resource"][0].replace("demo-", "other-")
        if "iam:PassRole" in statement["Action"]:
            statement["Condition"]["StringEquals"]["iam:PassedToService"] = (
                "sagemaker.amazonaws.com"
            )
        if "logs:CreateLogGroup" in statement["Action"]:
            statement["Resource"] = statement["Resource"][:1]

    caller.user(caller.allowed(elsewhere))
    message = caller.check().message
    for action in ("sagemaker:CreateModel", "iam:PassRole", "logs:CreateLogGroup"):
        assert action in message
    assert "lambda:" not in message


def test_an_assumed_role_has_the_policies_of_the_role(caller: Caller) -> None:
    arn = caller.role(caller.allowed(without("cloudformation:CreateChangeSet")))
    check = caller.check()
    assert check.message == f"for {arn}, no policy allows cloudformation:CreateChangeSet"


def test_a_role_with_a_path_is_found(caller: Caller) -> None:
    """A session's ARN leaves the path out; IAM Identity Center's roles have one."""
    arn = caller.role(caller.allowed(), path=SSO_PATH)
    assert SSO_PATH in arn
    assert arn in caller.check().message


def test_what_is_denied_is_told_apart(caller: Caller) -> None:
    deny = {"Effect": "Deny", "Action": "lambda:*", "Resource": "*"}
    denied = {"Version": "2012-10-17", "Statement": [deny]}
    caller.user({**caller.allowed(without("logs:CreateLogGroup")), "denied": denied})
    check = caller.check()
    assert "a policy denies lambda:AddPermission" in check.message
    assert "no policy allows logs:CreateLogGroup" in check.message
    assert "no further policy can allow" in check.hint
    assert "for the other actions, attach" in check.hint


def test_a_permissions_boundary_is_seen(caller: Caller) -> None:
    beyond = {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}
    policy = caller.world.client("iam").create_policy(
        PolicyName="boundary",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [beyond]}),
    )["Policy"]["Arn"]
    caller.user(caller.allowed(), PermissionsBoundary=policy)
    assert "the permissions boundary does not allow iam:CreateRole" in caller.check().message


def test_what_the_settings_do_not_need_is_not_missed(caller: Caller) -> None:
    def fewer(statement: Json) -> None:
        services = {action.partition(":")[0] for action in statement["Action"]}
        if services <= {"scheduler", "application-autoscaling"}:
            statement["Action"] = []

    caller.user(caller.allowed(fewer))
    assert caller.check().outcome == "passed"
    caller.world.flags = {("project", "ttl"): "4h"}
    assert "scheduler:CreateSchedule" in caller.check().message


def test_who_may_not_ask_is_warned(caller: Caller) -> None:
    caller.user(caller.allowed())
    denied = Fault("deny", operation="SimulatePrincipalPolicy")
    caller.world.double.do_wrong(caller.world.account, denied)
    check = caller.check()
    assert check.outcome == "warned"
    assert "iam:SimulatePrincipalPolicy" in check.hint


def test_root_and_strangers(caller: Caller) -> None:
    assert "root user" in caller.check().message
    arn = f"arn:aws:sts::{caller.world.account}:federated-user/bob"
    caller.behave(caller=arn)
    check = caller.check()
    assert (check.outcome, check.hint.partition(" prints")[0]) == (
        "warned",
        "run fdeploy doctor --policy to see the permissions it needs",
    )


def test_actions_that_cannot_be_asked_about_at_once(caller: Caller) -> None:
    caller.user(caller.allowed(without("sagemaker:DeleteModel")))
    caller.behave(simulates_alone=True)
    assert caller.check().message.endswith("no policy allows sagemaker:DeleteModel")
