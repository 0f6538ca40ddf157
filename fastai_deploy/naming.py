"""The names of what a project creates, all from its name and its stage.

A project's name has at most 30 characters and a stage's 16, so that ``<project>-<stage>`` has at
most 47. Every name here is within its service's limit for all of them (``tests/test_naming.py``).
"""

from __future__ import annotations

# Keys of the tags on everything that is created; an inventory finds by them.
PROJECT_TAG = "fdeploy:project"
STAGE_TAG = "fdeploy:stage"
VERSION_TAG = "fdeploy:version"

# The bucket may be the user's own, so fdeploy keeps to one folder of it.
_FOLDER = "fdeploy"


def endpoint_name(project: str, stage: str, kind: str = "real-time") -> str:
    """The endpoint's name; at most 58 characters of the 63 that SageMaker allows.

    SageMaker cannot turn an endpoint of one kind into another, so each kind has a name of its own.
    """
    return f"{project}-{stage}" if kind == "real-time" else f"{project}-{stage}-{kind}"


def endpoint_stack(project: str, stage: str) -> str:
    """The stack of the endpoint; at most 56 characters of the 128 that CloudFormation allows."""
    return f"{project}-{stage}-endpoint"


def api_stack(project: str, stage: str) -> str:
    """The stack of the API; at most 51 characters of 128."""
    return f"{project}-{stage}-api"


def ttl_stack(project: str, stage: str) -> str:
    """The stack that deletes the other two when their time is up; at most 51 of 128."""
    return f"{project}-{stage}-ttl"


def function_name(project: str, stage: str) -> str:
    """The Lambda's name; at most 51 characters of 64."""
    return f"{project}-{stage}-api"


def role_path(project: str, stage: str) -> str:
    """The path of the stage's IAM roles, by which they are found and permissions are scoped."""
    return f"/fdeploy/{project}-{stage}/"


def versioned_name(project: str, stage: str, digest: str) -> str:
    """A model's or an endpoint configuration's name; at most 60 characters of 63.

    CloudFormation makes the new one before it removes the old one, so what they are is in the name.
    """
    return f"{project}-{stage}-{digest[:12]}"


def alarm_name(project: str, stage: str, about: str) -> str:
    """An alarm's name, such as ``demo-dev-endpoint-errors``; 255 characters are allowed."""
    return f"{project}-{stage}-{about}"


def endpoint_log_group(endpoint: str) -> str:
    """Where SageMaker writes what the containers of an endpoint say."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def function_log_group(function: str) -> str:
    """Where Lambda writes what a function says."""
    return f"/aws/lambda/{function}"


def access_log_group(project: str, stage: str) -> str:
    """Where API Gateway writes a line a request."""
    return f"/aws/apigateway/{project}-{stage}"


def artifact_key(project: str, sha256: str) -> str:
    """Where an artifact stands in the bucket; the stages of a project share it."""
    return f"{_FOLDER}/{project}/models/{sha256}/model.tar.gz"


def code_key(project: str, sha256: str) -> str:
    """Where the Lambda's package stands in the bucket."""
    return f"{_FOLDER}/{project}/lambda/{sha256}.zip"


def project_folder(project: str) -> str:
    """Below which everything of a project stands in the bucket."""
    return f"{_FOLDER}/{project}/"


def stage_folder(project: str, stage: str) -> str:
    """Below which everything stands that no other stage uses."""
    return f"{_FOLDER}/{project}/stages/{stage}/"


def template_key(project: str, stage: str, digest: str) -> str:
    """Where a template stands in the bucket while CloudFormation reads it."""
    return f"{_FOLDER}/{project}/stages/{stage}/templates/{digest}.yaml"


def captured_prefix(project: str, stage: str) -> str:
    """Below which captured requests and answers stand in the bucket."""
    return f"{_FOLDER}/{project}/stages/{stage}/captured"


def async_prefix(project: str, stage: str) -> str:
    """Below which an asynchronous endpoint reads requests and writes answers in the bucket."""
    return f"{_FOLDER}/{project}/stages/{stage}/async"
