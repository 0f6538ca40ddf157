"""Whether the caller may do what a deploy needs: the real command, and policies that are evaluated.

The documents that ``doctor --policy`` prints are attached as they are to a user or a role of the
double, whole or with something left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.aws.stage import Open, Stage
from tests.aws_double.faults import Fault
from tests.aws_double.process import REGION
from tests.packaged import Model

Json = Any
SSO_PATH = "/aws-reserved/sso.amazonaws.com/"


@dataclass
class Caller:
    """A stage whose caller has the policies that it is given."""

    stage: Stage
    documents: dict[str, Json] = field(default_factory=dict)

    def allowed(self, change: Callable[[Json], None] = lambda _statement: None) -> dict[str, Json]:
        """The printed documents; ``change`` is told each statement, and may change it."""
        documents: dict[str, Json] = json.loads(json.dumps(self.documents))
        for document in documents.values():
            for statement in document["Statement"]:
                change(statement)
            document["Statement"] = [each for each in document["Statement"] if each["Action"]]
        return documents

    def user(self, policies: dict[str, Json], **options: Any) -> str:
        """Call as a user with these policies from now on."""
        iam = self.stage.client("iam")
        arn = iam.create_user(UserName="ada", **options)["User"]["Arn"]
        for name, policy in policies.items():
            iam.put_user_policy(UserName="ada", PolicyName=name, PolicyDocument=json.dumps(policy))
        self._call_as(arn)
        return str(arn)

    def role(self, policies: dict[str, Json], path: str = "/") -> str:
        """Call as a session of a role with these policies from now on."""
        iam = self.stage.client("iam")
        arn = iam.create_role(RoleName="deployer", Path=path, AssumeRolePolicyDocument="{}")
        for name, policy in policies.items():
            iam.put_role_policy(
                RoleName="deployer", PolicyName=name, PolicyDocument=json.dumps(policy)
            )
        self._call_as(f"arn:aws:sts::{self.stage.account}:assumed-role/deployer/session")
        return str(arn["Role"]["Arn"])

    def behave(self, **behaviour: Any) -> None:
        self.stage.double.behave(self.stage.account, **behaviour)

    def check(self, *flags: str) -> dict[str, Any]:
        """What the real doctor says of permissions."""
        outcome = self.stage.run("doctor", "--region", REGION, "--json", *flags)
        (check,) = [c for c in outcome.json["checks"] if c["name"] == "permissions"]
        assert (outcome.status == 13) == (check["outcome"] == "failed"), outcome.stderr
        return dict(check)

    def _call_as(self, arn: str) -> None:
        self.behave(caller=arn, quota={"ml.m5.large": 2})


@pytest.fixture(scope="module")
def documents(opened: Open, model: Model) -> dict[str, Json]:
    stage = opened(model, "")
    printed: dict[str, Json] = stage.run.ok("doctor", "--policy", "--region", REGION).json
    return json.loads(json.dumps(printed).replace(stage.account, "ACCOUNT"))  # type: ignore[no-any-return]


@pytest.fixture
def caller(opened: Open, model: Model, documents: dict[str, Json]) -> Caller:
    stage = opened(model, "")
    own = json.loads(json.dumps(documents).replace("ACCOUNT", stage.account))
    return Caller(stage, own)


def without(*actions: str) -> Callable[[Json], None]:
    def change(statement: Json) -> None:
        statement["Action"] = [each for each in statement["Action"] if each not in actions]

    return change


def test_the_printed_documents_are_enough(caller: Caller) -> None:
    arn = caller.user(caller.allowed())
    check = caller.check()
    assert check["outcome"] == "passed"
    assert arn in check["message"]
    assert "does not see the policies of sessions" in check["message"]


def test_what_is_missing_is_named(caller: Caller) -> None:
    lost = ("sagemaker:CreateEndpoint", "iam:PassRole", "apigateway:PATCH", "s3:CreateBucket")
    arn = caller.user(caller.allowed(without(*lost)))
    check = caller.check()
    assert check["outcome"] == "failed"
    assert check["message"] == f"for {arn}, no policy allows {', '.join(sorted(lost))}"
    assert check["hint"] == f"attach to {arn} what fdeploy doctor --policy prints"
    # Before every plan, too, which goes on.
    planned = caller.stage.run("plan", "--region", REGION)
    assert planned.status == 2
    assert "no policy allows apigateway:PATCH" in planned.stderr


def test_a_policy_for_other_places_does_not_count(caller: Caller) -> None:
    """Of another project, another service that the role is passed to, one kind of resource."""

    def elsewhere(statement: Json) -> None:
        if "sagemaker:CreateModel" in statement["Action"]:
            statement["Resource"] = statement["Resource"][0].replace("demo-", "other-")
        if "iam:PassRole" in statement["Action"]:
            statement["Condition"]["StringEquals"]["iam:PassedToService"] = "lambda.amazonaws.com"
        if "logs:CreateLogGroup" in statement["Action"]:
            statement["Resource"] = statement["Resource"][:1]

    caller.user(caller.allowed(elsewhere))
    message = caller.check()["message"]
    for action in ("sagemaker:CreateModel", "iam:PassRole", "logs:CreateLogGroup"):
        assert action in message
    assert "lambda:" not in message


def test_an_assumed_role_has_the_policies_of_the_role(caller: Caller) -> None:
    arn = caller.role(caller.allowed(without("cloudformation:CreateChangeSet")))
    check = caller.check()
    assert check["message"] == f"for {arn}, no policy allows cloudformation:CreateChangeSet"


def test_a_role_with_a_path_is_found(caller: Caller) -> None:
    """A session's ARN leaves the path out; IAM Identity Center's roles have one."""
    arn = caller.role(caller.allowed(), path=SSO_PATH)
    assert SSO_PATH in arn
    assert arn in caller.check()["message"]


def test_what_is_denied_is_told_apart(caller: Caller) -> None:
    deny = {"Effect": "Deny", "Action": "lambda:*", "Resource": "*"}
    denied = {"Version": "2012-10-17", "Statement": [deny]}
    caller.user({**caller.allowed(without("logs:CreateLogGroup")), "denied": denied})
    check = caller.check()
    assert "a policy denies lambda:AddPermission" in check["message"]
    assert "no policy allows logs:CreateLogGroup" in check["message"]
    assert "no further policy can allow" in check["hint"]
    assert "for the others attach" in check["hint"]


def test_a_permissions_boundary_is_seen(caller: Caller) -> None:
    beyond = {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}
    policy = caller.stage.client("iam").create_policy(
        PolicyName="boundary",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [beyond]}),
    )["Policy"]["Arn"]
    caller.user(caller.allowed(), PermissionsBoundary=policy)
    assert "the permissions boundary does not allow iam:CreateRole" in caller.check()["message"]


def test_what_the_settings_do_not_need_is_not_missed(caller: Caller) -> None:
    def fewer(statement: Json) -> None:
        services = {action.partition(":")[0] for action in statement["Action"]}
        if services <= {"scheduler", "application-autoscaling"}:
            statement["Action"] = []

    caller.user(caller.allowed(fewer))
    assert caller.check()["outcome"] == "passed"
    caller.stage.folder.joinpath("fdeploy.toml").write_text('[project]\nttl = "4h"\n')
    assert "scheduler:CreateSchedule" in caller.check()["message"]


def test_who_may_not_ask_is_warned(caller: Caller) -> None:
    caller.user(caller.allowed())
    caller.stage.double.do_wrong(
        caller.stage.account, Fault("deny", operation="SimulatePrincipalPolicy")
    )
    check = caller.check()
    assert check["outcome"] == "warned"
    assert "iam:SimulatePrincipalPolicy" in check["hint"]


def test_root_and_strangers(caller: Caller) -> None:
    assert "root user" in caller.check()["message"]
    arn = f"arn:aws:sts::{caller.stage.account}:federated-user/bob"
    caller.behave(caller=arn)
    check = caller.check()
    assert (check["outcome"], check["hint"].partition(" prints")[0]) == (
        "warned",
        "fdeploy doctor --policy",
    )


def test_actions_that_cannot_be_asked_about_at_once(caller: Caller) -> None:
    caller.user(caller.allowed(without("sagemaker:DeleteModel")))
    caller.behave(simulates_alone=True)
    assert caller.check()["message"].endswith("no policy allows sagemaker:DeleteModel")
