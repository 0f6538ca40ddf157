"""Real learners become bundles that answer as the learners did."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tokenizers
import torch
import transformers

from fastai_deploy.bundle import Bundle, read_bundle
from fastai_deploy.errors import (
    FdeployError,
    GoldenError,
    LearnerTruncated,
    NotALearner,
    ParityError,
    UnsupportedLearner,
)
from fastai_deploy.learner.convert import convert
from fastai_deploy.learner.examine.anatomy import examine
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.reading.graph import Call, Global, Mapping, attributes, walk
from fastai_deploy.learner.reading.tensors import Storage
from fastai_deploy.learner.rebuild.answers import STEPS
from fastai_deploy.learner.rebuild.rebuilt import rebuild_learner
from fastai_deploy.parity.compare import Gate
from fastai_deploy.parity.goldens import Case
from fastai_deploy.progress import Event, Step, Warned, silent
from fastai_deploy.runtime.parity import compare
from tests.learner.assemble import assemble, new, torch_zip
from tests.learner.files import (
    CONVERTIBLE,
    CUSTOM_HEAD,
    UNDEFINED,
    document,
    goldens,
    learner,
    write_goldens,
)
from tests.learner.test_anatomy import objects, set_attribute

ROBERTA, BERT, DISTILBERT, TAGS, V2_CLOUDPICKLE, V2_PLAIN = CONVERTIBLE


def served(bundle: Bundle, texts: Sequence[str]) -> list[tuple[float, ...]]:
    """The bundle's answers, computed only from its manifest, tokenizer and graph."""
    manifest, _ = read_bundle(bundle.path)
    tokenizer = tokenizers.Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    tokenizer.enable_truncation(manifest.text.max_length)
    session = onnxruntime.InferenceSession(bundle.path / manifest.model.forms[-1].file)
    answers = []
    for each in texts:
        text = each
        for step in manifest.text.steps:
            text = STEPS[step](text)
        ids = np.array([tokenizer.encode(text).ids])
        feed = {name: ids if name == "input_ids" else np.ones_like(ids)
                for name in manifest.model.inputs}  # fmt: skip
        logits = torch.from_numpy(session.run([manifest.model.output], feed)[0][0]).double()
        multi = manifest.task == "multi-label"
        answers.append(tuple((logits.sigmoid() if multi else logits.softmax(0)).tolist()))
    return answers


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_every_golden_is_reproduced(name: str, converted: Callable[[str], Bundle]) -> None:
    expected = goldens(name)
    assert len(expected) == 28 - len(UNDEFINED.get(name, ()))
    bundle = converted(name)
    texts = [each.text for each in expected]
    report = compare(texts, [each.probabilities for each in expected], served(bundle, texts),
                     threshold=0.5 if name == TAGS else None)  # fmt: skip
    assert report.changed == 0
    assert report.max_difference <= 1e-5
    assert bundle.max_difference <= 1e-5


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_torch_answers_as_the_learner_did(name: str) -> None:
    expected = goldens(name)
    cases = [Case(each.text, each.probabilities, None, 1) for each in expected]
    with open_archive(learner(name)) as (source, archive):
        rebuilt = rebuild_learner(examine(archive, source.size), cases)
        texts = [each.text for each in expected]
        report = compare(texts, [each.probabilities for each in expected], rebuilt.answer(texts),
                         threshold=0.5 if name == TAGS else None)  # fmt: skip
    assert report.changed == 0
    assert report.max_difference <= 1e-5
    assert rebuilt.mask_known


@pytest.mark.parametrize("name", [ROBERTA, DISTILBERT, TAGS, V2_CLOUDPICKLE])
def test_the_bundle_is_a_model_of_transformers_too(
    name: str, converted: Callable[[str], Bundle]
) -> None:
    bundle = converted(name)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        bundle.path, local_files_only=True
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundle.path, local_files_only=True)
    assert tuple(model.config.id2label.values()) == bundle.labels
    golden = goldens(name)[0]
    ids = tokenizer(golden.text, return_tensors="pt")["input_ids"]
    assert tuple(ids[0].tolist()) == golden.ids
    with torch.no_grad():
        logits = model(ids).logits[0]
    found = logits.sigmoid() if name == TAGS else logits.softmax(0)
    assert np.allclose(found.numpy(), golden.probabilities, atol=1e-5)


