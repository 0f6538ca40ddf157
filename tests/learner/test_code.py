"""The user's code is interpreted from the bytecode of any Python, never run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.learner.reading.graph import Call, Global
from fastai_deploy.learner.user_code.bytecode import (
    CodeObject,
    InvalidBytecode,
    Version,
    code_object,
    decode,
    versions_of,
)
from fastai_deploy.learner.user_code.callback_code import CallbackSemantics
from fastai_deploy.learner.user_code.interpreter import NotUnderstood
from fastai_deploy.learner.user_code.loss_code import LossSemantics
from fastai_deploy.learner.user_code.model_code import Run
from fastai_deploy.learner.user_code.objects import Objects
from fastai_deploy.learner.user_code.text_code import Encoded, TextSemantics, text_transforms
from fastai_deploy.learner.user_code.values import Items, Term, Unknown, Value, bare, const
from tests.learner.assemble import listing, new
from tests.learner.code_graphs import Graph, compiled, listed, recorded

FOLDER = Path(__file__).parent.parent / "learners" / "bytecode"
HERE: Version = (sys.version_info.major, sys.version_info.minor)
SCORES = (Term("scores", Run("from-ids", 1)), Term("scores", Run("none")))
# Harmless, but rare: refused without goldens, like everything unknown.
NOT_FOLLOWED = {"identity_module", "counted"}  # their __init__ was not recorded


def snippets(version: str) -> list[dict[str, Any]]:
    held = json.loads((FOLDER / f"py{version}.json").read_text(encoding="utf-8"))
    assert held["python"].replace(".", "").startswith(version)
    found: list[dict[str, Any]] = held["snippets"]
    # For a wrapper around a wrapper, only the outer one's code was recorded.
    return [each for each in found if (each["form"], each["method"]) != ("nested", "forward")]


VERSIONS = sorted(path.stem.removeprefix("py") for path in FOLDER.glob("py3*.json"))


def wrapper(graph: Graph, forward: object, source: str = "", **own: object) -> tuple[Call, Call]:
    """A wrapper with this ``forward``, and the transformer in it."""
    inner = graph.transformer()
    named = re.search(r"self\.(\w+) = hf\b", source)
    name = named[1] if named else "hf"
    cls = graph.cls("Wrap", {"forward": forward})
    return graph.module(cls, {name: inner}, pad_id=1, **own), inner


def scores(graph: Graph, model: Call, transformer: Call, version: Version = HERE) -> Value:
    semantics = CallbackSemantics(Objects(graph.calls), transformer, "bert", None, 3)
    return semantics.scores(model, version)


def follow(snippet: dict[str, Any], version: Version) -> object:
    """The result of following a snippet's code, or "not understood"."""
    graph = Graph()
    function = graph.function(recorded(snippet["code"]))
    method = snippet["method"]
    objects: Callable[[], Objects] = lambda: Objects(graph.calls)  # noqa: E731
    try:
        if method == "forward":
            model, inner = wrapper(graph, function, snippet["source"])
            return scores(graph, model, inner, version)
        if method == "encodes":
            tokenizer = graph.instance(Global("transformers", "BertTokenizer"))
            base = Global("fasttransform.transform", "Transform")
            cls = graph.cls("Encode", {"encodes": function}, base)
            node = graph.instance(cls, tokenizer=tokenizer, max_len=20)
            semantics = TextSemantics(objects(), version, tokenizer, None)
            return semantics.apply_transform(node, Term("text"))
        if method == "activation":
            node = graph.instance(graph.cls("Loss", {"activation": function}), axis=-1)
            return LossSemantics(objects(), version).activation(node, function)
        base = Global("fastai.callback.core", "Callback")
        node = graph.instance(graph.cls("Mine", {method: function}, base), factor=2.0)
        around = CallbackSemantics(objects(), None, "bert", None, 3)
        return around.run(node, version, SCORES[0])
    except NotUnderstood:
        return "not understood"


def understood(outcome: object) -> bool:
    if isinstance(outcome, Term):
        return outcome in SCORES or outcome == Term("ids", Encoded(20))
    return outcome in ("softmax", "sigmoid")


@pytest.mark.parametrize("version", VERSIONS)
def test_code_of_every_python_means_what_it_does(version: str) -> None:
    """A hundred snippets: harmless ones are understood, those that change an answer never are."""
    python: Version = (3, int(version[1:]))
    harmless = 0
    for snippet in snippets(version):
        outcome = follow(snippet, python)
        if snippet["expectation"] == "effect":
            assert not understood(outcome), snippet["name"]
        if snippet["expectation"] == "harmless" and snippet["name"] not in NOT_FOLLOWED:
            assert understood(outcome), (snippet["name"], outcome)
            harmless += 1
    assert harmless > 40


