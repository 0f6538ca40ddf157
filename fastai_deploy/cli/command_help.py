"""How ``--help`` is laid out, which other names a command has, and what a typing error suggests."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from typer.core import TyperCommand, TyperGroup

from fastai_deploy.errors import UsageError

FLOW = "From a learner to an API"
USE = "Use and judge the model"
OPERATE = "Look after what is deployed"
ABOUT = "Settings and help"
PANELS = (FLOW, USE, OPERATE, ABOUT)

ALIASES: Mapping[str, str] = {"down": "teardown", "destroy": "teardown", "delete": "teardown"}
"""Other names of commands, which work but are not listed."""

_MEANT: Mapping[str, str] = {
    **dict.fromkeys(("undeploy", "remove", "rm", "stop", "clean", "cleanup", "kill"), "teardown"),
    **dict.fromkeys(("start", "run", "serve", "launch", "create", "apply"), "up"),
    **dict.fromkeys(("predict", "classify", "call", "curl", "test"), "invoke"),
    **dict.fromkeys(("convert", "load", "import"), "export"),
    **dict.fromkeys(("build", "pack", "archive"), "package"),
    **dict.fromkeys(("push", "publish"), "upload"),
    **dict.fromkeys(("ls", "list", "ps", "info"), "status"),
    **dict.fromkeys(("check", "verify", "preflight"), "doctor"),
    **dict.fromkeys(("undo", "revert"), "rollback"),
    **dict.fromkeys(("preview", "dry-run"), "plan"),
    **dict.fromkeys(("show", "describe"), "inspect"),
    **dict.fromkeys(("settings", "set"), "config"),
    "api": "create-api",
    "tail": "logs",
    "browse": "open",
    "new": "init",
    "price": "cost",
    "score": "evaluate",
    "benchmark": "bench",
}
"""Words from other tools, and the command that does it here; these are only suggested."""

_MAKES = {"up", "deploy", "upload", "create-api"}
_UNMAKES = {"teardown", "rollback"}


def suggestion(typed: str, commands: list[str]) -> str | None:
    """The command that was meant, if that can be told. Never one that does the opposite.

    ``undeploy`` is nearest to ``deploy`` in letters, and means the reverse.
    """
    meant = _MEANT.get(typed) or ALIASES.get(typed)
    if meant in commands:
        return meant
    names = difflib.get_close_matches(typed, [*commands, *ALIASES], n=1)
    if not names:
        return None
    found = ALIASES.get(names[0], names[0])
    reverses = typed.startswith(("un", "de-", "no-", "dis", "re"))
    opposite = found in _MAKES | _UNMAKES and reverses and not found.startswith(typed[:2])
    return None if opposite else found


def in_panels(group: TyperGroup) -> list[tuple[str, Any]]:
    """The commands with their names, in the order of the panels."""
    return sorted(group.commands.items(), key=lambda named: PANELS.index(_panel(named[1])))


def _panel(command: Any) -> str:
    return str(command.rich_help_panel)


class Commands(TyperGroup):
    """The group of all commands: listed by panel, with aliases and suggestions."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name or an alias."""
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        """The names of all commands, by panel."""
        return [name for name, _command in in_panels(self)]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands by panel."""
        listed = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        width = max(len(name) for name, _ in listed)
        for panel in PANELS:
            rows = [
                (f"{name:<{width}}", each.get_short_help_str(formatter.width))
                for name, each in listed
                if _panel(each) == panel and not each.hidden
            ]
            if rows:
                with formatter.section(panel):
                    formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command to run. Raises UsageError, which suggests the one that was meant."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            meant = suggestion(args[0], self.list_commands(ctx))
            raise UsageError(
                f"there is no command {args[0]!r}",
                hint=f"did you mean fdeploy {meant}?" if meant else "fdeploy --help lists all",
            )
        return super().resolve_command(ctx, args)


class Command(TyperCommand):
    """A command whose common options come last, followed by its examples."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """List arguments and options by panel."""
        listed = [(param, param.get_help_record(ctx)) for param in self.get_params(ctx)]
        panels = [(self._panel(param), record) for param, record in listed if record is not None]
        order = list(dict.fromkeys(panel for panel, _ in panels))
        for panel, rows in groupby(
            sorted(panels, key=lambda row: order.index(row[0])), key=lambda row: row[0]
        ):
            with formatter.section(panel):
                formatter.write_dl([record for _, record in rows])

    @staticmethod
    def _panel(param: Any) -> str:
        if param.param_type_name == "argument":
            return "Arguments"
        common = "Common options"
        named = getattr(param, "rich_help_panel", None)
        return str(named or (common if param.name == "help" else "Options"))

    def format_epilog(self, _ctx: Any, formatter: Any) -> None:
        """Print the examples as they are typed."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