def test_the_manifest_says_what_is_served(converted: Callable[[str], Bundle]) -> None:
    manifest, version = read_bundle(converted(ROBERTA).path)
    assert version == converted(ROBERTA).version
    assert manifest.labels == ("0", "1", "2", "3", "4")
    assert manifest.text.steps == ("drop-trailing-nul",)
    assert (manifest.text.max_length, manifest.text.pad_token_id) == (512, 1)
    assert manifest.model.inputs == ("input_ids",)
    assert manifest.model.architecture == "RobertaForSequenceClassification"
    assert "random special token" in manifest.residues[0]
    assert manifest.provenance.learner.fastai == "1"
    tags, _ = read_bundle(converted(TAGS).path)
    assert (tags.task, tags.threshold) == ("multi-label", 0.5)
    document_ = json.loads((converted(ROBERTA).path / "goldens.json").read_bytes())
    assert {each["source"] for each in document_["goldens"]} == {"learner"}


def test_padding_does_not_change_an_answer(converted: Callable[[str], Bundle]) -> None:
    for name in (ROBERTA, DISTILBERT):
        bundle = converted(name)
        manifest, _ = read_bundle(bundle.path)
        session = onnxruntime.InferenceSession(bundle.path / manifest.model.forms[-1].file)
        short, long = (np.array(goldens(name)[index].ids) for index in (0, 5))
        batch = np.full((2, max(len(short), len(long)) + 9), manifest.text.pad_token_id)
        batch[0, : len(short)], batch[1, : len(long)] = short, long
        together = session.run(None, {"input_ids": batch})[0]
        alone = [session.run(None, {"input_ids": ids[None]})[0][0] for ids in (short, long)]
        assert np.allclose(together, np.stack(alone), atol=1e-5)


def test_the_same_learner_gives_the_same_bytes_in_another_process(
    tmp_path: Path, converted: Callable[[str], Bundle]
) -> None:
    golden = write_goldens(DISTILBERT, tmp_path / "golden.jsonl")
    code = (
        "import sys; from pathlib import Path\n"
        "from fastai_deploy.learner.convert import convert\n"
        "from fastai_deploy.progress import silent\n"
        "learner, golden, out = map(Path, sys.argv[1:])\n"
        "print(convert(learner, out, golden=golden, tolerance=1e-4, name='reviews',"
        " report=silent).version)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(learner(DISTILBERT)), str(golden),
         str(tmp_path / "bundle")],
        check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONHASHSEED": "12345", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.stdout.strip() == converted(DISTILBERT).version
    assert done.stderr == ""


def test_nothing_is_left_behind_in_the_process(tmp_path: Path) -> None:
    before = (list(warnings.filters), logging.root.manager.disable, torch.is_grad_enabled())
    convert(learner(ROBERTA), tmp_path / "bundle", golden=None, tolerance=1e-4, name="x",
            report=silent, unproven=True)  # fmt: skip
    assert before == (list(warnings.filters), logging.root.manager.disable, torch.is_grad_enabled())
    assert sorted(os.listdir(tmp_path)) == ["bundle", "bundle-parity.html", "bundle-parity.json"]


def test_a_compiled_learner_converts(tmp_path: Path) -> None:
    """``learn.model = torch.compile(learn.model)``: the weights' names begin with ``_orig_mod``."""
    file = learner("v2/v2_compiled_f2812")
    bundle = convert(file, tmp_path / "bundle", golden=None, tolerance=1e-4, name="x",
                     report=silent, gate=Gate("none"))  # fmt: skip
    with open_archive(file) as (source, archive):
        anatomy = examine(archive, source.size)
    assert anatomy.transformer is not None
    assert anatomy.transformer.forward.mask == "from-ids"
    assert all(name.startswith("_orig_mod.hf.") for name in anatomy.weights)
    assert bundle.labels == ("mid", "neg", "pos")
    assert bundle.max_difference < 1e-5


def test_without_goldens_the_rebuilt_model_answers_probes(tmp_path: Path) -> None:
    events: list[Event] = []
    bundle = convert(learner(V2_PLAIN), tmp_path / "bundle", golden=None, tolerance=1e-4, name="x",
                     report=events.append, unproven=True)  # fmt: skip
    content = json.loads((bundle.path / "goldens.json").read_bytes())["goldens"]
    assert len(content) >= 20
    assert {each["source"] for each in content} == {"rebuilt"}
    text, model = [event for event in events if isinstance(event, Warned)]
    assert "TransformersTokenizer: its code is not in the file" in text.message
    assert "forward() of __main__.HFClassifier: its code is not in the file" in model.message
    assert "--golden" in text.hint
    manifest, _ = read_bundle(bundle.path)
    assert any("spells out the padding token" in residue for residue in manifest.residues)
    assert [f"unproven: {each}" for each in manifest.unproven] == [text.message, model.message]


