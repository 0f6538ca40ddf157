"""Ask the model: one text, many, or the rows of a file, at whatever serves them.

invoke, invoke_many, invoke_file    the endpoint, or the API with its key
batch                               the bundle, on this machine, with every core
transform                           a batch transform of SageMaker
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from fastai_deploy import freshness, naming, stages
from fastai_deploy.batch_invoke.job import (
    Answering,
    BatchJob,
    BatchReport,
    FileRequest,
    by_model,
    run_batch,
)
from fastai_deploy.batch_invoke.places import open_places
from fastai_deploy.batch_invoke.run import (
    AnswerFile,
    AskOptions,
    Batch,
    BatchOptions,
    Fits,
    Remote,
    answers,
)
from fastai_deploy.batch_invoke.transform import transformed
from fastai_deploy.bundle import read_manifest
from fastai_deploy.errors import UsageError
from fastai_deploy.parity import Json
from fastai_deploy.progress import Advanced
from fastai_deploy.project import Project, reported
from fastai_deploy.records import Api, Bundle, Endpoint
from fastai_deploy.settings.aws_sections import MAX_BODY_BYTES
from fastai_deploy.settings.constraints import MAX_SERVERLESS_BODY

if TYPE_CHECKING:
    from fastai_deploy.aws.objects import Objects


def invoke(project: Project, request: Json, *, through_api: bool = False) -> Json:
    """Send one request to the endpoint, or through the API with its key.

    Raises RecordMissing before a deploy, UsageError for an empty text, or InvocationError.
    """
    if not str(request.get("text", "")).strip():
        raise UsageError(
            "the text is empty: there is nothing to classify",
            hint='fdeploy invoke "some text"',
        )
    if through_api:
        return project.target.call_api(project.workspace.need(Api), request)
    return project.target.invoke(project.workspace.need(Endpoint), request)


def invoke_many(project: Project, texts: Sequence[str], how: BatchOptions) -> Batch:
    """Send many texts and return their answers in order; one failing text does not stop the rest.

    With ``how.output`` each answer is written to that file as it arrives, and texts that it already
    answers are skipped. Raises RecordMissing before a deploy, FileError, or InvocationError if
    continuing is pointless.
    """
    endpoint = project.workspace.need(Endpoint)
    work = _asking(project, endpoint, how)
    bundle = project.workspace.find(Bundle)
    labels = len(bundle.labels) if bundle else None
    kept = AnswerFile(Path(how.output)) if how.output else None
    fits = Fits(endpoint.version, min(labels, how.top_k or labels) if labels else None)
    before = kept.reusable(texts, fits) if kept else []
    if kept:
        kept.write(before)
    have = {answer.row for answer in before}
    rows = [(row, text) for row, text in enumerate(texts, 1) if row not in have]
    found = list(before)
    try:
        for chunk in answers(rows, work):
            if kept:
                kept.add(chunk)
            found += chunk
            project.report(Advanced("invoke", len(found), len(texts), "texts"))
    finally:
        if kept:
            kept.write(found)
    found.sort(key=lambda answer: answer.row)
    return Batch(found, len(before), how.output)


def _asking(project: Project, endpoint: Endpoint, how: BatchOptions) -> AskOptions:
    """How to send requests to the endpoint or the API."""
    api = project.workspace.need(Api) if how.through_api else None
    return AskOptions(
        ask=lambda request: (
            project.target.call_api(api, request)
            if api
            else project.target.invoke(endpoint, request)
        ),
        sleep=how.sleep,
        limit=_request_limit(project, through_api=how.through_api),
        at_once=how.at_once,
        top_k=how.top_k,
    )


def invoke_file(project: Project, request: FileRequest, how: BatchOptions) -> BatchReport:
    """Send every row of a file to the endpoint or the API, and write the rows with their answers.

    Raises RecordMissing before a deploy, UsageError, FileError or InvocationError.
    """
    endpoint = project.workspace.need(Endpoint)
    manifest, _ = read_manifest(project.workspace.bundle)
    remote = Remote(_asking(project, endpoint, how))
    answering = Answering(
        by_model(lambda way: nullcontext(remote.continuing(way))),
        manifest.labels,
        several=manifest.several,
        version=endpoint.version,
        by="the API" if how.through_api else "the endpoint",
    )
    found = run_batch(_open_job(project, request), answering, project.report, project.clock)
    found.model = remote.way or found.model  # another machine may have deployed another version
    return found


def batch(project: Project, request: FileRequest) -> BatchReport:
    """Classify every row of a file with the bundle, on this machine, with every core.

    Raises RecordMissing or RecordStale before an export, UsageError, FileError, ServerDied,
    ExtraMissing, or AwsError for a file on S3.
    """
    from fastai_deploy.batch_invoke.local_model import open_model  # noqa: PLC0415 - psutil

    bundle = freshness.bundle(project)
    with reported(project, "batch") as ending:
        answering = Answering(
            by_model(
                lambda way: open_model(
                    Path(bundle.path), project.workspace.environments, project.report, way=way
                )
            ),
            bundle.labels,
            several=bundle.several,
            version=naming.short(bundle.version),
            by="this machine",
        )
        found = run_batch(_open_job(project, request), answering, project.report, project.clock)
        ending.summary = found.summary
    return found


def transform(project: Project, request: FileRequest, instances: int) -> BatchReport:
    """Classify every row of a file with a batch transform of SageMaker on so many instances.

    The artifact is packaged and uploaded first, if it is not current. Raises UsageError for another
    target than AWS, DeployError if the job fails, AwsError, and the errors of ``package``.
    """
    project.target.check_shards()
    bundle = freshness.bundle(project)
    job = _open_job(project, request)
    with project.workspace.locked("batch"):
        stored = stages.upload(project, stages.package(project, bundle))
    with reported(project, "batch") as ending:
        service = project.target.shard_service(stored, instances)
        answering = Answering(
            lambda work, top_k: transformed(work, top_k, service, instances),
            bundle.labels,
            several=bundle.several,
            version=stored.version,
            by="a batch transform",
            clean=lambda run: service.clean(run.way) if run.way else None,
        )
        found = run_batch(job, answering, project.report, project.clock)
        ending.summary = found.summary
    return found


def _open_job(project: Project, request: FileRequest) -> BatchJob:
    def objects() -> Objects:
        from fastai_deploy.aws.objects import Objects  # noqa: PLC0415 - boto3 is slow to import
        from fastai_deploy.aws.session import open_aws  # noqa: PLC0415

        settings = project.settings
        region = settings.sections.project.region or settings.last_region
        profile = settings.sections.project.profile
        return Objects(open_aws(region, profile, only=settings.last_account), project.report)

    source, output = open_places(
        request.input,
        request.output,
        overwrite=request.overwrite,
        kept=project.workspace.folder / "batch",
        objects=objects,
        report=project.report,
    )
    return BatchJob(source, output, request.wanted, request.top_k, request.limit, request.overwrite)


def _request_limit(project: Project, *, through_api: bool) -> int:
    """The largest request in bytes."""
    sections = project.settings.sections
    if through_api:
        return sections.api.max_body
    return MAX_SERVERLESS_BODY if sections.endpoint.kind == "serverless" else MAX_BODY_BYTES
