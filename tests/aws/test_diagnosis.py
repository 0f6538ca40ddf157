"""Names, request tokens and likely causes, derived from texts."""

from __future__ import annotations

import re

import pytest

from fastai_deploy.aws.inventory import ResourceRef, of_arn, of_resource
from fastai_deploy.aws.ownership import Operator, Owner
from fastai_deploy.aws.rollout import diagnose
from fastai_deploy.aws.stacks import Resource


def test_a_token_says_who_began() -> None:
    operator = Operator.here()
    token = operator.token()
    # ClientRequestToken and the name of a change set (CloudFormation's API reference).
    assert re.fullmatch(r"[a-zA-Z0-9][-a-zA-Z0-9]{0,127}", token)
    assert Operator.of(token) == operator
    assert token != operator.token()
    assert Operator.of("Console-CreateStack-1234") is None
    assert Operator.of("") is None


def test_an_owner_owns_what_carries_its_tags() -> None:
    owner = Owner("demo", "dev")
    assert owner.owns({**owner.tags, "team": "nlp"})
    assert not owner.owns({"fdeploy:project": "demo"})
    assert not owner.owns({**owner.tags, "fdeploy:stage": "prod"})


@pytest.mark.parametrize(
    ("arn", "thing"),
    [
        ("arn:aws:sagemaker:eu-central-1:1:endpoint/demo-dev", ResourceRef("endpoint", "demo-dev")),
        ("arn:aws:sagemaker:r:1:endpoint-config/a-1", ResourceRef("endpoint configuration", "a-1")),
        ("arn:aws:logs:r:1:log-group:/aws/lambda/f:*", ResourceRef("log group", "/aws/lambda/f")),
        ("arn:aws:logs:r:1:log-group:/aws/lambda/f", ResourceRef("log group", "/aws/lambda/f")),
        ("arn:aws:lambda:r:1:function:f", ResourceRef("function", "f")),
        ("arn:aws:apigateway:r::/restapis/abc", ResourceRef("REST API", "abc")),
        (
            "arn:aws:apigateway:r::/restapis/abc/stages/dev",
            ResourceRef("API stage", "abc/stages/dev"),
        ),
        ("arn:aws:apigateway:r::/apikeys/k", ResourceRef("API key", "k")),
        ("arn:aws:cloudwatch:r:1:alarm:a", ResourceRef("alarm", "a")),
        ("arn:aws:iam::1:role/fdeploy/demo-dev/x/name", ResourceRef("role", "name")),
        ("arn:aws:cloudformation:r:1:stack/demo-dev-api/id", ResourceRef("stack", "demo-dev-api")),
        ("arn:aws:sqs:r:1:queue", ResourceRef("resource", "arn:aws:sqs:r:1:queue")),
        ("no arn", ResourceRef("resource", "no arn")),
    ],
)
def test_a_thing_has_one_name_however_it_is_found(arn: str, thing: ResourceRef) -> None:
    assert of_arn(arn) == thing


def test_a_resource_of_a_stack_is_the_same_thing() -> None:
    arn = "arn:aws:sagemaker:r:1:model/demo-dev-1"
    assert of_resource(Resource("Model", arn, "AWS::SageMaker::Model", "")) == of_arn(arn)
    role = Resource("Role", "name", "AWS::IAM::Role", "")
    assert of_resource(role) == ResourceRef("role", "name")
    other = Resource("M", "id", "AWS::ApiGateway::Method", "")
    assert of_resource(other) == ResourceRef("ApiGateway::Method", "id")


@pytest.mark.parametrize(
    ("reason", "line", "what"),
    [
        ("did not pass the ping health check", "", "did not become healthy in time"),
        ("did not pass the ping health check", "ModuleNotFoundError: onnx", "a required package"),
        ("did not pass the ping health check", "Worker died.", "worker died"),
        ("did not pass the ping health check", "MemoryError", "does not fit in memory"),
        ("ResourceLimitExceeded: The account-level service limit", "", "quota"),
        ("due to InsufficientInstanceCapacity error", "", "no capacity for this instance"),
        ("Could not find model data at s3://a/b.", "", "no longer in the bucket"),
        (
            "User: x is not authorized to perform: ecr:BatchGetImage",
            "",
            "x lacks the permission ecr:BatchGetImage",
        ),
        ("The repository of the image x does not exist", "", "the container image"),
        # As CreateFunction was seen to word it.
        (
            "Value python3.13 at 'runtime' failed to satisfy constraint: Member must satisfy enum",
            "",
            "Lambda has no Python 3.13 in this region",
        ),
    ],
)
def test_likely_causes(reason: str, line: str, what: str) -> None:
    cause = diagnose(reason, [line])
    assert cause is not None
    assert what in cause.what
    assert cause.hint


def test_an_unknown_cause_is_not_guessed() -> None:
    assert diagnose("something new", ["that nobody knows"]) is None