@pytest.mark.parametrize("version", VERSIONS)
def test_the_code_shows_the_python_version(version: str) -> None:
    codes = [code_object(recorded(each["code"])) for each in snippets(version)]
    python: Version = (3, int(version[1:]))
    found = versions_of([each for each in codes if each is not None])
    assert python in found
    assert len(found) <= (3 if python < (3, 11) else 1)


# ``def forward(self, ids): return self.hf(ids).logits`` and ``return self.hf(ids).logits / 3``, as
# Python 3.14 compiles them. Source: Lib/_opcode_metadata.py of CPython 3.14; caches are zeros.
RESUME, BORROW, ATTR, CALL, RETURN, BINARY, SMALL_INT = 128, 86, 80, 52, 35, 44, 94


def of_314(*, divided: bool) -> CodeObject:
    loads = bytes([RESUME, 0, BORROW, 0, ATTR, 1, *[0] * 18, BORROW, 1, CALL, 1, *[0] * 6])
    logits = bytes([ATTR, 2, *[0] * 18])
    divides = bytes([SMALL_INT, 3, BINARY, 11, *[0] * 10]) if divided else b""
    return CodeObject(
        "forward", "<stdin>", 2, 0, 0, 3, loads + logits + divides + bytes([RETURN, 0]), (None,),
        ("hf", "logits"), ("self", "ids"), (), (), 1, b"", new_form=True,
    )  # fmt: skip


@pytest.mark.parametrize("divided", [False, True])
def test_python_3_14(divided: bool) -> None:  # noqa: FBT001
    made = of_314(divided=divided)
    assert versions_of([made]) == ((3, 14),)
    code = Call(
        Global("types", "CodeType"),
        (2, 0, 0, 2, 4, 3, made.code, made.constants, made.names, made.variables, "<stdin>",
         "forward", "forward", 1, b"", b"", (), ()),
    )  # fmt: skip
    graph = Graph()
    model, inner = wrapper(graph, graph.function(code))
    found = scores(graph, model, inner, (3, 14))
    assert (found in SCORES) == (not divided)


def test_an_unknown_python_is_not_guessed() -> None:
    graph = Graph()
    made = graph.source("def forward(self, ids):\n    return self.hf(ids).logits")
    code = made.args[0]
    assert isinstance(code, Call)
    later = list(code.args)
    later[10] = "/usr/lib/python3.19/wrap.py"
    found = code_object(Call(code.func, tuple(later)))
    assert found is not None
    assert versions_of([found]) == ((3, 19),)
    with pytest.raises(InvalidBytecode):
        decode(found, (3, 19))


def forward(body: str, **own: object) -> Value:
    """The result of following a wrapper's ``forward``."""
    graph = Graph()
    lines = "\n".join(f"    {line}" for line in body.split("; "))
    model, inner = wrapper(graph, graph.source(f"def forward(self, ids, mask=None):\n{lines}"))
    model.states.append(listed())
    extra = graph.instance(Global("torch.nn.modules.activation", "Softmax"), dim=-1)
    model.states[0].pairs.extend({"scale": 1.0, "flag": False, "notes": extra, **own}.items())  # type: ignore[attr-defined]
    # ``mask=None`` is stored beside the code.
    for call in graph.calls:
        if call.func == Global("cloudpickle.cloudpickle", "_function_setstate"):
            call.args[1][1].pairs.append(("__defaults__", (None,)))  # type: ignore[index]
    return scores(graph, model, inner)


