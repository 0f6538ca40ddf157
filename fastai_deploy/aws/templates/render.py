"""The templates of a stage, with the parameters that its specs give.

    EndpointSpec ──> endpoint.yaml        ApiSpec ──> api.yaml        TtlSpec ──> expiry.yaml
    FunctionSpec ──> function.yaml       its URL ──> api_url.yaml

CloudFormation's own parameters and conditions do nearly all. What they cannot express is worked
out here: names that end in a hash of what they name, and lists that a line ``# insert: NAME`` of a
template stands for. The same spec gives the same template on any machine and day. Accounts and
regions are pseudo parameters, so that a template can be taken away.
"""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from typing import Any

import yaml

from fastai_deploy.aws.specs import (
    BATCH_PERCENT,
    ApiSpec,
    Common,
    EndpointSpec,
    FunctionSpec,
    Instances,
    Serverless,
    TtlSpec,
    Vpc,
)
from fastai_deploy.aws.templates.api_body import api_body
from fastai_deploy.aws.templates.template import Template, evaluate, load
from fastai_deploy.naming import ALIAS, role_path, versioned_name

Json = Any
Parameters = dict[str, str]
_INSERT = r"(?m)^ *# insert: {name}\n"
_DEPLOYMENT = "DeploymentOfBody"
_ALIAS = "LiveAlias"
_NEAR = 0.8  # of the time that a request has
_ROLE_HASH = 12  # digits
_DATE = "%Y-%m-%dT%H:%M:%S"
_OF_TRANSFORM = ("ExecutionRole", "Model")
TRANSFORM_GROUP = "/aws/sagemaker/TransformJobs"
"""The log group, and the namespace of metrics, of all transform jobs of an account."""
_TRANSFORM_LOGS = (
    "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:"
    f"{TRANSFORM_GROUP}:*"
)
_CLOCKS_DIFFER = timedelta(minutes=1)


def endpoint_template(spec: EndpointSpec) -> Template:
    """The stack of an endpoint."""
    owner = spec.common.owner
    text = _text("endpoint.yaml", {"NetworkArns": _network_arns(spec.model.vpc)})
    values = {
        **_endpoint_parameters(spec),
        "ExecutionRoleArn": spec.common.roles.execution or "",
        "KeepInstances": "false",
        **dict.fromkeys(("RolePath", "ModelName", "EndpointConfigName"), ""),
    }
    document = load(text)
    values["RolePath"] = _role_path(spec.common, document, values, "ExecutionRole")
    # A property that is not there counts as one without a value.
    model = {"VpcConfig": None, **_named(document, values, "Model")}
    digest = _digest([model, values["RolePath"]])
    values["ModelName"] = versioned_name(owner.project, owner.stage, digest)
    config: dict[str, Json] = dict.fromkeys(
        ("KmsKeyId", "DataCaptureConfig", "AsyncInferenceConfig")
    )
    digest = _digest(config | _named(document, values, "EndpointConfig"))
    values["EndpointConfigName"] = versioned_name(owner.project, owner.stage, digest)
    return Template(text, values)


def transform_template(spec: EndpointSpec) -> Template:
    """The stack of a batch transform: the model and the role of an asynchronous endpoint.

    Both read requests from the bucket and write answers to it. What differs is where the containers
    log. Source: "CreateTransformJob API: Execution Role Permissions" of the SageMaker developer
    guide.
    """
    owner = spec.common.owner
    made = endpoint_template(spec).evaluated()["Resources"]
    kept = {name: made[name] for name in _OF_TRANSFORM if name in made}
    model = kept["Model"]["Properties"]
    # With a role of the user's own, an asynchronous endpoint may have the same model.
    digest = _digest([spec.name, model["ModelName"]])
    model["ModelName"] = versioned_name(owner.project, owner.stage, digest)
    for role in (kept[name]["Properties"] for name in kept if name != "Model"):
        role["Description"] = f"What the batch transforms of {owner.project}-{owner.stage} may do"
        statements = role["Policies"][0]["PolicyDocument"]["Statement"]
        statements[:] = [each for each in statements if each["Sid"] != "Rollback"]
        for each in statements:
            if each["Sid"] == "Logs":
                each["Resource"] = {"Fn::Sub": _TRANSFORM_LOGS}
            if each["Sid"] == "Metrics":
                each["Condition"]["StringEquals"] = {"cloudwatch:namespace": TRANSFORM_GROUP}
    document = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "fdeploy: the model of a SageMaker batch transform, with its role",
        "Resources": kept,
        "Outputs": {"ModelName": {"Value": model["ModelName"]}},
    }
    return Template(_yaml(document), {})


