"""The commands that ask and judge the model. Each calls the function of its name."""

# No "from __future__ import annotations": typer needs the options' annotations as objects.
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from fastai_deploy.cli import options as opt
from fastai_deploy.cli.command import command
from fastai_deploy.cli.command_help import USE
from fastai_deploy.cli.commands.group import app

if TYPE_CHECKING:
    from fastai_deploy.batch_invoke.job import BatchReport
    from fastai_deploy.batch_invoke.run import Batch
    from fastai_deploy.cli.results import Described, InvokeResult, Key, Opened
    from fastai_deploy.evaluation.difference import Difference
    from fastai_deploy.evaluation.drift import Monitored
    from fastai_deploy.evaluation.result import Evaluation
    from fastai_deploy.load.result import Bench
    from fastai_deploy.project import Project


@command(
    app,
    USE,
    examples=[
        'fdeploy invoke "some text"',
        "fdeploy invoke reviews.csv --column review --output answers.csv",
        "echo some text | fdeploy invoke -",
    ],
    locked=False,
    after="deploy",
)
def invoke(
    project: "Project",
    text: opt.Text,
    column: opt.Column = None,
    no_header: opt.NoHeader = False,  # noqa: FBT002 - a flag
    output: opt.Output = None,
    top_k: opt.TopK = None,
    api: opt.ThroughApi = False,  # noqa: FBT002 - a flag
    concurrency: opt.Concurrency = 4,
    overwrite: opt.Overwrite = False,  # noqa: FBT002 - a flag
) -> "InvokeResult | Batch | BatchReport":
    """Classify a text, or every text in a file.

    This asks the deployed endpoint, or the API. For a large file, fdeploy batch is faster: it runs
    the model on this machine, and needs no endpoint.
    """
    from fastai_deploy import asking
    from fastai_deploy.batch_invoke.inputs import file_for_table, for_output, read_texts
    from fastai_deploy.batch_invoke.job import FileRequest
    from fastai_deploy.batch_invoke.run import BatchOptions
    from fastai_deploy.batch_invoke.tables import ColumnChoice
    from fastai_deploy.cli.results import InvokeResult
    from fastai_deploy.progress import Warned

    wanted = ColumnChoice(column, header=not no_header)
    table = file_for_table(output, text, overwrite=overwrite)
    if table is not None:
        asked = FileRequest(text, table, wanted, top_k, overwrite=overwrite)
        how = BatchOptions(through_api=api, at_once=concurrency)
        return asking.invoke_file(project, asked, how)
    texts = read_texts(text, wanted, sys.stdin.buffer, lambda said: project.report(Warned(said)))
    kept = for_output(output, text)
    if isinstance(texts, str) and kept is None:
        request = {"text": texts} if top_k is None else {"text": texts, "top_k": top_k}
        return InvokeResult(asking.invoke(project, request, through_api=api))
    several = [texts] if isinstance(texts, str) else texts
    how = BatchOptions(through_api=api, top_k=top_k, output=kept, at_once=concurrency)
    return asking.invoke_many(project, several, how)


@command(
    app,
    USE,
    examples=[
        "fdeploy evaluate labelled.csv",
        "fdeploy evaluate labelled.csv --on bundle --min-accuracy 0.85 --against live",
        "fdeploy evaluate reviews.csv --column review --label-column stars",
    ],
    locked=False,
)
def evaluate(
    project: "Project",
    file: opt.LabelledFile,
    column: opt.Column = None,
    label_column: opt.LabelColumn = None,
    no_header: opt.NoHeader = False,  # noqa: FBT002 - a flag
    on: opt.On = None,
    live: opt.BesideLive = False,  # noqa: FBT002
    min_accuracy: opt.MinAccuracy = None,
    against: opt.Against = None,
    report: opt.Report = None,
    region: opt.Region = None,
) -> "Evaluation":
    """Judge the model's answers to labelled texts."""
    from fastai_deploy import files, model_quality
    from fastai_deploy.batch_invoke.labelled import LabelledColumns

    how = model_quality.EvaluateOptions(
        columns=LabelledColumns(column, label_column, header=not no_header),
        on=on,
        live=live,
        against=against,
        min_accuracy=min_accuracy,
        report=files.expanded(report).absolute() if report else None,
    )
    return model_quality.evaluate(project, files.expanded(file), how, sys.stdin.buffer)


@command(
    app,
    USE,
    examples=["fdeploy diff", "fdeploy diff 3f2a91", "fdeploy diff 3f2a91 live"],
    locked=False,
)
def diff(
    project: "Project",
    before: opt.Before = None,
    after: opt.After = None,
    region: opt.Region = None,
) -> "Difference":
    """Compare two versions: labels, accuracy, form, size, what made them."""
    from fastai_deploy import model_quality

    return model_quality.diff(project, before, after)


