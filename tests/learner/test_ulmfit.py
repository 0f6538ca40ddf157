"""Real ULMFiT learners become bundles that answer as the learners did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastai_deploy.bundle import Bundle, read_bundle
from fastai_deploy.errors import FdeployError, ParityError, UnsupportedLearner
from fastai_deploy.learner.convert import convert
from fastai_deploy.learner.examine.anatomy import Anatomy, examine
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.reading.graph import Call, Global, Mapping, attributes, walk
from fastai_deploy.learner.reading.tensors import Storage
from fastai_deploy.learner.rebuild.ulmfit import RebuiltUlmfit, rebuild_ulmfit
from fastai_deploy.learner.text.spacy_rules import rules_of_language
from fastai_deploy.parity.compare import Gate
from fastai_deploy.parity.goldens import Case
from fastai_deploy.progress import Event, Warned, silent
from fastai_deploy.runtime.contract import Prediction
from fastai_deploy.runtime.hardware import Hardware
from fastai_deploy.runtime.loading import Loaded, load
from fastai_deploy.runtime.tokenizer import Encoded
from tests.learner.assemble import new
from tests.learner.files import (
    AWD_LSTM,
    LANGUAGE_MODEL,
    USER_RULE,
    goldens,
    learner,
    write_goldens,
)
from tests.learner.test_anatomy import changed, objects, set_attribute
from tests.learner.test_convert import rewritten

V1, V2, V1_BIDIR, V1_FIELDS, V1_TAGS, V1_BACKWARDS, *V2_MORE = AWD_LSTM
V2_BIDIR, V2_GERMAN, V2_BACKWARDS, V2_BASE = V2_MORE


def anatomy(path: Path) -> Anatomy:
    with open_archive(path) as (source, archive):
        return examine(archive, source.size)


@pytest.fixture(scope="module")
def loaded(converted: Callable[[str], Bundle]) -> Callable[[str], Loaded]:
    """Loads each bundle for serving, once."""
    made: dict[str, Loaded] = {}

    def serve(name: str) -> Loaded:
        if name not in made:
            made[name] = load(converted(name).path, Hardware(cores=1, memory=None), 1)
        return made[name]

    return serve


def rebuilt(name: str) -> RebuiltUlmfit:
    """The learner in torch; its goldens decide its direction."""
    cases = [Case(each.text, each.probabilities, None, 0) for each in goldens(name)]
    with open_archive(learner(name)) as (source, archive):
        return rebuild_ulmfit(examine(archive, source.size), cases)


@pytest.mark.parametrize("name", AWD_LSTM)
def test_ids_and_answers_are_the_learners_own(name: str) -> None:
    found, known = rebuilt(name), goldens(name)
    assert len(known) == 28
    for each in known:
        assert tuple(found.words.encode(each.text, 100_000).ids) == each.ids, each.id
    answers = found.answer([each.text for each in known])
    for each, mine in zip(known, answers, strict=True):
        assert mine == pytest.approx(each.probabilities, abs=1e-5), each.id
        assert np.argmax(mine) == np.argmax(each.probabilities)


def test_its_large_runs_are_not_shared_out(converted: Callable[[str], Bundle]) -> None:
    path = converted(AWD_LSTM[0]).path
    assert load(path, Hardware(cores=2, memory=None), 2, most_runs=2).runs == 1


@pytest.mark.parametrize("name", AWD_LSTM)
def test_what_is_served_answers_as_the_learner_did(
    name: str, converted: Callable[[str], Bundle], loaded: Callable[[str], Loaded]
) -> None:
    assert converted(name).max_difference <= 1e-5
    assert loaded(name).goldens == 28
    assert loaded(name).deviation <= 1e-5


@pytest.mark.parametrize("name", [V1, V2, V1_BIDIR, V2_BIDIR, V2_BACKWARDS])
def test_a_batch_answers_as_its_texts_alone(name: str, loaded: Callable[[str], Loaded]) -> None:
    predictor = loaded(name).predictor
    texts = [each.text for each in goldens(name)]
    texts += [f"xxpad the film {'was good ' * count}xxpad" for count in (1, 9, 40)]
    encoded = [each for text in texts if isinstance(each := predictor.encode(text), Encoded)]
    assert len(encoded) == len(texts)
    together = predictor.run(encoded)
    for text, outcome in zip(encoded, together, strict=True):
        (alone,) = predictor.run([text])
        assert isinstance(outcome, Prediction)
        assert isinstance(alone, Prediction)
        assert dict(outcome.probabilities) == pytest.approx(dict(alone.probabilities), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "step", "theirs"),
    [(V2, 72, (0.003699, 0.000348, 0.995953)), (V2_BIDIR, 16, (0.168486, 0.639104, 0.192409))],
)  # fmt: skip
def test_a_step_that_begins_with_padding_is_skipped(
    name: str, step: int, theirs: tuple[float, ...], loaded: Callable[[str], Loaded]
) -> None:
    """fastai 2.8.12's own answers to a text with the word xxpad at the start of its second step."""
    text = f"good {'film bad ' * (step // 2 - 1)}xxpad but the film was dull"
    found, predictor = rebuilt(name), loaded(name).predictor
    assert found.words.encode(text, 1_000).ids[step] == found.ulmfit.model.pad_id
    (torch_answer,) = found.answer([text])
    assert torch_answer == pytest.approx(theirs, abs=1e-5)
    (served,) = predictor.predict([text])
    assert isinstance(served, Prediction)
    assert list(dict(served.probabilities).values()) == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("name", [V1, V2, V2_BACKWARDS])
