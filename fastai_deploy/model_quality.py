"""How good a model is: evaluate it on labelled texts, compare versions, watch what is captured.

Nothing here changes what is deployed. The figures are in :mod:`fastai_deploy.evaluation`.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Literal

from fastai_deploy import asking, files, freshness
from fastai_deploy.batch_invoke.labelled import LabelledColumns, read_labelled
from fastai_deploy.batch_invoke.run import Answered, BatchOptions
from fastai_deploy.bundle import Manifest, read_manifest
from fastai_deploy.bundle.folder import MANIFEST
from fastai_deploy.bundle.manifest import parse_manifest
from fastai_deploy.environments.venv import Environments
from fastai_deploy.errors import UsageError
from fastai_deploy.evaluation.captured import Seen, Unread, seen
from fastai_deploy.evaluation.card import Card, read_card, write_card
from fastai_deploy.evaluation.difference import Compared, Difference, difference
from fastai_deploy.evaluation.drift import Monitored, Sample, monitored
from fastai_deploy.evaluation.local_answers import (
    SERVED,
    Column,
    answers_of,
    labelled_answer,
    unknown_tokens,
)
from fastai_deploy.evaluation.metrics import Answer
from fastai_deploy.evaluation.page import page
from fastai_deploy.evaluation.result import (
    LEARNER,
    Evaluation,
    Limits,
    Source,
    encoded,
    evaluated,
    files_of,
)
from fastai_deploy.json_reader import parse
from fastai_deploy.naming import short
from fastai_deploy.packaging.artifact import read_member, unpack
from fastai_deploy.parity.gate import model_summary, stored_goldens
from fastai_deploy.parity.goldens import PROBES, Case, Golden, Labels
from fastai_deploy.progress import StageFinished, StageStarted, Step, Warned
from fastai_deploy.project import Project
from fastai_deploy.records import Api, Artifact, Bundle, Deployed, Endpoint, ModelSummary, counted
from fastai_deploy.settings.sections import duration
from fastai_deploy.versions import find_version

Place = Literal["bundle", "artifact", "endpoint", "api"]
LIVE = "live"


@dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate, and what to compare it with.

    ``on`` is where to ask, None for the last of bundle, artifact, endpoint and API that there is.
    ``live`` asks the endpoint beside it; ``against`` is the version (its first digits, or
    ``live``) that must not be significantly better. ``min_accuracy`` is from 0 to 1. ``report`` is
    where the page is written, None for beside the bundle.
    """

    columns: LabelledColumns = field(default_factory=LabelledColumns)
    on: Place | None = None
    live: bool = False
    against: str | None = None
    min_accuracy: float | None = None
    report: Path | None = None
    at_once: int = 4


def evaluate(project: Project, file: Path, how: EvaluateOptions, stdin: BinaryIO) -> Evaluation:
    """Answer labelled texts, and judge the answers.

    The bundle is asked in the form that is served and in float32; the learner's own answers are in
    the file, if anywhere. Raises UsageError, FileError or GoldenError for the file, RecordMissing
    without a model, and the errors of asking it.
    """
    began = project.clock()
    project.report(StageStarted("evaluate"))
    on = how.on or _most_deployed(project)
    with _models(project, on, how) as models:
        found = read_labelled(
            file,
            how.columns,
            Labels(models.subject.labels, several=models.subject.several),
            stdin,
            lambda said: project.report(Warned(said)),
        )
        columns = list(models.columns(found.cases))
        against = models.against.version if models.against else ""
    result = evaluated(
        found.cases,
        columns,
        models.subject.column,
        names=models.subject.labels,
        several=models.subject.several,
        source=Source(str(file), found.unlabelled, found.empty),
        on=models.subject.where,
        model=models.subject.name,
        limits=Limits(how.min_accuracy, against),
    )
    data, shown = files_of(project.workspace.bundle)
    result = replace(result, page=str(how.report or shown))
    files.write(data, encoded(result))
    files.write(Path(result.page), page(result).encode("utf-8", "replace"))
    if on == "bundle":
        write_card(Path(project.workspace.need(Bundle).path))
    accuracy = result.main.figures.accuracy.value or 0.0
    summary = f"{counted(len(found.cases), 'text')} on the {on}: {accuracy:.3f} right"
    project.report(StageFinished("evaluate", summary, project.clock() - began))
    return result


