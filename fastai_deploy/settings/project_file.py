"""The settings of a project: one frozen model per section of ``fdeploy.toml``.

Every key has a description and a default, so that the same models give the checks, the JSON Schema
and the reference in the documentation. Paths are text, relative to the folder of the project file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from fastai_deploy.settings.aws_sections import AlarmSettings, ApiSettings, EndpointSettings
from fastai_deploy.settings.sections import ProjectSettings, Section


class ModelSettings(Section):
    """The learner and what its answers are checked against."""

    learner: Annotated[
        str | None,
        Field(
            min_length=1,
            description="The file that learn.export() wrote; or the bundle that export_learner() "
            "made; or module:function, which is run and returns a live learner.",
        ),
    ] = None
    definitions: Annotated[
        str | None,
        Field(
            min_length=1,
            description="A Python file with the user's classes that the learner is made of. It is "
            "run; the learner is still only read, unless runtime is learner.",
        ),
    ] = None
    runtime: Annotated[
        Literal["onnx", "learner"],
        Field(
            description="onnx converts the learner; learner serves the pickle itself, with its own "
            "libraries, and needs trust_pickle."
        ),
    ] = "onnx"
    trust_pickle: Annotated[
        bool,
        Field(
            description="With runtime learner: the pickle may be loaded, which runs what it says, "
            "the code of the classes in __main__ and in the definitions file included."
        ),
    ] = False
    allow_imports: Annotated[
        tuple[
            Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")],
            ...,
        ],
        Field(
            description="With runtime learner: names (module.name) that the pickle may import and "
            "call although fdeploy does not know them. A dangerous one is never allowed."
        ),
    ] = ()
    requirements: Annotated[
        str | None,
        Field(
            min_length=1,
            description="With runtime learner: a requirements.txt of pinned versions (name==1.2.3) "
            "that the learner was trained with. Default: those installed here, where they fit.",
        ),
    ] = None
    python: Annotated[
        str | None,
        Field(
            pattern=r"^3\.[0-9]{1,2}$",
            description="With runtime learner: the Python that it is loaded with, such as 3.9. "
            "Default: what the file needs, else the one that runs fdeploy.",
        ),
    ] = None
    golden: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Texts (.txt, .jsonl or .csv), with the learner's own probabilities where "
            "there are any, that every later form of the model must answer alike.",
        ),
    ] = None
    unproven: Annotated[
        bool,
        Field(
            description="Convert a learner whose file does not prove its answers, without goldens "
            "that do. fdeploy status, the try-it page and every answer then say so."
        ),
    ] = False
    tokenizer: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Folder or file with the tokenizer (tokenizer.json or a SentencePiece "
            "model), for a learner that lost its own.",
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
            "auto when it answers every golden alike, off by 0.02 at most (or by half of the "
            "tolerance that is set), else float32; int8 or an error; none."
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
    alarms: AlarmSettings = AlarmSettings()


def section_names(model: type[Section] = Sections, prefix: str = "") -> dict[str, type[Section]]:
    """Every section with its model, such as ``endpoint`` and ``endpoint.serverless``."""
    found: dict[str, type[Section]] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found[f"{prefix}{name}"] = field.annotation
            found |= section_names(field.annotation, f"{prefix}{name}.")
    return found


SECTIONS = section_names()
RENAMED = {
    ("endpoint", "max_instances"): ("endpoint.scaling", "max_instances"),
    ("endpoint", "scale_to_zero"): ("endpoint.scaling", "to_zero"),
    ("endpoint", "scaling_target"): ("endpoint.scaling", "target"),
    ("endpoint", "serverless_memory"): ("endpoint.serverless", "memory"),
    ("endpoint", "serverless_concurrency"): ("endpoint.serverless", "concurrency"),
    ("endpoint", "provisioned_concurrency"): ("endpoint.serverless", "provisioned_concurrency"),
    ("endpoint", "alarm_idle"): ("alarms", "idle"),
    ("api", "alarm_client_errors"): ("alarms", "client_errors"),
}
"""Settings of version 0.1 that have another place now; they are read for one more release."""

REPLACED = {
    ("endpoint", "alarm_errors"): ("alarms", "errors"),
    ("endpoint", "alarm_latency"): ("alarms", "latency"),
    ("api", "alarm_errors"): ("alarms", "errors"),
    ("api", "alarm_latency"): ("alarms", "latency"),
}
"""Settings of version 0.1 that still hold for their own stack, in place of the shared one."""


class ProjectFile(Sections):
    """The whole of ``fdeploy.toml``."""

    model_config = ConfigDict(title="fdeploy.toml", extra="forbid", frozen=True, strict=True)

    stages: dict[str, Sections] = Field(
        default_factory=dict, description="Overrides by stage: [stages.prod.endpoint] and so on."
    )
