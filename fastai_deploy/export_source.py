"""Selects the source of an export and how it becomes a bundle.

    learner.pkl          converted, or with ``runtime = "learner"`` packed in its original form
    my-model/            written by save_pretrained(): converted; or the one learner in the folder
    hf:owner/name        a repository of the Hugging Face Hub with one of the two
    bundle/              written by export_learner() in a script or notebook: verified and copied
    module:function      run, and the live learner that it returns is converted

Options that are not given keep their values from the previous export of the same learner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastai_deploy import bundle as bundles
from fastai_deploy import files, freshness
from fastai_deploy.bundle.folder import MANIFEST
from fastai_deploy.bundle.manifest import EXPORT_AGAIN, LEARNER, LOCK, REQUIREMENTS
from fastai_deploy.environments.requirements import read_requirements
from fastai_deploy.environments.serving_process import check_bundle
from fastai_deploy.environments.venv import Environments
from fastai_deploy.errors import ParityError, SettingsError, UsageError, need_extra
from fastai_deploy.learner.examine.anatomy import inspect
from fastai_deploy.learner.pretrained.examine import inspect_folder
from fastai_deploy.learner.pretrained.folder import learner_in, opened_folder
from fastai_deploy.learner.pretrained.hub import download, parse_repository
from fastai_deploy.learner.text.user_tokenizer import tokenizer_digest
from fastai_deploy.naming import HUB
from fastai_deploy.parity.compare import Gate
from fastai_deploy.parity.report import report_files
from fastai_deploy.progress import Step
from fastai_deploy.project import Project
from fastai_deploy.records import Bundle, Source
from fastai_deploy.runtime.parity import Rules
from fastai_deploy.settings import Settings
from fastai_deploy.settings.project_file import ModelSettings

if TYPE_CHECKING:
    from fastai_deploy.learner.serve_original import PickleTrust


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and how; ``hub`` is ``owner/name@commit`` if it comes from the Hub."""

    learner: Path
    golden: Path | None
    definitions: Path | None
    requirements: Path | None
    tokenizer: Path | None
    runtime: str
    python: str | None
    trusted: bool
    allowed: tuple[str, ...]
    tolerance: float
    gate: Gate
    unproven: bool = False
    hub: str = ""

    @property
    def kind(self) -> str:
        """``file``, ``folder``, ``bundle`` or ``factory``."""
        if (self.learner / MANIFEST).is_file():
            return "bundle"
        if self.learner.is_dir():
            return "folder"
        from fastai_deploy.learner.live import FACTORY  # noqa: PLC0415 - needed only here

        named = FACTORY.fullmatch(self.learner.name) and not self.learner.exists()
        return "factory" if named else "file"

    @property
    def name(self) -> str:
        """The name of the model, if the settings give none."""
        if self.hub:
            return self.hub.partition("@")[0].rpartition("/")[2]
        return self.learner.resolve().name if self.kind == "folder" else self.learner.stem


def export_request(project: Project) -> ExportRequest:
    """The export that the settings ask for. Raises UsageError if no learner is named or found."""
    settings, model = project.settings, project.settings.sections.model
    before = project.workspace.find(Bundle)
    same = before if model.learner is None else None

    def path(stated: str | None, last: str | None) -> Path | None:
        if stated:
            return settings.path(stated)
        return Path(last) if last else None

    chosen = ("model", "runtime") in settings.origins
    learner, hub = _learner(project, before)
    return ExportRequest(
        learner=learner,
        hub=hub,
        golden=path(model.golden, same.golden if same else None),
        definitions=path(model.definitions, same.definitions if same else None),
        requirements=path(model.requirements, same.requirements if same else None),
        tokenizer=path(model.tokenizer, same.tokenizer if same else None),
        runtime=model.runtime if chosen or same is None else same.runtime,
        python=model.python or (same.python if same else None),
        trusted=model.trust_pickle,
        allowed=_allowed(settings),
        tolerance=model.tolerance,
        gate=_gate(model),
        unproven=model.unproven,
    )


def _learner(project: Project, before: Bundle | None) -> tuple[Path, str]:
    """The learner's path, and its repository and commit if it comes from the Hub."""
    stated = project.settings.sections.model.learner
    if stated is None and before is not None and before.source.hub:
        stated = f"{HUB}{before.source.hub}"
    if stated is not None and stated.startswith(HUB):
        found = download(parse_repository(stated), project.report)
        return _in_folder(found.folder), found.pinned
    path = _found(project, before) if stated is None else project.settings.path(stated)
    return _in_folder(path), ""


