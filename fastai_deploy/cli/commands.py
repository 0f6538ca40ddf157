"""The commands. Each is an adapter that calls the stage or operation of the same name."""

# No "from __future__ import annotations": typer needs the options' annotations as objects.
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from fastai_deploy.cli import options as opt
from fastai_deploy.cli.command import command
from fastai_deploy.cli.command_help import ABOUT, FLOW, OPERATE, USE, Commands

if TYPE_CHECKING:
    from fastai_deploy.aws.costs import CostReport
    from fastai_deploy.batch_invoke.job import BatchReport
    from fastai_deploy.batch_invoke.run import Batch
    from fastai_deploy.cli.explain import Explained
    from fastai_deploy.cli.results import (
        ChangedSetting,
        Described,
        Exported,
        Inspected,
        InvokeResult,
        Key,
        Lines,
        Opened,
        Versions,
    )
    from fastai_deploy.evaluation.card import Card
    from fastai_deploy.evaluation.difference import Difference
    from fastai_deploy.evaluation.drift import Monitored
    from fastai_deploy.evaluation.result import Evaluation
    from fastai_deploy.load.result import Bench
    from fastai_deploy.project import Project
    from fastai_deploy.project_setup import Initialized
    from fastai_deploy.records import (
        Api,
        Artifact,
        Checkup,
        Endpoint,
        Policies,
        StagePlan,
        Status,
        StoredArtifact,
        Teardown,
        Templates,
    )
    from fastai_deploy.settings import Settings

