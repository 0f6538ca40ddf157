"""Settings from ``fdeploy.toml``, ``FDEPLOY_*`` variables and flags, each with its origin."""

from fastai_deploy.settings.aws_sections import ApiSettings, EndpointSettings
from fastai_deploy.settings.loading import Origin, Settings, load_settings, settings_of
from fastai_deploy.settings.project_file import (
    ModelSettings,
    PackageSettings,
    ProjectFile,
    Sections,
)
from fastai_deploy.settings.sections import ProjectSettings

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
    "settings_of",
]
