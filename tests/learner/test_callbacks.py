"""User callbacks: the code is interpreted, never run; goldens are required if it changes scores."""

from __future__ import annotations

import json
import shutil

import pytest

from fastai_deploy.learner.examine.anatomy import examine
from fastai_deploy.learner.examine.callbacks import Callback, find_callbacks
from fastai_deploy.learner.examine.modules import Root
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.reading.graph import Global
from fastai_deploy.learner.user_code.callback_code import CallbackSemantics
from fastai_deploy.learner.user_code.model_code import Run
from fastai_deploy.learner.user_code.objects import Objects
from fastai_deploy.learner.user_code.values import Term
from tests.conftest import Fdeploy
from tests.learner.code_graphs import Graph, listed, mapping
from tests.learner.made import MADE, write_goldens

BASE = Global("fastai.callback.core", "Callback")


def in_file(name: str) -> list[tuple[str, bool, tuple[str, ...], str]]:
    """The callbacks of a learner, and the verdict on each."""
    with open_archive(MADE / f"{name}.pkl") as (source, archive):
        found = examine(archive, source.size).callbacks
    return [(each.cls, each.in_file, each.events, each.effect) for each in found]


def test_the_callbacks_of_real_learners() -> None:
    """Stored by value from ``__main__`` and by name from a module, as cloudpickle wrote them."""
    plain = ("__main__.PlainIds", True, ("before_batch",), "none")
    assert in_file("wrapper_bare") == [
        plain,
        ("__main__.DropOutput", True, ("after_pred",), "takes the scores out"),
    ]
    assert in_file("callback_by_name") == [
        plain,
        ("own_callbacks.TakesScores", False, (), "unseen"),
    ]
    assert in_file("callback_temperature") == [
        ("__main__.Temperature", True, ("after_pred",), "unknown")
    ]
    assert in_file("callback_idle") == [
        ("__main__.Counts", True, ("before_fit", "before_batch"), "none")
    ]
    assert in_file("bert") == []


def callback(graph: Graph, body: dict[str, object], *bases: object, **own: object) -> Callback:
    """The verdict on a callback with these methods."""
    node = graph.instance(graph.cls("Mine", body, *(bases or (BASE,))), **own)
    objects = Objects(graph.calls)
    around = CallbackSemantics(objects, graph.transformer(), "bert", None, 3)
    root = Root(node, 2, None, None, None, None, listed(node))
    (found,) = find_callbacks(root, objects, around, Term("output", Run("none")))
    assert (found.unproven is None) == (found.effect in ("none", "takes the scores out"))
    return found


def with_statement(statement: str) -> Callback:
    graph = Graph()
    method = graph.source(f"def after_pred(self):\n    {statement}")
    return callback(graph, {"after_pred": method}, count=0, seen=listed())


EFFECTS = {
    "self.learn.pred = self.pred[0]": "takes the scores out",
    "self.learn.pred = self.pred.logits": "takes the scores out",
    "self.learn.pred = self.learn.pred.logits": "takes the scores out",
    "self.learn.xb = tuple(self.xb)": "none",
    "self.count += 1": "none",
    "self.seen.append(self.pred)": "none",
    "print(self.loss)": "none",
    "pass": "none",
}


@pytest.mark.parametrize("statement", EFFECTS)
def test_what_a_method_may_do(statement: str) -> None:
    assert with_statement(statement).effect == EFFECTS[statement]


UNKNOWN = {
    "self.learn.pred = self.pred[1]": "it changes the scores",
    "self.learn.pred = -self.pred[0]": "it changes the scores",
    "self.learn.pred = self.pred.logits + self.pred.logits": "it changes the scores",
    "self.learn.pred = self.learn.model(self.x).logits": "it calls something unknown",
    "self.pred.mul_(2)": "it reads .mul_ of the transformer's output",
    "setattr(self.learn, NAME, 0)": "it calls builtins.setattr()",
    "(lambda: self.learn.pred.zero_())()": "it reads .zero_ of the transformer's output",
    "self.learn.model.temperature = 2": "it changes an attribute",
    "self.learn.xb = (self.x[:, :4],)": "it changes the learner's xb",
    "raise ValueError": "it returns nothing",
}


@pytest.mark.parametrize("statement", UNKNOWN)
def test_code_that_is_not_understood_is_reported(statement: str) -> None:
    found = with_statement(statement)
    assert (found.effect, found.events) == ("unknown", ("after_pred",))
    assert found.unproven is not None
    assert found.unproven.subject == "the callback __main__.Mine"
    assert found.unproven.reason.startswith(UNKNOWN[statement])


def test_what_a_method_calls_counts_as_well() -> None:
    graph = Graph()
    helper = graph.source("def soften(learn):\n    learn.pred = learn.pred / 2")
    calls = "def after_pred(self):\n    soften(self.learn)"
    method = graph.source(calls, {"soften": helper})
    assert callback(graph, {"after_pred": method}).effect == "unknown"
    elsewhere = graph.source(calls, {"soften": Global("my_functions", "soften")})
    found = callback(graph, {"after_pred": elsewhere})
    assert found.effect == "unknown"
    assert found.unproven is not None
    assert found.unproven.reason == "it calls soften(), whose code is not in the file"