def test_what_a_long_text_leaves_out_has_faded(name: str) -> None:
    """The learner reads every token; serving reads the last 4,096 of them."""
    found = rebuilt(name)
    words = next(each.text for each in goldens(name) if each.id == "long_3000_words")
    text = f"{words} and {goldens(name)[0].text} {words}"
    whole = found.words.encode(text, 100_000)
    cut = found.words.encode(text, found.max_length)
    assert cut.truncated
    assert len(whole) > 7_000
    assert len(cut) <= 4_096
    with torch.no_grad():
        one, other = (found.classifier(torch.tensor([list(each.ids)])) for each in (whole, cut))
    assert torch.softmax(one, 1) == pytest.approx(torch.softmax(other, 1), abs=1e-6)


def test_the_manifest_says_how_words_are_made(converted: Callable[[str], Bundle]) -> None:
    manifest, _ = read_bundle(converted(V1).path)
    assert (manifest.text.kind, manifest.text.padding, manifest.text.max_length) == (
        "words", "mask", 4_096,
    )  # fmt: skip
    assert manifest.model.inputs == ("input_ids", "attention_mask")
    assert manifest.model.architecture == "AWD_LSTM"
    assert manifest.provenance.converter["spacy"] in manifest.residues[0]
    assert not any("backwards" in residue for residue in manifest.residues)
    newer, _ = read_bundle(converted(V2).path)
    assert "spacy" not in newer.provenance.converter  # its rules are in the file
    assert set(manifest.files) == {
        "config.json", "goldens.json", "model.onnx", "model.onnx.data", "model.safetensors",
        "words.json",
    }  # fmt: skip
    tags, _ = read_bundle(converted(V1_TAGS).path)
    assert (tags.task, tags.threshold) == ("multi-label", 0.5)


def test_the_same_learner_gives_the_same_bytes(
    tmp_path: Path, converted: Callable[[str], Bundle]
) -> None:
    golden = write_goldens(V2_BASE, tmp_path / "golden.jsonl")
    again = convert(learner(V2_BASE), tmp_path / "bundle", golden=golden, tolerance=1e-4,
                    name="reviews", report=silent)  # fmt: skip
    assert again.version == converted(V2_BASE).version


def test_a_learner_that_keeps_a_pandas_table_converts(tmp_path: Path) -> None:
    """pandas 1.3 pickles a block as ``functools.partial(new_block, ndim=2)(...)``."""
    file = learner("v2/v2_awdlstm_f256_table")
    golden = file.with_suffix(".golden.jsonl")
    bundle = convert(file, tmp_path / "bundle", golden=golden, tolerance=1e-4, name="x",
                     report=silent, gate=Gate("none"))  # fmt: skip
    assert bundle.max_difference < 1e-5


def test_a_learner_that_keeps_an_interpretation_converts(deep_recursion: None) -> None:
    del deep_recursion

    def keep(root: Any) -> None:
        (table,) = objects(root, "DataFrame")
        found = new("fastai.interpret", "ClassificationInterpretation",
                    {"dl": attributes(root)["dls"], "inputs": table, "losses": None})  # fmt: skip
        set_attribute(root, "interp", found)

    found = changed("v2/v2_awdlstm_f256_table", keep)
    assert found.verdict.kind == "convertible"
    assert not found.dangers
    assert not found.unknown


