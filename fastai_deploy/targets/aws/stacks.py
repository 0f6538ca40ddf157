"""Builds the definitions of the stage's stacks from settings and artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from fastai_deploy.aws.bucket import bucket_key, find_bucket
from fastai_deploy.aws.capacity import Instance, known_types, runs_the_same
from fastai_deploy.aws.images import OWN, Image, choose_image, installed_tables, own_image
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.registry import pinned
from fastai_deploy.aws.repository import ImageRepository
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.specs import EndpointSpec, FunctionSpec, Location, Roles
from fastai_deploy.aws.stacks import our_stack
from fastai_deploy.aws.templates.render import api_template, endpoint_template, expiry_template
from fastai_deploy.aws.templates.template import Template
from fastai_deploy.aws.templates.update import KEY_SERIAL
from fastai_deploy.aws.wanted import (
    api_spec,
    check_arns,
    check_region,
    endpoint_spec,
    function_spec,
    region_warnings,
    ttl_spec,
    wanted_instance,
    wanted_roles,
)
from fastai_deploy.errors import AwsCredentials, AwsDenied, SettingsError
from fastai_deploy.image.build import container_of
from fastai_deploy.naming import api_stack, artifact_key, code_key, image_repository
from fastai_deploy.packaging.served_model import ServedModel, check_for_function, served_model
from fastai_deploy.packaging.wheels import FUNCTION, Container
from fastai_deploy.progress import silent
from fastai_deploy.records import StoredArtifact
from fastai_deploy.settings import Settings

# AWS's serving toolkits need numpy, so every AWS image has it. Other packages in an image may have
# versions that did not pass the parity gate.
_EVERY_IMAGE_HAS = frozenset({"numpy"})


def chosen_image(
    settings: Settings, region: str, served: ServedModel | None, *, own: str = ""
) -> tuple[Instance, Image]:
    """Select the instance and the image for these settings and the model, if there is one.

    ``own`` is the image of fdeploy's own server, if that serves. Raises SettingsError or
    TargetUnavailable.
    """
    endpoint = settings.sections.endpoint
    on = wanted_instance(settings, known_types())
    if own:
        return on, own_image(own, on, "fdeploy's own server")
    server = endpoint.server
    if server == OWN and not endpoint.image:  # an artifact of before, or none yet
        server = "auto"
    if endpoint.kind == "serverless" and server == "auto":
        # Ray needs /dev/shm, which a serverless endpoint most likely does not have.
        server = "torchserve"
    image = choose_image(
        installed_tables(),
        on,
        region=region,
        server=server,
        override=endpoint.image,
        python=served.python if served else None,
    )
    return on, image


def could_be_own(settings: Settings, bundle: Path) -> bool:
    """Whether fdeploy's own image can serve the bundle's model with these settings.

    Raises SettingsError if they demand it and it cannot.
    """
    endpoint = settings.sections.endpoint
    if endpoint.kind == "lambda" or endpoint.image or endpoint.server not in ("auto", OWN):
        return False
    why = _obstacle(wanted_instance(settings, known_types()), bundle)
    if why and endpoint.server == OWN:
        raise SettingsError(
            f'the image of fdeploy\'s own server (server = "fdeploy" in [endpoint]) {why}',
            hint="set server to auto in [endpoint]",
        )
    return not why


def _obstacle(on: Instance, bundle: Path) -> str:
    if on.accelerator != "none":
        return f"has no libraries for the {on.accelerator} of {on.type}"
    served = served_model(bundle)
    if served is not None and served.learner:
        return "has no torch and no fastai, which a learner served from its original pickle needs"
    return ""


@dataclass(frozen=True)
class OwnImage:
    """An image of fdeploy's own server: its tag, and the digest of its base.

    Both are empty while only that is known that one will serve.
    """

    tag: str = ""
    base: str = ""


def serving_container(
    settings: Settings, region: str, bundle: Path, own: OwnImage | None = None
) -> Container:
    """The container of these settings. Raises SettingsError or TargetUnavailable.

    ``own`` is the image of fdeploy's own server, if that serves.
    """
    served = served_model(bundle)
    if settings.sections.endpoint.kind == "lambda":
        check_for_function(served)
        return FUNCTION
    if own is not None:
        on = wanted_instance(settings, known_types())
        container = container_of("aarch64" if on.arm else "x86_64")
        return replace(container, image_tag=own.tag, image_base=own.base)
    on, image = chosen_image(settings, region, served)
    if image.python is None:
        raise SettingsError(
            f"the image's tag does not state its Python version: {image.uri}",
            hint="give the image a tag with its Python version, such as 1.0-py312",
        )
    if image.family == OWN:  # in an image of the user's
        return container_of("aarch64" if on.arm else "x86_64")
    known = settings.sections.endpoint.image is None
    has_gpu = image.accelerator == "gpu"
    return Container(
        name=f"{image.family} image",
        python=image.python,
        platform=image.platform,
        has=_EVERY_IMAGE_HAS if known else frozenset(),
        known=known,
        gpu=has_gpu and served is not None and served.gpu_bytes is not None,
        warnings=tuple(_unused(on, served)) if has_gpu and served else (),
    )


def _unused(on: Instance, served: ServedModel) -> Iterator[str]:
    """A warning if the instance has a GPU that the model cannot use."""
    if served.gpu_bytes is None:
        why = "fdeploy cannot run its graph on a GPU"
        if served.learner:
            why = "a learner served from its original pickle always does"
        yield f"the model runs on the CPU ({why}), so the GPU of {on.type} is paid for but not used"


def _pulls_own(document: Any, repository: str) -> None:
    """Let a policy pull the images of fdeploy's own server too, whichever image will serve."""
    where = "arn:${AWS::Partition}:ecr:${AWS::Region}:${AWS::AccountId}:repository/"
    for statement in document["Statement"]:
        if statement["Sid"] == "Image":
            statement["Resource"] = [statement["Resource"], {"Fn::Sub": where + repository}]