def test_labels_in_the_golden_file_give_an_accuracy(tmp_path: Path) -> None:
    found = document(V2_PLAIN)["golden"][:4]
    lines = [json.dumps({"text": each["text"], "label": each["label"]}) for each in found]
    wrong = json.dumps({"text": found[0]["text"], "label": "neutral"})
    (tmp_path / "golden.jsonl").write_text("\n".join([*lines, wrong]))
    events: list[Event] = []
    convert(learner(V2_PLAIN), tmp_path / "bundle", golden=tmp_path / "golden.jsonl",
            tolerance=1e-4, name="x", report=events.append, unproven=True)  # fmt: skip
    assert Step("accuracy on 5 labelled texts: 0.800") in events


def refused(
    name: str | Path, folder: Path, kind: type[FdeployError], match: str, golden: Path | None = None
) -> FdeployError:
    file = name if isinstance(name, Path) else learner(name)
    with pytest.raises(kind, match=match) as caught:
        convert(file, folder / "bundle", golden=golden, tolerance=1e-4, name="x", report=silent)
    assert not (folder / "bundle").exists()
    return caught.value


def test_a_custom_head_is_refused_with_a_hint(tmp_path: Path) -> None:
    error = refused(CUSTOM_HEAD, tmp_path, UnsupportedLearner, "outside the transformer")
    assert "--definitions model_def.py" in error.hint
    assert "MeanPoolClassifier" in error.hint


def test_a_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pkl"
    torch.save(torch.nn.Linear(2, 2).state_dict(), file)
    refused(file, tmp_path, NotALearner, "checkpoint")


def test_answers_that_differ_are_refused_and_named(tmp_path: Path) -> None:
    golden = tmp_path / "golden.jsonl"
    golden.write_text(json.dumps({"text": "a fine film", "probabilities": [0.2, 0.8]}))
    refused(DISTILBERT, tmp_path, ParityError, "1 of 1 texts differently.*'a fine film'", golden)


def test_a_wrong_golden_file_is_named_before_anything_heavy(tmp_path: Path) -> None:
    golden = tmp_path / "golden.jsonl"
    golden.write_text('{"text": "a", "label": "maybe"}')
    refused(DISTILBERT, tmp_path, GoldenError, "no label 'maybe'", golden)


@pytest.mark.parametrize("moment", ["exporting to ONNX", "goldens reproduced in ONNX"])
def test_a_learner_that_changes_meanwhile_is_refused(tmp_path: Path, moment: str) -> None:
    file = tmp_path / "learner.pkl"
    file.write_bytes(learner(DISTILBERT).read_bytes())

    def write(event: Event) -> None:
        if isinstance(event, Step) and moment in event.message:
            with file.open("r+b") as writer:
                writer.seek(200_000)
                writer.write(b"\x01")

    with pytest.raises(LearnerTruncated, match="changed while fdeploy was reading it"):
        convert(file, tmp_path / "bundle", golden=None, tolerance=1e-4, name="x", report=write,
                unproven=True)  # fmt: skip
    assert not (tmp_path / "bundle").exists()


def test_an_old_bundle_survives_a_refusal(converted: Callable[[str], Bundle]) -> None:
    before = read_bundle(converted(DISTILBERT).path)
    with pytest.raises(UnsupportedLearner):
        convert(learner(CUSTOM_HEAD), converted(DISTILBERT).path, golden=None, tolerance=1e-4,
                name="x", report=silent)  # fmt: skip
    assert read_bundle(converted(DISTILBERT).path) == before


def rewritten(
    name: str,
    file: Path,
    change: Callable[[Any], None] = lambda _root: None,
    storage: Callable[[str, bytes], bytes] = lambda _key, data: data,
) -> Path:
    """A real learner in which something was changed."""
    with open_archive(learner(name)) as (_, archive):
        root = archive.pickled.root
        change(root)
        storages = {
            value.key: storage(value.key, value.data.read(0, value.data.size))
            for value in walk(root)
            if isinstance(value, Storage) and value.data is not None
        }
        file.write_bytes(torch_zip(assemble(root), storages))
    return file


def _parameters(root: Any, cls: str) -> Mapping:
    found = attributes(objects(root, cls)[0])["_parameters"]
    assert isinstance(found, (Call, Mapping))
    return found  # type: ignore[return-value]