def card(project: Project) -> Card:
    """The model card of the exported bundle. Raises RecordMissing or FileError."""
    return read_card(Path(project.workspace.need(Bundle).path))


BUNDLE = "bundle"


def diff(project: Project, before: str | None, after: str | None) -> Difference:
    """Compare two versions: by default the live one with the bundle here.

    A version is its first digits, ``live`` or ``bundle``; with one, the bundle is the other. Raises
    UsageError for an unknown version, RecordMissing without a bundle, FileError or AwsError.
    """
    return difference(_compared(project, before or LIVE), _compared(project, after or BUNDLE))


def _compared(project: Project, wanted: str) -> Compared:
    if wanted == BUNDLE:
        return _compared_bundle(project)
    version = _version(project, wanted)
    project.report(Step(f"reading the manifest of version {version.version}"))
    with project.operations.opened(version) as artifact:
        data = read_member(artifact, MANIFEST, f"the artifact of version {version.version}")
    manifest = parse_manifest(parse(data), f"version {version.version}: {MANIFEST}")
    return Compared(
        name=LIVE if wanted == LIVE else "version",
        version=version.version,
        manifest=manifest,
        summary=version.model or _summary(manifest),
        bytes=version.bytes,
        at=version.at,
        by=version.by,
        image=version.image,
        instance=version.instance,
    )


def _summary(manifest: Manifest) -> ModelSummary:
    """What a manifest says of a version whose history says nothing."""
    precision = ", ".join(form.precision for form in manifest.model.forms)
    return ModelSummary(manifest.task, manifest.labels, precision)


def _compared_bundle(project: Project) -> Compared:
    record = project.workspace.need(Bundle)
    path = Path(record.path)
    manifest, digest = read_manifest(path)
    packed = project.workspace.find(Artifact)
    if packed is not None and packed.made_from != freshness.package_digest(
        project, record, project.target.container(packed)
    ):
        packed = None
    return Compared(
        name=BUNDLE,
        version=packed.version if packed else short(digest),
        manifest=manifest,
        summary=model_summary(path),
        bytes=packed.bytes if packed else None,
    )


_PROBE = "ready?"  # a text that fdeploy asks itself


@dataclass(frozen=True)
class MonitorOptions:
    """How far back to look, as typed; at most how many texts; the largest PSI that is no drift."""

    since: str = "7d"
    most: int = 10_000
    max_drift: float | None = None


def monitor(project: Project, how: MonitorOptions) -> Monitored:
    """Compare what the endpoint's data capture holds with the goldens of the bundle.

    Raises RecordMissing without a bundle, UsageError if nothing was captured, or AwsError.
    """
    began = project.clock()
    project.report(StageStarted("monitor"))
    path = Path(project.workspace.need(Bundle).path)
    manifest, goldens = stored_goldens(path)
    own = {_PROBE, *(golden.text for golden in goldens)}
    unread, found, checks = Unread(), [], 0
    for each in seen(project.operations.captured(duration(how.since)), unread):
        if each.text in own:
            checks += 1
            continue
        found.append(each)
        if len(found) == how.most:
            break
        if not len(found) % _TOLD:
            project.report(Step(f"{len(found):,} captured texts"))
    if not found:
        raise UsageError(
            f"nothing was captured in the last {how.since}"
            + (f", but {checks:,} of fdeploy's own checks" if checks else ""),
            hint="set data_capture in [endpoint] to a percentage, run fdeploy deploy, and wait for "
            "requests; S3 gets them some minutes later",
        )
    unknown = unknown_tokens(path)
    decides = manifest.labels, manifest.threshold
    result = monitored(
        [
            _sample(golden.text, labelled_answer(golden.probabilities, *decides), unknown)
            for golden in goldens
        ],
        [_sample(each.text, each.answer, unknown) for each in found],
        manifest.labels,
        since=how.since,
        versions=dict(Counter(each.version for each in found).most_common()),
        notes=tuple(_capture_notes(found, goldens, unread, checks, how.most)),
        max_drift=how.max_drift,
    )
    summary = f"{counted(len(found), 'captured text')}"
    project.report(StageFinished("monitor", summary, project.clock() - began))
    return result


