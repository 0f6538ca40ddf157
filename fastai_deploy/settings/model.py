"""The settings of a project: one frozen model per section of ``fdeploy.toml``.

Every key has a description and a default, so that the same models give the checks, the JSON Schema
and the reference in the documentation. Paths are text, relative to the folder of the project file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from fastai_deploy.settings.api_section import ApiSettings
from fastai_deploy.settings.endpoint_section import EndpointSettings
from fastai_deploy.settings.project_section import ProjectSettings
from fastai_deploy.settings.section import Section


class ModelSettings(Section):
    """The learner and what its answers are checked against."""

    learner: Annotated[
        str | None, Field(min_length=1, description="The file that learn.export() wrote.")
    ] = None
    golden: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Texts (.txt, .jsonl or .csv), with the learner's own probabilities where "
            "there are any, that every later form of the model must answer alike.",
        ),
    ] = None
    tolerance: Annotated[
        float,
        Field(
            gt=0, lt=0.5, description="Largest difference of a probability that counts as equal."
        ),
    ] = 1e-4
    quantize: Annotated[
        Literal["auto", "int8", "none"],
        Field(
            description="Whether an int8 model is served, which is two to three times as fast: "
            "auto when it answers every golden alike (its tolerance is 0.05 at least), else "
            "float32; int8 or an error; none."
        ),
    ] = "auto"


class PackageSettings(Section):
    """How model.tar.gz is made."""

    name: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
            description="Name of the model in answers. Default: the learner's file name.",
        ),
    ] = None


class Sections(Section):
    """The sections that a stage may override."""

    project: ProjectSettings = ProjectSettings()
    model: ModelSettings = ModelSettings()
    package: PackageSettings = PackageSettings()
    endpoint: EndpointSettings = EndpointSettings()
    api: ApiSettings = ApiSettings()


class ProjectFile(Sections):
    """The whole of ``fdeploy.toml``."""

    model_config = ConfigDict(title="fdeploy.toml", extra="forbid", frozen=True, strict=True)

    stages: dict[str, Sections] = Field(
        default_factory=dict, description="Overrides by stage: [stages.prod.endpoint] and so on."
    )
