"""Every option of the command line, declared once.

An option that stands for a setting carries ``Sets``: the command never sees it, its value goes into
the settings with the flag's name as its origin.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

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
    typer.Argument(
        help="The file that learn.export() wrote (or a bundle, or module:function).",
        show_default=False,
    ),
    Sets("model", "learner", "LEARNER"),
]
Golden = Annotated[
    Path | None,
    typer.Option(help="Texts that every later form of the model must answer alike."),
    Sets("model", "golden", "--golden"),
]
Definitions = Annotated[
    Path | None,
    typer.Option(help="A Python file with your classes that the model is made of; it is run."),
    Sets("model", "definitions", "--definitions"),
]
Runtime = Annotated[
    str | None,
    typer.Option(help="onnx converts the learner; learner serves the pickle itself."),
    Sets("model", "runtime", "--runtime"),
]
TrustPickle = Annotated[
    bool | None,
    typer.Option("--trust-pickle", help="Let --runtime learner run what the pickle says."),
    Sets("model", "trust_pickle", "--trust-pickle"),
]
AllowImport = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-import",
        metavar="MODULE.NAME",
        help="With --trust-pickle: a name that the pickle may use, too; repeatable.",
        show_default=False,
    ),
    Sets("model", "allow_imports", "--allow-import"),
]
Requirements = Annotated[
    Path | None,
    typer.Option(help="Pinned versions for --runtime learner."),
    Sets("model", "requirements", "--requirements"),
]
Python = Annotated[
    str | None,
    typer.Option(help="The Python for --runtime learner, such as 3.9."),
    Sets("model", "python", "--python"),
]
Unproven = Annotated[
    bool | None,
    typer.Option(
        "--unproven",
        help="Convert without proof of what the file does not show; every answer then says so.",
    ),
    Sets("model", "unproven", "--unproven"),
]
Tokenizer = Annotated[
    Path | None,
    typer.Option(help="Folder or file with the tokenizer of a learner that lost its own."),
    Sets("model", "tokenizer", "--tokenizer"),
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
Ttl = Annotated[
    str | None,
    typer.Option(help="AWS: how long the stage lives, such as 4h; then it deletes itself."),
    Sets("project", "ttl", "--ttl"),
]
Text = Annotated[
    str,
    typer.Argument(
        help="The text to classify, or a file of texts (.csv, .tsv, .jsonl, .ndjson, .json, or one "
        "text in any other); - reads standard input."
    ),
]
Column = Annotated[
    str | None,
    typer.Option(help="Column, or key, of the texts in the file. Default: text."),
]
NoHeader = Annotated[
    bool,
    typer.Option("--no-header", help="The table has none; --column is then a number, from 1."),
]
Output = Annotated[
    Path | None,
    typer.Option(help="File of answers, JSON lines; what is in it already is not asked again."),
]
Concurrency = Annotated[
    int, typer.Option(help="Requests under way at once, for a file.", min=1, max=64)
]
TopK = Annotated[int | None, typer.Option(help="Show this many probabilities.", min=1)]
ThroughApi = Annotated[bool, typer.Option("--api", help="Go through the public API.")]

KeyAction = Annotated[
    Literal["show", "rotate"], typer.Argument(help="rotate replaces the key: the old one ends.")
]
Artifacts = Annotated[
    bool, typer.Option("--artifacts", help="Remove the artifacts in the bucket, too.")
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="AWS: end when the deletion has begun, unproven.")
]
OfApi = Annotated[bool, typer.Option("--api", help="Of the API, not of the endpoint.")]
Since = Annotated[str, typer.Option(help="How far back: 90s, 15m, 2h or 1d.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes; Ctrl-C ends.")]
ToVersion = Annotated[
    str | None, typer.Option("--to", help="A version of fdeploy versions; the first digits do.")
]
Policy = Annotated[
    bool, typer.Option("--policy", help="Print the permissions that are needed, as JSON.")
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
