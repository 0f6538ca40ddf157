"""Callbacks of the user's, whose code is only looked at: what they may do, and who is asked."""

from __future__ import annotations

import json
import shutil
import textwrap
from types import CodeType

import pytest

from fastai_deploy.learner.callbacks import Callback, find_callbacks
from fastai_deploy.learner.reading.archive import open_archive
from fastai_deploy.learner.reading.values import Call, Global, Mapping, Sequence
from fastai_deploy.learner.roots import Root, find_learner
from tests.conftest import Fdeploy
from tests.learner.made import MADE, write_goldens

BASE = Global("fastai.callback.core", "Callback")


def in_file(name: str) -> tuple[Callback, ...]:
    with open_archive(MADE / f"{name}.pkl") as (_, archive):
        return find_callbacks(find_learner(archive.pickled.root), archive.pickled.calls)


def test_the_callbacks_of_real_learners() -> None:
    """By value in ``__main__`` and by name in a module, as cloudpickle wrote them."""
    plain = Callback(
        "__main__.PlainIds", in_file=True, events=("before_batch",), effect="may change inputs"
    )
    assert in_file("wrapper_bare") == (
        plain,
        Callback(
            "__main__.DropOutput",
            in_file=True,
            events=("after_pred",),
            effect="takes the scores out",
        ),
    )
    assert in_file("callback_by_name") == (
        plain,
        Callback("own_callbacks.TakesScores", in_file=False, events=(), effect="unseen"),
    )
    assert in_file("callback_temperature") == (
        Callback(
            "__main__.Temperature", in_file=True, events=("after_pred",), effect="may change scores"
        ),
    )
    assert in_file("callback_idle") == (
        Callback("__main__.Counts", in_file=True, events=("before_batch",), effect="none"),
    )
    assert in_file("bert") == ()


def by_value(code: CodeType) -> Call:
    """A code object as cloudpickle stores it."""
    constants = tuple(by_value(c) if isinstance(c, CodeType) else c for c in code.co_consts)
    return Call(
        Global("types", "CodeType"),
        (code.co_argcount, 0, 0, 0, 0, 0, code.co_code, constants, code.co_names,
         code.co_varnames, "<stdin>", code.co_name),
    )  # fmt: skip


def function(source: str, found: dict[str, object], calls: list[Call]) -> Call:
    """A function stored by value, which finds ``found`` under global names."""
    names: dict[str, CodeType] = {}
    module = compile(textwrap.dedent(source), "<stdin>", "exec")
    names = {c.co_name: c for c in module.co_consts if isinstance(c, CodeType)}
    made = Call(
        Global("cloudpickle.cloudpickle", "_make_function"), (by_value(next(iter(names.values()))),)
    )
    slots = Mapping([("__globals__", Mapping(list(found.items())))])
    calls.append(
        Call(Global("cloudpickle.cloudpickle", "_function_setstate"), (made, (None, slots)))
    )
    return made


def callback(body: dict[str, object], calls: list[Call], *bases: object, **own: object) -> Callback:
    cls = Call(
        Global("cloudpickle.cloudpickle", "_make_skeleton_class"),
        (Global("builtins", "type"), "Mine", bases or (BASE,),
         Mapping([("__module__", "__main__")])),
    )  # fmt: skip
    calls.append(
        Call(
            Global("cloudpickle.cloudpickle", "_class_setstate"),
            (cls, (Mapping(list(body.items())), Mapping([]))),
        )
    )
    node = Call(cls, (), new=True)
    node.states.append(Mapping(list(own.items())))
    root = Root(2, None, None, None, None, Sequence("list", [node]))
    (found,) = find_callbacks(root, calls)
    return found


EFFECTS = {
    "self.learn.pred = self.pred[0]": "takes the scores out",
    "self.learn.pred = self.pred.logits": "takes the scores out",
    "self.learn.pred = self.learn.pred.logits": "takes the scores out",
    "self.learn.pred = self.pred[1]": "may change scores",
    "self.learn.pred = -self.pred[0]": "may change scores",
    "self.learn.pred = self.pred.logits + self.pred.logits": "may change scores",
    "self.pred.mul_(2)": "may change scores",
    "setattr(self.learn, NAME, 0)": "may change scores",
    "(lambda: self.learn.pred.zero_())()": "may change scores",
    "self.learn.model.temperature = 2": "may change scores",
    "self.learn.xb = tuple(self.xb)": "may change inputs",
    "print(self.loss)": "none",
    "pass": "none",
}


