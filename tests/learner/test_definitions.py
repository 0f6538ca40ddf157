"""A user's own classes from a definitions file: built, loaded with the weights, and proven."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, DistilBertConfig, DistilBertForSequenceClassification

from fastai_deploy.bundle import read_bundle
from fastai_deploy.errors import DefinitionsError, LearnerError, UnsupportedLearner
from fastai_deploy.learner.convert import convert
from fastai_deploy.learner.definitions import MODULE, open_definitions
from fastai_deploy.learner.examine.anatomy import examine
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.rebuild.rebuilt import Rebuilt, rebuild_learner
from fastai_deploy.parity.goldens import PROBES, Case
from fastai_deploy.progress import Event, Step, Warned, silent
from tests.learner import own_models
from tests.learner.files import CONVERTIBLE, CUSTOM_HEAD, goldens, learner, write_goldens
from tests.learner.own_learners import with_model

OWN_MODELS = Path(own_models.__file__)
MEAN_POOL = """\
from torch import nn

pad_idx = 1


class MeanPoolClassifier(nn.Module):
    def forward(self, input_ids):
        mask = (input_ids != pad_idx).type(input_ids.type())
        h = self.encoder(input_ids, attention_mask=mask)[0]
        m = mask.unsqueeze(-1).type_as(h)
        return self.out(self.drop((h * m).sum(1) / m.sum(1)))