def _drop_bias(root: Any) -> None:
    _parameters(root, "Linear").pairs.pop()


def _add_weight(root: Any) -> None:
    pairs = _parameters(root, "Linear").pairs
    pairs.append(("extra", pairs[0][1]))


def _resize(root: Any) -> None:
    for config in objects(root, "DistilBertConfig"):
        set_attribute(config, "vocab_size", 500)


def grow_vocabulary(root: Any) -> None:
    for tokenizer in objects(root, "DistilBertTokenizer"):
        vocabulary = attributes(tokenizer)["vocab"]
        assert isinstance(vocabulary, Call)
        vocabulary.pairs.append(("unheard-of", 480))


def _epsilon(root: Any) -> None:
    for norm in objects(root, "LayerNorm"):
        set_attribute(norm, "eps", 1e-3)


def _option(cls: str, name: str, value: object) -> Callable[[Any], None]:
    def change(root: Any) -> None:
        for found in objects(root, cls):
            set_attribute(found, name, value)

    return change


def _exchange(root: Any) -> None:
    for norm in objects(root, "LayerNorm"):
        norm.func = Global("torch.nn.modules.normalization", "RMSNorm")


def _unknown_class(root: Any) -> None:
    for model in objects(root, "DistilBertForSequenceClassification"):
        model.func = Global("transformers.modeling_x", "XForSequenceClassification")


def _impossible(root: Any) -> None:
    for config in objects(root, "DistilBertConfig"):
        set_attribute(config, "n_heads", 7)


def nan(_key: str, data: bytes) -> bytes:
    return data if len(data) < 4_096 else np.float32("nan").tobytes() + data[4:]


