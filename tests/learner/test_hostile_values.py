"""Values that do harm by their size or through a library: rejected with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastai_deploy.errors import LearnerError, LearnerTooComplex, UnsupportedLearner
from fastai_deploy.learner.convert import convert
from fastai_deploy.progress import silent
from tests.learner.hostile_values import EXIT, VALUES, export, write_hostile

REFUSED: dict[str, tuple[type[LearnerError], str]] = {
    "num_hidden_layers = 10000000": (UnsupportedLearner, "10,000,000, but the file has 41"),
    "num_hidden_layers = 64": (UnsupportedLearner, "992 missing"),
    "num_hidden_layers = -1": (UnsupportedLearner, "is not in the model"),
    "num_hidden_layers = 1e+18": (UnsupportedLearner, "cannot build"),
    "hidden_size = 100000000": (UnsupportedLearner, "whose largest dimension is 320"),
    "hidden_size = a number of 90 digits": (UnsupportedLearner, "a number of 91 digits"),
    "intermediate_size = 1000000000": (UnsupportedLearner, "1,000,000,000, but the file"),
    "vocab_size = 1000000": (UnsupportedLearner, "vocab_size = 1,000,000"),
    "num_attention_heads = 0": (UnsupportedLearner, "cannot build"),
    "num_hidden_layers = 1000000 (albert)": (UnsupportedLearner, "has 27 weights"),
    "max_position_embeddings = 1000000000 (modernbert)": (UnsupportedLearner, "18 weights"),
    "sinusoidal_pos_embds, 4,096 x 1,024 (distilbert)": (UnsupportedLearner, "makes it 320 x 1024"),
    "rope_scaling of nested numbers (modernbert)": (UnsupportedLearner, "rope_parameters.num"),
    "a thousand layers of the same bytes": (UnsupportedLearner, "16,009 weights"),
    "n_hid = 10**9 (ULMFiT)": (UnsupportedLearner, "make it 4000000000 x 24"),
    "n_layers = 10**7 (ULMFiT)": (UnsupportedLearner, "sizes of its AWD-LSTM"),
    "max_len = 10**12 (ULMFiT)": (UnsupportedLearner, "more than 16,384 tokens"),
    "a label of 10 MB": (UnsupportedLearner, "more than 256 characters"),
    "a label of 257 characters": (UnsupportedLearner, "more than 256 characters"),
    "200,000 labels": (UnsupportedLearner, "200,000 labels, more than 100,000"),
    "a label that is a number of 700 digits": (UnsupportedLearner, "more than 256 characters"),
    "an unknown token outside the vocabulary": (UnsupportedLearner, "WordPiece error"),
    "a panic on one-letter merges": (UnsupportedLearner, "PanicException"),
    "text a billion times longer": (LearnerTooComplex, "tried on 24 texts"),
    "text a thousand times longer": (UnsupportedLearner, "40 times as long"),
    "a pattern that backtracks": (LearnerTooComplex, "takes longer than"),
    "an invalid table of characters": (LearnerTooComplex, "ends the process"),
    "100,000 special tokens around a text": (UnsupportedLearner, "no room"),
    "JSON of ten million empty lists": (UnsupportedLearner, "incomplete or damaged"),
    "a suffix rule that never ends": (LearnerTooComplex, "takes longer than"),
    "a rule nested 10,000 deep": (UnsupportedLearner, "RecursionError"),
    "a rule that prints itself (re.DEBUG)": (UnsupportedLearner, "not used in the usual way"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_value_is_refused_with_what_it_claims(name: str, tmp_path: Path) -> None:
    kind, message = REFUSED[name]
    file = write_hostile(VALUES[name], tmp_path / "learner.pkl")
    with pytest.raises(kind) as caught:
        convert(file, tmp_path / "bundle", golden=None, tolerance=1e-4, name="x", report=silent)
    assert message in caught.value.message
    assert caught.value.hint
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "name",
    [
        "intermediate_size = 1000000000",
        "text a billion times longer",
        "a prefix rule that never ends",
    ],
)
def test_the_command_ends_with_the_learners_error(name: str, tmp_path: Path) -> None:
    ran = export(write_hostile(VALUES[name], tmp_path / "learner.pkl"), tmp_path)
    assert ran.status == EXIT, ran.message
    assert ran.code in {"unsupported-learner", "learner-too-complex"}
    assert ran.memory < 1_500 << 20