UNDERSTOOD: dict[str, Run] = {
    "return self.hf(ids).logits": Run("none"),
    "return self.hf(ids, mask)[0]": Run("none"),
    "return self.hf(input_ids=ids, attention_mask=ids.ne(self.pad_id)).logits": Run("from-ids", 1),
    "m = 1 - (ids == 1).long(); return self.hf(ids, m)['logits']": Run("from-ids", 1),
    "return self.hf(ids, ~(ids == self.hf.config.pad_token_id))[0]": Run("from-ids", 1),
    "return self.hf(ids, torch.where(ids == 1, 0, 1))[0]": Run("from-ids", 1),
    "return self.hf(ids, torch.ones_like(ids))[0]": Run("none"),
    "return self.hf(ids, token_type_ids=torch.zeros_like(ids), labels=None)[0]": Run("none"),
    "out = self.hf(ids); return out[0] if isinstance(out, tuple) else out.logits": Run("none"),
    "with torch.no_grad():\n        out = self.hf(ids).logits; return out": Run("none"),
    "return [self.hf(each).logits for each in (ids,)][0]": Run("none"),
    "if self.training:\n        ids = ids + 1; return self.hf(ids).logits": Run("none"),
    "self.last = self.hf(ids).logits; return self.hf(ids).logits.view(-1, 3)": Run("none"),
    "soft = self.hf(ids).logits.softmax(-1).max(); print(soft); return self.hf(ids)[0]": Run(
        "none"
    ),
}
UNKNOWN = [
    "return self.hf(ids).logits / 3.0",
    "return -self.hf(ids).logits",
    "return self.hf(ids).logits[:, [2, 0, 1]]",
    "return self.hf(ids).logits * self.scale",
    "out = self.hf(ids).logits; out *= 2; return out",
    "out = self.hf(ids).logits; out[:, 0] = 0; return out",
    "out = self.hf(ids).logits; out[:, 0].zero_(); return out",
    "out = self.hf(ids).logits; view = out[:, 0]; view -= 9; return out",
    "return self.hf(ids, token_type_ids=torch.ones_like(ids)).logits",
    "return self.hf(ids, attention_mask=ids).logits",
    "return self.hf(ids, position_ids=ids).logits",
    "return self.hf(ids[:, :5]).logits",
    "return self.hf(ids).logits.half().float()",
    "return self.hf(ids).logits.softmax(-1)",
    "return self.hf(ids, output_hidden_states=True)[1]",
    "return torch.nn.functional.dropout(self.hf(ids).logits, 0.5)",
    "return self.hf(ids).logits + self.hf(ids, torch.ones_like(ids)).logits",
    "return self.notes(self.hf(ids).logits)",
    "if self.flag:\n        return self.hf(ids)[0]; self.flag = True; return -self.hf(ids)[0]",
    "for _ in ids:\n        pass; return self.hf(ids).logits",
    "try:\n        out = self.hf(ids)[0]\n    except ValueError:\n        out = ids; return out",
    "setattr(self, 'pad_id', 2); return self.hf(ids).logits",
    "exec('ids += 1'); return self.hf(ids).logits",
    "self.hf.config.pad_token_id = 3; return self.hf(ids).logits",
    "return helper(self.hf(ids).logits)",
    "return self.hf.classifier(self.hf.bert(ids)[0][:, 0])",
    "out = self.hf(ids)[0]; F.relu(out, True); return out",
    "out = self.hf(ids)[0]; print(max((1, 2), key=lambda _: out.zero_())); return out",
    "pad = 1; run = lambda: self.hf(ids, ids != pad); pad = 0; return run()[0]",
    "return [lambda: self.hf(ids, ids != pad) for pad in (self.pad_id, 0)][0]()[0]",
]


@pytest.mark.parametrize("body", UNDERSTOOD)
def test_what_a_forward_may_do(body: str) -> None:
    assert forward(body) == Term("scores", UNDERSTOOD[body])


@pytest.mark.parametrize("body", UNKNOWN)
def test_what_is_not_understood_is_no_answer(body: str) -> None:
    assert reason_of(body)


def reason_of(body: str) -> str:
    """Why it is not understood; empty if it is."""
    try:
        found = forward(body)
    except NotUnderstood as error:
        return error.reason
    return found.reason if isinstance(found, Unknown) else ""


EXPRESSIONS = {
    "scores = self.hf(ids).logits; return scores / 3.0": "scores / 3.0",
    "return self.hf(ids).logits[:, [2, 0, 1]]": "self.hf(ids).logits[:, [2, 0, 1]]",
    "return self.hf(ids)[0][..., (0,)]": "self.hf(ids)[0][..., (0,)]",
    "return self.hf(ids)[0][:, 1:]": "self.hf(ids)[0][:, 1:]",
    "return torch.stack([ids, ids], (1 + ids.sum()) * 2)": (
        "torch.stack([ids, ids], (1 + ids.sum()) * 2)"
    ),
    "return f'{ids} of {self.pad_id:>8}'": "f'{ids} of {self.pad_id}'",
}


@pytest.mark.parametrize("body", EXPRESSIONS)
def test_the_expression_is_shown_as_it_was_written(body: str) -> None:
    assert bare(forward(body).text) == EXPRESSIONS[body]


@pytest.mark.parametrize("together", [False, True])
def test_a_text_may_be_one_of_several_types_that_a_transform_takes(together: bool) -> None:  # noqa: FBT001
    """fastai's Tokenizer takes texts, lists and paths, and fastai records them as a tuple."""
    text, path = Global("builtins", "str"), Global("pathlib", "Path")
    row, ids = Global("pandas", "Series"), Global("fastai.text.data", "TensorText")
    reads, tokenizes = new("m", "Reads"), new("m", "Tokenizes")
    held = {
        "tfms": new("fastcore.transform", "Pipeline", {"fs": listing(reads, tokenizes)}),
        "types": listing(row, (path, text) if together else text, ids),
    }
    lists = listing(new("fastai.data.core", "TfmdLists", held))
    dataset = new("fastai.data.core", "Datasets", {"tls": lists})
    loader = new("fastai.data.core", "TfmdDL", {"dataset": dataset})
    data = new("fastai.data.core", "DataLoaders", {"loaders": listing(loader, loader)})
    assert text_transforms(data)[0] == ("items", [tokenizes])


