"""No control character of a file ever reaches the terminal, by any path."""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest

from fastai_deploy.cli.escaping import visible, visible_json
from fastai_deploy.cli.progress import JsonReporter, PlainReporter, show_error
from fastai_deploy.cli.results import Described, InvokeResult
from fastai_deploy.cli.results import Result as Shown
from fastai_deploy.cli.show import show
from fastai_deploy.cli.terminal import TerminalReporter
from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.progress import Advanced, Happened, Planned, StageFinished, Step, Warned
from fastai_deploy.records import Bundle, Source
from fastai_deploy.stage_reports import PlannedChange
from tests.conftest import Fdeploy
from tests.flow.learners import LEARNERS

HOSTILE = {
    "title": "\x1b]0;pwned\x07",
    "clear": "\x1b[2J\x1b[31mhi",
    "C1": "\x9b2J\x9d0;x\x9c",
    "carriage return": "good\rBAD",
    "backspace": "bad\x08\x08\x08ok",
    "delete": "\x7f",
    "forged line": "a\nerror: b",
    "direction": "\u202egnp.exe\u202c",
    "isolate": "\u2066x\u2069\u061c",
    "invisible": "a\u200b\u2060\ufeffb\u00ad",
    "tags": "\U000e0041\U000e0042",
    "separators": "a\u2028b\u2029c",
    "surrogate": "\udc1b",
}
HARMLESS = ("caf\u00e9", "\u06a9\u200c\u06cc", "\U0001f469\u200d\U0001f467", "a\u00a0b", "\u4e2d")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def silent_on_a_terminal(shown: str) -> bool:
    """Whether nothing in it is a control character, but for line breaks."""
    categories = {unicodedata.category(char) for char in shown if char not in "\n\u200c\u200d"}
    return not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_move_or_hide_becomes_an_escape(name: str) -> None:
    assert silent_on_a_terminal(visible(HOSTILE[name]))
    assert "\n" not in visible(HOSTILE[name])


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize("name", HOSTILE)
def test_json_keeps_its_meaning(name: str) -> None:
    document = {HOSTILE[name]: [HOSTILE[name]]}
    shown = visible_json(json.dumps(document, ensure_ascii=False, indent=1))
    assert silent_on_a_terminal(shown)
    assert json.loads(shown) == document


def bundle(text: str) -> Bundle:
    return Bundle(
        path=f"/{text}",
        version=text,
        name=text,
        task="single-label",
        labels=(text, "b"),
        proven=0,
        max_difference=0.0,
        source=Source(text, "", 0, 0),
        golden=None,
        made_from="",
    )


def answered(text: str) -> InvokeResult:
    return InvokeResult(
        {"label": text, "probabilities": {text: 1.0}, "truncated": False, "model": {"name": text}}
    )


RESULTS: dict[str, Callable[[str], Any]] = {
    "a bundle": bundle,
    "an answer": answered,
    "labels": lambda text: InvokeResult(
        {"labels": [text], "probabilities": {text: 1.0}, "truncated": True, "model": {"name": text}}
    ),
    "a document": lambda text: Described({text: {"title": text}}),
}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("name", HOSTILE)
def test_results(name: str, result: str, *, as_json: bool) -> None:
    stream = Terminal()
    shown: Shown = RESULTS[result](HOSTILE[name])
    show(shown, stream, command="test", as_json=as_json)
    assert silent_on_a_terminal(stream.getvalue())


EVENTS: dict[str, Callable[[str], Any]] = {
    "step": Step,
    "warning": lambda text: Warned(text, text),
    "finished": lambda text: StageFinished("export", text, 1.0),
    "advanced": lambda text: Advanced(text, 20_000_000, 20_000_000),
    "planned": lambda text: Planned(
        text, (PlannedChange(text, "add", "X::Y", text, (text,), interrupts=False),)
    ),
    "happened": lambda text: Happened(text, "X::Y", text, "FAILED", text, failed=True, ended=True),
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("name", HOSTILE)
def test_events(name: str, event: str) -> None:
    told = EVENTS[event](HOSTILE[name])
    plain, as_json = io.StringIO(), io.StringIO()
    PlainReporter(plain)(told)
    JsonReporter(as_json)(told)
    assert silent_on_a_terminal(plain.getvalue())
    assert silent_on_a_terminal(as_json.getvalue())


@pytest.mark.parametrize("event", EVENTS)
def test_events_in_a_terminal(event: str) -> None:
    """Rich paints with escapes of its own; those of the file are not among them."""
    stream = Terminal()
    reporter = TerminalReporter(stream)
    reporter(EVENTS[event]("\x1b]0;pwned\x07[bold]x\u202e"))
    reporter.stop()
    assert "\x1b]" not in stream.getvalue()
    assert not set("\x07\u202e") & set(stream.getvalue())


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_errors(name: str, *, as_json: bool) -> None:
    stream = io.StringIO()
    error = UnsupportedLearner(f"a {HOSTILE[name]}", hint=f"try {HOSTILE[name]}")
    show_error(error, stream, as_json=as_json)
    assert silent_on_a_terminal(stream.getvalue())


def test_an_error_is_not_endless() -> None:
    stream = io.StringIO()
    show_error(UnsupportedLearner("x" * 1_000_000, hint="y"), stream, as_json=False)
    assert len(stream.getvalue()) < 5_000


@pytest.mark.slow
def test_a_file_is_named_so_that_it_paints_nothing(fdeploy: Fdeploy) -> None:
    name = "\x1b]0;pwned\x07.pkl"
    (fdeploy.folder / name).write_bytes((LEARNERS / "v2/v2_hfwrapper_f2812_t523.pkl").read_bytes())
    for arguments in ((name,), (name, "--json"), (f"no{name}",), (f"no{name}", "--verbose")):
        outcome = fdeploy("inspect", *arguments)
        assert "\x1b" not in outcome.stdout + outcome.stderr
        assert "\x07" not in outcome.stdout + outcome.stderr
    assert "\x1b" not in fdeploy(f"--{name}").stderr


def test_a_narrow_terminal_folds_facts_and_nothing_else() -> None:
    stream = Terminal()
    answer = {"label": "a", "probabilities": {"a": 1.0, "bb": 0.5}, "truncated": True, "model": {}}
    show(InvokeResult(answer), stream, command="invoke", as_json=False, width=40)
    lines = stream.getvalue().splitlines()
    assert lines[1] == "  a    1.0000  " + "█" * 25
    assert lines[2] == "  bb   0.5000  " + "█" * 12
    assert lines[3:] == ["  the text was longer than the model can", "  read and was truncated"]
