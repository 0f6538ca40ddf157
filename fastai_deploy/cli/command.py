"""Turns a function into a command: maps options to settings, opens the project, shows the result.

Of fdeploy, only the options are imported before a command runs, which keeps ``--help`` fast.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import typer

from fastai_deploy.cli import command_help
from fastai_deploy.cli.hints import LEARNER, CommandLine
from fastai_deploy.cli.options import COMMON, Agrees, Sets
from fastai_deploy.cli.progress import reporter, show_next
from fastai_deploy.errors import FdeployError
from fastai_deploy.progress import Consent, Event, Step, Warned
from fastai_deploy.project import Project, open_project
from fastai_deploy.settings import load_settings
from fastai_deploy.settings.loading import STAGE_VARIABLE
from fastai_deploy.workspace import COMMANDS, FoundProject, Record, find_project


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
    with reporter(sys.stderr, as_json=options.as_json, quiet=options.quiet) as shown:

        def report(event: Event) -> None:
            shown(options.line.event(event))

        for note in settings.notes:
            report(Warned(note, hint="the old name works until the next release"))
        consent = _consent(options, getattr(shown, "paused", nullcontext))
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
        with project.workspace.locked(command) if locked else nullcontext():
            yield project


def _consent(options: Options, pause: Callable[[], AbstractContextManager[None]]) -> Consent:
    """What was agreed to; questions are asked only in a terminal, and not in CI."""
    terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if options.as_json or "CI" in os.environ or not terminal:
        return Consent(**options.agreed)
    from fastai_deploy.cli.terminal import asker, prompter  # noqa: PLC0415 - rich is not needed in CI

    return Consent(
        ask=asker(sys.stdin, sys.stderr, pause),
        prompt=prompter(sys.stdin, sys.stderr, pause),
        **options.agreed,
    )


Command = Callable[..., Any]
T = TypeVar("T")


def command(
    app: typer.Typer,
    panel: str,
    name: str | None = None,
    *,
    examples: Sequence[str] = (),
    locked: bool = True,
    after: str | None = None,
    then: str | Callable[[Any], str] = "",
) -> Callable[[Command], Command]:
    """Register a function that takes the project and its own options as the command ``name``.

    ``panel`` is the part of ``fdeploy --help`` that lists it, ``examples`` are lines to type.
    ``locked`` keeps other commands out of the stage while this one runs. ``after`` is the command
    without whose record this one cannot start; ``then`` is what to type after it,
    or a function of its result.
    """
    needs = next((kind for kind, wrote in COMMANDS.items() if wrote == after), None)

    def register(function: Command) -> Command:
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in list(inspect.signature(function).parameters.values())[1:]
        ]
        called = name or function.__name__
        settings = {p.name: sets for p in own for sets in _marks(p, Sets)}
        consents = {p.name: agrees.to for p in own for agrees in _marks(p, Agrees)}

        def run(**values: Any) -> None:
            from fastai_deploy.cli.show import exit_code, show  # noqa: PLC0415 - see the module's docstring

            line = _command_line(app, values, settings)
            options = Options(
                config=values["config"],
                stage=values["stage"],
                as_json=values["json"],
                quiet=values["quiet"],
                line=line,
                flags=_flags(values, settings),
                agreed={field: values[name] for name, field in consents.items()},
            )
            apart = {*settings, *consents}
            arguments = {p.name: values[p.name] for p in own if p.name not in apart}
            try:
                with session(options, called, locked=locked, needs=needs) as project:
                    result = function(project, **arguments)
                show(result, sys.stdout, command=called, as_json=options.as_json, line=line)
                failure = getattr(result, "failure", None)
                if failure is not None:  # part of the work failed: report it after the results
                    raise failure
                following = then(result) if callable(then) else then
                if following and not options.as_json and not options.quiet:
                    show_next(line.complete(following), sys.stderr)
            except FdeployError as error:
                error.hint = line.complete(error.hint)
                raise
            status = exit_code(result)
            if status:
                raise typer.Exit(status)

        run.__doc__ = function.__doc__
        run.__signature__ = inspect.Signature([*own, *COMMON])  # type: ignore[attr-defined]
        app.command(
            called,
            cls=command_help.Command,
            rich_help_panel=panel,
            epilog="\n".join(examples) or None,
        )(run)
        return function

    return register


def _command_line(
    app: typer.Typer, values: Mapping[str, Any], settings: Mapping[str, Sets]
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
        lambda: accepted_flags(app),
    )


def accepted_flags(app: typer.Typer) -> dict[str, set[str]]:
    """The flags of every command; a positional argument is there in capitals."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group
    return {
        name: {flag for each in command.params for flag in (*each.opts, each.name.upper())}
        for name, command in commands.items()
    }


def _words(flag: str, value: Any) -> tuple[str, ...]:
    """The words of a command line that set a flag to a value; none if it was not given."""
    if value is None or value is False:
        return ()
    if value is True:
        return (flag,)
    if isinstance(value, list):
        return tuple(word for each in value for word in _words(flag, each))
    return (str(value),) if flag == LEARNER else (flag, str(value))


def _marks(parameter: inspect.Parameter, kind: type[T]) -> Iterator[T]:
    """What an option's annotation says beside its help."""
    return (item for item in get_args(parameter.annotation)[1:] if isinstance(item, kind))


def _flags(
    values: Mapping[str, Any], settings: Mapping[str, Sets]
) -> dict[tuple[str, str], tuple[str, Any]]:
    from fastai_deploy.files import expanded  # noqa: PLC0415 - see the module's docstring
    from fastai_deploy.naming import HUB  # noqa: PLC0415 - likewise

    flags = {("project", "target"): ("--target", values["target"])}
    for name, sets in settings.items():
        value = values[name]
        if isinstance(value, Path):
            # A path on the command line is relative to the current folder, not to the project file.
            local = not str(value).startswith(HUB)
            value = str(expanded(value).absolute() if local else value)
        elif isinstance(value, list):
            value = tuple(value) or None  # typer passes [] for a repeatable option not given
        flags[sets.section, sets.key] = (sets.flag, value)
    return flags
