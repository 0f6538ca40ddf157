"""Settings from ``fdeploy.toml``, ``FDEPLOY_*`` variables and flags, each with its origin."""

from fastai_deploy.settings.api_section import ApiSettings
from fastai_deploy.settings.endpoint_section import EndpointSettings
from fastai_deploy.settings.loading import Origin, Settings, load_settings
from fastai_deploy.settings.model import ModelSettings, PackageSettings, ProjectFile, Sections
from fastai_deploy.settings.project_section import ProjectSettings

__all__ = [
    "ApiSettings",
    "EndpointSettings",
    "ModelSettings",
    "Origin",
    "PackageSettings",
    "ProjectFile",
    "ProjectSettings",
    "Sections",
    "Settings",
    "load_settings",
]