@dataclass(frozen=True)
class StackDefinition:
    """A stack's template; ``service`` is the resource to verify, ``notes`` are for people."""

    template: Template
    service: str
    version: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class StackDefinitions(Protocol):
    """Builds the stacks of one stage."""

    @property
    def bucket_key(self) -> str | None:
        """The KMS key of a bucket of the user's own. Raises NotOurs or AwsError."""

    def endpoint(self, stored: StoredArtifact) -> StackDefinition:
        """The stack of the endpoint; its service is the endpoint. Raises SettingsError."""

    def endpoint_spec(self, stored: StoredArtifact) -> EndpointSpec:
        """The specification of that stack. Raises SettingsError."""

    def function_spec(self, stored: StoredArtifact) -> FunctionSpec:
        """The specification of the stack of a function. Raises SettingsError."""

    def api(self, code: Location, code_version: str, *, account: bool = True) -> StackDefinition:
        """The stack of the API; its service is the function. Raises SettingsError.

        Without an ``account``, nothing is asked of AWS.
        """

    def ttl(self, version: str, ends: datetime) -> StackDefinition:
        """The stack that deletes the others at a date in UTC; it has no service."""

    def given_roles(self, stored: StoredArtifact) -> Mapping[str, tuple[str, Any]]:
        """The ARN of each role that the settings name, and what it must allow, by name.

        Raises SettingsError.
        """


