"""Every command in the documentation exists, and every shell block is accounted for."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer

from fastai_deploy.cli.command_help import ALIASES
from fastai_deploy.cli.commands import app
from fastai_deploy.cli.docs import commands_page, policies_page
from tests.docs.shell_blocks import ROOT, Page, pages

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OVERALL = {"--version", "--help", "-h"}
ALL = pages()
WITH_BLOCKS = [page for page in ALL if page.blocks]
# Words that stand for a command or an argument in running text.
PLACEHOLDER = re.compile(r"^[A-Z_|]+$|^\.\.\.$|^\[.*\]$|^…$")


def name(page: Page) -> str:
    return str(page.path.relative_to(ROOT))


def wrong(command: str) -> str | None:
    """What the command line would refuse in a command; None if nothing."""
    try:
        words = shlex.split(command, comments=True)[1:]
    except ValueError as error:
        return str(error)
    if not words or PLACEHOLDER.match(words[0]) or words[0] in {*OVERALL, "help"}:
        return None
    known = COMMANDS.get(ALIASES.get(words[0], words[0]))
    if known is None:
        return f"no command {words[0]}"
    flags = {flag: each for each in known.params for flag in (*each.opts, *each.secondary_opts)}
    rest, arguments = words[1:], 0
    while rest:
        word = rest.pop(0)
        flag, _, value = word.partition("=")
        if word == "-" or not word.startswith("-"):
            arguments += 1
        elif flag in OVERALL:
            continue
        elif flag not in flags:
            return f"no option {flag} of {words[0]}"
        elif not (flags[flag].is_flag or value):
            if not rest:
                return f"{flag} takes a value"
            rest.pop(0)
    room = sum(1 for each in known.params if each.param_type_name == "argument")
    return "too many arguments" if arguments > room else None


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name)
def test_commands_in_blocks_exist(page: Page) -> None:
    faults = [
        f"{name(page)}:{block.line}: {command}: {fault}"
        for block in page.blocks
        for command in block.commands
        if (fault := wrong(command))
    ]
    assert faults == []


@pytest.mark.parametrize("page", ALL, ids=name)
def test_commands_in_sentences_exist(page: Page) -> None:
    faults = [
        f"{name(page)}: {command}: {fault}"
        for command in page.inline
        if (fault := wrong(command)) and fault != "too many arguments"
    ]
    assert faults == []


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name)
def test_every_block_is_run_or_says_why_not(page: Page) -> None:
    assert not (page.runs_in and page.reason)
    if page.reason is None and page.runs_in is None:
        silent = [block.line for block in page.blocks if block.reason is None]
        assert silent == [], f"{name(page)}: see tests/docs/shell_blocks.py"


def test_the_parser_refuses_what_the_command_line_refuses() -> None:
    assert wrong("fdeploy up learner.pkl --golden texts.jsonl") is None
    assert wrong("fdeploy invoke --api 'some text' --json # a comment") is None
    assert wrong("fdeploy fly") == "no command fly"
    assert wrong("fdeploy up --gold texts.jsonl") == "no option --gold of up"
    assert wrong("fdeploy up --golden") == "--golden takes a value"
    assert wrong("fdeploy status one two") == "too many arguments"


def test_the_reference_of_the_commands_is_current() -> None:
    assert (ROOT / "docs/commands.md").read_text(encoding="utf-8") == commands_page(app), (
        "make schema"
    )


def test_the_reference_of_the_policies_is_current() -> None:
    assert (ROOT / "docs/policies.md").read_text(encoding="utf-8") == policies_page(), "make schema"