@dataclass(frozen=True)
class Published:
    """A version of a function in a stack; ``version`` is the artifact's."""

    logical_id: str
    resource: Mapping[str, Json]
    version: str


@dataclass(frozen=True)
class Serving:
    """What the alias of a function serves: ``live``; a share of the requests goes to ``canary``.

    ``kept`` are the versions beside them that the stack keeps.
    """

    live: Published
    kept: tuple[Published, ...] = ()
    canary: Published | None = None


def serving_of(live: Template | None) -> Serving | None:
    """What a stack serves by its template; None without a stack."""
    if live is None:
        return None
    resources = live.document()["Resources"]
    alias = resources[_ALIAS]["Properties"]["FunctionVersion"]["Fn::GetAtt"][0]
    found = {
        name: Published(name, each, each["Properties"]["Description"].rpartition(" ")[2])
        for name, each in resources.items()
        if each["Type"] == "AWS::Lambda::Version"
    }
    return Serving(found[alias], tuple(each for name, each in found.items() if name != alias))


def published(spec: FunctionSpec) -> Published:
    """The version that a function's stack would publish.

    Its logical id stands for all that a version keeps of the function, so that another function is
    another version, and the same one the version that is there.
    """
    document, values = load(_text("function.yaml")), _function_parameters(spec, "")
    values["RolePath"] = _role_path(spec.common, document, values, "FunctionRole")
    properties = evaluate(document, values)["Resources"]["Function"]["Properties"]
    # These belong to the function, and not to a version.
    beside = {"Tags", "Description", "ReservedConcurrentExecutions"}
    digest = _digest({name: properties[name] for name in properties.keys() - beside})
    resource = {
        "Type": "AWS::Lambda::Version",
        "Properties": {
            "FunctionName": {"Ref": "Function"},
            "Description": f"artifact {spec.version}",
        },
    }
    return Published(f"Version{digest[:_ROLE_HASH]}", resource, spec.version)


def function_template(spec: FunctionSpec, serving: Serving) -> Template:
    """The stack of a function whose alias serves ``serving``."""
    new = published(spec)
    versions = {each.logical_id: each for each in (serving.live, *serving.kept, new)}
    if serving.canary:
        versions[serving.canary.logical_id] = serving.canary
    alias: dict[str, Json] = {
        "FunctionName": {"Ref": "Function"},
        "Name": ALIAS,
        "FunctionVersion": _number(serving.live),
    }
    if serving.canary:
        weight = {"FunctionVersion": _number(serving.canary), "FunctionWeight": spec.canary}
        alias["RoutingConfig"] = {"AdditionalVersionWeights": [weight]}
    if spec.provisioned:
        count = {"ProvisionedConcurrentExecutions": spec.provisioned}
        alias["ProvisionedConcurrencyConfig"] = count
    inserted = {
        "Versions": {
            **{name: versions[name].resource for name in sorted(versions)},
            _ALIAS: {"Type": "AWS::Lambda::Alias", "Properties": alias},
        },
        "Candidate": {"Candidate": {"Value": _number(new)}},
    }
    text = _text("function.yaml", inserted)
    values = _function_parameters(spec, serving.live.version)
    values["RolePath"] = _role_path(spec.common, load(text), values, "FunctionRole")
    return Template(text, values)


def _number(version: Published) -> Json:
    return {"Fn::GetAtt": [version.logical_id, "Version"]}


def _function_parameters(spec: FunctionSpec, live: str) -> Parameters:
    function, common, vpc = spec.function, spec.common, spec.vpc
    return {
        **_common_parameters(common, spec.version),
        "LiveVersion": live,
        "FunctionName": function.name,
        "Unproven": "yes" if spec.unproven else "",
        "RolePath": "",
        "FunctionRoleArn": common.roles.function or "",
        "CodeBucket": function.code.bucket,
        "CodeKey": function.code.key,
        "ArtifactBucket": spec.artifact.bucket if spec.artifact else "",
        "ArtifactKey": spec.artifact.key if spec.artifact else "",
        "BucketKey": spec.bucket_key or "",
        "Memory": str(function.memory),
        "Storage": str(spec.storage),
        "Timeout": str(function.timeout),
        "TimeoutMs": str(function.timeout_ms),
        "Route": spec.route,
        "MaxBody": str(spec.max_body),
        "CorsOrigins": ",".join(spec.origins),
        "SnapStart": _yes(spec.snapstart),
        "Concurrency": str(function.concurrency or 0),
        "Subnets": ",".join(vpc.subnets) if vpc else "",
        "SecurityGroups": ",".join(vpc.security_groups) if vpc else "",
        "LogRetention": str(common.log_days),
        "AlarmDuration": str(round(_NEAR * function.timeout_ms)),
        "AlarmTopic": common.alarm_topic or "",
    }


