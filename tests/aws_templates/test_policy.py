"""The printed policy allows what a deploy needs, and fits into a managed policy."""

from __future__ import annotations

import ast
import fnmatch
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import botocore
import botocore.session

import fastai_deploy
from fastai_deploy.aws.client_errors import permission
from fastai_deploy.aws.permissions import (
    CALLED_VIA,
    MAX_CHARACTERS,
    Needs,
    boundary,
    role_policies,
    user_policies,
)
from fastai_deploy.aws.specs import Roles
from tests.aws_templates.handlers import FILE, UNUSED, permissions, text
from tests.aws_templates.scenarios import BOUNDARY, BUCKET, KMS_KEY, goldens

_ROLE = f"arn:aws-us-gov:iam::123456789012:role/{'r' * 63}"
LONGEST = Needs(
    "p" * 30,
    "fdeploy-123456789012-ap-southeast-1",
    partition="aws-us-gov",
    kms_key=KMS_KEY,
    signs_requests=True,
    roles=Roles(boundary=BOUNDARY, execution=f"{_ROLE}1", function=f"{_ROLE}2"),
    own_image=True,
)
WITH_ROLE = replace(LONGEST, roles=replace(LONGEST.roles, cloudformation=_ROLE))


def statements(needs: Needs) -> Iterator[Any]:
    """Every statement of the caller's documents."""
    for document in user_policies(needs).values():
        yield from document["Statement"]


def actions(needs: Needs) -> set[str]:
    """Everything that the caller's documents allow."""
    return {action for item in statements(needs) for action in item["Action"]}


def handled() -> Iterator[tuple[str, str]]:
    """What CloudFormation's handlers call for the templates, each with what for."""
    for kind, verbs in permissions().items():
        for verb, needed in verbs.items():
            for action in needed:
                yield action, f"{kind} {verb}: {action}"


def test_each_document_fits_into_a_managed_policy() -> None:
    documents = [*user_policies(LONGEST).items(), *role_policies(WITH_ROLE).items()]
    for name, document in documents:
        assert len(re.sub(r"\s", "", json.dumps(document))) <= MAX_CHARACTERS, name


def test_no_action_is_a_pattern() -> None:
    assert not [action for action in actions(LONGEST) if "*" in action]


def test_what_is_changed_is_the_projects_own() -> None:
    for document in user_policies(Needs("demo", BUCKET, own_image=True)).values():
        for item in document["Statement"]:
            if item["Resource"] == "*":
                verbs = {action.split(":")[1] for action in item["Action"]}
                changing = {verb for verb in verbs if not re.match("Describe|Get|List", verb)}
                assert all(
                    "LogDelivery" in verb or verb == "PutResourcePolicy" for verb in changing
                )


def test_cloudformation_may_do_all_that_its_handlers_do() -> None:
    granted = actions(LONGEST)
    for needed, what in handled():
        assert needed in granted, what


def test_the_double_checks_the_permissions_of_the_registry() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "python -m tests.aws_templates.handlers"


def test_a_role_of_cloudformation_may_do_the_same() -> None:
    granted = {
        action
        for name, document in role_policies(WITH_ROLE).items()
        if name != "boundary"
        for item in document["Statement"]
        for action in item["Action"]
    }
    for needed, what in handled():
        assert needed in granted, what


def test_what_only_cloudformation_calls_is_allowed_only_through_it() -> None:
    """But for passing a role on, of which AWS does not document that it says who calls."""
    itself = {*called(), "iam:PassRole", "iam:CreateServiceLinkedRole"}
    itself.add("sagemaker:UpdateEndpointWeightsAndCapacities")  # where autoscaling is switched off
    itself.add("sagemaker:AddTags")  # those of a transform job
    for item in statements(LONGEST):
        called_via = item.get("Condition", {}).get("ForAnyValue:StringEquals", {})
        if called_via != {CALLED_VIA: "cloudformation.amazonaws.com"}:
            spare = {
                action for action in item["Action"] if re.match(r"[\w-]+:(Describe|List)", action)
            }
            # These are permissions of calls by other names, or of S3's own checks.
            spare |= {"s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObjectVersion"}
            spare |= {"s3:PutBucketOwnershipControls", "execute-api:Invoke"}
            spare.add("lambda:InvokeFunctionUrl")  # a signed request to a function's URL
            spare |= {a for a in item["Action"] if a.startswith("kms:")}
            # The registry checks these itself when an image is pushed or read.
            spare |= {"ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer"}
            spare |= {f"ecr:{a}" for a in ("InitiateLayerUpload", "UploadLayerPart")}
            spare.add("ecr:CompleteLayerUpload")
            assert set(item["Action"]) <= itself | spare


def test_with_a_role_of_cloudformation_the_caller_makes_nothing() -> None:
    """But for what no stack has: objects in the bucket, change sets, transform jobs, images."""
    for item in statements(WITH_ROLE):
        if re.search(":transform-job/|:repository/fdeploy/", str(item["Resource"])):
            continue
        for action in item["Action"]:
            service, verb = action.split(":")
            if service not in ("cloudformation", "s3", "kms"):
                assert not re.match(
                    "Create|Put(?!RetentionPolicy)|Add|Update(?!EndpointWeights)|Register|POST|PUT",
                    verb,
                )
    (passed,) = [item for item in statements(WITH_ROLE) if "iam:PassRole" in item["Action"]]
    assert passed["Resource"] == _ROLE
    assert passed["Condition"]["StringEquals"]["iam:PassedToService"] == [
        "cloudformation.amazonaws.com"
    ]