"""
CASES = tuple(Case(text, None, None, 1) for text in PROBES)


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    path = tmp_path / "model_def.py"
    path.write_text(MEAN_POOL, encoding="utf-8")
    return path


@contextlib.contextmanager
def rebuilt(path: Path, definitions: Path) -> Iterator[Rebuilt]:
    with open_archive(path) as (source, archive), open_definitions(definitions) as brought:
        yield rebuild_learner(examine(archive, source.size), CASES, brought)


def test_a_custom_head_becomes_a_bundle_that_answers_as_it_did(
    tmp_path: Path, definitions: Path
) -> None:
    events: list[Event] = []
    golden = write_goldens(CUSTOM_HEAD, tmp_path / "golden.jsonl")
    bundle = convert(learner(CUSTOM_HEAD), tmp_path / "bundle", golden=golden, tolerance=1e-4,
                     name="head", report=events.append, definitions=definitions)  # fmt: skip
    assert bundle.max_difference <= 1e-5
    parity = json.loads((tmp_path / "bundle-parity.json").read_bytes())
    assert parity["max_difference"]["torch"] <= 1e-5
    assert parity["learner_answers"] == parity["texts"] == len(goldens(CUSTOM_HEAD)) == 27
    manifest, _ = read_bundle(bundle.path)
    assert manifest.model.architecture == "MeanPoolClassifier"
    assert manifest.text.padding == "mask"
    said = [event.message for event in events if isinstance(event, Step)]
    assert any("running model_def.py for MeanPoolClassifier" in message for message in said)


def _pooled() -> nn.Module:
    config = BertConfig(vocab_size=own_models.WORDS, hidden_size=8, num_hidden_layers=1,
                        num_attention_heads=2, intermediate_size=16)  # fmt: skip
    return own_models.Pooled(config)


def _distilbert() -> DistilBertForSequenceClassification:
    config = DistilBertConfig(vocab_size=own_models.WORDS, dim=8, n_layers=1, n_heads=2,
                              hidden_dim=16)  # fmt: skip
    return DistilBertForSequenceClassification(config)


def _exchanged() -> nn.Module:
    """A transformer whose head the user replaced."""
    inner = _distilbert()
    inner.classifier = nn.Sequential(  # type: ignore[assignment] # that is the point
        nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2)
    )
    return own_models.Wrapper(inner)


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "recurrent": (lambda: own_models.Recurrent(2), "equal-length"),
    "attentive": (lambda: own_models.Attentive(2), "equal-length"),
    "a class with the configuration": (_pooled, "mask"),
    "an exchanged head": (_exchanged, "mask"),
    "in torch's wrapper": (lambda: nn.DataParallel(own_models.Recurrent(2)), "equal-length"),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_every_kind_answer_as_before(name: str, tmp_path: Path) -> None:
    make, padding = MODELS[name]
    torch.manual_seed(len(name))
    model = make().eval()
    path = with_model(model, tmp_path / "learner.pkl")
    with rebuilt(path, OWN_MODELS) as found, torch.no_grad():
        assert found.masks_padding == (padding == "mask")
        for text in PROBES:
            ids = torch.tensor([found.encoder(text)])
            theirs = (model.module if isinstance(model, nn.DataParallel) else model)(ids)
            scores = theirs[0] if isinstance(theirs, tuple) else theirs
            assert torch.allclose(found.classifier(ids), scores, atol=1e-6)
        if name == "attentive":  # tracing cannot export it, so it is refused
            with pytest.raises(UnsupportedLearner) as caught:
                found.export(tmp_path / "model.onnx")
            assert "--runtime learner" in caught.value.hint
        else:
            assert found.export(tmp_path / "model.onnx").difference <= 1e-4


def test_a_wrapper_in_a_zip_file(tmp_path: Path) -> None:
    name = CONVERTIBLE[2]
    source = OWN_MODELS.read_text(encoding="utf-8").replace("Wrapper", "CustomTransformerModel")
    (tmp_path / "model_def.py").write_text(source, encoding="utf-8")
    with rebuilt(learner(name), tmp_path / "model_def.py") as found:
        answers = found.answer([each.text for each in goldens(name)])
    for golden, mine in zip(goldens(name), answers, strict=True):
        assert mine == pytest.approx(golden.probabilities, abs=1e-5)


def refusal(definitions: Path, path: Path | None = None) -> LearnerError:
    with pytest.raises(LearnerError) as caught, rebuilt(path or learner(CUSTOM_HEAD), definitions):
        pass
    return caught.value


IMPORT = "the import fails"
BAD: dict[str, tuple[str, str, str]] = {
    "no such class": (
        "MeanPoolClassifier|Mine",
        "define MeanPoolClassifier",
        "under the same name",
    ),
    "no module": ("(nn.Module)|", "is not a torch module class", "class MeanPoolClassifier(nn.Mod"),
    "no Python": ("def forward|dfe forward", "line 7: it is not Python", "fix model_def.py"),
    "a missing import": ("from torch import nn|import fastai_1", f"line 1: {IMPORT}", "remove its"),
    "an error on import": ("idx = 1|idx = 1 / 0", f"line 3: {IMPORT}: ZeroDivisionError", ""),
    "an end on import": ("pad_idx = 1|raise SystemExit", f"line 3: {IMPORT}: SystemExit", ""),
    "a global that is missing": ("pad_idx = 1|", "NameError: name 'pad_idx'", "define pad_idx in"),
    "a part that is not there": ("self.out|self.head", "no attribute 'head'", "fix model_def.py"),
    "an answer that is no tensor": ("return self|return 7, self", "does not return a tensor", ""),
    "scores of another shape": ("sum(1) / m|sum(2) / m", "MeanPoolClassifier fails: Runtime", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_definitions_are_refused_by_name(name: str, definitions: Path) -> None:
    change, message, hint = BAD[name]
    old, new = change.split("|")
    definitions.write_text(MEAN_POOL.replace(old, new), encoding="utf-8")
    error = refusal(definitions)
    assert isinstance(error, DefinitionsError)
    assert message in error.message
    assert hint in error.hint
    assert error.hint
    assert MODULE not in sys.modules
    assert str(definitions.parent) not in sys.path


def test_scores_that_do_not_fit_the_labels(tmp_path: Path) -> None:
    path = with_model(own_models.Recurrent(5), tmp_path / "learner.pkl")
    error = refusal(OWN_MODELS, path)
    assert isinstance(error, UnsupportedLearner)
    assert "shape (1, 5) for one text, but the learner has 2 labels" in error.message


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    model = own_models.Recurrent(2)
    with torch.no_grad():
        model.out.weight[0, 0] = float("nan")
    error = refusal(OWN_MODELS, with_model(model, tmp_path / "learner.pkl"))
    assert "out.weight contains NaN or infinite numbers" in error.message


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    model = _pooled()
    wrong = nn.Embedding(own_models.WORDS, 9)
    assert isinstance(model, own_models.Pooled)
    model.bert.embeddings.word_embeddings = wrong
    error = refusal(OWN_MODELS, with_model(model, tmp_path / "learner.pkl"))
    assert "bert.embeddings.word_embeddings.weight is 700 x 9 in the learner" in error.message


def test_an_object_that_reading_cannot_make_is_named(tmp_path: Path) -> None:
    model = own_models.Recurrent(2)
    path = with_model(model, tmp_path / "learner.pkl")
    source = OWN_MODELS.read_text(encoding="utf-8").replace("class Settings:", "class Others:")
    (tmp_path / "model_def.py").write_text(source.replace("Settings(0.5)", "0"), encoding="utf-8")
    error = refusal(tmp_path / "model_def.py", path)
    assert "no attribute 'settings'" in error.message
    assert "Recurrent.settings" in error.hint
    assert "class body" in error.hint


def test_definitions_that_nothing_needs_are_not_run(tmp_path: Path) -> None:
    path = tmp_path / "model_def.py"
    path.write_text("raise SystemExit", encoding="utf-8")
    events: list[Event] = []
    bare = with_model(_distilbert(), tmp_path / "learner.pkl")
    convert(bare, tmp_path / "bundle", golden=None, tolerance=1e-4, name="bare",
            report=events.append, definitions=path, unproven=True)  # fmt: skip
    assert any(isinstance(e, Warned) and "model_def.py is not used" in e.message for e in events)


def test_the_pickle_is_not_run_and_the_definitions_are_not_trusted_with_it(
    tmp_path: Path, definitions: Path
) -> None:
    """A dangerous pickle is refused even with a definitions file."""
    data = tmp_path / "learner.pkl"
    data.write_bytes(b"cposix\nsystem\n(S'touch " + str(tmp_path / "pwned").encode() + b"'\ntR.")
    with pytest.raises(LearnerError) as caught:
        convert(data, tmp_path / "bundle", golden=None, tolerance=1e-4, name="x", report=silent,
                definitions=definitions)  # fmt: skip
    assert caught.value.code == "dangerous-learner"
    assert not (tmp_path / "pwned").exists()
