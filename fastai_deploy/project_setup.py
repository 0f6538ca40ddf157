"""Makes a project file: finds the learners in a folder, asks at most three questions, writes it.

The file names its JSON Schema, so that editors complete and check it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.bundle import read_manifest
from fastai_deploy.bundle.folder import MANIFEST
from fastai_deploy.errors import FdeployError, SettingsError, UsageError
from fastai_deploy.learner.examine.anatomy import inspect
from fastai_deploy.learner.pretrained.examine import inspect_folder
from fastai_deploy.learner.pretrained.folder import CONFIG
from fastai_deploy.progress import Prompt, Step
from fastai_deploy.project import Project
from fastai_deploy.settings import settings_of
from fastai_deploy.settings.docs import SCHEMA_FILE
from fastai_deploy.settings.identity import new_id
from fastai_deploy.settings.loading import PROJECT_FILE
from fastai_deploy.workspace import prepare

_SCHEMA = f"{files.WORKSPACE}/{SCHEMA_FILE.name}"
_HERE = "this machine"
_TRIES = 3


@dataclass(frozen=True)
class Candidate:
    """A learner in the folder; ``problem`` says why it cannot be exported as it is.

    ``readable``: it is a learner at all, and may be named in the project file.
    """

    path: str
    about: str
    problem: str = ""
    readable: bool = True


@dataclass(frozen=True)
class Chosen:
    """What the project file is to say; ``region`` is empty for this machine."""

    learner: str = ""
    region: str = ""
    instance: str = ""
    ttl: str = ""


@dataclass(frozen=True)
class Initialized:
    """The project file that was made, the learner that it names, and where it deploys to."""

    path: str
    learner: str
    target: str
    found: tuple[Candidate, ...]

    def values(self) -> Initialized:
        """The result itself is its shape."""
        return self

    def lines(self) -> Iterator[str]:
        """What was found, and the file."""
        for each in self.found:
            problem = f" ({each.problem})" if each.problem else ""
            yield f"found    {each.path}: {each.about}{problem}"
        yield f"wrote    {self.path}"
        yield f"learner  {self.learner or 'none yet: set learner in [model]'}"
        yield f"target   {self.target}"


def candidates(folder: Path) -> tuple[Candidate, ...]:
    """The learners and bundles in a folder, read but not run; those that convert come first."""
    bundles = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    found = [_bundle(path) for path in bundles]
    found += [_learner(path) for path in sorted(folder.glob("*.pkl"))]
    found += [
        _pretrained(path.parent)
        for path in sorted(folder.glob(f"*/{CONFIG}"))
        if not (path.parent / MANIFEST).is_file()
    ]
    return tuple(sorted(found, key=lambda each: bool(each.problem)))


def _bundle(path: Path) -> Candidate:
    try:
        manifest, _ = read_manifest(path)
    except FdeployError as error:
        return Candidate(f"{path.name}/", "bundle", error.message, readable=False)
    return Candidate(f"{path.name}/", f"bundle, {len(manifest.labels)} labels")


def _pretrained(path: Path) -> Candidate:
    try:
        found = inspect_folder(path)
    except FdeployError as error:
        what = "not a model of transformers"
        return Candidate(f"{path.name}/", what, error.message, readable=False)
    about = f"{found['model']['architecture']}, {len(found['labels'])} labels, Hugging Face folder"
    return Candidate(f"{path.name}/", about, found["verdict"]["reason"])


def _learner(path: Path) -> Candidate:
    try:
        found = inspect(path)
    except FdeployError as error:
        return Candidate(path.name, "not a learner", error.message, readable=False)
    model, verdict = found["model"], found["verdict"]
    kind = model["architecture"] or model["family"]
    about = f"{kind}, {len(found['labels'])} labels, fastai {found['fastai']}"
    return Candidate(path.name, about, verdict["reason"])


def init(project: Project, folder: Path) -> Initialized:
    """Write ``fdeploy.toml`` into a folder, from the settings given and the answers.

    Asks only in a terminal. Raises UsageError if the file is there, SettingsError or FileError.
    """
    path = folder / PROJECT_FILE
    if path.exists():
        raise UsageError(
            f"{PROJECT_FILE} is already here",
            hint="fdeploy config shows the settings, fdeploy config set KEY VALUE changes one",
        )
    sections = project.settings.sections
    prompt = None if project.consent.yes else project.consent.prompt
    found = candidates(folder)
    usable = [each.path for each in found if each.readable]
    given = Chosen(
        learner=sections.model.learner or "",
        region=sections.project.region or "",
        instance=sections.endpoint.instance or "",
        ttl=sections.project.ttl or "",
    )
    if prompt is None:
        chosen = _first(given, usable)
    else:
        for each in found:
            project.report(Step(f"{each.path}: {each.about}"))
        chosen = _asked(given, usable, prompt)
    name = settings_of(path, "", environ={}).project_name
    text = project_text(name, chosen)
    settings = settings_of(path, text, environ={})
    files.write(path, text.encode())
    prepare(folder / files.WORKSPACE)
    files.write(folder / _SCHEMA, SCHEMA_FILE.read_bytes())
    return Initialized(str(path), chosen.learner, settings.target, found)


def _first(given: Chosen, usable: Sequence[str]) -> Chosen:
    """What was given, and the only learner that is usable."""
    learner = given.learner or (usable[0] if len(usable) == 1 else "")
    return Chosen(learner, given.region, given.instance, given.ttl)


def _asked(given: Chosen, usable: Sequence[str], prompt: Prompt) -> Chosen:
    """The answers to at most three questions; what was given is not asked."""
    first = _first(given, usable)
    learner, region, ttl = first.learner, first.region, first.ttl
    if not learner and usable:
        learner = prompt(f"Learner ({', '.join(usable)})", usable[0])
    if not region and not given.instance:
        answer = _valid(
            prompt,
            "Deploy to this machine, or to an AWS region such as eu-central-1?",
            "region",
            _HERE,
        )
        region = "" if answer == _HERE else answer
    if (region or given.instance) and not ttl:
        ttl = _valid(
            prompt, "Delete the stage on AWS automatically after, such as 4h?", "ttl", "never"
        )
    return Chosen(learner, region, given.instance, "" if ttl == "never" else ttl)


def _valid(prompt: Prompt, question: str, key: str, default: str) -> str:
    """An answer that the setting takes; asks again a few times."""
    for _ in range(_TRIES):
        answer = prompt(question, default)
        if answer == default:
            return answer
        try:
            settings_of(
                Path(PROJECT_FILE), f"[project]\n{key} = {json.dumps(answer)}\n", environ={}
            )
        except SettingsError as error:
            question = f"{error.message}. {error.hint} Once more"
        else:
            return answer
    return default


def project_text(name: str, chosen: Chosen) -> str:
    """The text of a project file, with the settings that people change next as comments."""
    aws = bool(chosen.region or chosen.instance)

    def line(key: str, value: str, example: str, why: str) -> str:
        shown = f"{key} = {json.dumps(value or example, ensure_ascii=False)}"
        return f"{'' if value else '# '}{shown}  # {why}"

    return "\n".join(
        [
            f"#:schema {_SCHEMA}",
            "# Settings of fdeploy. `fdeploy config` shows all of them with their values.",
            "",
            "[project]",
            f"name = {json.dumps(name)}  # the first part of every resource's name",
            *(
                [f'id = "{new_id()}"  # tells projects of the same name apart on AWS']
                if aws
                else []
            ),
            line("region", chosen.region, "eu-central-1", "a region selects AWS"),
            line("ttl", chosen.ttl, "4h", "AWS: delete the stage this long after its last deploy"),
            "",
            "[model]",
            line("learner", chosen.learner, "learner.pkl", "what learn.export() wrote; never run"),
            line("golden", "", "golden.jsonl", "texts, best with the learner's own answers"),
            "",
            "[endpoint]",
            line("instance", chosen.instance, "ml.m5.large", "AWS: the instance type"),
            "",
            "[api]",
            "# rate = 10  # requests per second that are answered",
            "",
            "# Another stage with its own settings: fdeploy up --stage prod",
            "# [stages.prod.endpoint]",
            "# instance_count = 2",
            "",
        ]
    )
