"""Registers functions as commands.

What runs a command is imported when one runs, and its libraries with it, so that ``--help`` and a
shell's completion are quick.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar, get_args

import typer

from fastai_deploy.cli import command_help
from fastai_deploy.cli.options import COMMON, Agrees, Sets

Command = Callable[..., Any]
T = TypeVar("T")


def command(
    app: typer.Typer,
    panel: str,
    name: str | None = None,
    *,
    settings: Mapping[str, Any] = MappingProxyType({}),
    examples: Sequence[str] = (),
    locked: bool = True,
    after: str | None = None,
    then: str | Callable[[Any], str] = "",
) -> Callable[[Command], Command]:
    """Register a function that takes the project and its own options as the command ``name``.

    ``panel`` is the part of ``fdeploy --help`` that lists it, ``settings`` are options that only
    set settings (their types by name), and ``examples`` are lines to type.
    ``locked`` keeps other commands out of the stage while this one runs. ``after`` is the command
    without whose record this one cannot start; ``then`` is what to type after it,
    or a function of its result.
    """

    def register(function: Command) -> Command:
        keyword = inspect.Parameter.KEYWORD_ONLY
        own = [
            *(
                inspect.Parameter(name, keyword, default=None, annotation=type_)
                for name, type_ in settings.items()
            ),
            *(
                parameter.replace(kind=keyword)
                for parameter in list(inspect.signature(function).parameters.values())[1:]
            ),
        ]
        called = name or function.__name__
        sets_of = {p.name: sets for p in own for sets in _marks(p, Sets)}
        consents = {p.name: agrees.to for p in own for agrees in _marks(p, Agrees)}

        def run(**values: Any) -> None:
            from fastai_deploy.cli.execution import Registered, execute  # noqa: PLC0415 - see the module's docstring

            registered = Registered(
                called,
                function,
                tuple(parameter.name for parameter in own),
                sets_of,
                consents,
                locked,
                after,
                then,
            )
            execute(registered, values, lambda: accepted_flags(app))

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


def accepted_flags(app: typer.Typer) -> dict[str, set[str]]:
    """The flags of every command; a positional argument is there in capitals."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group
    return {
        name: {flag for each in command.params for flag in (*each.opts, each.name.upper())}
        for name, command in commands.items()
    }


def _marks(parameter: inspect.Parameter, kind: type[T]) -> Iterator[T]:
    """What an option's annotation says beside its help."""
    return (item for item in get_args(parameter.annotation)[1:] if isinstance(item, kind))
