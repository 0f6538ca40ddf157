"""The model, its endpoint configuration and the endpoint itself.

A model and a configuration cannot be changed, so what they are is in their names: another version
makes new ones, the endpoint moves over to them and keeps its name, and then the old ones go.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastai_deploy.aws.template.intrinsics import Json, Resource, attribute, digest, resource, tags
from fastai_deploy.aws.template.spec import (
    VARIANT,
    EndpointSpec,
    Instances,
    ModelSpec,
    Serverless,
)
from fastai_deploy.naming import versioned_name

ROLE = "ExecutionRole"
MODEL = "Model"
CONFIG = "EndpointConfig"
ENDPOINT = "Endpoint"


@dataclass(frozen=True)
class Named:
    """A resource and its name."""

    name: str
    resource: Resource


def model(spec: EndpointSpec, role: Resource) -> Named:
    """The container and its artifact; another ``role`` makes it another model, too."""
    owner, wanted = spec.common.owner, spec.model
    properties = {
        "ExecutionRoleArn": attribute(ROLE, "Arn"),
        "EnableNetworkIsolation": wanted.isolated,
        "PrimaryContainer": {
            "Image": wanted.image,
            "ModelDataUrl": wanted.artifact.uri,
            "Environment": dict(wanted.environment),
        },
        "VpcConfig": _vpc(wanted),
    }
    name = versioned_name(
        owner.project, owner.stage, digest([properties, role["Properties"]["Path"]])
    )
    return Named(
        name,
        resource(
            "AWS::SageMaker::Model",
            {"ModelName": name, **properties, "Tags": tags(spec.common, spec.version)},
        ),
    )


def configuration(spec: EndpointSpec, model_name: str) -> Named:
    """What the endpoint runs, and on what."""
    owner, key = spec.common.owner, spec.common.kms_key
    properties = {
        "ProductionVariants": [_variant(spec.capacity, model_name)],
        "KmsKeyId": key if _encrypts(spec.capacity) else None,
        "DataCaptureConfig": _capture(spec),
        "AsyncInferenceConfig": _queue(spec),
    }
    name = versioned_name(owner.project, owner.stage, digest(properties))
    return Named(
        name,
        resource(
            "AWS::SageMaker::EndpointConfig",
            {"EndpointConfigName": name, **properties, "Tags": tags(spec.common, spec.version)},
            DependsOn=[MODEL],
        ),
    )


def endpoint(spec: EndpointSpec, config: str, *, alarms: list[str], after: list[str]) -> Resource:
    """The endpoint; ``alarms`` are the logical ids of those that undo an update."""
    return resource(
        "AWS::SageMaker::Endpoint",
        {
            "EndpointName": spec.name,
            "EndpointConfigName": config,
            "DeploymentConfig": _deployment(spec, alarms),
            "Tags": tags(spec.common, spec.version),
        },
        DependsOn=[CONFIG, *after],
    )


def _vpc(wanted: ModelSpec) -> Json:
    if wanted.vpc is None:
        return None
    return {
        "Subnets": list(wanted.vpc.subnets),
        "SecurityGroupIds": list(wanted.vpc.security_groups),
    }


def _variant(capacity: Instances | Serverless, model_name: str) -> Json:
    variant: dict[str, Json] = {
        "VariantName": VARIANT,
        "ModelName": model_name,
        "InitialVariantWeight": 1,
    }
    if isinstance(capacity, Serverless):
        config = {"MemorySizeInMB": capacity.memory, "MaxConcurrency": capacity.concurrency}
        if capacity.provisioned:
            config["ProvisionedConcurrency"] = capacity.provisioned
        return {**variant, "ServerlessConfig": config}
    variant |= {
        "InstanceType": capacity.type,
        "InitialInstanceCount": capacity.count,
        "ContainerStartupHealthCheckTimeoutInSeconds": capacity.startup_timeout,
        "ModelDataDownloadTimeoutInSeconds": capacity.download_timeout,
    }
    if capacity.inference_ami:
        variant["InferenceAmiVersion"] = capacity.inference_ami
    return variant


def _encrypts(capacity: Instances | Serverless) -> bool:
    return isinstance(capacity, Instances) and capacity.encrypts_volume


def _capture(spec: EndpointSpec) -> Json:
    if spec.capture is None:
        return None
    config = {
        "EnableCapture": True,
        "InitialSamplingPercentage": spec.capture.percent,
        "DestinationS3Uri": spec.capture.destination.uri,
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        # Otherwise the texts are stored as base64.
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }
    return {**config, "KmsKeyId": spec.common.kms_key} if spec.common.kms_key else config


def _queue(spec: EndpointSpec) -> Json:
    if spec.output is None:
        return None
    place = spec.output.uri
    output = {"S3OutputPath": f"{place}/output", "S3FailurePath": f"{place}/failed"}
    if spec.common.kms_key:
        output["KmsKeyId"] = spec.common.kms_key
    return {"OutputConfig": output}


def _deployment(spec: EndpointSpec, alarms: list[str]) -> Json:
    """Blue/green: the new fleet beside the old one, which goes when the alarms were quiet."""
    if isinstance(spec.capacity, Serverless):
        return None  # guardrails are for instances; a serverless update needs none
    bake = spec.rollout.bake
    routing: dict[str, Json] = {"Type": "ALL_AT_ONCE"}
    if spec.rollout.canary:
        routing = {
            "Type": "CANARY",
            "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1},
            "WaitIntervalInSeconds": bake,
        }
    config: dict[str, Json] = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": bake,
        }
    }
    if alarms:
        watched = [{"AlarmName": {"Ref": alarm}} for alarm in alarms]
        config["AutoRollbackConfiguration"] = {"Alarms": watched}
    return config