_TOLD = 1_000  # captured texts between two lines of progress


def _sample(text: str, answer: Answer, unknown: Callable[[str], float | None]) -> Sample:
    return Sample(
        answer.labels, max(answer.probabilities.values(), default=None), len(text), unknown(text)
    )


def _capture_notes(
    found: Sequence[Seen], goldens: Sequence[Golden], unread: Unread, checks: int, most: int
) -> Iterator[str]:
    if len(found) == most:
        yield f"only the newest {most:,} texts were read"
    if checks:
        yield f"{checks:,} of fdeploy's own checks are left out"
    if unread.records:
        yield f"{unread.records:,} records could not be read"
    if unread.errors:
        yield f"{unread.errors:,} texts got an error instead of an answer"
    versions = Counter(each.version for each in found)
    if len(versions) > 1:
        yield "answers of " + ", ".join(f"{name} ({count:,})" for name, count in versions.items())
    if {golden.text for golden in goldens} <= set(PROBES):
        yield "the goldens are fdeploy's own texts, not yours: the drift says little"


def _most_deployed(project: Project) -> Place:
    """The last of what there is, in the order of the flow. Raises RecordMissing if there is none.

    An API whose callers have tokens of their own cannot be asked, so its endpoint is.
    """
    find = project.workspace.find
    api = find(Api)
    if api is not None and api.auth != "jwt":
        return "api"
    if find(Endpoint) is not None:
        return "endpoint"
    if find(Artifact) is not None:
        return "artifact"
    project.workspace.need(Bundle)
    return "bundle"


@dataclass(frozen=True)
class _Subject:
    """The judged model; ``where`` says for people what is asked, and where."""

    name: str
    version: str
    labels: tuple[str, ...]
    several: bool
    column: str
    where: str
    precision: str = ""


@dataclass(frozen=True)
class _Models:
    """The judged model and those beside it; a folder is a bundle or an unpacked artifact.

    ``folder`` is None if the judged model is asked through the endpoint or the API.
    """

    project: Project
    subject: _Subject
    folder: Path | None
    exact: bool
    live: _Subject | None
    through_api: bool
    against: Deployed | None
    against_folder: Path | None

    def columns(self, cases: Sequence[Case]) -> Iterator[Column]:
        """The learner's own answers, if the file has any, and those of every model."""
        texts = [case.text for case in cases]
        project, subject = self.project, self.subject
        if any(case.probabilities is not None for case in cases):
            yield from self._learner(cases)
        if self.folder is not None:
            yield from self._local(self.folder, subject.version, texts, SERVED, exact=self.exact)
        else:
            where = f"the {subject.column}"
            yield _asked(project, texts, subject, where, through_api=self.through_api)
        if self.live is not None:
            yield _asked(project, texts, self.live, "the endpoint", through_api=False)
        if self.against is not None and self.against_folder is not None:
            version = self.against.version
            yield from self._local(self.against_folder, version, texts, version, exact=False)

    def _local(
        self, folder: Path, version: str, texts: Sequence[str], name: str, *, exact: bool
    ) -> Iterator[Column]:
        project = self.project
        environments = Environments(project.workspace.environments, project.report)
        report = project.report
        yield from answers_of(
            folder, texts, environments, report, version=version, name=name, float32=exact
        )

    def _learner(self, cases: Sequence[Case]) -> Iterator[Column]:
        """The learner's own answers; with several labels, only the manifest knows the threshold."""
        labels, threshold = self.subject.labels, None
        if self.subject.several:
            bundle = self.project.workspace.find(Bundle)
            folder = self.folder or (Path(bundle.path) if bundle else None)
            manifest = read_manifest(folder)[0] if folder else None
            if manifest is None or manifest.labels != labels or manifest.threshold is None:
                message = "the learner's own answers are left out: the threshold is not known here"
                self.project.report(Warned(message, hint="add --on bundle"))
                return
            threshold = manifest.threshold
        yield Column(
            LEARNER,
            "its own answers, from the file",
            "",
            tuple(
                None
                if case.probabilities is None
                else labelled_answer(case.probabilities, labels, threshold)
                for case in cases
            ),
        )


