"""Every command that fdeploy suggests acts, run as printed, where the last command acted."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

import fastai_deploy
from fastai_deploy.cli.command import accepted_flags
from fastai_deploy.cli.commands import app
from fastai_deploy.cli.hints import CommandLine
from fastai_deploy.progress import StageFinished, Step, Warned
from fastai_deploy.stage_reports import Check, Checkup

COMMANDS: Mapping[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
ACCEPTED = accepted_flags(app)
MENTION = re.compile(rf"\bfdeploy ({'|'.join(sorted(COMMANDS, key=len, reverse=True))})(?![\w-])")
TYPED: tuple[dict[str, tuple[str, ...]], ...] = (
    {"--stage": ("--stage", "prod")},
    {"--stage": ("--stage", "prod"), "--target": ("--target", "aws")},
    {"--config": ("--config", "a folder/fdeploy.toml"), "--region": ("--region", "eu-west-1")},
    {
        "LEARNER": ("my learner.pkl",),
        "--stage": ("--stage", "prod"),
        "--golden": ("--golden", "it's.csv"),
        "--trust-pickle": ("--trust-pickle",),
        "--allow-import": ("--allow-import", "a.b", "--allow-import", "c.d"),
        "--instance": ("--instance", "ml.p2.xlarge"),
        "--region": ("--region", "eu-west-1"),
        "--ttl": ("--ttl", "4h"),
    },
)


def literals() -> Iterator[str]:
    """Every string of the package with a command; what is filled in becomes ``filled.pkl``."""
    for path in sorted(Path(fastai_deploy.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parts = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr | ast.Expr)
            for part in (node.values if isinstance(node, ast.JoinedStr) else (node.value,))
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "filled.pkl"
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value if id(node) not in parts else ""
            else:
                continue
            text = re.sub(r"\{\d?\}", "filled.pkl", text)
            if MENTION.search(text) and "`" not in text:  # with backquotes: a generated page
                yield text


HINTS = sorted(set(literals()))


def commands(hint: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The commands in a hint with what the real parser makes of their words."""
    found = list(MENTION.finditer(hint))
    for match, end in zip(found, [*(each.start() for each in found[1:]), len(hint)], strict=True):
        words = _words(COMMANDS[match[1]], hint[match.end() : end])
        context = COMMANDS[match[1]].make_context(match[1], words, resilient_parsing=True)
        yield match[1], context.params


def _words(command: Any, rest: str) -> list[str]:
    """The words that belong to the command, not to the sentence around it."""
    options = {name: each for each in command.params for name in each.opts if name[0] == "-"}
    tokens = re.findall(r"(?:'[^']*'|\"[^\"]*\"|[^\s'\"])+", rest)
    words: list[str] = []
    # What is filled in may be an option, so a command without arguments may have a word, too.
    arguments = max(1, sum(each.param_type_name == "argument" for each in command.params))
    for token in tokens:
        (word,) = shlex.split(token.rstrip(",;)")) or [""]
        before = options.get(words[-1]) if words else None
        value = before is not None and not before.is_flag
        positional = not value and arguments and re.search(r"[./:]\w", word)
        if not (word in options or positional or value):
            break
        arguments -= bool(positional)
        words.append(word)
        if token != token.rstrip(",;)"):
            break
    return words


@pytest.mark.parametrize("flags", TYPED)
def test_every_hint_of_the_package_acts_on_the_same_stage(
    flags: dict[str, tuple[str, ...]],
) -> None:
    line = CommandLine(("up",), flags, lambda: ACCEPTED)
    assert len(HINTS) > 60
    for hint in HINTS:
        own = dict(enumerate(commands(hint)))
        for at, (name, given) in enumerate(commands(line.complete(hint))):
            for flag, words in flags.items():
                parameter = flag.lstrip("-").replace("-", "_").lower()
                if flag not in ACCEPTED[name] or parameter == "allow_import":
                    continue
                stated = own[at][1].get(parameter)
                if flag in ("--region", "--instance", "--ttl") and given["target"] == "local":
                    continue
                expected = True if words == (flag,) else words[-1]
                assert str(given[parameter]) == str(stated or expected), (hint, given)


@pytest.mark.parametrize(
    ("hint", "completed"),
    [
        (
            "run fdeploy teardown, then fdeploy up",
            "run fdeploy teardown -s x, then fdeploy up a.pkl -s x --golden 'g h.csv'",
        ),
        (
            "run fdeploy export b.pkl --golden g.jsonl",
            "run fdeploy export b.pkl -s x --golden g.jsonl",
        ),
        (
            "run fdeploy export a.pkl again",
            "run fdeploy export a.pkl -s x --golden 'g h.csv' again",
        ),
        ("add --column text", "add --column text"),
        ("fix it, then run the same command again", "fix it, then run fdeploy up -s x again"),
        ("run the same command with --verbose", "run fdeploy up -s x --verbose"),
        ("fdeploy deploy --help", "fdeploy deploy --help"),
    ],
)
def test_what_was_typed_is_repeated(hint: str, completed: str) -> None:
    flags = {"LEARNER": ("a.pkl",), "--stage": ("-s", "x"), "--golden": ("--golden", "g h.csv")}
    assert CommandLine(("up", "-s", "x"), flags, lambda: ACCEPTED).complete(hint) == completed


def test_a_bundle_folder_is_not_named_twice() -> None:
    line = CommandLine((), {"LEARNER": ("my bundle",)}, lambda: ACCEPTED)
    assert line.complete("fdeploy export 'my bundle' again") == "fdeploy export 'my bundle' again"


def test_a_text_of_the_user_is_not_repeated() -> None:
    line = CommandLine(("invoke", "my secret"), {}, lambda: ACCEPTED)
    assert line.complete("run the same command again") == "run the same command again"


def test_what_is_told_on_the_way_is_completed_too() -> None:
    line = CommandLine((), {"--stage": ("--stage", "prod")}, lambda: ACCEPTED)
    told = "run fdeploy teardown again; fdeploy deploy has run"
    completed = "run fdeploy teardown --stage prod again; fdeploy deploy has run"
    assert line.event(Step(told)) == Step(completed)
    assert line.event(StageFinished("a", told, 1)) == StageFinished("a", completed, 1)
    assert line.event(Warned(told, "fdeploy up")) == Warned(completed, "fdeploy up --stage prod")
    checked = Checkup((Check("a", "warned", "b", "run fdeploy package"),))
    assert line.checkup(checked).checks[0].hint == "run fdeploy package --stage prod"
