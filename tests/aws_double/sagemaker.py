"""SageMaker: models, endpoint configurations, endpoints, transforms. ministack has none of it.

Sources: the API reference of CreateModel, CreateEndpointConfig, CreateEndpoint, UpdateEndpoint,
DeleteEndpoint, DescribeEndpoint and their errors; "Test models with shadow variants" for nothing
here: traffic goes to the one variant. That a failed UpdateEndpoint goes back to InService on the
old configuration, perhaps without a reason: hashicorp/terraform-provider-aws issues 46663, 48997.
"""

from __future__ import annotations

import contextvars
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.aws_double import emulator
from tests.aws_double.behaviour import Behaviour
from tests.aws_double.containers import Container, NotHealthy
from tests.aws_double.ecr import Images
from tests.aws_double.refused import Refused
from tests.aws_double.shapes import enum_problem
from tests.aws_double.transforms import Transforms

_NAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,62})")  # as the model of the service has it
_S3 = re.compile(r"s3://([^/]+)/(.+)")
_PING_FAILED = (
    "The primary container for production variant {variant} did not pass the ping health check. "
    "Please check CloudWatch logs for this endpoint."
)
_QUOTA = (
    "The account-level service limit '{instance} for endpoint usage' is {quota} Instances, with "
    "current utilization of {used} Instances and a request delta of {count} Instances. "
    "Please use AWS Service Quotas to request an increase for this quota."
)
_CAPACITY = (
    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. "
    "Please retry using a different ML instance type or after some time."
)
_HOLD_SECONDS = 0.02
Json = Any


@dataclass
class Endpoint:
    """An endpoint; ``config`` is the configuration in use.

    ``instances`` is what autoscaling or a caller has set, None for what the configuration says.
    """

    name: str
    config: str
    tags: list[Json]
    status: str = "Creating"
    reason: str = ""
    created: float = field(default_factory=time.time)
    modified: float = field(default_factory=time.time)
    container: Container | None = None
    instances: int | None = None