@command(
    app,
    USE,
    examples=["fdeploy monitor", "fdeploy monitor --since 1d --max-drift 0.2"],
    locked=False,
)
def monitor(
    project: "Project",
    since: opt.Since = "7d",
    most: opt.MostTexts = 10_000,
    max_drift: opt.MaxDrift = None,
    region: opt.Region = None,
) -> "Monitored":
    """AWS: compare captured texts and answers with the goldens."""
    from fastai_deploy import model_quality

    return model_quality.monitor(project, model_quality.MonitorOptions(since, most, max_drift))


@command(
    app,
    USE,
    examples=[
        "fdeploy bench",
        "fdeploy bench --on api --clients 1,4,16 --texts reviews.csv",
        "fdeploy bench --rate 50 --seconds 30",
    ],
    locked=False,
    then="fdeploy cost",
)
def bench(
    project: "Project",
    on: opt.BenchOn = "endpoint",
    clients: opt.Clients = None,
    rate: opt.LoadRate = None,
    seconds: opt.LoadSeconds = 5.0,
    requests: opt.LoadRequests = None,
    texts: opt.Texts = None,
    column: opt.Column = None,
    yes: opt.YesToLoad = False,  # noqa: FBT002
) -> "Bench":
    """Measure latency and throughput under load."""
    from fastai_deploy.batch_invoke.inputs import read_file_texts
    from fastai_deploy.batch_invoke.tables import ColumnChoice
    from fastai_deploy.load import run
    from fastai_deploy.progress import Warned

    plan = run.Plan(on, run.parse_clients(clients, rate), rate, seconds, requests)
    if texts is not None:
        found = read_file_texts(
            texts, ColumnChoice(column), lambda said: project.report(Warned(said))
        )
        plan = replace(plan, texts=found, source=texts)
    return run.bench(project, plan)


@command(
    app,
    USE,
    examples=[
        "fdeploy batch reviews.csv answers.csv --column review",
        "fdeploy batch reviews.parquet answers.parquet",
        "fdeploy batch s3://my-bucket/reviews.jsonl s3://my-bucket/answers.jsonl",
        "fdeploy batch reviews.csv answers.csv --transform --instances 4 --region eu-central-1",
    ],
    locked=False,
    after="export",
)
def batch(
    project: "Project",
    source: opt.BatchInput,
    output: opt.BatchOutput,
    column: opt.Column = None,
    no_header: opt.NoHeader = False,  # noqa: FBT002 - a flag
    top_k: opt.TopK = None,
    limit: opt.Limit = None,
    overwrite: opt.Overwrite = False,  # noqa: FBT002 - a flag
    transform: opt.Transform = False,  # noqa: FBT002 - a flag
    instances: opt.Instances = None,
    instance: opt.Instance = None,
    region: opt.Region = None,
    yes: opt.YesToCost = False,  # noqa: FBT002
) -> "BatchReport":
    """Classify every row of a file with the model itself, without an endpoint.

    The model runs on this machine, on every core, or with --transform on instances of SageMaker,
    for as long as it takes. A run that is interrupted is continued by the same command. To ask the
    deployed endpoint or API instead, use fdeploy invoke FILE.
    """
    from fastai_deploy import asking
    from fastai_deploy.batch_invoke.job import FileRequest
    from fastai_deploy.batch_invoke.tables import ColumnChoice
    from fastai_deploy.errors import UsageError

    wanted = ColumnChoice(column, header=not no_header)
    request = FileRequest(source, output, wanted, top_k, limit, overwrite)
    if transform:
        return asking.transform(project, request, instances or 1)
    if instances is not None:
        raise UsageError("--instances is for --transform", hint="add --transform, or leave it out")
    return asking.batch(project, request)


@command(app, USE, examples=["fdeploy key", "fdeploy key rotate"], after="create-api")
def key(
    project: "Project",
    action: opt.KeyAction = "show",
    adopt: opt.Adopt = False,  # noqa: FBT002
) -> "Key":
    """Show the API key, or replace it with a new one."""
    from fastai_deploy import stages
    from fastai_deploy.cli.results import Key

    return Key(stages.rotate_key(project) if action == "rotate" else stages.key(project))


@command(app, USE, examples=["fdeploy openapi > openapi.json"], locked=False)
def openapi(project: "Project") -> "Described":
    """Print the API's OpenAPI document."""
    from fastai_deploy import stages
    from fastai_deploy.cli.results import Described

    return Described(stages.openapi(project))


@command(app, USE, "open", examples=["fdeploy open", "fdeploy open --console"], locked=False)
def open_page(project: "Project", console: opt.OfConsole = False) -> "Opened":  # noqa: FBT002
    """Open the API's page in a browser, with the key filled in, or the AWS console."""
    from fastai_deploy import operations
    from fastai_deploy.cli import browser
    from fastai_deploy.cli.results import Opened
    from fastai_deploy.records import Api

    if console:
        return Opened(url := operations.console(project), browser.show(project, url))
    url, key = operations.page(project)
    key_file = project.workspace.need(Api).key_file
    return Opened(url, browser.show(project, url, key), key_file if key else "")