def api_template(spec: ApiSpec, *, key_serial: str = "") -> Template:
    """The stack of an API; another ``key_serial`` makes CloudFormation replace the API key."""
    if spec.type == "function-url":
        return _url_template(spec)
    body = api_body(spec)
    gateway = _text(f"api_{spec.type}.yaml", {"Body": body})
    text = _text("api.yaml", {"Gateway": gateway}).replace(
        _DEPLOYMENT, f"Deployment{_digest(body)[:12]}"
    )
    values = {
        **_api_parameters(spec),
        "FunctionRoleArn": spec.common.roles.function or "",
        "ApiKeySerial": key_serial,
        "RolePath": "",
    }
    values["RolePath"] = _role_path(spec.common, load(text), values, "FunctionRole")
    return Template(text, values)


def _url_template(spec: ApiSpec) -> Template:
    """The stack of a function's URL."""
    values = {
        "Version": spec.version,
        "EndpointName": spec.endpoint,
        "Auth": spec.auth,
        "Route": spec.route.removeprefix("/"),
        "ShowPage": _yes(spec.page),
    }
    return Template(_text("api_url.yaml"), values)


def expiry_template(spec: TtlSpec) -> Template:
    """The stack that deletes the other two."""
    text = _text("expiry.yaml")
    values = {
        **_common_parameters(spec.common, spec.version),
        "EndpointName": spec.endpoint,
        "ModelStack": spec.stack,
        "Ends": f"{spec.ends:{_DATE}}",
        "NotBefore": "",
        "AlarmTopic": spec.common.alarm_topic or "",
        "RolePath": "",
    }
    # Another date changes the policy of the role, and not the role.
    values["RolePath"] = _role_path(spec.common, load(text), values, "TtlRole")
    return Template(text, {**values, "NotBefore": f"{spec.ends - _CLOCKS_DIFFER:{_DATE}}Z"})


def _common_parameters(common: Common, version: str) -> Parameters:
    return {
        "Project": common.owner.project,
        "Stage": common.owner.stage,
        "Version": version,
        "KmsKey": common.kms_key or "",
        "PermissionsBoundary": common.roles.boundary or "",
    }


def _endpoint_parameters(spec: EndpointSpec) -> Parameters:
    model, common, alarms = spec.model, spec.common, spec.alarms
    return {
        **_common_parameters(common, spec.version),
        **_capacity_parameters(spec.capacity),
        "EndpointName": spec.name,
        "Kind": spec.kind,
        "Unproven": "yes" if spec.unproven else "",
        "Image": model.image,
        "ImageRegistry": model.registry,
        "ImageRepository": model.repository,
        "Server": model.server,
        "BackendUrl": model.backend_url,
        "Bucket": model.artifact.bucket,
        "ArtifactKey": model.artifact.key,
        "BucketKey": model.bucket_key or "",
        "NetworkIsolation": _yes(model.isolated),
        "Subnets": ",".join(model.vpc.subnets) if model.vpc else "",
        "SecurityGroups": ",".join(model.vpc.security_groups) if model.vpc else "",
        "MinInstances": str(spec.scaling.minimum if spec.scaling else 0),
        "MaxInstances": str(spec.scaling.maximum if spec.scaling else 0),
        "ScalingTarget": str(spec.scaling.target if spec.scaling else 0),
        "CapturePrefix": spec.capture.destination.key if spec.capture else "",
        "CapturePercent": str(spec.capture.percent if spec.capture else 0),
        "AsyncPrefix": spec.output.key if spec.output else "",
        "Canary": _yes(spec.rollout.canary),
        "BatchPercent": str(BATCH_PERCENT if spec.rollout.rolling else 0),
        "Bake": str(spec.rollout.bake),
        "AlarmErrors": str(alarms.errors),
        "AlarmLatency": str(alarms.latency),
        "AlarmIdle": str(alarms.idle),
        "AlarmTopic": common.alarm_topic or "",
        "LogRetention": str(common.log_days),
        "ShowDashboard": _yes(spec.dashboard),
    }