def test_a_role_is_made_only_with_the_boundary() -> None:
    making = ("iam:CreateRole", "iam:PutRolePolicy")
    for needs, documents in (
        (LONGEST, user_policies(LONGEST)),
        (WITH_ROLE, role_policies(WITH_ROLE)),
    ):
        found = [
            item
            for document in documents.values()
            for item in document["Statement"]
            if set(making) & set(item["Action"])
        ]
        assert [item["Action"] for item in found] == [[*making]]
        bound = found[0]["Condition"]["StringEquals"]["iam:PermissionsBoundary"]
        assert bound == needs.roles.boundary
    everything = json.dumps([user_policies(LONGEST), role_policies(WITH_ROLE)])
    for escape in ("RolePermissionsBoundary", "AttachRolePolicy", "CreatePolicyVersion"):
        assert escape not in everything


def test_with_both_roles_given_none_can_be_made() -> None:
    needs = replace(LONGEST, makes_roles=False)
    assert not {"iam:CreateRole", "iam:PutRolePolicy"} & actions(needs)
    passed = [item["Resource"] for item in statements(needs) if "iam:PassRole" in item["Action"]]
    assert passed == [needs.roles.execution, needs.roles.function]


def test_the_boundary_allows_what_every_role_may_do() -> None:
    within = boundary(Needs("demo", BUCKET, kms_key=KMS_KEY))["Statement"]
    for golden in goldens():
        for item in golden.document.get("Resources", {}).values():
            for policy in item["Properties"].get("Policies", ()) if "Role" in item["Type"] else ():
                for statement in policy["PolicyDocument"]["Statement"]:
                    for action in {*statement["Action"]} - {*UNUSED}:
                        for resource in _listed(statement["Resource"]):
                            assert any(
                                _covers(one, action, resource, statement.get("Condition"))
                                for one in within
                            ), f"{golden.name}: {action} on {resource}"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _covers(statement: Any, action: str, resource: Any, condition: Any) -> bool:
    """Whether a statement of the boundary allows an action of a role, on what it is for."""
    text = resource["Fn::Sub"] if isinstance(resource, dict) else resource
    text = text.replace("${AWS::Partition}", "aws").replace("${AWS::AccountId}", "123456789012")
    text = text.replace("${AWS::Region}", "eu-central-1")
    return (
        action in statement["Action"]
        and any(fnmatch.fnmatchcase(text, one) for one in _listed(statement["Resource"]))
        and _includes(statement.get("Condition"), condition)
    )


def _includes(wider: Any, condition: Any) -> bool:
    """Whether a condition is another one, or that one with more values."""
    if wider in (None, condition):
        return True
    if isinstance(wider, list):
        return condition in wider
    both = (
        isinstance(wider, dict) and isinstance(condition, dict) and wider.keys() == condition.keys()
    )
    return both and all(_includes(wider[key], condition[key]) for key in wider)


def test_fdeploy_may_do_all_that_it_does_itself() -> None:
    granted = actions(LONGEST) | {"sts:GetCallerIdentity"}
    assert called() - granted == set()


def called() -> set[str]:
    """The permissions of every operation that fdeploy's own code calls."""
    found = set()
    for service, operation in _operations():
        model = SESSION.get_service_model(service)
        names = {botocore.xform_name(name): name for name in model.operation_names}
        found.add(permission(service, names[operation]))
    return found


SESSION = botocore.session.get_session()
DOORS = frozenset(("call", "pages", "_ask", "_delete"))  # each takes a service and an operation


def _operations() -> Iterator[tuple[str, str]]:
    """Service and operation of every call below aws/ and targets/aws/.

    Where the operation is a variable, every operation of the service that the module names counts.
    """
    package = Path(fastai_deploy.__file__).parent
    for path in (*(package / "aws").rglob("*.py"), *(package / "targets" / "aws").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        for service, operation in _calls(tree):
            if isinstance(operation, ast.Constant):
                yield service, str(operation.value)
                continue
            known = SESSION.get_service_model(service).operation_names
            named = texts & {botocore.xform_name(each) for each in known}
            assert named, f"{path.name}: no operation of {service} is named"
            for each in named:
                yield service, each


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """The service and the second argument of every call through a door."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name in DOORS:
            continue
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr in DOORS and len(node.args) > 1:
            service, operation = node.args[:2]
            if isinstance(service, ast.Constant):
                yield str(service.value), operation
            elif isinstance(service, ast.Name) and service.id == "service":
                continue  # what a door passes on


def test_operations_that_are_passed_as_variables_are_seen() -> None:
    assert {
        "cloudformation:ContinueUpdateRollback",
        "cloudformation:RollbackStack",
        "sagemaker:ListModels",
        "servicequotas:ListAWSDefaultServiceQuotas",
    } <= called()