@contextmanager
def _models(project: Project, on: Place, how: EvaluateOptions) -> Iterator[_Models]:
    """The models to ask; artifacts are unpacked for as long as the block runs."""
    workspace = project.workspace
    against = _version(project, how.against) if how.against else None
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as scratch:
        folder = None
        if on == "bundle":
            folder = Path(workspace.need(Bundle).path)
            subject = _subject(folder, "", "the bundle, asked on this machine")
        elif on == "artifact":
            artifact = workspace.need(Artifact)
            folder = _unpacked(Path(artifact.path), Path(scratch, "artifact"), project)
            subject = _subject(folder, artifact.version, "the artifact, asked on this machine")
        else:
            subject = _probe(project, on, through_api=on == "api")
        beside = None
        if against is not None:
            packed = project.operations.artifact_of(against, Path(scratch))
            beside = _unpacked(packed, Path(scratch, "against"), project)
        yield _Models(
            project,
            subject,
            folder,
            exact=on == "bundle",
            live=_probe(project, LIVE, through_api=False) if how.live and folder else None,
            through_api=on == "api",
            against=against,
            against_folder=beside,
        )


def _unpacked(artifact: Path, folder: Path, project: Project) -> Path:
    project.report(Step(f"unpacking {artifact.name}"))
    unpack(artifact, folder)
    return folder


def _version(project: Project, wanted: str) -> Deployed:
    """A deployed version by its first digits, or the live one. Raises UsageError."""
    deployed = project.operations.deployed()
    if wanted == LIVE:
        wanted = project.operations.live_version()
        if not wanted:
            raise UsageError("nothing is deployed in this stage", hint="run fdeploy up")
    return find_version(deployed, wanted)


def _subject(folder: Path, version: str, where: str) -> _Subject:
    manifest, digest = read_manifest(folder)
    version = version or short(digest)
    return _Subject(manifest.name, version, manifest.labels, manifest.several, SERVED, where)


def _probe(project: Project, column: str, *, through_api: bool) -> _Subject:
    """What is deployed, from its answer to one text, which has every label."""
    endpoint = project.workspace.need(Endpoint)
    body = asking.invoke(project, {"text": _PROBE}, through_api=through_api)
    bundle = project.workspace.find(Bundle)
    labels = tuple(sorted(body["probabilities"]))
    if bundle is not None and sorted(bundle.labels) == list(labels):
        labels = bundle.labels  # in the order of the model
    model = body["model"]
    where = project.workspace.need(Api).url if through_api else f"endpoint {endpoint.name}"
    return _Subject(
        str(model["name"]),
        str(model["version"]),
        labels,
        "labels" in body,
        column,
        f"version {model['version']} at {where}",
        str(model.get("precision", "")),
    )


def _asked(
    project: Project, texts: Sequence[str], subject: _Subject, what: str, *, through_api: bool
) -> Column:
    """The answers of the endpoint or the API."""
    how = BatchOptions(through_api=through_api)
    found = asking.invoke_many(project, texts, how)
    precision = f", {subject.precision}" if subject.precision else ""
    return Column(
        subject.column,
        f"{what}{precision}",
        subject.version,
        tuple(_answer(each) for each in found.answers),
    )


def _answer(answered: Answered) -> Answer:
    if answered.failed:
        error = answered.body["error"]
        return Answer((), error=f"{error['code']}: {error['message']}")
    return Answer(tuple(answered.labels), dict(answered.body["probabilities"]))