def test_without_goldens_the_direction_is_an_assumption(tmp_path: Path) -> None:
    events: list[Event] = []
    bundle = convert(learner(V1_BACKWARDS), tmp_path / "bundle", golden=None, tolerance=1e-4,
                     name="x", report=events.append)  # fmt: skip
    (warned,) = [event for event in events if isinstance(event, Warned)]
    assert "backwards" in warned.message
    assert warned.message in read_bundle(bundle.path)[0].residues
    assert json.loads((bundle.path / "words.json").read_bytes())["backwards"] is False


def test_the_rules_in_the_file_are_those_of_its_spacy() -> None:
    """The German learner was made with spaCy 3.8, whose rules have not changed since."""
    found = anatomy(learner(V2_GERMAN)).ulmfit
    assert found is not None
    assert found.words.language == "de"
    assert found.words.splitting == rules_of_language("de", found.words.marks)


def refused(
    name: str | Path, folder: Path, kind: type[FdeployError], match: str, golden: Path | None = None
) -> FdeployError:
    file = name if isinstance(name, Path) else learner(name)
    with pytest.raises(kind, match=match) as caught:
        convert(file, folder / "bundle", golden=golden, tolerance=1e-4, name="x", report=silent)
    assert not (folder / "bundle").exists()
    return caught.value


def test_a_users_own_rule_is_refused_with_a_hint(tmp_path: Path) -> None:
    error = refused(USER_RULE, tmp_path, UnsupportedLearner, r"user-defined rule \(shout\)")
    assert "--runtime learner --trust-pickle (with --definitions model_def.py" in error.hint


def test_a_language_model_is_refused(tmp_path: Path) -> None:
    refused(LANGUAGE_MODEL, tmp_path, UnsupportedLearner, "no labels")


def test_answers_of_another_learner_are_refused(tmp_path: Path) -> None:
    golden = write_goldens(V1_FIELDS, tmp_path / "golden.jsonl")
    refused(V1, tmp_path, ParityError, "of 28 texts differently", golden)


def _parameters(root: Any, cls: str) -> Mapping:
    found = attributes(objects(root, cls)[0])["_parameters"]
    assert isinstance(found, (Call, Mapping))
    return found  # type: ignore[return-value]


def _core(name: str, value: object) -> Callable[[Any], None]:
    return lambda root: set_attribute(objects(root, "AWD_LSTM")[0], name, value)


def _encoder(name: str, value: object) -> Callable[[Any], None]:
    return lambda root: set_attribute(objects(root, "MultiBatchEncoder")[0], name, value)


def _tokenizer(name: str, value: object) -> Callable[[Any], None]:
    return lambda root: set_attribute(objects(root, "Tokenizer")[0], name, value)


def _rename(cls: str, module: str, name: str) -> Callable[[Any], None]:
    def change(root: Any) -> None:
        for found in objects(root, cls):
            found.func = Global(module, name)

    return change


def _more_words(root: Any) -> None:
    for vocabulary in objects(root, "Vocab"):
        attributes(vocabulary)["itos"].items.append("unheard-of")  # type: ignore[attr-defined]


def _no_text(root: Any) -> None:
    for vocabulary in objects(root, "Vocab"):
        attributes(vocabulary)["itos"].items[20] = 7  # type: ignore[attr-defined]


def _embedding(root: Any) -> None:
    for embedding in objects(root, "Embedding"):
        set_attribute(embedding, "max_norm", 0.5)


def _drop_weight(root: Any) -> None:
    _parameters(root, "WeightDropout").pairs.pop()


def _add_weight(root: Any) -> None:
    pairs = _parameters(root, "Embedding").pairs
    pairs.append(("extra", pairs[0][1]))


def _relabel(root: Any) -> None:
    for processor in objects(root, "CategoryProcessor"):
        attributes(processor)["classes"].items.pop()  # type: ignore[attr-defined]


def _no_labels(root: Any) -> None:
    for processor in objects(root, "CategoryProcessor"):
        processor.states.clear()


