"""What loading a learner would do, classified as dangerous, unknown or harmless."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from fastai_deploy.errors import DangerousLearner
from fastai_deploy.learner.examine import imports as names
from fastai_deploy.learner.examine.imports import CALLED, HELD, MADE
from fastai_deploy.learner.examine.load_safety import LoadEffects, load_effects
from fastai_deploy.learner.reading.formats import open_archive, read_archive
from fastai_deploy.learner.reading.graph import Call, Global, Mapping
from fastai_deploy.learner.reading.sources import BytesSource
from tests.learner.assemble import assemble, listing, mapping, new
from tests.learner.payloads import ONCE_HARMLESS, PAYLOADS, attribute, module_by_value

LEARNERS = Path(__file__).parent.parent / "learners"
SECURITY = LEARNERS.parent.parent / "docs" / "security.md"
# A name in the user's own module, put into a learner for this test.
OWN_MODULE = "own_callbacks.TakesScores"
EVERY = sorted(path.relative_to(LEARNERS).as_posix() for path in LEARNERS.rglob("*.pkl"))


def read(data: bytes) -> LoadEffects:
    return load_effects(read_archive(BytesSource(data)).pickled)


def kind(data: bytes) -> str:
    """The most severe class of anything that loading would do; "dangerous" if reading fails."""
    try:
        found = read(data)
    except DangerousLearner:
        return "dangerous"
    kinds = {each.kind for each in found.imports} | {call.kind for call in found.calls}
    return next(each for each in ("dangerous", "unknown", "user", "harmless") if each in kinds)


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_payload_counts_as_harmless(name: str) -> None:
    assert kind(PAYLOADS[name]) != "harmless"


def test_the_payloads_are_counted_in_the_documentation() -> None:
    counted = Counter(kind(data) for data in PAYLOADS.values())
    known, unknown = counted["dangerous"], counted["unknown"] + counted["user"]
    assert counted["harmless"] == 0
    assert len(PAYLOADS) >= 268
    assert len(ONCE_HARMLESS) >= 17
    row = re.search(
        r"(\d+) payloads: (\d+) dangerous, (\d+) unknown, (\d+) harmless",
        SECURITY.read_text(encoding="utf-8"),
    )
    assert row is not None
    assert tuple(map(int, row.groups())) == (len(PAYLOADS), known, unknown, 0)


@pytest.mark.parametrize("name", EVERY)
def test_a_real_learner_holds_nothing_dangerous_and_nothing_unknown(name: str) -> None:
    with open_archive(LEARNERS / name) as (_, archive):
        found = load_effects(archive.pickled)
    assert not found.dangers
    assert set(found.unknown) <= {OWN_MODULE}
    assert [each.what for each in found.calls if each.kind == "unknown"] == []


@pytest.mark.parametrize("table", [CALLED, MADE, HELD], ids=["called", "made", "held"])
def test_no_name_is_in_a_table_of_harmless_ones_and_of_dangerous_ones(
    table: dict[str, frozenset[str]],
) -> None:
    for module, listed in table.items():
        for name in listed:
            found = Global(module, name)
            assert not names.would_be_dangerous(found), found


HARMLESS: dict[str, object] = {
    "a type": Call(Global("builtins", "type"), (None,)),
    "a union": Call(
        Global("functools", "reduce"),
        (Global("_operator", "or_"), (Global("builtins", "int"), Global("builtins", "str"))),
    ),
    "a generic": Call(
        Global("operator", "getitem"), (Global("typing", "List"), Global("builtins", "int"))
    ),
    "a default dict": Call(Global("collections", "defaultdict"), (Global("builtins", "list"),)),
    "a default dict of one": Call(
        Global("collections", "defaultdict"),
        (Call(Global("functools", "partial"), (Global("collections", "Counter"),)),),
    ),
    "an id": Call(Global("copyreg", "_reconstructor"),
                  (Global("uuid", "UUID"), Global("builtins", "object"), None)),
    "a partial of a partial": Call(
        Global("functools", "partial"),
        (Call(Global("functools", "partial"), (Global("fastai.metrics", "accuracy"),)),),
    ),
    "a block of a table": Call(
        Call(Global("functools", "partial"),
             (Global("pandas.core.internals.blocks", "new_block"),)), (1, 2),
    ),
    "a search": attribute(Call(Global("re", "_compile"), ("x", 0)), "search"),
    "a layer": new("torch.nn.modules.rnn", "LSTM", {"a": 1}),
    "a model": new("transformers.models.gpt2.modeling_gpt2", "GPT2MLP", {"a": 1}),
    "a model of transformers 2": new("transformers.modeling_xlnet", "XLNetModel", {"a": 1}),
    "a module": module_by_value("torch"),
    "an error": Call(Global("builtins", "KeyError"), ("x",)),
    "an interpretation": new("fastai.interpret", "ClassificationInterpretation", {"a": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_real_learners_hold_is_harmless(name: str) -> None:
    assert kind(assemble(HARMLESS[name])) == "harmless"


USERS: dict[str, object] = {
    "a class": new("__main__", "Thing", {"a": 1}),
    "a function that is called": Call(Global("__main__", "make"), ()),
    "a partial": Call(Global("functools", "partial"), (Global("__main__", "f"),)),
    "a default dict": Call(Global("collections", "defaultdict"), (Global("__main__", "f"),)),
    "a method": attribute(new("__main__", "Thing"), "method"),
    "a module that the notebook uses": module_by_value("os"),
}


@pytest.mark.parametrize("name", USERS)
def test_the_users_own_is_neither_harmless_nor_in_need_of_a_flag(name: str) -> None:
    data = assemble(USERS[name])
    assert kind(data) == "user"
    assert read(data).unknown == ()


NEEDED: dict[str, tuple[object, str]] = {
    "an import": (listing(Global("wandb.sdk", "Run")), "wandb.sdk.Run"),
    "a class whose call is unknown": (
        Call(Global("transformers.models.bert.modeling_bert", "BertModel"), (1,)),
        "transformers.models.bert.modeling_bert.BertModel",
    ),
    "a method": (
        attribute(new("fastai.learner", "Learner"), "validate"), "fastai.learner.Learner.validate",
    ),
    "a module of the user's": (new("own_module", "Thing"), "own_module.Thing"),
    "a whole module": (module_by_value("own_module"), "own_module"),
    "a class of a module that runs code": (new("joblib.memory", "Store"), "joblib.memory.Store"),
    "a loader": (new("nltk.data", "SeekableReader"), "nltk.data.SeekableReader"),
    "a splitter": (new("datasets.load", "Split"), "datasets.load.Split"),
    "yaml": (new("yaml.nodes", "ScalarNode"), "yaml.nodes.ScalarNode"),
    "fastcore": (new("fastcore.parallel", "Lazy"), "fastcore.parallel.Lazy"),
    "dynamo": (new("torch._dynamo.convert_frame", "Other"), "torch._dynamo.convert_frame.Other"),
}  # fmt: skip


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_unknown_is_named_as_it_would_be_allowed(name: str) -> None:
    root, needed = NEEDED[name]
    found = read(assemble(root))
    assert found.unknown == (needed,)
    assert not found.dangers
    assert not names.ever_dangerous(needed)


@pytest.mark.parametrize(
    "written", ["os.system", "torch.hub.load", "builtins.eval", "a.b.__globals__", "joblib.Memory"]
)
def test_a_dangerous_name_is_found_however_it_is_split(written: str) -> None:
    assert names.ever_dangerous(written)


PLACES: dict[str, tuple[Callable[[object], object], str]] = {
    "an attribute": (lambda bad: new("fastai.learner", "Learner", {"table": bad}), "learn.table"),
    "deeper": (
        lambda bad: new("fastai.learner", "Learner",
                        {"dls": new("fastai.data.core", "DataLoaders", {"tfms": listing(1, bad)})}),
        "learn.dls.tfms[1]",
    ),
    "fastai 1": (lambda bad: mapping({"data": mapping({"x": bad})}), "learn['data']['x']"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_a_danger_is_reported_with_its_location(name: str) -> None:
    wrap, place = PLACES[name]
    assert read(assemble(wrap(Call(Global("os", "system"), ("x",))))).culprit.startswith(place)


def test_a_discarded_danger_has_no_location() -> None:
    assert read(b"\x80\x02cos\nsystem\n0N.").culprit == ""


def test_the_names_that_code_of_the_users_refers_to_are_part_of_it() -> None:
    """A function from a notebook may use getattr and partial."""
    code = Call(Call(Global("cloudpickle.cloudpickle", "_builtin_type"), ("CodeType",)), (0,))
    function = Call(Global("cloudpickle.cloudpickle", "_make_function"), (code, Mapping([])))
    around = mapping({"__globals__": mapping({"reduce": Global("functools", "reduce")})})
    state = Call(
        Global("cloudpickle.cloudpickle", "_function_setstate"), (function, (Mapping([]), around))
    )
    assert kind(assemble(listing(function, state))) == "user"
    kept = new("fastai.learner", "Learner", {"loss_func": Global("functools", "reduce")})
    assert kind(assemble(kept)) == "unknown"


def test_tables_of_todays_pandas_are_harmless() -> None:
    import numpy as np  # noqa: PLC0415 - heavy
    import pandas as pd  # noqa: PLC0415

    table = pd.DataFrame(
        {
            "number": [1, 2],
            "text": ["a", "b"],
            "day": pd.to_datetime(["2020-01-01", "2021-01-01"]).tz_localize("Europe/Berlin"),
            "kind": pd.Categorical(["x", "y"]),
            "maybe": pd.array([1, None], dtype="Int64"),
            "span": pd.to_timedelta([1, 2], unit="s"),
        },
        index=pd.MultiIndex.from_tuples([(1, "a"), (2, "b")]),
    )
    held = [table, table.iloc[::2], table["text"], np.float32(1), np.random.RandomState(1)]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert kind(pickle.dumps(held, protocol)) == "harmless"