def _api_parameters(spec: ApiSpec) -> Parameters:
    function, common, alarms = spec.function, spec.common, spec.alarms
    return {
        **_common_parameters(common, spec.version),
        "EndpointName": spec.endpoint,
        "FunctionName": function.name,
        "Embedded": _yes(spec.embedded),
        "CodeBucket": function.code.bucket,
        "CodeKey": function.code.key,
        "Memory": str(function.memory),
        "Timeout": str(function.timeout),
        "TimeoutMs": str(function.timeout_ms),
        "MaxBody": str(spec.max_body),
        "CorsOrigins": ",".join(spec.origins),
        "Concurrency": str(function.concurrency or 0),
        "ApiType": spec.type,
        "Auth": spec.auth,
        "BasePath": f"/{common.owner.stage}" if spec.type == "rest" else "",
        "Route": spec.route,
        "ShowPage": _yes(spec.page),
        "Rate": str(spec.throttle.rate),
        "Burst": str(spec.throttle.burst),
        "Quota": str(spec.throttle.quota or 0),
        "DomainName": spec.domain.name if spec.domain else "",
        "Certificate": spec.domain.certificate if spec.domain else "",
        "AccessLogs": _yes(spec.access_logs),
        "LogRetention": str(common.log_days),
        "AlarmErrors": str(alarms.errors),
        "AlarmClientErrors": str(alarms.client_errors),
        "AlarmLatency": str(alarms.latency),
        "AlarmTopic": common.alarm_topic or "",
    }


def _capacity_parameters(capacity: Instances | Serverless) -> Parameters:
    instances, serverless = Instances("", 0, 0, 0, encrypts_volume=False), Serverless(0, 0)
    if isinstance(capacity, Serverless):
        serverless = capacity
    else:
        instances = capacity
    return {
        "InstanceType": instances.type,
        "InstanceCount": str(instances.count),
        "StartupTimeout": str(instances.startup_timeout),
        "DownloadTimeout": str(instances.download_timeout),
        "InferenceAmi": instances.inference_ami or "",
        "EncryptVolume": _yes(instances.encrypts_volume),
        "ServerlessMemory": str(serverless.memory),
        "ServerlessConcurrency": str(serverless.concurrency),
        "ProvisionedConcurrency": str(serverless.provisioned or 0),
    }


def _yes(value: bool) -> str:  # noqa: FBT001 - one value becomes another
    return "true" if value else "false"


def _network_arns(vpc: Vpc | None) -> list[Json]:
    """What an instance joins; a template cannot build one ARN for each item of a list."""
    if vpc is None:
        return []
    arn = "arn:${AWS::Partition}:ec2:${AWS::Region}:${AWS::AccountId}"
    joined = [f"subnet/{subnet}" for subnet in vpc.subnets]
    joined += [f"security-group/{group}" for group in vpc.security_groups]
    return [{"Fn::Sub": f"{arn}:{each}"} for each in joined]


# Names that end in a hash


def _role_path(common: Common, document: Json, values: Parameters, role: str) -> str:
    """The path of a role, with a hash of what it may do; empty for a role of the user's own.

    Other permissions are another role, so that what runs keeps its own until it is replaced. So is
    another boundary, which nobody who may only create roles can change.
    """
    made = evaluate(document, values)["Resources"].get(role)
    if made is None:
        return ""
    (policy,) = made["Properties"]["Policies"]
    may_do: Json = policy["PolicyDocument"]
    if common.roles.boundary is not None:
        may_do = [may_do, common.roles.boundary]
    path = role_path(common.owner.project, common.owner.stage)
    return f"{path}{_digest(may_do)[:_ROLE_HASH]}/"


def _named(document: Json, values: Parameters, logical_id: str) -> dict[str, Json]:
    """The properties that a resource's name has to stand for: all but the name and the tags."""
    properties = evaluate(document, values)["Resources"][logical_id]["Properties"]
    return {key: properties[key] for key in properties.keys() - {f"{logical_id}Name", "Tags"}}


def _digest(value: Json) -> str:
    """What a part of a template is, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# The text


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """CloudFormation knows no aliases in YAML."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's own signature
        """Write everything out."""
        return True


def _yaml(value: Json) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=1_000)) if value else ""


def _text(name: str, inserted: Mapping[str, Json] | None = None) -> str:
    """A template's text, with something in the place of each ``# insert: NAME``."""
    text = (resources.files(__package__) / name).read_text(encoding="utf-8")
    for key, value in (inserted or {}).items():
        (marker,) = re.findall(_INSERT.format(name=key), text)
        shown = value if isinstance(value, str) else _yaml(value)
        text = text.replace(marker, textwrap.indent(shown, marker[: marker.index("#")]))
    return text
