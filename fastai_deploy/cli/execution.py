"""Runs a command: maps its options to settings, opens the project, shows the result."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import typer

from fastai_deploy.cli import durations
from fastai_deploy.cli.hints import LEARNER, CommandLine
from fastai_deploy.cli.options import Sets
from fastai_deploy.cli.progress import (
    JsonReporter,
    PlainReporter,
    QuietReporter,
    ShownReporter,
    show_next,
)
from fastai_deploy.cli.show import exit_code, show, width_of
from fastai_deploy.errors import FdeployError
from fastai_deploy.files import expanded
from fastai_deploy.naming import HUB
from fastai_deploy.progress import Consent, Event, StageFinished, Step, Warned
from fastai_deploy.project import Project, open_project
from fastai_deploy.settings import load_settings
from fastai_deploy.settings.loading import STAGE_VARIABLE
from fastai_deploy.workspace import COMMANDS, FoundProject, Record, find_project

Accepted = Callable[[], Mapping[str, Collection[str]]]


@dataclass(frozen=True)
class Registered:
    """A command: the function, what its options set, and how it runs.

    ``settings`` and ``consents`` are by the name of an option, ``own`` are all names of options.
    ``locked``, ``after`` and ``then`` are as in :func:`fastai_deploy.cli.command.command`.
    """

    name: str
    function: Callable[..., Any]
    own: tuple[str, ...]
    settings: Mapping[str, Sets]
    consents: Mapping[str, str]
    locked: bool
    after: str | None
    then: str | Callable[[Any], str]


def execute(command: Registered, values: Mapping[str, Any], accepted: Accepted) -> None:
    """Run a command with the ``values`` of its options and show what it returns.

    ``accepted`` returns the flags of every command. Raises FdeployError, with a hint that repeats
    the command line, and typer.Exit for a result with an exit code.
    """
    line = _command_line(values, command.settings, accepted)
    options = Options(
        config=values["config"],
        stage=values["stage"],
        as_json=values["json"],
        quiet=values["quiet"],
        line=line,
        flags=_flags(values, command.settings),
        agreed={field: values[name] for name, field in command.consents.items()},
    )
    apart = {*command.settings, *command.consents}
    arguments = {name: values[name] for name in command.own if name not in apart}
    needs = next((kind for kind, wrote in COMMANDS.items() if wrote == command.after), None)
    try:
        with session(options, command.name, locked=command.locked, needs=needs) as project:
            result = command.function(project, **arguments)
        show(
            *(result, sys.stdout),
            command=command.name,
            as_json=options.as_json,
            line=line,
            width=width_of(sys.stdout),
        )
        failure = getattr(result, "failure", None)
        if failure is not None:  # part of the work failed: report it after the results
            raise failure
        following = command.then(result) if callable(command.then) else command.then
        if following and not options.as_json and not options.quiet:
            show_next(line.complete(following), sys.stderr)
    except FdeployError as error:
        error.hint = line.complete(error.hint)
        raise
    status = exit_code(result)
    if status:
        raise typer.Exit(status)


@dataclass(frozen=True)
class Options:
    """The common options, and the flags that set settings, as setting to (flag, value).

    ``line`` is the command line, for hints that repeat it. ``agreed`` is what the user has agreed
    to, by field of Consent.
    """

    config: Path | None
    stage: str | None
    as_json: bool
    quiet: bool
    line: CommandLine
    flags: Mapping[tuple[str, str], tuple[str, Any]]
    agreed: Mapping[str, bool]

    @property
    def names_learner(self) -> bool:
        """Whether a learner is named on the command line."""
        return self.flags.get(("model", "learner"), ("", None))[1] is not None


@contextmanager
def session(
    options: Options, command: str, *, locked: bool, needs: type[Record] | None
) -> Iterator[Project]:
    """Open the project a command works on; ``locked`` keeps other commands out of the stage."""
    here = Path.cwd()
    found = FoundProject(here, exists=True)
    if options.config is None:
        found = find_project(here, starts=options.names_learner)
    settings = load_settings(
        folder=found.folder,
        config=options.config,
        stage=options.stage,
        environ=os.environ,
        flags=options.flags,
    )
    with _reporter(sys.stderr, as_json=options.as_json, quiet=options.quiet) as shown:
        took: dict[str, float] = {}

        def report(event: Event) -> None:
            if isinstance(event, StageFinished):
                took[event.stage] = event.seconds
            shown(options.line.event(event))

        for note in settings.notes:
            report(Warned(note, hint="the old name works until the next release"))
        consent = _consent(options, shown.paused)
        if found.foreign:
            report(
                Warned(
                    f"{found.foreign} is not used, because it or its folder is another user's",
                    hint=f"to use it, add --config {found.foreign}",
                )
            )
        if found.folder != here:
            report(Step(f"project in {found.folder}"))
        project = replace(
            open_project(settings, report, consent, needs=needs),
            typed=options.line.typed,
            exists=found.exists or ("project", "name") in settings.origins,
        )
        past = project.workspace.durations
        shown.expect(durations.read(past))
        with project.workspace.locked(command) if locked else nullcontext():
            yield project
            durations.note(past, took)


@contextmanager
def _reporter(stream: TextIO, *, as_json: bool, quiet: bool) -> Iterator[ShownReporter]:
    """The reporter that suits the stream; the terminal is restored however the block ends.

    ``quiet``: only warnings are printed.
    """
    if quiet:
        yield QuietReporter(JsonReporter(stream) if as_json else PlainReporter(stream))
    elif as_json:
        yield JsonReporter(stream)
    elif stream.isatty():
        from fastai_deploy.cli.terminal import TerminalReporter  # noqa: PLC0415 - rich is not needed in CI

        painter = TerminalReporter(stream)
        try:
            yield painter
        finally:
            painter.stop()
    else:
        yield PlainReporter(stream)


def _consent(options: Options, pause: Callable[[], AbstractContextManager[None]]) -> Consent:
    """What was agreed to; questions are asked only in a terminal, and not in CI."""
    agreed = Consent(yes=options.agreed.get("yes", False), adopt=options.agreed.get("adopt", False))
    terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if options.as_json or "CI" in os.environ or not terminal:
        return agreed
    from fastai_deploy.cli.terminal import asker, prompter  # noqa: PLC0415 - rich is not needed in CI

    return replace(
        agreed,
        ask=asker(sys.stdin, sys.stderr, pause),
        prompt=prompter(sys.stdin, sys.stderr, pause),
    )


def _command_line(
    values: Mapping[str, Any], settings: Mapping[str, Sets], accepted: Accepted
) -> CommandLine:
    """The command line with the flags that were given, in the words that repeat them."""
    own = {sets.flag: values[name] for name, sets in settings.items()}
    given: dict[str, Any] = {
        LEARNER: own.pop(LEARNER, None),
        "--stage": values["stage"] or os.environ.get(STAGE_VARIABLE),
        "--config": values["config"],
        "--target": values["target"],
        **own,
    }
    return CommandLine(
        tuple(sys.argv[1:]),
        {flag: words for flag, value in given.items() if (words := _words(flag, value))},
        accepted,
    )


def _words(flag: str, value: Any) -> tuple[str, ...]:
    """The words of a command line that set a flag to a value; none if it was not given."""
    if value is None or value is False:
        return ()
    if value is True:
        return (flag,)
    if isinstance(value, list):
        return tuple(word for each in value for word in _words(flag, each))
    return (str(value),) if flag == LEARNER else (flag, str(value))


def _flags(
    values: Mapping[str, Any], settings: Mapping[str, Sets]
) -> dict[tuple[str, str], tuple[str, Any]]:
    flags = {("project", "target"): ("--target", values["target"])}
    for name, sets in settings.items():
        value = values[name]
        if isinstance(value, Path):
            # A path on the command line is relative to the current folder, not to the project file.
            local = not str(value).startswith(HUB)
            value = str(expanded(value).absolute() if local else value)
        elif isinstance(value, list):
            value = tuple(value) or None  # typer passes [] for a repeatable option not given
        elif value and sets.value:
            value = sets.value
        flags[sets.section, sets.key] = (sets.flag, value)
    return flags
