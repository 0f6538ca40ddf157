"""Loads the settings: defaults < file < the stage's table < ``FDEPLOY_*`` variables < flags.

Each value keeps its origin; a validation error names the file, the line and how to fix it.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import tomli
from pydantic import TypeAdapter, ValidationError

from fastai_deploy import files
from fastai_deploy.errors import FileMissing, NoProject, SettingsError, UnknownStage
from fastai_deploy.settings.constraints import conflicts
from fastai_deploy.settings.project_file import (
    RENAMED,
    REPLACED,
    SECTIONS,
    ProjectFile,
    Sections,
)
from fastai_deploy.settings.sections import Section
from fastai_deploy.settings.validation import (
    fields_of,
    line_of,
    nearest,
    raise_all,
    validation_errors,
)

PROJECT_FILE = "fdeploy.toml"
DEFAULT_STAGE = "dev"
STAGE_VARIABLE = "FDEPLOY_STAGE"
_MOST = 1 << 20  # bytes of a project file
_STAGE_PATTERN = re.compile(r"^[a-z]([a-z0-9-]{0,14}[a-z0-9])?$")

Key = tuple[str, str]


@dataclass(frozen=True)
class Origin:
    """Where a value came from; ``where`` is for people: ``fdeploy.toml:7``, ``--instance``, ..."""

    kind: Literal["default", "file", "variable", "flag", "remembered"]
    where: str


@dataclass(frozen=True)
class Settings:
    """The settings of one stage; ``root`` is the project folder, to which paths are relative.

    ``last_target``, ``last_region`` and ``last_account`` are where the stage was last uploaded or
    deployed to, so that ``fdeploy teardown`` after ``fdeploy deploy --instance ...`` means the same
    target without naming it, and is refused with another account's credentials; ``last_name``
    is the name that the project had on AWS then. ``notes`` name the settings that have moved;
    ``reverted`` says what a deploy would change back that a flag of the last deploy had set.
    ``file`` is the project file, whether or not it exists.
    """

    root: Path
    stage: str
    sections: Sections
    origins: Mapping[Key, Origin]
    last_target: Literal["local", "aws"] | None = None
    last_region: str | None = None
    last_account: str | None = None
    last_name: str | None = None
    file: Path | None = None
    notes: tuple[str, ...] = ()
    reverted: tuple[str, ...] = ()

    @property
    def project_name(self) -> str:
        """The project's name: the setting, else that of the last deploy, else the folder's."""
        return self.sections.project.name or self.last_name or _name_from(self.root)

    def with_identity(self, name: str, id_: str | None) -> Settings:
        """The same settings with another name and id of the project."""
        project = self.sections.project.model_copy(update={"name": name, "id": id_})
        sections = self.sections.model_copy(update={"project": project})
        return replace(self, sections=sections)

    @property
    def target(self) -> Literal["local", "aws"]:
        """Where to deploy; it never depends on which credentials happen to exist."""
        return self._decide_target()[0]

    @property
    def target_is_open(self) -> bool:
        """Whether neither the settings nor the flags select a target."""
        named = (("project", "target"), ("endpoint", "instance"), ("project", "region"))
        return not (any(key in self.origins for key in named) or self._lambda_is_typed)

    @property
    def target_reason(self) -> str:
        """The reason for :attr:`target`, for people."""
        return self._decide_target()[1]

    def path(self, setting: str) -> Path:
        """Resolve a path setting against the project folder."""
        return self.root / files.expanded(Path(setting))

    def values(self) -> Iterator[tuple[Key, Any, Origin]]:
        """Every setting with its value and origin, in documentation order."""
        for section in SECTIONS:
            for name, value in attrgetter(section)(self.sections):
                key = (section, name)
                if isinstance(value, Section) or (key in REPLACED and value is None):
                    continue
                yield key, value, self.origins.get(key, Origin("default", "default"))

    @property
    def _lambda_is_typed(self) -> bool:
        """Whether --lambda is a flag of this command, which then means AWS as --instance does."""
        return LAMBDA in self.origins and self.origins[LAMBDA].kind == "flag"

    def _decide_target(self) -> tuple[Literal["local", "aws"], str]:
        chosen = self.sections.project.target
        if chosen:
            return chosen, f"project.target, from {self.origins['project', 'target'].where}"
        for key in (("endpoint", "instance"), ("project", "region")):
            if key in self.origins:
                return "aws", f"{'.'.join(key)} is set, from {self.origins[key].where}"
        if self._lambda_is_typed:
            return "aws", f"endpoint.kind is set, from {self.origins[LAMBDA].where}"
        if self.last_target:
            return self.last_target, "the target of this stage's last deploy"
        return "local", "no region, instance or target is set"


def load_settings(
    *,
    folder: Path,
    config: Path | None = None,
    stage: str | None = None,
    environ: Mapping[str, str],
    flags: Mapping[Key, tuple[str, Any]] | None = None,
) -> Settings:
    """Load the settings of a stage.

    ``config`` is the project file; without it, ``fdeploy.toml`` in ``folder`` is read if it exists.
    ``flags`` maps a setting to the flag's name and value. Raises SettingsError.
    """
    path = config or folder / PROJECT_FILE
    text = _read(path, required=config is not None)
    return settings_of(path, text, stage=stage, environ=environ, flags=flags)


def settings_of(
    path: Path,
    text: str,
    *,
    stage: str | None = None,
    environ: Mapping[str, str],
    flags: Mapping[Key, tuple[str, Any]] | None = None,
) -> Settings:
    """The settings that a project file with this text would give. Raises SettingsError."""
    document, moved = _modernized(_parsed(path, text))
    lines = _Lines(text, moved)
    known, wrong = _file_sections(document, lines, path)
    given, misspelt = _variables(environ)
    raise_all([*wrong, *misspelt])
    name = stage or environ.get(STAGE_VARIABLE) or DEFAULT_STAGE
    _check_stage(name, known, path)

    merged: dict[str, Any] = {}
    origins: dict[Key, Origin] = {}
    notes: list[str] = []
    for prefix in ((), ("stages", name)):
        for key, value in _walk(document, prefix):
            at = (*prefix, *key[0].split("."), key[1])
            where = f"{path.name}:{lines.of(at) or '?'}"
            if at in moved:
                notes.append(_note(moved[at][-2:], key, where))
            _set(merged, origins, key, value, Origin("file", where))
    for variable, key, value in given:
        now = RENAMED.get(key, key)
        if now != key:
            notes.append(_note(key, now, variable))
        _set(merged, origins, now, value, Origin("variable", variable))
    for key, (flag, value) in (flags or {}).items():
        if value is not None:
            _set(merged, origins, RENAMED.get(key, key), value, Origin("flag", flag))
    notes += [
        _note(key, new, origins[key].where) for key, new in REPLACED.items() if key in origins
    ]
    try:
        sections = Sections.model_validate(merged)
    except ValidationError as error:
        raise_all(validation_errors(error, lambda loc: _origin_of(loc, origins)))
        raise
    _check_target(sections, origins)
    default = Origin("default", "default")
    raise_all(list(conflicts(sections, lambda key: origins.get(key, default).where)))
    root = path.parent.resolve()
    return Settings(root, name, sections, origins, notes=tuple(notes), file=root / path.name)


REMEMBERED: Mapping[Key, str] = {
    ("endpoint", "kind"): "--lambda",
    ("endpoint", "instance"): "--instance",
    ("project", "ttl"): "--ttl",
}
"""The flags of a deploy that stay in force, as --region does, until the settings say otherwise."""


LAMBDA = ("endpoint", "kind")
_WITHOUT_INSTANCES = {"serverless": "a serverless endpoint", "lambda": "a function"}


def remember(settings: Settings, last: Mapping[Key, str]) -> Settings:
    """The settings with the ``last`` deploy's flags, where nothing else sets the same key.

    A flag that conflicts with the settings of today is dropped. What they change back is noted in
    ``reverted``, unless a flag does, which the user has just typed.
    """
    reverted = []
    for key, value in last.items():
        flag = REMEMBERED[key]
        origin = settings.origins.get(key)
        kind = settings.sections.endpoint.kind
        if key[1] == "instance" and kind in _WITHOUT_INSTANCES:
            if settings.origins[LAMBDA].kind not in ("flag", "remembered"):
                what = _WITHOUT_INSTANCES[kind]
                reverted.append(f"{what} has no instance; the last deploy used {value}")
            continue
        if key == LAMBDA and ("endpoint", "instance") in settings.origins:
            continue  # an instance is named since
        if origin is None:
            settings = _with(
                settings, key, value, Origin("remembered", f"{flag} of the last deploy")
            )
            continue
        now = getattr(attrgetter(key[0])(settings.sections), key[1])
        if origin.kind != "flag" and now != value:
            message = f"{'.'.join(key)} becomes {now or 'never'} ({origin.where})"
            used = flag if key == LAMBDA else f"{flag} {value}"
            reverted.append(f"{message}; the last deploy used {used}")
    return replace(settings, reverted=tuple(reverted))


def _with(settings: Settings, key: Key, value: str, origin: Origin) -> Settings:
    """The settings with one more; unchanged if it conflicts with another."""
    section = getattr(settings.sections, key[0]).model_copy(update={key[1]: value})
    sections = settings.sections.model_copy(update={key[0]: section})
    if any(conflicts(sections, lambda _key: "")):
        return settings
    return replace(settings, sections=sections, origins={**settings.origins, key: origin})


@dataclass(frozen=True)
class _Lines:
    """The lines of a project file; ``moved`` has the old path of each key that has a new one."""

    text: str
    moved: Mapping[tuple[str, ...], tuple[str, ...]]

    def of(self, path: tuple[str, ...]) -> int | None:
        return line_of(self.text, self.moved.get(path, path))


def _modernized(
    document: dict[str, Any],
) -> tuple[dict[str, Any], dict[tuple[str, ...], tuple[str, ...]]]:
    """The document with renamed settings in their new place; and the old path of each."""
    document = copy.deepcopy(document)
    moved: dict[tuple[str, ...], tuple[str, ...]] = {}
    stages = document.get("stages")
    tables: dict[tuple[str, ...], Any] = {(): document}
    if isinstance(stages, dict):
        tables |= {("stages", name): table for name, table in stages.items()}
    for prefix, table in tables.items():
        for (section, name), (new_section, new_name) in RENAMED.items():
            old = table.get(section) if isinstance(table, dict) else None
            if not isinstance(old, dict) or name not in old:
                continue
            new = table
            for part in new_section.split("."):
                new = new.setdefault(part, {}) if isinstance(new, dict) else {}
            if not isinstance(new, dict) or new_name in new:
                continue  # both are there: the old one is refused as an unknown key
            new[new_name] = old.pop(name)
            now = (*prefix, *new_section.split("."), new_name)
            moved[now] = (*prefix, section, name)
    return document, moved


def _note(old: tuple[str, ...], new: Key, where: str) -> str:
    return f"{'.'.join(old)} ({where}) has moved: write {new[1]} in [{new[0]}]"


def _read(path: Path, *, required: bool) -> str:
    try:
        return files.read(path, most=_MOST).decode("utf-8-sig")  # Windows editors add a mark
    except FileMissing:
        if required:
            raise NoProject(
                f"the project file {path} does not exist",
                hint="check the path after --config, or leave the option out",
            ) from None
        if path.is_symlink():  # as a file that a new checkout or an unmounted disk lacks
            raise SettingsError(
                f"{path} is a link to {path.readlink()}, which does not exist",
                hint="restore that file, or remove the link",
            ) from None
        return ""
    except UnicodeDecodeError:
        raise SettingsError(f"{path.name} is not UTF-8 text", hint="save it as UTF-8") from None


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomli.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise SettingsError(
            f"{path.name} is not valid TOML: {why}",
            hint="fix that line, then run the command again",
        ) from None


def _file_sections(
    document: dict[str, Any], lines: _Lines, path: Path
) -> tuple[ProjectFile, list[SettingsError]]:
    """Validate the whole file, including stages that are not in use."""
    try:
        return ProjectFile.model_validate(_tuples(document)), []
    except ValidationError as error:

        def where(loc: tuple[str, ...]) -> str:
            return f"{path.name}:{lines.of(loc) or 1}"

        return ProjectFile(), validation_errors(error, where)


def _check_stage(name: str, known: ProjectFile, path: Path) -> None:
    stages = sorted({DEFAULT_STAGE, *known.stages})
    for declared in (*stages, name):
        if not _STAGE_PATTERN.match(declared):
            raise SettingsError(
                f"{declared!r} is not a valid stage name",
                hint="use at most 16 lower-case letters, digits and hyphens, such as prod",
            )
    if name not in stages:
        near = difflib.get_close_matches(name, stages, n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise UnknownStage(
            f"there is no stage {name!r}; known: {', '.join(stages)}",
            hint=f"{guess}to declare a stage, add a table [stages.{name}] to {path.name}",
        )


def _walk(document: Mapping[str, Any], prefix: tuple[str, ...]) -> Iterator[tuple[Key, Any]]:
    for part in prefix:
        document = document.get(part, {})
    for section in SECTIONS:
        table = document
        for part in section.split("."):
            table = table.get(part, {})
        for name, value in table.items():
            if f"{section}.{name}" not in SECTIONS:
                yield (section, name), value


def _variables(
    environ: Mapping[str, str],
) -> tuple[list[tuple[str, Key, Any]], list[SettingsError]]:
    """``FDEPLOY_ENDPOINT_INSTANCE=ml.m5.large`` sets ``endpoint.instance``; lists use commas.

    Returns variables with their settings and values, and what is wrong with others.
    """
    found: list[tuple[str, Key, Any]] = []
    wrong: list[SettingsError] = []
    for variable in sorted(environ):
        for section, model in sorted(SECTIONS.items(), reverse=True):  # nested ones first
            prefix = f"FDEPLOY_{section.upper().replace('.', '_')}_"
            if not variable.startswith(prefix):
                continue
            known = {
                name: kind
                for name, kind in fields_of(model).items()
                if f"{section}.{name}" not in SECTIONS
            }
            name = variable.removeprefix(prefix).lower()
            renamed = RENAMED.get((section, name))
            if renamed is not None:
                known[name] = fields_of(SECTIONS[renamed[0]])[renamed[1]]
            elif name not in known:
                names = [f"{prefix}{other.upper()}" for other in known]
                hint = nearest(variable, names, "the variables")
                wrong.append(SettingsError(f"unknown setting {variable}", hint=hint))
                break
            try:
                value = value_of(known[name], environ[variable])
                found.append((variable, (section, name), value))
            except ValidationError as error:
                wrong += validation_errors(error, lambda _loc, name=variable: name)  # type: ignore[misc]
            break
    return found, wrong


def setting_names() -> dict[str, Any]:
    """The type of every setting, by its dotted name such as ``endpoint.instance``."""
    return {
        f"{section}.{key}": kind
        for section, model in SECTIONS.items()
        for key, kind in fields_of(model).items()
        if f"{section}.{key}" not in SECTIONS
    }


def place_of(dotted: str) -> tuple[tuple[str, ...], Any]:
    """The tables and the key of a setting such as ``stages.prod.api.rate``, and its type.

    Raises SettingsError for one that does not exist.
    """
    parts = tuple(dotted.split("."))
    prefix = parts[:2] if parts[0] == "stages" else ()
    section, _, name = ".".join(parts[len(prefix) :]).rpartition(".")
    section, name = RENAMED.get((section, name), (section, name))
    known = setting_names()
    if f"{section}.{name}" not in known:
        near = [key for key in known if key.endswith(f".{name}")] if name else []
        hint = f"did you mean {near[0]}?" if near else nearest(dotted, list(known), "the settings")
        raise SettingsError(f"unknown setting {dotted}", hint=hint)
    return (*prefix, *section.split("."), name), known[f"{section}.{name}"]


def value_of(annotation: Any, text: str) -> Any:
    """The value that a text stands for; lists use commas. Raises pydantic's ValidationError."""
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    kind = str(annotation)
    if "tuple" in kind:
        return adapter.validate_python(tuple(part for part in text.split(",") if part))
    if "dict" in kind:
        pairs = [part.partition("=") for part in text.split(",") if part]
        return adapter.validate_python({name: value for name, _, value in pairs})
    if "Literal" in kind and text.isdecimal():
        return adapter.validate_python(int(text))
    return adapter.validate_strings(text)