class SageMaker:
    """The service; ``python`` runs the model servers. State is by account and region."""

    def __init__(self, python: str, images: Images) -> None:
        self._python = python
        self._images = images
        self.models: Any = emulator.Store()
        self.configs: Any = emulator.Store()
        self.endpoints: Any = emulator.Store()
        self.behaviour: Any = emulator.Store()
        self.transforms = Transforms(self._model, self._container_of, self.account_behaviour)
        self._running: list[tuple[str, Container]] = []
        self._operations: Mapping[str, Callable[[Json], Json]] = {
            "CreateModel": self.create_model,
            "DescribeModel": lambda request: self._model(request["ModelName"]),
            "ListModels": lambda request: self._listed("Models", "ModelName", self.models, request),
            "DeleteModel": lambda request: self.delete_model(request["ModelName"]),
            "CreateEndpointConfig": self.create_config,
            "DescribeEndpointConfig": lambda request: self._config(request["EndpointConfigName"]),
            "ListEndpointConfigs": lambda request: self._listed(
                "EndpointConfigs", "EndpointConfigName", self.configs, request
            ),
            "DeleteEndpointConfig": lambda request: self.delete_config(
                request["EndpointConfigName"]
            ),
            "CreateEndpoint": self._create_in_background,
            "DescribeEndpoint": self.describe_endpoint,
            "ListEndpoints": self._list_endpoints,
            "UpdateEndpoint": self._update_in_background,
            "UpdateEndpointWeightsAndCapacities": self._set_capacity,
            "DeleteEndpoint": self.delete_endpoint,
            "CreateTransformJob": self.transforms.create,
            "DescribeTransformJob": self.transforms.describe,
            "ListTransformJobs": self.transforms.listed,
            "StopTransformJob": self.transforms.stop,
            "ListTags": lambda request: {"Tags": self._tagged(request["ResourceArn"])},
        }

    def handle(self, operation: str, body: bytes) -> tuple[int, Json]:
        """Status and answer of a request."""
        run = self._operations.get(operation)
        if run is None:
            return 400, {"__type": "UnknownOperationException", "message": operation}
        try:
            return 200, run(json.loads(body or b"{}"))
        except Refused as refused:
            return refused.status, {"__type": refused.code, "message": str(refused)}

    def close(self, account: str = "") -> None:
        """End the model servers of an account, or all of them."""
        self.transforms.close(account)
        for owner, container in list(self._running):
            if account in {"", owner}:
                container.stop()

    # Models and configurations

    def create_model(self, request: Json) -> Json:
        """CreateModel: the role and the artifact must exist."""
        name = self._new(self.models, "model", request["ModelName"])
        role = request["ExecutionRoleArn"].rpartition("/")[2]
        if role not in emulator.roles:
            raise Refused(
                "ValidationException",
                f"Could not assume role {request['ExecutionRoleArn']}. Please ensure that the role "
                "exists and allows principal 'sagemaker.amazonaws.com' to assume the role.",
            )
        self._artifact(request)
        self._check_image(request["PrimaryContainer"]["Image"])
        arn = self._arn("model", name)
        self.models[name] = {**request, "ModelArn": arn, "CreationTime": time.time()}
        return {"ModelArn": arn}

    def _check_image(self, uri: str) -> None:
        """Refuse an image of the account that is not there, or that SageMaker cannot read.

        Source: aws/amazon-sagemaker-feedback issue 180, for manifests in OCI's format.
        """
        if not uri.startswith(f"{emulator.get_account()}.dkr.ecr."):
            return
        kind = self._images.media_type(uri)
        if not kind:
            raise Refused("ValidationException", f"Requested image {uri} not found.")
        if kind.startswith("application/vnd.oci."):
            raise Refused(
                "ValidationException", f"Unsupported manifest media type {kind} for resource {uri}."
            )

    def create_config(self, request: Json) -> Json:
        """CreateEndpointConfig: every model must exist, every instance type be one."""
        name = self._new(self.configs, "endpoint configuration", request["EndpointConfigName"])
        problem = enum_problem("CreateEndpointConfig", request)
        if problem:
            raise Refused("ValidationException", problem)
        for variant in request["ProductionVariants"]:
            self._model(variant["ModelName"])
        arn = self._arn("endpoint-config", name)
        self.configs[name] = {**request, "EndpointConfigArn": arn, "CreationTime": time.time()}
        return {"EndpointConfigArn": arn}

    def delete_model(self, name: str) -> Json:
        """DeleteModel."""
        self._model(name)
        del self.models[name]
        return {}

    def delete_config(self, name: str) -> Json:
        """DeleteEndpointConfig."""
        self._config(name)
        del self.configs[name]
        return {}

    # Endpoints

    def create_endpoint(self, request: Json) -> Endpoint:
        """CreateEndpoint, waited for: InService, or Failed with the reason."""
        endpoint = self._begin_create(request)
        self._bring_up(endpoint)
        return endpoint

    def update_endpoint(self, request: Json) -> Endpoint:
        """UpdateEndpoint, waited for: on the new configuration, or back on the old one."""
        endpoint, config = self._begin_update(request)
        self._move(endpoint, config)
        if endpoint.config == config and not request.get("RetainAllVariantProperties"):
            endpoint.instances = None
        return endpoint

    def delete_endpoint(self, request: Json) -> Json:
        """DeleteEndpoint; one that is being created or updated cannot be deleted."""
        endpoint = self._endpoint(request["EndpointName"])
        if endpoint.status in ("Creating", "Updating"):
            raise Refused(
                "ValidationException", f"Cannot update in-progress endpoint {endpoint.name!r}."
            )
        if endpoint.container is not None:
            endpoint.container.stop()
        del self.endpoints[endpoint.name]
        return {}

    def describe_endpoint(self, request: Json) -> Json:
        """DescribeEndpoint."""
        endpoint = self._endpoint(request["EndpointName"])
        shown = {
            "EndpointName": endpoint.name,
            "EndpointArn": self._arn("endpoint", endpoint.name),
            "EndpointConfigName": endpoint.config,
            "EndpointStatus": endpoint.status,
            "CreationTime": endpoint.created,
            "LastModifiedTime": endpoint.modified,
        }
        if endpoint.config in self.configs:
            variants = self.configs[endpoint.config]["ProductionVariants"]
            shown["ProductionVariants"] = [
                {
                    "VariantName": variant["VariantName"],
                    "CurrentInstanceCount": self._instances(endpoint, variant),
                    "DesiredInstanceCount": self._instances(endpoint, variant),
                }
                for variant in variants
            ]
        return {**shown, **({"FailureReason": endpoint.reason} if endpoint.reason else {})}

    def _set_capacity(self, request: Json) -> Json:
        """UpdateEndpointWeightsAndCapacities, which is done when it returns."""
        endpoint = self._endpoint(request["EndpointName"])
        (variant,) = request["DesiredWeightsAndCapacities"]
        endpoint.instances = variant["DesiredInstanceCount"]
        return {"EndpointArn": self._arn("endpoint", endpoint.name)}

    def _instances(self, endpoint: Endpoint, variant: Json) -> int:
        initial = variant.get("InitialInstanceCount", 1)
        return int(initial if endpoint.instances is None else endpoint.instances)

    def live(self, name: str) -> Container:
        """The container that answers for an endpoint. Raises Refused."""
        if name not in self.endpoints:
            raise Refused(
                "ValidationError",
                f"Endpoint {name} of account {emulator.get_account()} not found.",
            )
        container = self.endpoints[name].container
        if container is None:
            raise Refused("ValidationError", f"Endpoint {name} is not InService.")
        live: Container = container
        return live

    def async_places(self, name: str) -> tuple[str, str]:
        """Where an asynchronous endpoint writes answers and failures. Raises Refused."""
        config = self.configs[self.endpoints[name].config]
        if "AsyncInferenceConfig" not in config:
            raise Refused("ValidationError", f"Endpoint {name} is not asynchronous.")
        output = config["AsyncInferenceConfig"]["OutputConfig"]
        return output["S3OutputPath"], output["S3FailurePath"]

    def capture_config(self, name: str) -> Json:
        """The DataCaptureConfig of an endpoint; empty without one."""
        return self.configs[self.endpoints[name].config].get("DataCaptureConfig", {})

    def account_behaviour(self) -> Behaviour:
        """The behaviour of the request's account; the same object again."""
        if "" not in self.behaviour:
            self.behaviour[""] = Behaviour()
        found: Behaviour = self.behaviour[""]
        return found

    # What endpoints are made of

    def _begin_create(self, request: Json) -> Endpoint:
        name = request["EndpointName"]
        if name in self.endpoints:
            raise Refused(
                "ValidationException", f"Cannot create already existing endpoint {name!r}."
            )
        config = self._config(request["EndpointConfigName"])
        self._check_quota(config)
        endpoint = Endpoint(name, request["EndpointConfigName"], request.get("Tags", []))
        self.endpoints[name] = endpoint
        return endpoint

    def _begin_update(self, request: Json) -> tuple[Endpoint, str]:
        endpoint = self._endpoint(request["EndpointName"])
        if endpoint.status not in ("InService", "Failed"):
            raise Refused(
                "ValidationException", f"Cannot update in-progress endpoint {endpoint.name!r}."
            )
        policy = request.get("DeploymentConfig", {})
        self._check_quota(
            self._config(request["EndpointConfigName"]), rolling="RollingUpdatePolicy" in policy
        )
        endpoint.status = "Updating"
        return endpoint, request["EndpointConfigName"]

    def _create_in_background(self, request: Json) -> Json:
        endpoint = self._begin_create(request)
        self._background(lambda: self._bring_up(endpoint))
        return {"EndpointArn": self._arn("endpoint", endpoint.name)}

    def _update_in_background(self, request: Json) -> Json:
        endpoint, config = self._begin_update(request)
        self._background(lambda: self._move(endpoint, config))
        return {"EndpointArn": self._arn("endpoint", endpoint.name)}

    def _background(self, work: Callable[[], None]) -> None:
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(work,), daemon=True).start()

    def _bring_up(self, endpoint: Endpoint) -> None:
        container, reason = self._container(endpoint.name, endpoint.config)
        endpoint.container, endpoint.reason = container, reason
        endpoint.status = "InService" if container else "Failed"
        endpoint.modified = time.time()

    def _move(self, endpoint: Endpoint, config: str) -> None:
        """The new container takes the place of the old one, or the old one stays."""
        container, reason = self._container(endpoint.name, config)
        before = endpoint.container
        if container is not None:
            endpoint.container, endpoint.config = container, config
            if before is not None:
                before.stop()
        endpoint.reason = reason
        endpoint.status = "InService" if endpoint.container else "Failed"
        endpoint.modified = time.time()

    def _container(self, endpoint: str, config: str) -> tuple[Container | None, str]:
        """A healthy container for a configuration, or the reason why there is none."""
        behaviour = self.account_behaviour()
        variant = self.configs[config]["ProductionVariants"][0]
        if behaviour.seconds:
            time.sleep(behaviour.seconds)
        while behaviour.hold:
            time.sleep(_HOLD_SECONDS)
        if behaviour.no_capacity:
            return None, _CAPACITY
        try:
            model = self._model(variant["ModelName"])
            container = self._container_of(model)
        except Refused as refused:
            return None, str(refused)
        self._running.append((emulator.get_account(), container))
        seconds = variant.get("ContainerStartupHealthCheckTimeoutInSeconds", 60)
        try:
            lines = container.start(float(seconds))
        except NotHealthy as sick:
            self._write_log(endpoint, variant["VariantName"], sick.log)
            return None, _PING_FAILED.format(variant=variant["VariantName"])
        self._write_log(endpoint, variant["VariantName"], lines)
        return container, ""

    def _container_of(self, model: Json) -> Container:
        """A new container of a model. Raises Refused without an artifact."""
        environment = model["PrimaryContainer"].get("Environment", {})
        layers = self._images.layers(model["PrimaryContainer"]["Image"])
        return Container(self._artifact(model), environment, self._python, layers)

    def _artifact(self, model: Json) -> bytes:
        """The bytes of a model's artifact. Raises Refused, as CreateModel does."""
        container = model["PrimaryContainer"]
        source = container.get("ModelDataSource", {}).get("S3DataSource", {})
        url = container.get("ModelDataUrl") or source.get("S3Uri", "")
        place = _S3.fullmatch(url)
        data = emulator.object_data(place[1], place[2]) if place else None
        if data is None:
            raise Refused("ValidationException", f"Could not find model data at {url}.")
        return bytes(data)

    def _write_log(self, endpoint: str, variant: str, lines: list[str]) -> None:
        """The container's lines, in the group that the endpoint's containers write to."""
        group, stream = f"/aws/sagemaker/Endpoints/{endpoint}", f"{variant}/i-0123456789abcdef0"
        emulator.create_log_group({"logGroupName": group})
        emulator.create_log_stream({"logGroupName": group, "logStreamName": stream})
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line} for line in lines if line]
        emulator.put_log_events(
            {"logGroupName": group, "logStreamName": stream, "logEvents": events}
        )

    def _check_quota(self, config: Json, *, rolling: bool = False) -> None:
        """Every instance counts, also those that an update replaces: "Blue/Green Deployments".

        A rolling update starts a batch at a time ("Use rolling deployments").
        """
        behaviour = self.account_behaviour()
        for variant in config["ProductionVariants"]:
            instance, count = variant.get("InstanceType"), variant.get("InitialInstanceCount", 1)
            quota = behaviour.quota.get(instance)
            used = behaviour.used.get(instance, 0) + self._in_use(instance)
            count = -(-count // 2) if rolling else count
            if quota is not None and quota - used < count:
                raise Refused(
                    "ResourceLimitExceeded",
                    _QUOTA.format(instance=instance, quota=quota, used=used, count=count),
                )

    def _in_use(self, instance: str) -> int:
        used = 0
        for endpoint in self.endpoints.values():
            for variant in self.configs.get(endpoint.config, {}).get("ProductionVariants", []):
                if variant.get("InstanceType") == instance and endpoint.status != "Failed":
                    used += self._instances(endpoint, variant)
        return used

    # Finding and naming

    def _new(self, store: Any, kind: str, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise Refused("ValidationException", f"{name!r} is no name of a {kind}")
        if name in store:
            arn = self._arn(kind.replace(" configuration", "-config"), name)
            raise Refused("ValidationException", f"Cannot create already existing {kind} {arn!r}.")
        return name

    def _model(self, name: str) -> Json:
        return self._found(self.models, "model", name)

    def _config(self, name: str) -> Json:
        return self._found(self.configs, "endpoint configuration", name)

    def _endpoint(self, name: str) -> Endpoint:
        endpoint: Endpoint = self._found(self.endpoints, "endpoint", name)
        return endpoint

    def _found(self, store: Any, kind: str, name: str) -> Any:
        if name not in store:
            arn = self._arn(kind.replace(" configuration", "-config"), name)
            raise Refused("ValidationException", f'Could not find {kind} "{arn}".')
        return store[name]

    def _listed(self, key: str, name: str, store: Any, request: Json) -> Json:
        part = request.get("NameContains", "")
        return {key: [item for item in store.values() if part in item[name]]}

    def _list_endpoints(self, request: Json) -> Json:
        part = request.get("NameContains", "")
        found = [self.describe_endpoint({"EndpointName": name}) for name in list(self.endpoints)]
        return {"Endpoints": [item for item in found if part in item["EndpointName"]]}

    def _tagged(self, arn: str) -> list[Json]:
        for item in (*self.models.values(), *self.configs.values()):
            if arn in (item.get("ModelArn"), item.get("EndpointConfigArn")):
                return list(item.get("Tags", []))
        job = self.transforms.of_arn(arn)
        if job is not None:
            return list(job.request.get("Tags", []))
        name = arn.rpartition("/")[2]
        return list(self.endpoints[name].tags) if name in self.endpoints else []

    def _arn(self, kind: str, name: str) -> str:
        return f"arn:aws:sagemaker:{emulator.get_region()}:{emulator.get_account()}:{kind}/{name}"
