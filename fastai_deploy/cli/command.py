"""How a function becomes a command: options to settings, project opened, result shown.

Nothing of fdeploy but the options is imported before a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import typer

from fastai_deploy.cli.options import COMMON, Sets

Command = Callable[..., Any]


def command(
    app: typer.Typer, name: str | None = None, *, locked: bool = True
) -> Callable[[Command], Command]:
    """Register a function of (project, its own options) under ``name``.

    ``locked`` keeps other commands out of the stage while this one runs.
    """

    def register(function: Command) -> Command:
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in list(inspect.signature(function).parameters.values())[1:]
        ]
        called = name or function.__name__
        settings = {
            parameter.name: sets for parameter in own if (sets := _sets(parameter)) is not None
        }

        def run(**values: Any) -> None:
            from fastai_deploy.cli.results import exit_code, show  # noqa: PLC0415 - see the module's docstring
            from fastai_deploy.cli.session import Options, session  # noqa: PLC0415

            options = Options(
                config=values["config"],
                stage=values["stage"],
                as_json=values["json"],
                typed=tuple(sys.argv[1:]),
                flags=_flags(values, settings),
            )
            arguments = {p.name: values[p.name] for p in own if p.name not in settings}
            with session(options, called, locked=locked) as project:
                result = function(project, **arguments)
            show(result, sys.stdout, as_json=options.as_json)
            failure = getattr(result, "failure", None)
            if failure is not None:  # a part of the work failed: that is told after the rest
                raise failure
            status = exit_code(result)
            if status:
                raise typer.Exit(status)

        run.__doc__ = function.__doc__
        run.__signature__ = inspect.Signature([*own, *COMMON])  # type: ignore[attr-defined]
        app.command(called)(run)
        return function

    return register


def _sets(parameter: inspect.Parameter) -> Sets | None:
    metadata = get_args(parameter.annotation)[1:]
    return next((item for item in metadata if isinstance(item, Sets)), None)


def _flags(
    values: Mapping[str, Any], settings: Mapping[str, Sets]
) -> dict[tuple[str, str], tuple[str, Any]]:
    from fastai_deploy.files import expanded  # noqa: PLC0415 - see the module's docstring

    flags = {("project", "target"): ("--target", values["target"])}
    for name, sets in settings.items():
        value = values[name]
        if isinstance(value, Path):
            # Typed relative to where the user is, not to the project file.
            value = str(expanded(value).absolute())
        elif isinstance(value, list):
            value = tuple(value) or None  # an option that was not repeated even once
        flags[sets.section, sets.key] = (sets.flag, value)
    return flags
