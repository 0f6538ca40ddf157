"""The way in and the one way out: every error becomes a message and an exit code here."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from fastai_deploy.cli import commands  # noqa: F401 - registers its commands
from fastai_deploy.cli.commands import app
from fastai_deploy.cli.escaping import visible_lines
from fastai_deploy.errors import FdeployError, UsageError

DEFECT = 1
INTERRUPTED = 130
UNREAD = 141  # as a shell says of a program that a closed pipe ended


def main() -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code, which ``errors`` explains."""
    try:
        outcome = app(arguments or ["--help"], prog_name="fdeploy", standalone_mode=False)
    except FdeployError as error:
        return _failed(error, arguments)
    except typer.TyperException as error:
        command = " ".join(["fdeploy", *arguments[:1]]) if arguments else "fdeploy"
        return _failed(UsageError(error.format_message(), hint=f"{command} --help"), arguments)
    except KeyboardInterrupt:
        outcome = INTERRUPTED
    except BrokenPipeError:  # who read us has seen enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except Exception as error:  # noqa: BLE001 - the last resort: no bare traceback for users
        return _failed(_Defect(error), arguments)
    if outcome == INTERRUPTED:  # typer, too, answers an interruption with this number
        print(  # noqa: T201 - stderr is what is left to talk to
            "\ninterrupted; what was finished is kept: run the same command again to go on",
            file=sys.stderr,
        )
    return outcome if isinstance(outcome, int) else 0


class _Defect(FdeployError):
    """An error that nobody foresaw."""

    code = "defect"
    exit_code = DEFECT

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"fdeploy itself failed: {type(error).__name__}: {error}",
            hint="run the same command with --verbose and report what it prints",
        )


def _failed(error: FdeployError, arguments: list[str]) -> int:
    from fastai_deploy.cli.progress import show_error  # noqa: PLC0415 - rich is slow to import

    if "--verbose" in arguments:
        sys.stderr.write(visible_lines(traceback.format_exc()))
    show_error(error, sys.stderr, as_json="--json" in arguments)
    return error.exit_code