class SettingsStackDefinitions:
    """Builds the stacks that the settings describe, for the region of ``aws``.

    ``bundle`` is the path of the stage's bundle, which the image has to fit.
    """

    def __init__(self, settings: Settings, aws: Aws, bundle: Path) -> None:
        self._settings = settings
        self._aws = aws
        self._bundle = bundle
        self._pinned: dict[Image, Image] = {}

    def endpoint(self, stored: StoredArtifact) -> StackDefinition:
        """The endpoint, on the image that fits, or the one that this version was proven in."""
        spec = self.endpoint_spec(stored)
        _, image = self._machine(stored)
        note = f"image {image.tagged or image.uri}: {image.reason}"
        if image.tagged:
            note += f" ({image.uri.partition('@')[2]})"
        elif image.family == OWN:
            note += " (fdeploy upload pushes it)"
        return StackDefinition(
            endpoint_template(spec),
            spec.name,
            spec.version,
            (note,),
            (*spec.warnings, *region_warnings(self._settings, self._aws.region)),
        )

    def endpoint_spec(self, stored: StoredArtifact) -> EndpointSpec:
        """The specification of the endpoint stack."""
        check_arns(self._settings, self._aws.region)
        on, image = self._machine(stored)
        return endpoint_spec(self._settings, stored, image, on, self.bucket_key)

    def function_spec(self, stored: StoredArtifact) -> FunctionSpec:
        """The specification of the function's stack, for the package of the artifact."""
        check_arns(self._settings, self._aws.region)
        bucket, _, _ = stored.uri.removeprefix("s3://").partition("/")
        served, code = served_model(self._bundle), stored.function
        return function_spec(
            self._settings,
            stored,
            Location(bucket, code_key(self._settings.project_name, code.sha256 if code else "")),
            size=served.function_bytes if served else 0,
            reads=code is not None and code.reads,
            bucket_key=self.bucket_key,
        )

    def api(self, code: Location, code_version: str, *, account: bool = True) -> StackDefinition:
        """The API, with access logs if the account allows API Gateway to write them.

        A rotated key is kept. Without an ``account`` to ask, there are neither.
        """
        check_arns(self._settings, self._aws.region)
        allowed = self._aws.call("apigateway", "get_account") if account else {}
        # Whose the stack is, is checked where it is changed.
        owner = Owner(self._settings.project_name, self._settings.stage, adopts=True)
        spec = api_spec(
            self._settings,
            code=code,
            code_version=code_version,
            gateway_logs=bool(allowed.get("cloudwatchRoleArn")),
        )
        name = api_stack(owner.project, owner.stage)
        live = our_stack(self._aws, name, owner) if account else None
        serial = live.outputs.get(KEY_SERIAL) if live else None
        serial = serial if serial and spec.auth == "key" else ""
        template = api_template(spec, key_serial=serial)
        return StackDefinition(template, spec.function.name, spec.version, warnings=spec.warnings)

    def ttl(self, version: str, ends: datetime) -> StackDefinition:
        """The stack that deletes the stage."""
        spec = ttl_spec(self._settings, version=version, ends=ends)
        return StackDefinition(expiry_template(spec), "", spec.version)

    def given_roles(self, stored: StoredArtifact) -> Mapping[str, tuple[str, Any]]:
        """The policies of the roles that would be made instead, for any version."""
        settings, wanted = self._settings, wanted_roles(self._settings)
        made = {}
        if wanted.execution is not None:
            on, image = self._machine(stored)
            spec = endpoint_spec(settings, stored, image, on)
            any_artifact = replace(
                spec.model.artifact, key=artifact_key(settings.project_name, "*")
            )
            model = replace(spec.model, artifact=any_artifact)
            common = replace(spec.common, roles=Roles())
            template = endpoint_template(replace(spec, model=model, common=common))
            made["execution-role"] = wanted.execution, template, "ExecutionRole"
        if wanted.function is not None and settings.sections.endpoint.kind != "async":
            api = api_spec(settings, code=Location("", ""), code_version="", gateway_logs=False)
            template = api_template(replace(api, common=replace(api.common, roles=Roles())))
            made["lambda-role"] = wanted.function, template, "FunctionRole"
        found = {}
        for name, (arn, template, role) in made.items():
            (policy,) = template.evaluated()["Resources"][role]["Properties"]["Policies"]
            found[name] = arn, policy["PolicyDocument"]
            if role == "ExecutionRole" and could_be_own(settings, self._bundle):
                _pulls_own(policy["PolicyDocument"], image_repository(settings.project_name))
        return found

    @cached_property
    def bucket_key(self) -> str | None:
        """The key of a bucket of the user's own; None if there is none, or it may not be read."""
        chosen = self._settings.sections.project.bucket
        try:
            bucket = find_bucket(self._aws, chosen) if chosen else None
            return bucket_key(self._aws, bucket) if bucket else None
        except (AwsCredentials, AwsDenied):  # doctor warns
            return None

    def _machine(self, stored: StoredArtifact) -> tuple[Instance, Image]:
        check_region(self._settings, self._aws.region)
        own, tagged = self._own_image(stored)
        on, image = chosen_image(
            self._settings, self._aws.region, served_model(self._bundle), own=own
        )
        if own:
            return on, replace(image, tagged=tagged)
        if stored.image and stored.instance and runs_the_same(stored.instance, on):
            proven = choose_image(
                installed_tables(),
                on,
                region=self._aws.region,
                server=OWN if stored.server == OWN else "auto",
                override=stored.image,
            )
            return on, replace(proven, reason="in which this version was proven")
        if image not in self._pinned:
            self._pinned[image] = pinned(self._aws, image)
        return on, self._pinned[image]

    def _own_image(self, stored: StoredArtifact) -> tuple[str, str]:
        """The image that fdeploy made for the artifact; empty if another serves it.

        The second is its name with the tag, if the first has the digest.
        """
        if not stored.image_tag:
            return "", ""
        owner = Owner(self._settings.project_name, self._settings.stage)
        tagged = ImageRepository(self._aws, owner, silent).uri(stored.image_tag)
        return (stored.image, tagged) if stored.image else (tagged, "")
