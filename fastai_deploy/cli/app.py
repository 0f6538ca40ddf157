"""The entry point: runs the command line and turns every error into a message and an exit code."""

from __future__ import annotations

import io
import os
import shlex
import sys
import traceback

import typer

from fastai_deploy.cli import commands  # noqa: F401 - registers its commands
from fastai_deploy.cli.commands import app
from fastai_deploy.cli.escaping import STAND_INS, visible_lines
from fastai_deploy.errors import FdeployError, UsageError

DEFECT = 1
INTERRUPTED = 130
UNREAD = 141  # what a shell reports for a program that a closed pipe ended (128 + SIGPIPE)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code (listed in ``errors``)."""
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # one that has a terminal's or a pipe's encoding
            stream.reconfigure(errors=STAND_INS)
    try:
        outcome = app(arguments or ["--help"], prog_name="fdeploy", standalone_mode=False)
    except FdeployError as error:
        return _failed(error, arguments)
    except typer.TyperException as error:
        return _failed(UsageError(error.format_message(), hint=_meant(arguments)), arguments)
    except KeyboardInterrupt:
        outcome = INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except Exception as error:  # noqa: BLE001 - the last resort: no bare traceback for users
        return _failed(_Defect(error), arguments)
    if outcome == INTERRUPTED:  # typer returns this number for an interruption, too
        print(  # noqa: T201 - the reporter is closed by now
            "\ninterrupted; finished work is kept: run the same command again to continue",
            file=sys.stderr,
        )
    return outcome if isinstance(outcome, int) else 0


def _meant(arguments: list[str]) -> str:
    """The command to type after one that was not understood.

    A file whose name begins with a dash looks like an option.
    """
    as_files = [f"./{each}" if _is_dashed_file(each) else each for each in arguments]
    if as_files != arguments:
        return shlex.join(["fdeploy", *as_files])
    return " ".join(["fdeploy", *arguments[:1], "--help"])


def _is_dashed_file(argument: str) -> bool:
    # Path.exists raises OSError for what is too long to be a name, such as a text.
    return argument.startswith("-") and os.path.exists(argument)  # noqa: PTH110


class _Defect(FdeployError):
    """An unexpected error: a bug in fdeploy."""

    code = "defect"
    exit_code = DEFECT

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"this is a bug in fdeploy: {type(error).__name__}: {error}",
            hint="run the same command with --verbose and report the output",
        )


def _failed(error: FdeployError, arguments: list[str]) -> int:
    from fastai_deploy.cli.progress import show_error  # noqa: PLC0415 - rich is slow to import

    if "--verbose" in arguments:
        sys.stderr.write(visible_lines(traceback.format_exc()))
    show_error(error, sys.stderr, as_json="--json" in arguments)
    return error.exit_code
