"""What the stacks are to be: the seam between deciding (specs, templates) and doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from fastai_deploy.aws.images import Image
from fastai_deploy.aws.instances import Instance
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.specs import api_spec, endpoint_spec, ttl_spec
from fastai_deploy.aws.stacks import our_stack
from fastai_deploy.aws.template.api_stack import api_template
from fastai_deploy.aws.template.endpoint_stack import endpoint_template
from fastai_deploy.aws.template.rest_api import KEY_SERIAL, with_key_serial
from fastai_deploy.aws.template.spec import EndpointSpec, Location
from fastai_deploy.aws.template.ttl_stack import ttl_template
from fastai_deploy.naming import api_stack
from fastai_deploy.records import StoredArtifact
from fastai_deploy.settings import Settings
from fastai_deploy.targets.aws.container import chosen_image, served_model


@dataclass(frozen=True)
class Blueprint:
    """A stack's template; ``service`` is what in it must prove itself, ``notes`` are for people."""

    template: Mapping[str, Any]
    service: str
    version: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Blueprints(Protocol):
    """Draws the stacks of one stage."""

    def endpoint(self, stored: StoredArtifact) -> Blueprint:
        """The stack of the endpoint; its service is the endpoint. Raises SettingsError."""

    def endpoint_spec(self, stored: StoredArtifact) -> EndpointSpec:
        """What that stack is to be. Raises SettingsError."""

    def api(self, code: Location, code_version: str) -> Blueprint:
        """The stack of the API; its service is the function. Raises SettingsError."""

    def ttl(self, version: str, ends: datetime) -> Blueprint:
        """The stack that deletes the others at a date in UTC; its service is nothing."""


class SettingsBlueprints:
    """Draws the stacks that the settings describe, for the region of ``aws``.

    ``bundle`` is where the stage's bundle is, once it is exported: the image has to fit it.
    """

    def __init__(self, settings: Settings, aws: Aws, bundle: Path) -> None:
        self._settings = settings
        self._aws = aws
        self._bundle = bundle

    def endpoint(self, stored: StoredArtifact) -> Blueprint:
        """The image that fits, and the endpoint on it."""
        on, image = self._machine()
        spec = endpoint_spec(self._settings, stored, image, on)
        note = f"image {image.uri}: {image.reason}"
        return Blueprint(endpoint_template(spec), spec.name, spec.version, (note,), spec.warnings)

    def endpoint_spec(self, stored: StoredArtifact) -> EndpointSpec:
        """The same, not drawn yet."""
        on, image = self._machine()
        return endpoint_spec(self._settings, stored, image, on)

    def api(self, code: Location, code_version: str) -> Blueprint:
        """The API, with access logs where the account lets API Gateway write any.

        A key that was replaced stays so.
        """
        account = self._aws.call("apigateway", "get_account")
        owner = Owner(self._settings.project_name, self._settings.stage)
        spec = api_spec(
            self._settings,
            code=code,
            code_version=code_version,
            gateway_logs=bool(account.get("cloudwatchRoleArn")),
        )
        template = api_template(spec)
        live = our_stack(self._aws, api_stack(owner.project, owner.stage), owner)
        serial = live.outputs.get(KEY_SERIAL) if live else None
        if serial and spec.auth == "key":
            template = with_key_serial(template, serial)
        return Blueprint(template, spec.function.name, spec.version, warnings=spec.warnings)

    def ttl(self, version: str, ends: datetime) -> Blueprint:
        """The end of the stage."""
        spec = ttl_spec(self._settings, version=version, ends=ends)
        return Blueprint(ttl_template(spec), "", spec.version)

    def _machine(self) -> tuple[Instance, Image]:
        return chosen_image(self._settings, self._aws.region, served_model(self._bundle))
