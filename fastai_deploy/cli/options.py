"""Every option of the command line, declared once.

An option that stands for a setting carries ``Sets``: the command never sees it, its value goes into
the settings with the flag's name as its origin.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

_COMMON = "Common options"


@dataclass(frozen=True)
class Sets:
    """The setting, as (section, key), that an option sets, and what the user typed to set it."""

    section: str
    key: str
    flag: str


Learner = Annotated[
    Path | None,
    typer.Argument(help="The file that learn.export() wrote.", show_default=False),
    Sets("model", "learner", "LEARNER"),
]
Golden = Annotated[
    Path | None,
    typer.Option(help="Texts that every later form of the model must answer alike."),
    Sets("model", "golden", "--golden"),
]
Tolerance = Annotated[
    float | None,
    typer.Option(help="Largest difference of a probability that counts as equal."),
    Sets("model", "tolerance", "--tolerance"),
]
Quantize = Annotated[
    str | None,
    typer.Option(help="auto, int8 or none: whether an int8 model is served."),
    Sets("model", "quantize", "--quantize"),
]
Instance = Annotated[
    str | None,
    typer.Option(help="SageMaker instance type, such as ml.m5.large; means AWS."),
    Sets("endpoint", "instance", "--instance"),
]
Region = Annotated[
    str | None,
    typer.Option(help="AWS region, such as eu-central-1; means AWS."),
    Sets("project", "region", "--region"),
]
Port = Annotated[
    int | None,
    typer.Option(help="Port of the local API; 0 takes a free one."),
    Sets("api", "port", "--port"),
]
Text = Annotated[str, typer.Argument(help="The text to classify; - reads standard input.")]
TopK = Annotated[int | None, typer.Option(help="Show this many probabilities.", min=1)]
ThroughApi = Annotated[bool, typer.Option("--api", help="Go through the public API.")]

Artifacts = Annotated[
    bool, typer.Option("--artifacts", help="Remove the artifacts in the bucket, too.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Also when the settings protect the stage.")]


def _common(name: str, annotation: Any, default: Any, *flags: str, help: str) -> inspect.Parameter:  # noqa: A002 - typer's word
    option = typer.Option(*flags, help=help, rich_help_panel=_COMMON)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[annotation, option],
    )


# What every command takes besides its own options.
COMMON = (
    _common("config", Path | None, None, "--config", "-c", help="Default: fdeploy.toml."),
    _common("stage", str | None, None, "--stage", "-s", help="Default: dev."),
    _common("target", str | None, None, "--target", help="local or aws."),
    _common("json", bool, False, "--json", help="Results and progress as JSON lines."),  # noqa: FBT003
    _common("verbose", bool, False, "--verbose", help="Show the traceback of an error."),  # noqa: FBT003
)