BROKEN: dict[str, tuple[Callable[[Any], None], str]] = {
    "a missing weight": (_drop_bias, "is missing"),
    "a weight too many": (_add_weight, "is not in the model"),
    "a configuration of another size": (_resize, "480 x 32 in the learner"),
    "more tokens than embeddings": (grow_vocabulary, "481 tokens, but the model knows 480"),
    "another epsilon": (_epsilon, "eps 0.001 in the learner"),
    "vectors of limited length": (_option("Embedding", "max_norm", 0.5), "max_norm 0.5 in the"),
    "another kind of layer": (_exchange, "RMSNorm in the learner"),
    "a class that transformers lacks": (_unknown_class, "has no class XForSequence"),
    "an impossible configuration": (_impossible, "cannot build"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_fit_exactly_is_refused(
    tmp_path: Path, name: str, deep_recursion: None
) -> None:
    del deep_recursion
    change, message = BROKEN[name]
    file = rewritten(DISTILBERT, tmp_path / "learner.pkl", change)
    refused(file, tmp_path, UnsupportedLearner, message)


def test_rotary_positions_do_not_end_a_text(tmp_path: Path, deep_recursion: None) -> None:
    """The learner cuts at 128 tokens, and its configuration says 32 positions."""
    del deep_recursion

    def change(root: Any) -> None:
        for config in objects(root, "Qwen2Config"):
            set_attribute(config, "max_position_embeddings", 32)
        for embedding in objects(root, "Qwen2RotaryEmbedding"):
            set_attribute(embedding, "max_seq_len_cached", 32)
            set_attribute(embedding, "original_max_seq_len", 32)

    file = rewritten("v2/tiny/qwen2", tmp_path / "learner.pkl", change)
    with open_archive(file) as (source, archive):
        assert rebuild_learner(examine(archive, source.size), []).max_length == 128


@pytest.mark.parametrize("name", ["position_ids", "token_type_ids"])
def test_a_buffer_that_the_class_computes_and_someone_changed_is_refused(
    tmp_path: Path, name: str, deep_recursion: None
) -> None:
    """BERT's positions and token types are in no ``state_dict``, but the model reads them."""
    del deep_recursion

    def change(root: Any) -> None:
        for embeddings in objects(root, "BertEmbeddings"):
            buffers = attributes(embeddings)["_buffers"]
            assert isinstance(buffers, (Call, Mapping))
            held = dict(buffers.pairs)
            other = {"position_ids": "token_type_ids", "token_type_ids": "position_ids"}[name]
            held[name] = held[other]
            buffers.pairs[:] = held.items()

    file = rewritten("v2/tiny/bert", tmp_path / "learner.pkl", change)
    with pytest.raises(UnsupportedLearner, match=f"{name} has other numbers in the learner than"):
        convert(file, tmp_path / "bundle", golden=None, tolerance=1e-4, name="x", report=silent,
                unproven=True)  # fmt: skip


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, deep_recursion: None) -> None:
    del deep_recursion
    file = rewritten(DISTILBERT, tmp_path / "learner.pkl", storage=nan)
    refused(file, tmp_path, UnsupportedLearner, "NaN or infinite")


def test_the_padding_of_the_embeddings_counts_more_than_that_of_the_configuration(
    tmp_path: Path, deep_recursion: None
) -> None:
    """RoBERTa of transformers 2.4 was configured with 0, but its embeddings used 1."""
    del deep_recursion

    def change(root: Any) -> None:
        for config in objects(root, "RobertaConfig"):
            set_attribute(config, "pad_token_id", 0)

    file = rewritten(ROBERTA, tmp_path / "learner.pkl", change)
    golden = write_goldens(ROBERTA, tmp_path / "golden.jsonl")
    bundle = convert(file, tmp_path / "bundle", golden=golden, tolerance=1e-5, name="x",
                     report=silent)  # fmt: skip
    assert json.loads((bundle.path / "config.json").read_bytes())["pad_token_id"] == 1


def test_weights_of_half_precision_work_in_float32(tmp_path: Path, deep_recursion: None) -> None:
    del deep_recursion

    def change(root: Any) -> None:
        for value in walk(root):
            if isinstance(value, Storage) and value.dtype == "float32":
                value.dtype = "float16"

    def storage(_key: str, data: bytes) -> bytes:
        if len(data) % 4 or len(data) == 8:  # a counter of batches
            return data
        return np.frombuffer(data, np.float32).astype(np.float16).tobytes()

    with open_archive(learner(V2_PLAIN)) as (_, archive):
        root = archive.pickled.root
        storages = {
            value.key: storage(value.key, value.data.read(0, value.data.size))
            if value.dtype == "float32" else value.data.read(0, value.data.size)
            for value in walk(root)
            if isinstance(value, Storage) and value.data is not None
        }  # fmt: skip
        change(root)
        file = tmp_path / "learner.pkl"
        file.write_bytes(torch_zip(assemble(root), storages))
    bundle = convert(file, tmp_path / "bundle", golden=None, tolerance=1e-4, name="x",
                     report=silent, unproven=True)  # fmt: skip
    assert any("half precision" in residue for residue in read_bundle(bundle.path)[0].residues)
    golden = goldens(V2_PLAIN)[0]
    assert np.allclose(served(bundle, [golden.text])[0], golden.probabilities, atol=5e-3)


def _bare(root: Any) -> None:
    inner = attributes(objects(root, "CustomTransformerModel")[0])["_modules"]
    assert isinstance(inner, (Call, Mapping))
    root.pairs[:] = [(k, inner.pairs[0][1] if k == "model" else v) for k, v in root.pairs]


def _around(module: str, name: str, child: str) -> Callable[[Any], None]:
    def change(root: Any) -> None:
        outer = new(module, name, {"_modules": Mapping([]), "_parameters": Mapping([])})
        children = attributes(outer)["_modules"]
        assert isinstance(children, Mapping)
        model = next(value for key, value in root.pairs if key == "model")
        children.pairs.append((child, model))
        root.pairs[:] = [(k, outer if k == "model" else v) for k, v in root.pairs]

    return change


def _renamed(root: Any) -> None:
    for wrapper in objects(root, "CustomTransformerModel"):
        wrapper.func = Global("my.package.models", "Whatever")


WRAPPERS: dict[str, Callable[[Any], None]] = {
    "none": _bare,
    "another name": _renamed,
    "DataParallel": _around("torch.nn.parallel.data_parallel", "DataParallel", "module"),
    "two": _around("__main__", "Outer", "inner"),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_transformer_is_found_in_any_wrapper(
    tmp_path: Path, name: str, deep_recursion: None
) -> None:
    del deep_recursion
    file = rewritten(DISTILBERT, tmp_path / "learner.pkl", WRAPPERS[name])
    golden = write_goldens(DISTILBERT, tmp_path / "golden.jsonl")
    # A bare model attends to every token, so a text that spells out the padding token differs.
    tolerance = 1e-3 if name == "none" else 1e-4
    bundle = convert(file, tmp_path / "bundle", golden=golden, tolerance=tolerance, name="x",
                     report=silent)  # fmt: skip
    assert bundle.max_difference < tolerance