def test_following_ends() -> None:
    """Following stops at code that would loop forever or branch without end."""
    with pytest.raises(NotUnderstood, match="too long to follow"):
        forward("while True:\n        print(ids); return self.hf(ids).logits")
    forks = "; ".join(f"if ids.sum() > {n}:\n        print({n})" for n in range(80))
    with pytest.raises(NotUnderstood, match="conditions"):
        forward(f"{forks}; return self.hf(ids).logits")
    with pytest.raises(NotUnderstood, match="nests"):
        forward("return self.forward(ids)")


def test_values_that_hold_one_another_many_times_over() -> None:
    """Values that would take too long to compare or to write out are not followed."""
    doubled = "; ".join(["both = (ids, ids)", *["both = (both, both)"] * 60])
    with pytest.raises(NotUnderstood, match="too large to follow"):
        forward(f"{doubled}; return both")
    with pytest.raises(NotUnderstood, match="too long to follow"):
        forward(f"many = {tuple(range(500))}; " + "; ".join(["print(*many, *many)"] * 30))
    nested: object = (1, Global("torch", "float"))
    for _ in range(60):
        nested = (nested, nested, Global("torch", "float"))
    graph = Graph()
    source = "def forward(self, ids):\n    return nested"
    model, inner = wrapper(graph, graph.source(source, {"nested": nested}))
    assert isinstance(scores(graph, model, inner), Items)
    constants: object = (1, 2)
    for _ in range(60):
        constants = (constants, constants)
    model, inner = wrapper(graph, graph.source(source, {"nested": constants}))
    with pytest.raises(NotUnderstood, match="too large to follow"):
        scores(graph, model, inner)
    assert const(10**5000).text == "<a long number>"


DECODES = {
    "x.argmax(dim=-1)": True,
    "x.argmax(-1)": True,
    "x > self.thresh": True,
    "x.argmin(dim=-1)": False,
    "x > self.low_thresh": False,
    "x > thresh": False,
    "x < self.thresh": False,
    "(x * 2).argmax(dim=-1)": False,
}


@pytest.mark.parametrize("expression", DECODES)
def test_which_labels_a_loss_chooses(expression: str) -> None:
    graph = Graph()
    function = graph.source(f"def decodes(self, x):\n    return {expression}", {"thresh": 0.9})
    loss = graph.instance(graph.cls("Loss", {"decodes": function}), thresh=0.5, low_thresh=0.1)
    semantics = LossSemantics(Objects(graph.calls), HERE)
    if DECODES[expression]:
        semantics.check_decodes(loss, function)
    else:
        with pytest.raises(NotUnderstood):
            semantics.check_decodes(loss, function)


def test_a_threshold_of_the_class_is_not_the_one_that_is_read() -> None:
    graph = Graph()
    function = graph.source("def decodes(self, x):\n    return x > self.thresh")
    loss = graph.instance(graph.cls("Loss", {"decodes": function, "thresh": 0.7}))
    with pytest.raises(NotUnderstood):
        LossSemantics(Objects(graph.calls), HERE).check_decodes(loss, function)


DAMAGED: dict[str, Callable[[list[Any]], None]] = {
    "cut short": lambda args: args.__setitem__(6, args[6][:-2]),
    "no names": lambda args: args.__setitem__(8, ()),
    "no variables": lambda args: args.__setitem__(9, ()),
    "odd length": lambda args: args.__setitem__(6, args[6] + b"\0"),
    "opcodes that do not exist": lambda args: args.__setitem__(6, b"\xfe\xff" * 8),
    "negative counts": lambda args: args.__setitem__(0, -1),
    "all one opcode": lambda args: args.__setitem__(6, args[6][:4] * 400),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_bytecode_is_not_understood(damage: str) -> None:
    module = compile("def forward(self, ids):\n    return self.hf(ids).logits", "<stdin>", "exec")
    made = compiled(module.co_consts[0])
    args = list(made.args)
    DAMAGED[damage](args)
    graph = Graph()
    model, inner = wrapper(graph, graph.function(Call(made.func, tuple(args))))
    with pytest.raises((NotUnderstood, InvalidBytecode)):
        scores(graph, model, inner)
