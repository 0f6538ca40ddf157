"""The settings of a project: one frozen model per section of ``fdeploy.toml``.

Every key has a description and a default, so the same models provide validation, the JSON Schema
and the reference documentation. Paths are strings, relative to the folder of the project file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar, get_origin

from pydantic import ConfigDict, Field

from fastai_deploy.runtime.parity import MARGIN, MEAN, P99
from fastai_deploy.settings.aws_sections import AlarmSettings, ApiSettings, EndpointSettings
from fastai_deploy.settings.sections import ProjectSettings, Section


class GateSettings(Section):
    """What a model in fewer bits than float32 must keep to on your goldens, or it is not served."""

    rules: Annotated[
        tuple[Literal["labels", "differences", "accuracy"], ...],
        Field(
            description="The rules that matter to you. labels: margin. differences: mean and p99. "
            "accuracy: max_accuracy_drop."
        ),
    ] = ("labels", "differences", "accuracy")
    margin: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="A label may change only where the learner's two best probabilities are "
            "nearer than this (for several labels: a probability nearer than half of this to 0.5).",
        ),
    ] = MARGIN
    mean: Annotated[
        float, Field(gt=0, lt=1, description="Mean difference of the probabilities.")
    ] = MEAN
    p99: Annotated[
        float,
        Field(gt=0, lt=1, description="Difference that 99 of 100 texts must not exceed."),
    ] = P99
    max_accuracy_drop: Annotated[
        float,
        Field(
            ge=0,
            lt=100,
            description="Points of accuracy that may be lost on goldens with true labels.",
        ),
    ] = 0.5


class ModelSettings(Section):
    """The learner, how it is converted, and how its predictions are verified."""

    learner: Annotated[
        str | None,
        Field(
            min_length=1,
            description="File written by learn.export(); folder written by save_pretrained(); "
            "hf:owner/name or hf:owner/name@revision, on the Hugging Face Hub; bundle folder "
            "written by export_learner(); or module:function, which is run to get a live learner.",
        ),
    ] = None
    definitions: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Python file that defines the learner's custom classes. This file is run; "
            "the learner itself is only read, unless runtime is learner.",
        ),
    ] = None
    runtime: Annotated[
        Literal["onnx", "learner"],
        Field(
            description="onnx converts the learner; learner serves its original pickle with its "
            "own libraries, and needs trust_pickle."
        ),
    ] = "onnx"
    trust_pickle: Annotated[
        bool,
        Field(
            description="With runtime learner: allow loading the pickle, which runs code from it, "
            "including the classes in __main__ and in the definitions file."
        ),
    ] = False
    allow_imports: Annotated[
        tuple[
            Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")],
            ...,
        ],
        Field(
            description="With runtime learner: further names (module.name) that the pickle may "
            "import and call although fdeploy does not know them. Names known to be dangerous are "
            "never allowed."
        ),
    ] = ()
    requirements: Annotated[
        str | None,
        Field(
            min_length=1,
            description="With runtime learner: requirements.txt with the pinned versions "
            "(name==1.2.3) the learner was trained with. Default: the installed ones, if they fit.",
        ),
    ] = None
    python: Annotated[
        str | None,
        Field(
            pattern=r"^3\.[0-9]{1,2}$",
            description="With runtime learner: Python version to load it with, such as 3.9. "
            "Default: the one the file needs, else the one that runs fdeploy.",
        ),
    ] = None
    golden: Annotated[
        str | None,
        Field(
            min_length=1,
            description="File of texts (.txt, .jsonl or .csv), if possible with the learner's own "
            "probabilities, on which every later form of the model must agree.",
        ),
    ] = None
    unproven: Annotated[
        bool,
        Field(
            description="Convert a learner even if neither its file nor goldens prove its answers. "
            "fdeploy status, the demo page and every answer then say so."
        ),
    ] = False
    tokenizer: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Tokenizer folder or file (tokenizer.json or a SentencePiece model), for a "
            "learner saved without its tokenizer.",
        ),
    ] = None
    tolerance: Annotated[
        float,
        Field(
            gt=0,
            lt=0.5,
            description="Largest difference at which two probabilities count as equal, in float32.",
        ),
    ] = 1e-4
    quantize: Annotated[
        Literal["auto", "int8", "int8-weights", "bf16", "none"],
        Field(
            description="The forms with fewer bits than float32, which are two to three times as "
            "fast, that may be served. auto: all that pass the rules of [model.gate]; the server "
            "takes the one that is fastest on its processor. int8, int8-weights or bf16: this one "
            "or an error. none: float32 only."
        ),
    ] = "auto"
    gate: GateSettings = GateSettings()


class PackageSettings(Section):
    """How model.tar.gz is made."""

    name: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
            description="Model name in answers. Default: the learner's file name.",
        ),
    ] = None
    base_image: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9.:/_@-]{0,511}$",
            description="Base of the image of fdeploy's own server: Linux with Python 3.13, glibc "
            "and libstdc++. Its tag is resolved once; fdeploy up --pull resolves it again.",
        ),
    ] = "public.ecr.aws/docker/library/python:3.13-slim"


class Sections(Section):
    """The sections that a stage can override."""

    project: ProjectSettings = ProjectSettings()
    model: ModelSettings = ModelSettings()
    package: PackageSettings = PackageSettings()
    endpoint: EndpointSettings = EndpointSettings()
    api: ApiSettings = ApiSettings()
    alarms: AlarmSettings = AlarmSettings()


_Class = TypeVar("_Class")


def section_names(model: type[Section] = Sections, prefix: str = "") -> dict[str, type[Section]]:
    """Every section with its model, such as ``endpoint`` and ``endpoint.serverless``."""
    found: dict[str, type[Section]] = {}
    for name, field in model.model_fields.items():
        section = class_of(field.annotation, Section)
        if section is not None:
            found[f"{prefix}{name}"] = section
            found |= section_names(section, f"{prefix}{name}.")
    return found


def class_of(annotation: Any, base: type[_Class]) -> type[_Class] | None:
    """An annotation that is a subclass of ``base``, None for any other."""
    # Python 3.10 takes dict[str, str] for a class.
    plain = get_origin(annotation) is None and isinstance(annotation, type)
    return annotation if plain and issubclass(annotation, base) else None


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
        default_factory=dict,
        description="Overrides per stage: [stages.prod.endpoint] and so on.",
    )