@pytest.mark.parametrize("statement", EFFECTS)
def test_what_a_method_may_do(statement: str) -> None:
    calls: list[Call] = []
    method = function(f"def after_pred(self):\n    {statement}", {}, calls)
    assert callback({"after_pred": method}, calls).effect == EFFECTS[statement]


def test_what_a_method_calls_counts_as_well() -> None:
    calls: list[Call] = []
    helper = function("def soften(learn):\n    learn.pred = learn.pred / 2", {}, calls)
    method = function("def after_pred(self):\n    soften(self.learn)", {"soften": helper}, calls)
    assert callback({"after_pred": method}, calls).effect == "may change scores"
    elsewhere: dict[str, object] = {"soften": Global("my_functions", "soften")}
    method = function("def after_pred(self):\n    soften(self.learn)", elsewhere, calls)
    assert callback({"after_pred": method}, calls).effect == "unseen"


def test_what_does_not_run_while_predicting_changes_nothing() -> None:
    calls: list[Call] = []
    method = function("def f(self):\n    self.learn.pred = 0", {}, calls)
    assert callback({"after_epoch": method}, calls).effect == "none"
    assert callback({"after_pred": method, "run_valid": False}, calls).effect == "none"
    assert callback({"after_pred": method}, calls, run=False).effect == "none"
    assert callback({"before_validate": method, "run_valid": False}, calls).effect != "none"


def test_what_a_class_inherits_counts_as_well() -> None:
    calls: list[Call] = []
    assert callback({}, calls, Global("my_module", "Softens")).effect == "unseen"
    assert callback({"after_pred": Global("my_module", "f")}, calls).effect == "unseen"


def test_fastai_1_holds_the_names_alone() -> None:
    state = Mapping([
        (Global("fastai.train", "ShowGraph"), Mapping([])),
        (Global("__main__", "Softens"), Mapping([])),
    ])  # fmt: skip
    (found,) = find_callbacks(Root(1, None, None, None, None, state), [])
    assert found == Callback("__main__.Softens", in_file=False, events=(), effect="unseen")


def test_scores_that_a_callback_changes_are_asked_for(fdeploy: Fdeploy) -> None:
    """``learn.predict`` divides the scores by two: no conversion without, none with the goldens."""
    shutil.copyfile(MADE / "callback_temperature.pkl", fdeploy.folder / "learner.pkl")
    found = fdeploy.ok("inspect", "learner.pkl", "--json").json
    assert found["callbacks"] == [
        {"class": "__main__.Temperature", "code_in_file": True, "events": ["after_pred"],
         "effect": "unknown"}
    ]  # fmt: skip
    assert "--golden golden.jsonl" in found["verdict"]["hint"]
    shown = fdeploy.ok("inspect", "learner.pkl").stdout
    assert "callback   __main__.Temperature: its code may change answers" in shown
    refused = fdeploy("export", "learner.pkl", "--json")
    assert refused.error["code"] == "unproven-learner"
    assert "__main__.Temperature" in refused.error["message"]
    assert "fdeploy export learner.pkl --golden golden.jsonl" in refused.error["hint"]
    write_goldens("callback_temperature", fdeploy.folder / "g.jsonl")
    failed = fdeploy("export", "learner.pkl", "--golden", "g.jsonl", "--json").error
    assert failed["code"] == "parity"
    assert "callback __main__.Temperature: it changes the scores" in failed["message"]
    assert "--runtime learner" in failed["hint"]
    assert not (fdeploy.folder / "bundle").exists()


def test_a_callback_that_is_not_in_the_file_is_told_of(fdeploy: Fdeploy) -> None:
    shutil.copyfile(MADE / "callback_by_name.pkl", fdeploy.folder / "learner.pkl")
    told = fdeploy.ok("export", "learner.pkl", "--unproven", "--quantize", "none", "--json")
    notes = [line for line in told.stderr.splitlines() if "own_callbacks.TakesScores" in line]
    assert json.loads(notes[0])["event"] == "warned"
    assert "--golden golden.jsonl" in json.loads(notes[0])["hint"]
    assert any("own_callbacks.TakesScores" in each for each in told.json["unproven"])