def _in_folder(path: Path) -> Path:
    """A path, or for a folder with a learner file in it (``push_to_hub_fastai``) that file.

    Raises NotALearner or UsageError for a folder without a model, or with several.
    """
    if not path.is_dir() or (path / MANIFEST).is_file():
        return path
    return learner_in(path)


def _gate(model: ModelSettings) -> Gate:
    gate = model.gate
    labels, differences = ("labels" in gate.rules), ("differences" in gate.rules)
    return Gate(
        quantize=model.quantize,
        rules=Rules(
            margin=gate.margin if labels else None,
            mean=gate.mean if differences else None,
            p99=gate.p99 if differences else None,
        ),
        max_accuracy_drop=gate.max_accuracy_drop if "accuracy" in gate.rules else None,
    )


def _allowed(settings: Settings) -> tuple[str, ...]:
    """The names in ``allow_imports``. Raises SettingsError if one of them is dangerous."""
    names = settings.sections.model.allow_imports
    if names:
        from fastai_deploy.learner.examine.imports import ever_dangerous  # noqa: PLC0415 - reads its tables

        for name in names:
            if ever_dangerous(name):
                origin = settings.origins["model", "allow_imports"]
                raise SettingsError(
                    f"{origin.where}: {name} is dangerous and never allowed; no learner needs it",
                    hint=f"remove {name}",
                )
    return names


def source(wanted: ExportRequest) -> Source:
    """The source file as it is now. Raises FileError."""
    path = wanted.learner / MANIFEST if wanted.kind == "bundle" else wanted.learner
    if wanted.kind == "factory":
        return Source(str(path), "", 0, 0)
    if wanted.kind == "folder":
        with opened_folder(path) as opened:
            return Source(
                str(path),
                opened.digest(),
                opened.size,
                opened.modified_ns,
                kind="folder",
                hub=wanted.hub,
            )
    digest = files.sha256(path)
    with files.file_errors(path):
        status = path.stat()
    return Source(str(path), digest, status.st_size, status.st_mtime_ns, hub=wanted.hub)


def digest(wanted: ExportRequest, start: Source) -> str:
    """A digest of everything the bundle depends on. Raises FileError."""
    brought = (
        files.sha256(path, most=files.MOST) if path else None
        for path in (wanted.definitions, wanted.requirements)
    )
    golden = files.sha256(wanted.golden, most=files.MOST) if wanted.golden else None
    tokenizer = tokenizer_digest(wanted.tokenizer) if wanted.tokenizer else None
    others = (
        *brought,
        tokenizer,
        wanted.runtime,
        wanted.python,
        repr(wanted.gate),
    )
    return freshness.export_digest(start.sha256, golden, wanted.tolerance, *others)


def make(project: Project, wanted: ExportRequest) -> bundles.Bundle:
    """Make the requested bundle in the workspace. Raises the errors of the chosen export."""
    place = project.workspace.bundle
    if wanted.kind == "bundle":
        return _adopt(project, wanted, place)
    # Imported late: these pull in torch and transformers, which take seconds to import.
    if wanted.kind == "factory":
        from fastai_deploy.learner.live import export_learner, run_factory  # noqa: PLC0415

        spec = wanted.learner.name
        learn = run_factory(spec, wanted.learner.parent, project.report)
        return export_learner(
            learn,
            place,
            wanted.golden,
            definitions=wanted.definitions,
            tolerance=wanted.tolerance,
            gate=wanted.gate,
            name=spec.partition(":")[2],
            report=project.report,
            unproven=wanted.unproven,
        )
    if wanted.kind == "folder":
        _check_folder_options(wanted)
    if wanted.runtime == "learner":
        return _carry(project, wanted, place)
    from fastai_deploy.learner.convert import convert  # noqa: PLC0415

    return convert(
        wanted.learner,
        place,
        golden=wanted.golden,
        tolerance=wanted.tolerance,
        name=wanted.name,
        report=project.report,
        definitions=wanted.definitions,
        tokenizer=wanted.tokenizer,
        gate=wanted.gate,
        unproven=wanted.unproven,
        hub=wanted.hub,
    )


def _check_folder_options(wanted: ExportRequest) -> None:
    """Raise UsageError for options that mean something for a learner only."""
    given = {
        "--definitions": wanted.definitions,
        "--tokenizer": wanted.tokenizer,
        "--runtime learner": wanted.runtime == "learner",
    }
    for option, value in given.items():
        if value:
            raise UsageError(
                f"{option} is for learners, but {wanted.learner} is a folder of transformers",
                hint=f"leave out {option}: everything that the model needs is in the folder",
            )


def describe(wanted: ExportRequest) -> dict[str, Any]:
    """What is known of a learner or folder without running it. Raises LearnerError or FileError."""
    if wanted.kind == "folder":
        return inspect_folder(wanted.learner)
    return inspect(wanted.learner)


