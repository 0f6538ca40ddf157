from __future__ import annotations

import math
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.errors import NotALearner
from fastai_deploy.learner.examine.anatomy import Anatomy, examine
from fastai_deploy.learner.reading.formats import open_archive, read_archive
from fastai_deploy.learner.reading.graph import (
    Call,
    Global,
    Mapping,
    Sequence,
    attributes,
    class_of,
    walk,
)
from fastai_deploy.learner.reading.sources import BytesSource
from fastai_deploy.learner.reading.tensors import Storage
from tests.learner.assemble import assemble, listing, mapping, new, torch_zip
from tests.learner.files import ALL, AWD_LSTM, CONVERTIBLE, CUSTOM_HEAD, document, learner

ROBERTA, BERT, DISTILBERT, TAGS, V2_CLOUDPICKLE, V2_PLAIN = CONVERTIBLE


def anatomy(name: str) -> Anatomy:
    with open_archive(learner(name)) as (source, archive):
        return examine(archive, source.size)


def changed(name: str, change: Callable[[Any], None]) -> Anatomy:
    """The anatomy of a real learner in which something was changed."""
    with open_archive(learner(name)) as (_, archive):
        root = archive.pickled.root
        change(root)
        storages: dict[str, bytes] = {}
        for value in walk(root):
            if isinstance(value, Storage) and value.data is not None:
                storages[value.key] = value.data.read(0, value.data.size)
        data = torch_zip(assemble(root), storages)
    return examine(read_archive(BytesSource(data)), len(data))


def objects(root: object, name: str) -> list[Call]:
    found = [value for value in walk(root) if isinstance(value, Call)]
    return [value for value in found if (cls := class_of(value)) is not None and cls.name == name]


def set_attribute(value: Call, name: str, to: object) -> None:
    for state in value.states:
        if isinstance(state, Mapping):
            state.pairs[:] = [(k, to if k == name else v) for k, v in state.pairs]
            if name not in attributes(value):
                state.pairs.append((name, to))


@pytest.mark.parametrize("name", ALL)
def test_labels_and_task(name: str) -> None:
    found, meta = anatomy(name), document(name)["meta"]
    assert found.labels.names == tuple(map(str, meta["classes"]))
    several = name in (TAGS, "v1/v1_awdlstm_tags")
    assert found.task == ("multi-label" if several else "single-label")
    assert found.threshold == (0.5 if several else None)
    assert found.fastai == (1 if name.startswith("v1") else 2)
    assert not found.dangers
    assert not [each for each in found.imports if each.kind == "dangerous"]


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_a_convertible_learner(name: str) -> None:
    found, meta = anatomy(name), document(name)["meta"]
    assert found.family == "transformers"
    assert found.transformer is not None
    assert found.transformer.outputs == len(meta["classes"])
    assert found.text is not None
    assert found.text.max_length == 512
    assert found.tokenizer is not None
    assert found.tokenizer.special["pad"].text in ("<pad>", "[PAD]")


UNPROVEN = {
    # The source of their forward() is in the file, but not the pad_idx that it uses.
    ROBERTA: ["text", "model"],
    BERT: ["text", "model"],
    TAGS: ["text", "model"],
    DISTILBERT: ["text", "model"],
    V2_CLOUDPICKLE: [],
    V2_PLAIN: ["text", "model"],
}


@pytest.mark.parametrize("name", UNPROVEN)
def test_what_the_file_does_not_prove_is_listed(name: str) -> None:
    found = anatomy(name)
    assert [each.part for each in found.unproven] == UNPROVEN[name]
    assert all("not in the file" in each.reason for each in found.unproven)
    assert found.verdict.kind == ("with-goldens" if UNPROVEN[name] else "convertible")