app = typer.Typer(
    name="fdeploy",
    cls=Commands,
    help="Deploy a fastai text classifier as a verified, key-protected HTTPS API; tear it down "
    "again with one command.",
    epilog="The first time: init, then up. fdeploy COMMAND --help shows examples.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def version(version: opt.Version = False) -> None:  # noqa: FBT002 - the option itself answers
    """Options of fdeploy itself."""


@command(
    app,
    FLOW,
    examples=["fdeploy init", "fdeploy init learner.pkl --region eu-central-1 --yes"],
    locked=False,
    then="fdeploy up",
)
def init(
    project: "Project",
    learner: opt.Learner = None,
    region: opt.Region = None,
    instance: opt.Instance = None,
    ttl: opt.Ttl = None,
    yes: opt.YesToAll = False,  # noqa: FBT002
) -> "Initialized":
    """Write fdeploy.toml for the learner in this folder."""
    from pathlib import Path

    from fastai_deploy import project_setup

    return project_setup.init(project, Path.cwd())


@command(
    app,
    FLOW,
    examples=["fdeploy inspect learner.pkl", "fdeploy inspect --card > README.md"],
    locked=False,
    then=lambda found: (
        "fdeploy export"
        if hasattr(found, "summary") and not found.summary["verdict"]["reason"]
        else ""
    ),
)
def inspect(
    project: "Project",
    learner: opt.Learner = None,
    card: opt.ShowCard = False,  # noqa: FBT002 - a flag
) -> "Inspected | Card":
    """Show what is in a learner, without running it."""
    if card:
        from fastai_deploy import model_quality

        return model_quality.card(project)
    from fastai_deploy import stages
    from fastai_deploy.cli.results import Inspected

    return Inspected(stages.inspect(project))


@command(
    app,
    FLOW,
    examples=[
        "fdeploy export learner.pkl",
        "fdeploy export learner.pkl --golden texts.jsonl",
        "fdeploy export learner.pkl --definitions model_def.py",
    ],
    then="fdeploy package",
)
def export(
    project: "Project",
    learner: opt.Learner = None,
    golden: opt.Golden = None,
    unproven: opt.Unproven = None,
    tokenizer: opt.Tokenizer = None,
    tolerance: opt.Tolerance = None,
    quantize: opt.Quantize = None,
    definitions: opt.Definitions = None,
    runtime: opt.Runtime = None,
    trust_pickle: opt.TrustPickle = None,
    allow_import: opt.AllowImport = None,
    requirements: opt.Requirements = None,
    python: opt.Python = None,
) -> "Exported":
    """Convert a learner into a verified bundle, without running it."""
    from fastai_deploy import stages
    from fastai_deploy.cli.results import Exported

    return Exported.of(stages.export(project))


@command(app, FLOW, examples=["fdeploy package"], after="export", then="fdeploy upload")
def package(
    project: "Project",
    instance: opt.Instance = None,
    region: opt.Region = None,
) -> "Artifact":
    """Pack the bundle into model.tar.gz."""
    from fastai_deploy import freshness, stages

    return stages.package(project, freshness.bundle(project))


@command(
    app,
    FLOW,
    examples=["fdeploy upload", "fdeploy upload --region eu-central-1"],
    after="package",
    then="fdeploy deploy",
)
def upload(project: "Project", region: opt.Region = None) -> "StoredArtifact":
    """Upload model.tar.gz to where the target reads it."""
    from fastai_deploy import freshness, stages

    return stages.upload(project, freshness.artifact(project))


@command(
    app,
    FLOW,
    examples=["fdeploy deploy", "fdeploy deploy --instance ml.m5.large --ttl 4h"],
    after="upload",
    then="fdeploy create-api",
)
def deploy(
    project: "Project",
    instance: opt.Instance = None,
    region: opt.Region = None,
    ttl: opt.Ttl = None,
    yes: opt.Yes = False,  # noqa: FBT002
    adopt: opt.Adopt = False,  # noqa: FBT002
) -> "Endpoint":
    """Serve the model and verify it against the goldens."""
    from fastai_deploy import stages

    project = stages.claimed(project, creates=True)
    return stages.deploy(project, stages.ready_to_deploy(project))


@command(
    app,
    FLOW,
    "create-api",
    examples=["fdeploy create-api", "fdeploy create-api --port 8000"],
    after="deploy",
    then='fdeploy invoke "some text" --api',
)
def create_api(
    project: "Project",
    port: opt.Port = None,
    adopt: opt.Adopt = False,  # noqa: FBT002
) -> "Api":
    """Create the key-protected API in front of the endpoint."""
    from fastai_deploy import freshness, stages

    project = stages.claimed(project)
    return stages.create_api(project, freshness.endpoint(project))


@command(
    app,
    FLOW,
    examples=[
        "fdeploy up learner.pkl",
        "fdeploy up learner.pkl --region eu-central-1 --ttl 4h",
        "fdeploy up --stage prod",
    ],
    then='fdeploy invoke "some text"',
)
def up(
    project: "Project",
    learner: opt.Learner = None,
    golden: opt.Golden = None,
    unproven: opt.Unproven = None,
    tokenizer: opt.Tokenizer = None,
    tolerance: opt.Tolerance = None,
    quantize: opt.Quantize = None,
    definitions: opt.Definitions = None,
    runtime: opt.Runtime = None,
    trust_pickle: opt.TrustPickle = None,
    allow_import: opt.AllowImport = None,
    requirements: opt.Requirements = None,
    python: opt.Python = None,
    instance: opt.Instance = None,
    region: opt.Region = None,
    ttl: opt.Ttl = None,
    port: opt.Port = None,
    yes: opt.Yes = False,  # noqa: FBT002
    adopt: opt.Adopt = False,  # noqa: FBT002
) -> "Api":
    """Run export, package, upload, deploy and create-api."""
    from fastai_deploy import stages

    return stages.up(project)


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
    from fastai_deploy import stages
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
        return stages.invoke_file(project, asked, how)
    texts = read_texts(text, wanted, sys.stdin.buffer, lambda said: project.report(Warned(said)))
    kept = for_output(output, text)
    if isinstance(texts, str) and kept is None:
        request = {"text": texts} if top_k is None else {"text": texts, "top_k": top_k}
        return InvokeResult(stages.invoke(project, request, through_api=api))
    several = [texts] if isinstance(texts, str) else texts
    how = BatchOptions(through_api=api, top_k=top_k, output=kept, at_once=concurrency)
    return stages.invoke_many(project, several, how)


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
    from fastai_deploy import stages
    from fastai_deploy.batch_invoke.job import FileRequest
    from fastai_deploy.batch_invoke.tables import ColumnChoice
    from fastai_deploy.errors import UsageError

    wanted = ColumnChoice(column, header=not no_header)
    request = FileRequest(source, output, wanted, top_k, limit, overwrite)
    if transform:
        return stages.transform(project, request, instances or 1)
    if instances is not None:
        raise UsageError("--instances is for --transform", hint="add --transform, or leave it out")
    return stages.batch(project, request)


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


@command(
    app,
    FLOW,
    examples=["fdeploy teardown", "fdeploy teardown --stage prod --artifacts"],
)
def teardown(
    project: "Project",
    artifacts: opt.Artifacts = False,  # noqa: FBT002 - a flag
    yes: opt.Yes = False,  # noqa: FBT002
    adopt: opt.Adopt = False,  # noqa: FBT002
    even_if_protected: opt.EvenIfProtected = False,  # noqa: FBT002
    no_wait: opt.NoWait = False,  # noqa: FBT002
    forget: opt.Forget = False,  # noqa: FBT002
    region: opt.Region = None,
) -> "Teardown":
    """Delete everything, then verify that nothing is left."""
    from fastai_deploy import stages

    if forget:
        return stages.forget(project)
    return stages.teardown(
        project, artifacts=artifacts, confirmed=even_if_protected, wait=not no_wait
    )


@command(
    app,
    ABOUT,
    examples=["fdeploy config", "fdeploy config set api.rate 20", "fdeploy config unset api.rate"],
    locked=False,
)
def config(
    project: "Project",
    action: opt.ConfigAction = "show",
    key: opt.SettingKey = "",
    value: opt.SettingValue = None,
) -> "Settings | ChangedSetting":
    """Show every setting and its origin, or change one in fdeploy.toml."""
    from fastai_deploy.cli.results import ChangedSetting

    return project.settings if action == "show" else ChangedSetting.of(project, key, value, action)


@command(
    app,
    ABOUT,
    examples=["fdeploy explain record-stale", "fdeploy explain 14"],
    locked=False,
)
def explain(project: "Project", code: opt.ErrorCode) -> "Explained":
    """Explain an error's code, or an exit code."""
    from fastai_deploy.cli.explain import explain

    return explain(code)


@command(app, OPERATE, examples=["fdeploy plan", "fdeploy plan --region eu-central-1"])
def plan(
    project: "Project",
    learner: opt.Learner = None,
    golden: opt.Golden = None,
    unproven: opt.Unproven = None,
    tokenizer: opt.Tokenizer = None,
    tolerance: opt.Tolerance = None,
    quantize: opt.Quantize = None,
    definitions: opt.Definitions = None,
    runtime: opt.Runtime = None,
    trust_pickle: opt.TrustPickle = None,
    allow_import: opt.AllowImport = None,
    requirements: opt.Requirements = None,
    python: opt.Python = None,
    instance: opt.Instance = None,
    region: opt.Region = None,
    ttl: opt.Ttl = None,
) -> "StagePlan":
    """Show what up would change (exit code 15 if anything)."""
    from fastai_deploy import operations

    return operations.plan(project)


@command(
    app,
    OPERATE,
    examples=["fdeploy cost", "fdeploy cost --rate 40 --region eu-central-1"],
    locked=False,
)
def cost(
    project: "Project",
    rate: opt.CostRate = None,
    latency: opt.Latency = None,
    every: opt.EveryInstance = False,  # noqa: FBT002 - a flag
    refresh: opt.Refresh = False,  # noqa: FBT002
    offline: opt.Offline = False,  # noqa: FBT002
    instance: opt.Instance = None,
    region: opt.Region = None,
) -> "CostReport":
    """Compare what instances and serverless cost, and show the stages' bills."""
    from fastai_deploy import operations

    asked = operations.CostQuestion(rate, latency, every=every, refresh=refresh, offline=offline)
    return operations.cost(project, asked)


@command(app, OPERATE, examples=["fdeploy status"], locked=False)
def status(project: "Project", region: opt.Region = None) -> "Status":
    """Show what is deployed, its health and its cost."""
    from fastai_deploy import operations

    return operations.status(project)


@command(
    app,
    OPERATE,
    examples=["fdeploy logs --since 15m", "fdeploy logs --api --follow"],
    locked=False,
)
def logs(
    project: "Project",
    api: opt.OfApi = False,  # noqa: FBT002 - a flag
    since: opt.Since = "1h",
    follow: opt.Follow = False,  # noqa: FBT002
    region: opt.Region = None,
) -> "Lines":
    """Show the logs of the endpoint or the API."""
    from fastai_deploy import operations
    from fastai_deploy.cli.results import Lines
    from fastai_deploy.settings.sections import duration

    return Lines(operations.logs(project, api=api, since=duration(since), follow=follow))


@command(app, OPERATE, examples=["fdeploy versions"], locked=False)
def versions(project: "Project", region: opt.Region = None) -> "Versions":
    """List the deployed versions and mark the live one."""
    from fastai_deploy import operations
    from fastai_deploy.cli.results import Versions

    return Versions(operations.versions(project))


@command(
    app,
    OPERATE,
    examples=["fdeploy rollback", "fdeploy rollback --to 3f2a91"],
    then="fdeploy status",
)
def rollback(
    project: "Project",
    to: opt.ToVersion = None,
    region: opt.Region = None,
    adopt: opt.Adopt = False,  # noqa: FBT002
) -> "Endpoint":
    """Go back to the previous version."""
    from fastai_deploy import operations

    return operations.rollback(project, to=to)


@command(
    app,
    OPERATE,
    examples=["fdeploy doctor", "fdeploy doctor --policy > policy.json"],
    locked=False,
)
def doctor(
    project: "Project",
    policy: opt.Policy = False,  # noqa: FBT002 - a flag
    instance: opt.Instance = None,
    region: opt.Region = None,
    ttl: opt.Ttl = None,
) -> "Checkup | Policies":
    """Check that a deploy would work."""
    from fastai_deploy import operations

    return operations.policies(project) if policy else operations.doctor(project)


@command(app, OPERATE, examples=["fdeploy template > stacks.yaml"], locked=False)
def template(
    project: "Project",
    instance: opt.Instance = None,
    region: opt.Region = None,
    ttl: opt.Ttl = None,
) -> "Templates":
    """Print the CloudFormation templates, with their parameters."""
    from fastai_deploy import operations

    return operations.template(project)
