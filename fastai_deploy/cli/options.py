"""Every command-line option, declared once.

An option that sets a setting carries ``Sets``. The command function never sees it: its value goes
into the settings, with the flag's name as its origin.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fastai_deploy import __version__
from fastai_deploy.cli import completion

_COMMON = "Common options"


@dataclass(frozen=True)
class Sets:
    """The setting (section, key) that an option sets, and the flag to name as its origin.

    ``value`` is what a flag without a value of its own sets.
    """

    section: str
    key: str
    flag: str
    value: str | None = None


@dataclass(frozen=True)
class Agrees:
    """What an option agrees to: a field of ``progress.Consent``. It reaches no command function."""

    to: str


Learner = Annotated[
    Path | None,
    typer.Argument(
        help="File written by learn.export(); folder written by save_pretrained(); hf:owner/name, "
        "on the Hugging Face Hub; bundle folder; or module:function.",
        show_default=False,
        autocompletion=completion.learners,
    ),
    Sets("model", "learner", "LEARNER"),
]
Golden = Annotated[
    Path | None,
    typer.Option(help="Texts (.txt, .jsonl, .csv) on which every form of the model must agree."),
    Sets("model", "golden", "--golden"),
]
Definitions = Annotated[
    Path | None,
    typer.Option(help="Python file that defines the model's custom classes; it is run."),
    Sets("model", "definitions", "--definitions"),
]
Runtime = Annotated[
    str | None,
    typer.Option(help="onnx converts the learner; learner serves its original pickle."),
    Sets("model", "runtime", "--runtime"),
]
TrustPickle = Annotated[
    bool | None,
    typer.Option("--trust-pickle", help="Allow --runtime learner to run code from the pickle."),
    Sets("model", "trust_pickle", "--trust-pickle"),
]
AllowImport = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-import",
        metavar="MODULE.NAME",
        help="With --trust-pickle: one more name that the pickle may import; repeatable.",
        show_default=False,
    ),
    Sets("model", "allow_imports", "--allow-import"),
]
Requirements = Annotated[
    Path | None,
    typer.Option(help="requirements.txt with pinned versions, for --runtime learner."),
    Sets("model", "requirements", "--requirements"),
]
Python = Annotated[
    str | None,
    typer.Option(help="Python version for --runtime learner, such as 3.9."),
    Sets("model", "python", "--python"),
]
Unproven = Annotated[
    bool | None,
    typer.Option(
        "--unproven",
        help="Convert even if the file does not prove every answer; each answer then says so.",
    ),
    Sets("model", "unproven", "--unproven"),
]
Tokenizer = Annotated[
    Path | None,
    typer.Option(help="Tokenizer file or folder, for a learner saved without its tokenizer."),
    Sets("model", "tokenizer", "--tokenizer"),
]
Tolerance = Annotated[
    float | None,
    typer.Option(help="Largest difference of probabilities that counts as equal, in float32."),
    Sets("model", "tolerance", "--tolerance"),
]
Quantize = Annotated[
    str | None,
    typer.Option(help="Forms to serve: auto, int8, int8-weights, bf16, or none for float32."),
    Sets("model", "quantize", "--quantize"),
]
Instance = Annotated[
    str | None,
    typer.Option(
        help="SageMaker instance type, such as ml.m5.large; selects the AWS target.",
        autocompletion=completion.instances,
    ),
    Sets("endpoint", "instance", "--instance"),
]
Lambda = Annotated[
    bool | None,
    typer.Option(
        "--lambda",
        help="Put the model into the API's own Lambda function, which costs nothing when idle; "
        "selects the AWS target.",
    ),
    Sets("endpoint", "kind", "--lambda", "lambda"),
]
Region = Annotated[
    str | None,
    typer.Option(help="AWS region, such as eu-central-1; selects the AWS target."),
    Sets("project", "region", "--region"),
]
Port = Annotated[
    int | None,
    typer.Option(help="Port of the local API; 0 picks a free one."),
    Sets("api", "port", "--port"),
]
Ttl = Annotated[
    str | None,
    typer.Option(help="AWS: delete the stage automatically after this time, such as 4h; or never."),
    Sets("project", "ttl", "--ttl"),
]
EXPORT: Mapping[str, Any] = {
    "learner": Learner,
    "golden": Golden,
    "unproven": Unproven,
    "tokenizer": Tokenizer,
    "tolerance": Tolerance,
    "quantize": Quantize,
    "definitions": Definitions,
    "runtime": Runtime,
    "trust_pickle": TrustPickle,
    "allow_import": AllowImport,
    "requirements": Requirements,
    "python": Python,
}
"""What an export depends on, for every command that exports."""

Text = Annotated[
    str,
    typer.Argument(
        help="A text, a file of texts (.csv, .tsv, .jsonl, .ndjson, .json, .parquet), or any other "
        "file, which is read as one text; - reads standard input."
    ),
]
Column = Annotated[
    str | None,
    typer.Option(help="Column or JSON key that holds the texts. Default: text."),
]
NoHeader = Annotated[
    bool,
    typer.Option("--no-header", help="The table has no header; --column is a number, from 1."),
]
LabelledFile = Annotated[
    Path,
    typer.Argument(
        help="Texts with their true labels (.csv, .tsv, .jsonl, .ndjson, .json).",
        show_default=False,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        help="Column or JSON key with the true labels, several with semicolons. Default: label."
    ),
]
On = Annotated[
    Literal["bundle", "artifact", "endpoint", "api"] | None,
    typer.Option(help="What to ask. Default: the last of these that there is."),
]
BesideLive = Annotated[
    bool, typer.Option("--live", help="Ask the endpoint too, beside the bundle or the artifact.")
]
MinAccuracy = Annotated[
    float | None,
    typer.Option(
        help="End with code 16 if the accuracy is below this, such as 0.85.", min=0, max=1
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="VERSION",
        help="Ask this deployed version too (or live), and end with code 16 if the judged answers "
        "are significantly worse.",
        autocompletion=completion.versions,
    ),
]
Before = Annotated[
    str | None,
    typer.Argument(
        metavar="[VERSION]",
        help="A deployed version (its first digits), live, or bundle. Default: live.",
        show_default=False,
        autocompletion=completion.versions,
    ),
]
After = Annotated[
    str | None,
    typer.Argument(
        metavar="[VERSION]",
        help="The version to compare it with. Default: bundle.",
        show_default=False,
        autocompletion=completion.versions,
    ),
]
Report = Annotated[
    Path | None, typer.Option(help="Write the HTML report here. Default: beside the bundle.")
]
MaxDrift = Annotated[
    float | None,
    typer.Option(
        help="End with code 16 if a figure's drift (PSI) is above this, such as 0.2, and not by "
        "chance.",
        min=0,
    ),
]
MostTexts = Annotated[
    int, typer.Option("--most", help="Read at most so many texts, the newest ones.", min=1)
]
ShowCard = Annotated[
    bool, typer.Option("--card", help="Show the model card of the exported bundle instead.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        help="Write the answers here; texts already answered are skipped. A .csv, .tsv or .parquet "
        "file gets all columns of the input, any other name JSON lines."
    ),
]
BatchInput = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="A file of texts (.csv, .tsv, .jsonl, .ndjson, .json, .parquet; tables and lines also "
        "with .gz), here or on S3 (s3://BUCKET/KEY).",
    ),
]
BatchOutput = Annotated[
    str,
    typer.Argument(
        metavar="OUTPUT",
        help="The file to write, in the format that its name says, here or on S3.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace the output, and start an interrupted run from the beginning."
    ),
]
ImageOutput = Annotated[
    Path, typer.Option("--output", help="The file to write, such as image.tar.", metavar="FILE")
]
WithModel = Annotated[
    bool, typer.Option("--with-model", help="Put the model of this stage into the image.")
]
Machine = Annotated[
    Literal["x86_64", "aarch64"] | None,
    typer.Option(help="The processor that it is for. Default: this machine's."),
]
Sbom = Annotated[
    Path | None,
    typer.Option(help="Write a list of what is in the image too (CycloneDX).", metavar="FILE"),
]
Pull = Annotated[
    bool,
    typer.Option("--pull", help="Take the newest build of the base of fdeploy's own image."),
]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace the output.")]
Limit = Annotated[
    int | None, typer.Option(help="Classify only the first N rows.", metavar="N", min=1)
]
Transform = Annotated[
    bool,
    typer.Option(
        "--transform",
        help="AWS: classify with a batch transform of SageMaker instead of here.",
    ),
]
Instances = Annotated[
    int | None,
    typer.Option(
        help="With --transform: the number of instances [1].", min=1, max=100, show_default=False
    ),
]
YesToCost = Annotated[
    bool,
    typer.Option("--yes", help="With --transform: do not ask before it costs something."),
    Agrees("yes"),
]
Concurrency = Annotated[
    int, typer.Option(help="Number of concurrent requests, for a file.", min=1, max=64)
]
TopK = Annotated[int | None, typer.Option(help="Return only the N highest probabilities.", min=1)]
ThroughApi = Annotated[bool, typer.Option("--api", help="Call the public API, not the endpoint.")]

BenchOn = Annotated[
    Literal["endpoint", "api", "bundle"],
    typer.Option("--on", help="What to measure; bundle is the model alone, in this process."),
]
Clients = Annotated[
    str | None,
    typer.Option(
        help="Closed loop: numbers of requests open at once, with commas. Default: 1,2,4,8.",
        show_default=False,
    ),
]
LoadRate = Annotated[
    float | None,
    typer.Option("--rate", help="Open loop: requests due each second.", min=0.1, max=100_000),
]
LoadSeconds = Annotated[
    float, typer.Option("--seconds", help="Length of each level.", min=0.5, max=3600)
]
LoadRequests = Annotated[
    int | None, typer.Option("--requests", help="Most requests of each level.", min=1)
]
Texts = Annotated[
    str | None,
    typer.Option(
        "--texts",
        metavar="FILE",
        help="Texts to send: .csv, .tsv, .jsonl, .ndjson or .json. Default: the goldens.",
        show_default=False,
    ),
]
YesToLoad = Annotated[
    bool,
    typer.Option("--yes", help="AWS: do not ask before load is sent; needed without a terminal."),
    Agrees("yes"),
]

CostRate = Annotated[
    float | None,
    typer.Option(
        "--rate",
        help="Texts per second of one instance. Default: as the last fdeploy bench measured.",
        min=0.001,
        max=1_000_000,
        show_default=False,
    ),
]
Latency = Annotated[
    float | None,
    typer.Option(
        "--latency",
        metavar="MS",
        help="Milliseconds of one request, for serverless. Default: as measured, or 1000 / rate.",
        min=0.01,
        max=60_000,
        show_default=False,
    ),
]
EveryInstance = Annotated[bool, typer.Option("--all", help="List every instance with a price.")]
Refresh = Annotated[
    bool, typer.Option("--refresh", help="Ask AWS for its list prices of the region.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Ask AWS nothing.")]

ConfigAction = Annotated[
    Literal["show", "set", "unset"],
    typer.Argument(help="set writes a setting into fdeploy.toml, unset removes it."),
]
SettingKey = Annotated[
    str,
    typer.Argument(
        help="A setting such as api.rate or stages.prod.api.rate.",
        show_default=False,
        autocompletion=completion.settings,
    ),
]
SettingValue = Annotated[
    str | None, typer.Argument(help="Its value; lists use commas.", show_default=False)
]
ErrorCode = Annotated[
    str,
    typer.Argument(
        help="A code such as record-stale, or an exit code.", autocompletion=completion.codes
    ),
]
KeyAction = Annotated[
    Literal["show", "rotate"], typer.Argument(help="rotate makes a new key and ends the old one.")
]
Artifacts = Annotated[
    bool, typer.Option("--artifacts", help="AWS: also delete the artifacts in the bucket.")
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="AWS: start the deletion and return without verifying it.")
]
Forget = Annotated[
    bool,
    typer.Option(
        "--forget",
        help="AWS: delete nothing, only forget the stage's last deploy, whose account is out of "
        "reach.",
    ),
]
OfConsole = Annotated[
    bool, typer.Option("--console", help="AWS: open the stage's stacks in the AWS console.")
]
OfApi = Annotated[bool, typer.Option("--api", help="Show the API's logs, not the endpoint's.")]
Since = Annotated[str, typer.Option(help="How far back to start, such as 90s, 15m, 2h or 1d.")]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Keep printing new lines until Ctrl-C.")
]
ToVersion = Annotated[
    str | None,
    typer.Option(
        "--to",
        help="Version to go back to; its first digits are enough.",
        autocompletion=completion.versions,
    ),
]
Policy = Annotated[
    bool, typer.Option("--policy", help="Print the IAM permissions fdeploy needs, as JSON.")
]
Yes = Annotated[
    bool,
    typer.Option("--yes", help="AWS: do not ask before a stage's first deploy, or its teardown."),
    Agrees("yes"),
]
YesToAll = Annotated[
    bool, typer.Option("--yes", help="Ask nothing; take the defaults."), Agrees("yes")
]
Adopt = Annotated[
    bool,
    typer.Option("--adopt", help="AWS: take over a stage of this name that has another id."),
    Agrees("adopt"),
]
EvenIfProtected = Annotated[
    bool,
    typer.Option(
        "--even-if-protected", help="Delete a stage that has, or was deployed with, protect = true."
    ),
]


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer passes it like this
    if wanted:
        typer.echo(f"fdeploy {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
]


def _common(
    name: str,
    annotation: Any,
    default: Any,
    *flags: str,
    help: str,  # noqa: A002 - typer's word
    **more: Any,
) -> inspect.Parameter:
    option = typer.Option(*flags, help=help, rich_help_panel=_COMMON, **more)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[annotation, option],
    )


# Options that every command takes.
COMMON = (
    _common("config", Path | None, None, "--config", "-c", help="Settings [fdeploy.toml]."),
    _common(
        *("stage", str | None, None, "--stage", "-s"),
        help="Stage, such as prod [dev].",
        autocompletion=completion.stages,
    ),
    _common("target", str | None, None, "--target", help="Where to deploy: local or aws."),
    _common("json", bool, False, "--json", help="Print results and progress as JSON lines."),  # noqa: FBT003
    _common("quiet", bool, False, "--quiet", "-q", help="Print no progress, only the result."),  # noqa: FBT003
    _common("verbose", bool, False, "--verbose", help="Print a traceback with an error."),  # noqa: FBT003
)