BROKEN: dict[str, tuple[Callable[[Any], None], str]] = {
    "more words than embeddings": (_more_words, "129 words, but its embedding has 128 rows"),
    "a word that is no text": (_no_text, "not text"),
    "QRNN": (_core("qrnn", value=True), "QRNN"),
    "another size": (_core("n_hid", 40), r"192 x 24 in the learner, but its sizes .* make it 160"),
    "a layer too many": (_core("n_layers", 3), "layer 2 of its AWD-LSTM is not an LSTM"),
    "vectors of limited length": (_embedding, r"shortens long vectors \(max_norm of "),
    "no step": (_encoder("bptt", None), "reads 0 tokens per step"),
    "another encoder": (_rename("MultiBatchEncoder", "mine", "Mine"), "called by a mine.Mine"),
    "another wrapper": (_rename("SequentialRNN", "mine", "Mine"), r"class \(mine.Mine\)"),
    "another layer in the head": (_rename("ReLU", "torch.nn", "Tanh"), r"cannot rebuild \(Tanh\)"),
    "another splitter": (_tokenizer("tok_func", Global("m", "Mine")), r"class \(Mine\)"),
    "SentencePiece": (_rename("TokenizeProcessor", "fastai.text.data", "SPProcessor"),
                      "SentencePiece"),
    "a language without rules": (_tokenizer("lang", "tlh"), "no tokenizer for the language 'tlh'"),
    "a language split by a program": (_tokenizer("lang", "zh"), "with code"),
    "a missing weight": (_drop_weight, "weight_hh_l0_raw is missing"),
    "a weight too many": (_add_weight, "extra is not in the model"),
    "a label too few": (_relabel, "3 outputs, but it has 2 labels"),
    "no labels": (_no_labels, "has no labels"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_fit_exactly_is_refused(
    tmp_path: Path, name: str, deep_recursion: None
) -> None:
    del deep_recursion
    change, message = BROKEN[name]
    file = rewritten(V1, tmp_path / "learner.pkl", change)
    refused(file, tmp_path, UnsupportedLearner, message)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, deep_recursion: None) -> None:
    del deep_recursion

    def spoil(_key: str, data: bytes) -> bytes:
        return data if len(data) < 4_096 else np.float32("nan").tobytes() + data[4:]

    file = rewritten(V2, tmp_path / "learner.pkl", storage=spoil)
    refused(file, tmp_path, UnsupportedLearner, "NaN or infinite")


def test_the_weights_before_dropout_are_used(tmp_path: Path, deep_recursion: None) -> None:
    """The LSTM's own copies are what dropout left of them in the last training step."""
    del deep_recursion
    with open_archive(learner(V1)) as (_, archive):
        root = archive.pickled.root
        raw = {
            id(part)
            for found in objects(root, "WeightDropout")
            for part in walk(attributes(found)["_parameters"])
            if isinstance(part, Storage)
        }
        assert len(raw) == 2
    golden = write_goldens(V1, tmp_path / "golden.jsonl")
    file = rewritten(V1, tmp_path / "learner.pkl", _separate_copies)
    bundle = convert(file, tmp_path / "bundle", golden=golden, tolerance=1e-4, name="x",
                     report=silent)  # fmt: skip
    assert bundle.max_difference < 1e-5


def _separate_copies(root: Any) -> None:
    """Replace the LSTM's own recurrent weights by its input weights, which are other numbers."""
    for lstm in objects(root, "LSTM"):
        pairs = attributes(lstm)["_parameters"].pairs  # type: ignore[attr-defined]
        weights = dict(pairs)
        pairs[:] = [
            (key, weights["weight_ih_l0"] if key == "weight_hh_l0" else value)
            for key, value in pairs
        ]


def test_half_precision_works_in_float32(tmp_path: Path, deep_recursion: None) -> None:
    del deep_recursion

    def storage(_key: str, data: bytes) -> bytes:
        if len(data) == 8:  # a counter of batches
            return data
        return np.frombuffer(data, np.float32).astype(np.float16).tobytes()

    def change(root: Any) -> None:
        for value in walk(root):
            if isinstance(value, Storage) and value.dtype == "float32":
                value.dtype = "float16"

    file = rewritten(V1, tmp_path / "learner.pkl", change, storage)
    bundle = convert(file, tmp_path / "bundle", golden=None, tolerance=1e-4, name="x",
                     report=silent)  # fmt: skip
    assert any("half precision" in residue for residue in read_bundle(bundle.path)[0].residues)