FORWARDS = {
    ROBERTA: ("from-ids", None),
    BERT: ("from-ids", None),
    TAGS: ("from-ids", None),
    DISTILBERT: ("unknown", None),
    V2_CLOUDPICKLE: ("from-ids", 1),
    V2_PLAIN: ("unknown", None),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_the_wrapper_is_read_where_it_is_in_the_file(name: str) -> None:
    transformer = anatomy(name).transformer
    assert transformer is not None
    assert (transformer.forward.mask, transformer.forward.pad_token_id) == FORWARDS[name]


def test_versions_and_python() -> None:
    assert anatomy(V2_CLOUDPICKLE).python == "3.11"
    assert anatomy(V2_PLAIN).python is None
    assert anatomy(V2_CLOUDPICKLE).libraries["fastai"] == "2.8 or newer"
    assert anatomy(V2_PLAIN).libraries["fastai"] == "2 before 2.8"
    assert anatomy(ROBERTA).libraries["transformers"] == "2.0 or 2.1"
    assert anatomy(BERT).libraries["transformers"] == "2.4 to 2.11"
    assert anatomy(ROBERTA).format == "legacy"
    assert anatomy(DISTILBERT).format == "zip"


def test_sources_and_sizes() -> None:
    found = anatomy(ROBERTA)
    assert "def forward(self, input_ids" in found.sources[0].text
    assert found.modules[0].parameters == found.parameters == 58_309
    assert found.weights_size == 4 * 58_309
    classifier = next(each for each in found.modules if each.path == "transformer.classifier")
    assert (classifier.cls, classifier.parameters) == ("RobertaClassificationHead", 1_221)


def test_a_custom_head_is_refused_with_a_hint() -> None:
    verdict = anatomy(CUSTOM_HEAD).verdict
    assert verdict.kind == "with-definitions"
    assert "outside the transformer" in verdict.reason
    assert "MeanPoolClassifier" in verdict.hint
    assert "fdeploy export learner.pkl --definitions model_def.py" in verdict.hint


@pytest.mark.parametrize("name", AWD_LSTM)
def test_an_awd_lstm_is_recognised(name: str) -> None:
    found = anatomy(name)
    assert found.family == "awd-lstm"
    assert found.verdict.kind == "convertible"
    assert found.ulmfit is not None
    assert found.ulmfit.model.outputs == len(found.labels.names)


def relabel(*names: str) -> Callable[[Any], None]:
    def change(root: Any) -> None:
        set_attribute(objects(root, "CategoryProcessor")[0], "classes", listing(*names))

    return change


def _loss(name: str) -> Callable[[Any], None]:
    def change(root: Any) -> None:
        for inner in objects(root, "CrossEntropyLoss"):
            inner.func = Global("torch.nn.modules.loss", name)

    return change


def _drop_tokenizer(root: Any) -> None:
    for value in objects(root, "DistilBertTokenizer"):
        value.states.clear()


def _lose_vocabulary(root: Any) -> None:
    for value in objects(root, "DistilBertTokenizer"):
        value.states[:] = [mapping({"sp_model": None})]


def _rules(root: Any) -> None:
    rule = Global("fastai.text.transform", "fix_html")
    for value in objects(root, "Tokenizer"):
        set_attribute(value, "pre_rules", listing(rule))


def _mark(root: Any) -> None:
    for value in objects(root, "TokenizeProcessor"):
        set_attribute(value, "include_bos", to=True)


def _hook(root: Any) -> None:
    for value in objects(root, "MultiHeadSelfAttention"):
        set_attribute(value, "_forward_hooks", mapping({"0": Global("__main__", "hook")}))


def _own_class(root: Any) -> None:
    for value in objects(root, "FFN"):
        value.func = Global("__main__", "MyFFN")


def _adapters(root: Any) -> None:
    for value in objects(root, "FFN"):
        value.func = Global("peft.tuners.lora.layer", "Linear")


def _own_forward(root: Any) -> None:
    for value in objects(root, "FFN"):
        set_attribute(value, "forward", Global("__main__", "forward"))


def _own_head(root: Any) -> None:
    for value in objects(root, "DistilBertForSequenceClassification"):
        value.func = Global("__main__", "MyClassifier")


def no_labels(root: Any) -> None:
    for value in objects(root, "CategoryProcessor"):
        value.states.clear()


CHANGES: dict[str, tuple[Callable[[Any], None], str, str]] = {
    "labels twice": (relabel("a", "a"), "refused", "both called 'a'"),
    "more labels than outputs": (relabel("a", "b", "c"), "refused", "2 outputs, but it has 3"),
    "no labels": (no_labels, "refused", "no labels"),
    "a long label": (relabel("a" * 257, "b"), "refused", "more than 256 characters"),
    "a label that is no character": (relabel("a", "\ud800"), "refused", "Unicode"),
    "a regression": (_loss("MSELoss"), "refused", "predicts numbers"),
    "a loss of its own": (_loss("MyLoss"), "with-goldens", "and 2 more"),
    "no tokenizer": (_drop_tokenizer, "learner-runtime", "does not contain its tokenizer"),
    "a lost vocabulary": (_lose_vocabulary, "learner-runtime", "not in the file"),
    "fastai's rules": (_rules, "learner-runtime", "fix_html"),
    "fastai's marks": (_mark, "learner-runtime", "include_bos"),
    "a hook": (_hook, "learner-runtime", "hook"),
    "adapters": (_adapters, "learner-runtime", "(peft) are not merged"),
    "a class of the user's": (_own_class, "with-definitions", "MyFFN"),
    "a patched forward": (_own_forward, "learner-runtime", "forward()"),
    "a model class of the user's": (_own_head, "with-definitions", "MyClassifier"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_cannot_be_rebuilt_exactly_is_not_guessed(name: str, deep_recursion: None) -> None:
    del deep_recursion
    change, kind, reason = CHANGES[name]
    verdict = changed(DISTILBERT, change).verdict
    assert verdict.kind == kind
    assert reason in verdict.reason
    assert verdict.hint


SEVERAL = "v2/tiny/multi_label"
_FLOAT32 = Call(Global("numpy", "dtype"), ("f4", False, True))
_SINGLE = Call(Global("numpy._core.multiarray", "scalar"), (_FLOAT32, struct.pack("<f", 0.25)))


def _threshold(value: object) -> Callable[[Any], None]:
    """A learner whose loss has another threshold; None removes it."""

    def change(root: Any) -> None:
        for loss in objects(root, "BCEWithLogitsLossFlat"):
            set_attribute(loss, "thresh", value)

    return change


@pytest.mark.parametrize(("stored", "read"), [(0.3, 0.3), (1, 1.0), (None, 0.5), (_SINGLE, 0.25)])
def test_the_threshold_of_a_loss(stored: object, read: float, deep_recursion: None) -> None:
    del deep_recursion
    found = changed(SEVERAL, _threshold(stored))
    assert found.threshold == read
    assert not found.labels.problem


@pytest.mark.parametrize("kind", ["tensor", "text", "nan"])
def test_a_threshold_that_is_not_one_number_is_not_replaced(
    kind: str, deep_recursion: None
) -> None:
    del deep_recursion

    def change(root: Any) -> None:
        held = attributes(objects(root, "LayerNorm")[0])["_parameters"]
        assert isinstance(held, (Call, Mapping))
        values = {"tensor": held.pairs[0][1], "text": "0.5", "nan": math.nan}
        _threshold(values[kind])(root)

    verdict = changed(SEVERAL, change).verdict
    assert verdict.kind == "refused"
    assert "thresh" in verdict.reason
    assert "learn.loss_func.thresh = 0.5" in verdict.hint


def test_labels_that_cannot_be_used_come_before_what_the_learner_runtime_could_do(
    deep_recursion: None,
) -> None:
    del deep_recursion

    def change(root: Any) -> None:
        relabel("a", "a")(root)
        _drop_tokenizer(root)

    verdict = changed(DISTILBERT, change).verdict
    assert (verdict.kind, verdict.reason) == ("refused", "two labels are both called 'a'")
    assert "learn.dls.vocab.items = [" in verdict.hint


def _training_hook(root: Any) -> None:
    hook = Global("transformers.modeling_utils", "gradient_checkpointing_hook")
    for value in objects(root, "DistilBertForSequenceClassification"):
        set_attribute(value, "_forward_pre_hooks", mapping({"0": hook}))


def test_a_hook_that_works_in_training_alone_changes_nothing(deep_recursion: None) -> None:
    del deep_recursion
    assert changed(DISTILBERT, _training_hook).verdict == anatomy(DISTILBERT).verdict


def test_an_unchanged_learner_survives_the_assembler(deep_recursion: None) -> None:
    del deep_recursion
    assert changed(DISTILBERT, lambda _root: None).verdict == anatomy(DISTILBERT).verdict


OPTIMIZED = Global("torch._dynamo.eval_frame", "OptimizedModule")


def _around(cls: Global, inner: object, child: str) -> Call:
    parts = {"_modules": mapping({child: inner}), "_parameters": Mapping([])}
    return new(cls.module, cls.name, parts)


def _compiled(inner: object) -> Call:
    context = Call(Global("torch._dynamo.eval_frame", "OptimizeContext"), (None, None, True))
    return Call(OPTIMIZED, (inner, context))


def _parallel(inner: object) -> Call:
    return _around(Global("torch.nn.parallel.data_parallel", "DataParallel"), inner, "module")


TRANSPARENT: dict[str, tuple[Callable[[object], Call], str]] = {
    "compiled": (_compiled, "_orig_mod.transformer"),
    "compiled by torch 2.0": (lambda inner: _around(OPTIMIZED, inner, "_orig_mod"),
                              "_orig_mod.transformer"),
    "parallel": (_parallel, "module.transformer"),
    "distributed": (
        lambda inner: _around(
            Global("torch.nn.parallel.distributed", "DistributedDataParallel"), inner, "module"
        ),
        "module.transformer",
    ),
    "compiled within parallel": (lambda inner: _parallel(_compiled(inner)),
                                 "module._orig_mod.transformer"),
    "parallel within compiled": (lambda inner: _compiled(_parallel(inner)),
                                 "_orig_mod.module.transformer"),
}  # fmt: skip


@pytest.mark.parametrize("how", TRANSPARENT)
def test_torchs_own_wrappers_are_looked_through(how: str, deep_recursion: None) -> None:
    del deep_recursion
    wrap, path = TRANSPARENT[how]

    def change(root: Any) -> None:
        root.pairs[:] = [(k, wrap(v) if k == "model" else v) for k, v in root.pairs]

    found, plain = changed(DISTILBERT, change), anatomy(DISTILBERT)
    assert found.transformer is not None
    assert plain.transformer is not None
    assert found.transformer.path == path
    assert found.transformer.forward == plain.transformer.forward
    assert found.transformer.problem == ""
    assert {name.removeprefix(path) for name in found.weights} == {
        name.removeprefix("transformer") for name in plain.weights
    }


def test_the_transformer_inside_a_wrapper_may_be_compiled(deep_recursion: None) -> None:
    del deep_recursion

    def change(root: Any) -> None:
        wrapper = objects(root, "CustomTransformerModel")[0]
        inner = objects(root, "DistilBertForSequenceClassification")[0]
        set_attribute(wrapper, "_modules", mapping({"transformer": _compiled(inner)}))

    found = changed(DISTILBERT, change)
    assert found.transformer is not None
    assert found.transformer.path == "transformer._orig_mod"
    assert "transformer._orig_mod.classifier.weight" in found.weights


def test_a_class_that_only_bears_the_name_of_torchs_wrapper_is_the_users(
    deep_recursion: None,
) -> None:
    del deep_recursion

    def change(root: Any) -> None:
        own = Global("__main__", "DataParallel")
        root.pairs[:] = [
            (k, _around(own, v, "module") if k == "model" else v) for k, v in root.pairs
        ]

    assert not changed(DISTILBERT, change).tree[0].transparent


OTHER_TASKS = {
    "fastai.vision.data": "classifies images",
    "fastai.vision.core": "classifies images",
    "fastai.tabular.core": "works on tables",
    "fastai.collab": "recommends items",
}


@pytest.mark.parametrize("module", OTHER_TASKS)
def test_a_learner_for_another_task_is_reported(module: str) -> None:
    model = new("torch.nn", "Linear", {"_modules": Mapping([]), "_parameters": Mapping([])})
    dls = new("fastai.data.core", "DataLoaders", {"x": Global(module, "Thing")})
    root = new("fastai.learner", "Learner", {"dls": dls, "model": model})
    verdict = examine(read_archive(BytesSource(assemble(root))), 0).verdict
    assert verdict.kind == "refused"
    assert OTHER_TASKS[module] in verdict.reason


def test_a_language_model_is_reported() -> None:
    model = new("torch.nn", "Linear", {"_modules": Mapping([]), "_parameters": Mapping([])})
    root = new("fastai.text.learner", "LMLearner", {"dls": None, "model": model})
    assert "language model" in examine(read_archive(BytesSource(assemble(root))), 0).verdict.reason


def _module(**attributes_: object) -> Call:
    return new("torch.nn", "Linear",
               {"_modules": Mapping([]), "_parameters": Mapping([]), **attributes_})  # fmt: skip


def _learner() -> Call:
    return new("fastai.learner", "Learner", {"dls": None, "model": _module()})


NO_LEARNERS: dict[str, tuple[object, str]] = {
    "a model": (_module(), "bare model"),
    "a state dict": (mapping({"fc.weight": 1, "fc.bias": 2}), "checkpoint of weights"),
    "learn.save": (mapping({"model": mapping({}), "opt": None}), "learn.save()"),
    "a checkpoint": (mapping({"state_dict": mapping({}), "epoch": 3}), "training checkpoint"),
    "two learners": (listing(_learner(), _learner()), "collection of learners"),
    "a list": (Sequence("list", []), "a sequence"),
    "a number": (3, "a int"),
    "a name": (Global("fastai.learner", "Learner"), "only the name"),
    "an object": (new("__main__", "Thing"), "class __main__.Thing"),
    "no model": (new("fastai.learner", "Learner", {"dls": None, "model": None}), "has no model"),
}


@pytest.mark.parametrize("name", NO_LEARNERS)
def test_a_file_that_is_not_a_learner_is_named(name: str) -> None:
    root, message = NO_LEARNERS[name]
    with pytest.raises(NotALearner, match=message.replace("(", r"\(").replace(")", r"\)")):
        examine(read_archive(BytesSource(assemble(root))), 0)


def test_reading_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from fastai_deploy.learner.examine.anatomy import examine\n"
        "from fastai_deploy.learner.reading.formats import open_archive\n"
        "with open_archive(Path(sys.argv[1])) as (source, archive):\n"
        "    assert examine(archive, source.size).verdict.kind == 'convertible'\n"
        "heavy = {'torch', 'numpy', 'transformers', 'tokenizers', 'onnxruntime', 'fastai'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    path = Path(learner(V2_CLOUDPICKLE))
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
