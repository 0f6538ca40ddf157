"""Names of all resources, derived from the project and the stage.

A project name has at most 30 characters and a stage name 16, so ``<project>-<stage>`` has at most
47. ``tests/test_naming.py`` checks that every name here stays within its service's limit.
"""

from __future__ import annotations

import re

# Keys of the tags on every created resource; the teardown inventory searches for them.
PROJECT_TAG = "fdeploy:project"
STAGE_TAG = "fdeploy:stage"
VERSION_TAG = "fdeploy:version"
ID_TAG = "fdeploy:id"  # on stacks, which hand it on; of a project that has an id

# What a learner's name begins with if it is a repository of the Hugging Face Hub.
HUB = "hf:"

# The bucket may be the user's own, so fdeploy uses only one folder of it.
_FOLDER = "fdeploy"


def endpoint_name(project: str, stage: str, kind: str = "real-time") -> str:
    """The endpoint's name; at most 58 characters of the 63 that SageMaker allows.

    SageMaker cannot change the kind of an endpoint, so each kind has its own name. That of kind
    ``lambda`` is a function's, of which Lambda allows 64.
    """
    return f"{project}-{stage}" if kind == "real-time" else f"{project}-{stage}-{kind}"


def endpoint_stack(project: str, stage: str) -> str:
    """The stack of the endpoint; at most 56 characters of the 128 that CloudFormation allows."""
    return f"{project}-{stage}-endpoint"


def function_stack(project: str, stage: str) -> str:
    """The stack of the model in a function; at most 56 characters of 128."""
    return f"{project}-{stage}-function"


def model_stack(project: str, stage: str, kind: str) -> str:
    """The stack that serves the model."""
    return function_stack(project, stage) if kind == "lambda" else endpoint_stack(project, stage)


ALIAS = "live"
"""The alias of the model's function, which the API and users ask."""


def api_stack(project: str, stage: str) -> str:
    """The stack of the API; at most 51 characters of 128."""
    return f"{project}-{stage}-api"


def ttl_stack(project: str, stage: str) -> str:
    """The stack that deletes the other two when ``ttl`` expires; at most 51 characters of 128."""
    return f"{project}-{stage}-ttl"


def batch_stack(project: str, stage: str) -> str:
    """The stack of a batch transform, its model and role; at most 53 characters of 128."""
    return f"{project}-{stage}-batch"


TRANSFORM_RUN = "[0-9a-f]{8}-[0-9]{4}"
"""The pattern of the end of a transform job's name: the run and the attempt."""


def transform_job(project: str, stage: str, run: str, attempt: int) -> str:
    """A transform job's name; at most 61 characters of the 63 that SageMaker allows.

    ``run`` has 8 characters. A name can be used once, so each attempt has its own.
    """
    return f"{project}-{stage}-{run}-{attempt:04}"


def function_name(project: str, stage: str) -> str:
    """The Lambda's name; at most 51 characters of 64."""
    return f"{project}-{stage}-api"


def role_path(project: str, stage: str) -> str:
    """The path of the stage's IAM roles, used to find them and to scope permissions."""
    return f"/fdeploy/{project}-{stage}/"


def short(digest: str) -> str:
    """The first digits of a hash, by which people tell versions apart."""
    return digest[:12]


def versioned_name(project: str, stage: str, digest: str) -> str:
    """A model's or an endpoint configuration's name; at most 60 characters of 63.

    CloudFormation creates the new one before it deletes the old one, so their names must differ.
    """
    return f"{project}-{stage}-{short(digest)}"


def alarm_name(project: str, stage: str, about: str) -> str:
    """An alarm's name, such as ``demo-dev-endpoint-errors``; at most 255 characters."""
    return f"{project}-{stage}-{about}"


def endpoint_log_group(endpoint: str) -> str:
    """The log group of an endpoint's containers."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def function_log_group(function: str) -> str:
    """The log group of a Lambda function."""
    return f"/aws/lambda/{function}"


def access_log_group(project: str, stage: str) -> str:
    """The log group where API Gateway writes one line per request."""
    return f"/aws/apigateway/{project}-{stage}"


def image_repository(project: str) -> str:
    """The repository of the project's container images in ECR; at most 38 characters of 256."""
    return f"{_FOLDER}/{project}"


_USED_BY = "stage."  # no image is named like this, and no stage has a full stop in its name


def image_tag(version: str, machine: str, digest: str) -> str:
    """The tag of an image of fdeploy's server, by a hexadecimal digest of what it is made of."""
    return f"{version.replace('+', '-')}-{machine}-{digest[:12]}"


def is_image_tag(tag: str) -> bool:
    """Whether a tag is one of :func:`image_tag`, or of :func:`stage_tag` for such a one."""
    return re.fullmatch(r".+-(x86_64|aarch64)-[0-9a-f]{12}", tag) is not None


def stage_tag(stage: str, tag: str) -> str:
    """The tag that says of an image that a stage uses it; 23 characters longer at most.

    A registry takes tags of 128 characters.
    """
    return f"{_USED_BY}{stage}.{tag}"


def stage_of_tag(tag: str) -> str:
    """The stage that a tag of an image is for; empty for the image's own tag."""
    return tag.removeprefix(_USED_BY).partition(".")[0] if tag.startswith(_USED_BY) else ""


def artifact_key(project: str, sha256: str) -> str:
    """The key of an artifact in the bucket; the stages of a project share it."""
    return f"{_FOLDER}/{project}/models/{sha256}/model.tar.gz"


def code_key(project: str, sha256: str) -> str:
    """The key of the Lambda package in the bucket."""
    return f"{_FOLDER}/{project}/lambda/{sha256}.zip"


def project_folder(project: str) -> str:
    """The prefix of all objects of a project in the bucket."""
    return f"{_FOLDER}/{project}/"


def stage_folder(project: str, stage: str) -> str:
    """The prefix of the objects that only this stage uses."""
    return f"{_FOLDER}/{project}/stages/{stage}/"


def template_key(project: str, stage: str, digest: str) -> str:
    """The key of a template in the bucket while CloudFormation reads it."""
    return f"{_FOLDER}/{project}/stages/{stage}/templates/{digest}.yaml"


def batch_prefix(project: str, stage: str) -> str:
    """The prefix of what batch transforms read and write."""
    return f"{_FOLDER}/{project}/stages/{stage}/batch"


def captured_prefix(project: str, stage: str) -> str:
    """The prefix of captured requests and answers in the bucket."""
    return f"{_FOLDER}/{project}/stages/{stage}/captured"


def async_prefix(project: str, stage: str) -> str:
    """The prefix where an asynchronous endpoint reads requests and writes answers."""
    return f"{_FOLDER}/{project}/stages/{stage}/async"