def test_callbacks_run_one_after_the_other() -> None:
    """The second one sees the changes of the first."""
    graph = Graph()
    takes = graph.source("def after_pred(self):\n    self.learn.pred = self.pred[0]")
    first = graph.instance(graph.cls("First", {"after_pred": takes}, BASE), order=1)
    second = graph.instance(graph.cls("Second", {"after_pred": takes}, BASE), order=2)
    objects = Objects(graph.calls)
    around = CallbackSemantics(objects, graph.transformer(), "bert", None, 3)
    root = Root(second, 2, None, None, None, None, listed(second, first))
    found = find_callbacks(root, objects, around, Term("output", Run("none")))
    assert [(each.cls, each.effect) for each in found] == [
        ("__main__.First", "takes the scores out"),
        ("__main__.Second", "unknown"),  # it takes the first row of the scores
    ]


def test_what_does_not_run_while_predicting_changes_nothing() -> None:
    graph = Graph()
    method = graph.source("def f(self):\n    self.learn.pred = 0")
    assert callback(graph, {"after_create": method}).effect == "none"
    assert callback(graph, {"after_pred": method, "run_valid": False}).effect == "none"
    assert callback(graph, {"after_pred": method}, run_valid=False).effect == "none"
    assert callback(graph, {"after_pred": method}, run=False).effect == "none"
    assert callback(graph, {"before_validate": method, "run_valid": False}).effect == "unknown"


def test_what_a_class_inherits_counts_as_well() -> None:
    graph = Graph()
    assert callback(graph, {}, Global("my_module", "Softens")).effect == "unseen"
    assert callback(graph, {"after_pred": Global("my_module", "f")}).effect == "unknown"
    method = graph.source("def after_pred(self):\n    self.learn.pred = self.pred[0] / 2")
    softens = graph.cls("Softens", {"after_pred": method}, BASE)
    assert callback(graph, {}, softens).effect == "unknown"


def test_notes_are_a_callbacks_own() -> None:
    """Setting an attribute is harmless only on the callback itself, by its own method."""
    graph = Graph()
    config = graph.instance(Global("transformers.models.bert", "BertConfig"), pad_token_id=1)
    helper = graph.source("def note(self):\n    self.pad_token_id = 2")
    method = graph.source("def after_pred(self):\n    note(self.config)", {"note": helper})
    assert callback(graph, {"after_pred": method}, config=config).effect == "unknown"


def test_fastai_1_holds_the_names_alone() -> None:
    state = mapping({})
    state.pairs.extend(
        (Global(module, name), mapping({}))
        for module, name in (("fastai.train", "ShowGraph"), ("__main__", "Softens"))
    )
    objects = Objects([])
    around = CallbackSemantics(objects, None, "", None, None)
    root = Root(None, 1, None, None, None, None, state)
    (found,) = find_callbacks(root, objects, around, Term("output"))
    assert (found.cls, found.in_file, found.events, found.effect) == (
        "__main__.Softens", False, (), "unseen",
    )  # fmt: skip


def test_scores_that_a_callback_changes_are_asked_for(fdeploy: Fdeploy) -> None:
    """``learn.predict`` halves the scores: no conversion, with or without goldens."""
    shutil.copyfile(MADE / "callback_temperature.pkl", fdeploy.folder / "learner.pkl")
    found = fdeploy.ok("inspect", "learner.pkl", "--json").json
    assert found["callbacks"] == [
        {"class": "__main__.Temperature", "code_in_file": True, "events": ["after_pred"],
         "effect": "unknown"}
    ]  # fmt: skip
    assert found["verdict"]["kind"] == "with-goldens"
    assert "--golden golden.jsonl" in found["verdict"]["hint"]
    shown = fdeploy.ok("inspect", "learner.pkl").stdout
    assert "callback   __main__.Temperature: its code may change predictions" in shown
    refused = fdeploy("export", "learner.pkl", "--json")
    assert refused.error["code"] == "unproven-learner"
    assert "the callback __main__.Temperature: it changes the scores" in refused.error["message"]
    assert "fdeploy export learner.pkl --golden golden.jsonl" in refused.error["hint"]
    write_goldens("callback_temperature", fdeploy.folder / "g.jsonl")
    failed = fdeploy("export", "learner.pkl", "--golden", "g.jsonl", "--json").error
    assert failed["code"] == "parity"
    assert "the callback __main__.Temperature: it changes the scores" in failed["message"]
    assert "--runtime learner" in failed["hint"]
    assert not (fdeploy.folder / "bundle").exists()


def test_a_callback_missing_from_the_file_is_reported(fdeploy: Fdeploy) -> None:
    shutil.copyfile(MADE / "callback_by_name.pkl", fdeploy.folder / "learner.pkl")
    told = fdeploy.ok("export", "learner.pkl", "--unproven", "--quantize", "none", "--json")
    notes = [line for line in told.stderr.splitlines() if "own_callbacks.TakesScores" in line]
    assert json.loads(notes[0])["event"] == "warned"
    assert "--golden golden.jsonl" in json.loads(notes[0])["hint"]
    assert any("own_callbacks.TakesScores" in each for each in told.json["unproven"])