def _carry(project: Project, wanted: ExportRequest, place: Path) -> bundles.Bundle:
    from fastai_deploy.learner.serve_original import ExportOptions, bundle_original  # noqa: PLC0415

    return bundle_original(
        wanted.learner,
        place,
        ExportOptions(
            golden=wanted.golden,
            definitions=wanted.definitions,
            requirements=wanted.requirements,
            python=wanted.python,
            trust=_trust(project, wanted),
            tolerance=wanted.tolerance,
            hub=wanted.hub,
        ),
        Environments(project.workspace.environments, project.report),
        name=wanted.name,
        report=project.report,
    )


def _trust(project: Project, wanted: ExportRequest) -> PickleTrust:
    from fastai_deploy.learner.serve_original import PickleTrust  # noqa: PLC0415

    return PickleTrust(
        trusted=wanted.trusted,
        allowed=wanted.allowed,
        definitions=wanted.definitions,
        typed=project.typed or ("export", wanted.learner.name),
    )


def _adopt(project: Project, wanted: ExportRequest, place: Path) -> bundles.Bundle:
    """Copy a bundle into the workspace, check every file, and verify it against its goldens.

    Raises FileError, ParityError, or for a bundle with a pickle the errors of ``bundle_original``.
    """
    folder = wanted.learner
    project.report(Step(f"copying the bundle {folder} and verifying it against its goldens"))
    manifest, version = bundles.read_bundle(folder)
    with bundles.building(place) as new:
        for name in (*manifest.files, MANIFEST):
            files.copy(folder / name, new / name)
        bundles.read_bundle(new)
        difference = _deviation(project, wanted, new, manifest)
    for theirs, ours in zip(report_files(folder), report_files(place), strict=True):
        if theirs.exists():
            files.copy(theirs, ours)
        else:
            files.remove(ours)
    learner = manifest.provenance.learner
    return bundles.Bundle(
        path=place,
        version=version,
        name=manifest.name,
        task=manifest.task,
        labels=manifest.labels,
        max_difference=difference,
        learner_sha256=learner.sha256,
        learner_bytes=learner.bytes,
    )


def _deviation(
    project: Project, wanted: ExportRequest, folder: Path, manifest: bundles.Manifest
) -> float:
    """The largest |Δprobability| between a bundle's goldens and its answers when served."""
    if manifest.runtime is None:
        need_extra("local", "numpy", "onnxruntime", "tokenizers")
        from fastai_deploy.runtime import hardware  # noqa: PLC0415 - numpy, onnxruntime
        from fastai_deploy.runtime.bundle import ModelError  # noqa: PLC0415
        from fastai_deploy.runtime.loading import load  # noqa: PLC0415

        try:
            found = hardware.detect()
            return load(folder, found, found.cores).deviation
        except ModelError as error:
            raise ParityError(
                f"the bundle {wanted.learner} cannot be served: {error}", hint=EXPORT_AGAIN
            ) from error
    from fastai_deploy.learner.examine.anatomy import examine  # noqa: PLC0415
    from fastai_deploy.learner.reading.formats import open_archive  # noqa: PLC0415

    trust = _trust(project, wanted)
    if manifest.runtime.definitions is not None:
        trust = replace(trust, definitions=folder / manifest.runtime.definitions)
    with open_archive(folder / LEARNER) as (opened, archive):
        trust.check(examine(archive, opened.size, file=LEARNER), wanted.learner.name)
    environments = Environments(project.workspace.environments, project.report)
    pins = read_requirements(folder / REQUIREMENTS)
    python = environments.interpreter(manifest.runtime.python, pins, folder / LOCK)
    return check_bundle(python, folder)


def _found(project: Project, before: Bundle | None) -> Path:
    """The learner of the previous export, else the only one in the project's folder."""
    if before is not None:
        last = Path(before.source.path)
        return last.parent if last.name == MANIFEST else last
    root = project.settings.root
    made = sorted(path.parent for path in root.glob(f"*/{MANIFEST}"))
    pickles = sorted(root.glob("*.pkl"))
    if len(made) == 1:
        project.report(Step(f"no learner was given: using the bundle {made[0].name}/"))
        return made[0]
    if len(pickles) == 1 and not made:
        project.report(Step(f"no learner was given: using {pickles[0].name}"))
        return pickles[0]
    first = (*(path.name for path in (*pickles, *made)), "learner.pkl")[0]
    raise UsageError(
        "no learner was given",
        hint=f"run the same command with {first}, or set learner in [model] of fdeploy.toml",
    )