def _set(
    merged: dict[str, Any], origins: dict[Key, Origin], key: Key, value: Any, origin: Origin
) -> None:
    section, name = key
    table = merged
    for part in section.split("."):
        table = table.setdefault(part, {})
    table[name] = tuple(value) if isinstance(value, list) else value
    origins[key] = origin


def _tuples(value: Any) -> Any:
    """Convert TOML arrays to tuples, which strict frozen models require."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _origin_of(loc: tuple[str, ...], origins: Mapping[Key, Origin]) -> str:
    for end in range(len(loc) - 1, 0, -1):
        origin = origins.get((".".join(loc[:end]), loc[end]))
        if origin:
            return origin.where
    return ".".join(loc)


def _check_target(sections: Sections, origins: Mapping[Key, Origin]) -> None:
    """Reject an AWS setting next to ``target = "local"`` if both come from the same place."""
    project, endpoint = sections.project, sections.endpoint
    if project.target == "local":
        for key, value in {
            ("endpoint", "instance"): endpoint.instance,
            ("project", "region"): project.region,
        }.items():
            if value and origins[key].kind == origins["project", "target"].kind:
                raise SettingsError(
                    f"{'.'.join(key)} (from {origins[key].where}) needs AWS, but project.target is "
                    f"local (from {origins['project', 'target'].where})",
                    hint="remove one of the two",
                )


def _name_from(root: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", root.name.lower()).lstrip("-0123456789")[:30].strip("-")
    return name or "fdeploy"
