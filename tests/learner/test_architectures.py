"""Learners of every architecture and wrapper give the same answers, or are rejected with a reason.

This is the quick part of ``make test-architectures``, which covers all of them.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from fastai_deploy.errors import FileMissing, ParityError, UnsupportedLearner
from fastai_deploy.learner.convert import convert
from fastai_deploy.learner.definitions import open_definitions
from fastai_deploy.learner.examine.anatomy import examine
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.rebuild.answers import Encoder
from fastai_deploy.learner.rebuild.rebuilt import rebuild_learner
from fastai_deploy.learner.text.sentencepiece_model import (
    MAX_BYTES,
    MAX_PIECES,
    Piece,
    SentencePieceModel,
    read_sentencepiece,
)
from fastai_deploy.learner.text.tokenizer import find_tokenizers
from fastai_deploy.learner.text.tokenizer_json import tokenizer_json
from fastai_deploy.learner.text.user_tokenizer import read_user_tokenizer
from fastai_deploy.parity.goldens import Case
from fastai_deploy.progress import silent
from fastai_deploy.runtime.parity import compare
from tests.learner.made import (
    HALF_TOLERANCE,
    MADE,
    answered,
    document,
    golden_texts,
    names,
    outcome,
    tokenizer_folder,
    write_goldens,
)
from tests.learner.survey import PAGE, read_outcomes, table

CONVERTED = ("albert", "bart", "deberta_v2", "mobilebert", "t5", "xlm_roberta", "xlnet")
REFUSED = {
    "funnel": "the graph fails on texts of other lengths",
    "regression": "predicts numbers",
    "xlm": "the vocabulary of its tokenizer (XLMTokenizer) is not in the file",
}
CHANGED = {
    "callback_temperature": "answers 28 of 28 texts differently",
    "wrapper_softened": "answers 28 of 28 texts differently",
}
# Tolerances for rounding. MobileBERT's layers have no norm to dampen it: the same code was off by
# 5.5e-6 on an AMD EPYC and by 1.01e-5 on an Intel Xeon.
ROUNDING = {"half": HALF_TOLERANCE, "mobilebert": 2e-5}
UNMASKED = {"blurr", "callback_by_name", "wrapper_bare", "wrapper_unmasked"}


@pytest.mark.parametrize("name", CONVERTED)
def test_an_architecture_is_proven(name: str, tmp_path: Path) -> None:
    found = outcome(name, tmp_path)
    assert (found.outcome, found.answers) == ("proven", 28)
    assert found.torch is not None
    assert found.torch <= ROUNDING.get(name, 1e-5)
    assert found.onnx is not None
    assert found.onnx <= 1e-4
    assert found.gpu
    # XLNet scores a text by what stands last, so that padding would change its answer.
    assert found.padding == ("equal-length" if name == "xlnet" else "mask")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_exact_is_refused(name: str, tmp_path: Path) -> None:
    found = outcome(name, tmp_path)
    assert found.outcome == "refused"
    assert REFUSED[name] in found.reason


@pytest.mark.parametrize("name", [each for each in names() if each not in REFUSED | CHANGED])
def test_the_rebuilt_model_answers_as_the_learner_did(name: str) -> None:
    meta, expected = document(name)["meta"], answered(name)
    assert len(expected) >= 28
    cases = [Case(text, answer, None, 1) for text, answer in expected]
    with open_archive(MADE / f"{name}.pkl") as (source, archive):
        folder = tokenizer_folder(name)
        anatomy = examine(archive, source.size, read_user_tokenizer(folder) if folder else None)
        rebuilt = rebuild_learner(anatomy, cases)
        report = compare(
            [case.text for case in cases],
            [answer for _, answer in expected],
            rebuilt.answer(text for text, _ in expected),
            threshold=anatomy.threshold,
        )
    assert list(anatomy.labels.names) == meta["labels"]
    assert report.changed == 0
    assert report.max_difference <= ROUNDING.get(name, 1e-5)
    # Made by hand, the slow tokenizers take no token that stands in a text for a special one.
    assert rebuilt.mask_known or name.startswith("slow_")
    assert rebuilt.classifier.inputs == (
        ("input_ids", "attention_mask") if name in UNMASKED else ("input_ids",)
    )


@pytest.mark.parametrize("name", [each for each in names() if each != "regression"])
def test_the_goldens_tell_texts_apart(name: str) -> None:
    """A model that gives every text the same answer would prove nothing."""
    columns = zip(*(answer for _, answer in answered(name)), strict=True)
    assert max(max(column) - min(column) for column in columns) > 0.2


SLOW_IDS = json.loads((MADE / "slow_ids.json").read_text("utf-8"))


@pytest.mark.parametrize("name", SLOW_IDS)
def test_a_supplied_tokenizer_gives_the_same_ids(name: str) -> None:
    """The ids that transformers 4.30 gave, for every golden text."""
    folder = tokenizer_folder(f"slow_{name}")
    assert folder is not None
    with open_archive(MADE / f"slow_{name}.pkl") as (_, archive):
        (tokenizer,) = find_tokenizers(archive.pickled.calls)
        made = tokenizer_json(
            tokenizer, prefix_space=False, python_37=False, handed=read_user_tokenizer(folder)
        )
    encode = Encoder(made, (), 128)
    texts = {each["id"]: each["text"] for each in golden_texts()}
    assert len(SLOW_IDS[name]) == 28
    for key, ids in SLOW_IDS[name].items():
        assert encode(texts[key]) == ids, key


WRAPPED = """from torch import nn

class HFClassifier(nn.Module):
    def forward(self, ids):
        return self.hf(input_ids=ids, attention_mask=(ids != self.pad_id).long()).logits
"""


def test_a_supplied_tokenizer_with_the_classes_of_the_model(tmp_path: Path) -> None:
    folder = tokenizer_folder("slow_xlnet")
    assert folder is not None
    (tmp_path / "model_def.py").write_text(WRAPPED, encoding="utf-8")
    expected = answered("slow_xlnet")
    cases = [Case(text, answer, None, 1) for text, answer in expected]
    with (
        open_archive(MADE / "slow_xlnet.pkl") as (source, archive),
        open_definitions(tmp_path / "model_def.py") as brought,
    ):
        anatomy = examine(archive, source.size, read_user_tokenizer(folder))
        answers = rebuild_learner(anatomy, cases, brought).answer(text for text, _ in expected)
    for (_, theirs), mine in zip(expected, answers, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)


def test_the_table_of_the_documentation_is_what_was_found() -> None:
    rows = read_outcomes()
    assert table(rows) in PAGE.read_text(encoding="utf-8"), "make test-architectures"
    kept = {name for name in names() if not name.startswith("slow_")}
    assert kept <= rows.keys()
    for name, reason in {**REFUSED, **CHANGED}.items():
        assert rows[name]["outcome"] == "refused"
        assert reason in rows[name]["reason"]
    assert {name for name in kept if rows[name]["outcome"] == "refused"} == {
        *REFUSED,
        *CHANGED,
    }


def test_a_lost_tokenizer_is_asked_for(tmp_path: Path) -> None:
    with open_archive(MADE / "slow_xlnet.pkl") as (source, archive):
        verdict = examine(archive, source.size).verdict
    assert verdict.kind == "learner-runtime"
    assert "(XLNetTokenizer) is not in the file" in verdict.reason
    assert "--tokenizer DIR" in verdict.hint
    for name in ("empty", "missing"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(FileMissing):
            read_user_tokenizer(tmp_path / name)


def test_a_tokenizer_in_the_pickle_needs_no_other() -> None:
    """XLM-RoBERTa's slow tokenizer contains the bytes of its SentencePiece model."""
    assert tokenizer_folder("slow_xlm_roberta") is None
    with open_archive(MADE / "slow_xlm_roberta.pkl") as (source, archive):
        assert examine(archive, source.size).verdict.kind == "with-goldens"


def piece(text: bytes, score: bytes = b"") -> bytes:
    """A piece, encoded as in a SentencePiece model."""
    inner = b"\x0a" + bytes([len(text)]) + text + score
    return b"\x0a" + bytes([len(inner)]) + inner


def test_a_sentencepiece_model_of_one_piece() -> None:
    model = read_sentencepiece(piece(b"\xe2\x96\x81a", b"\x15" + struct.pack("<f", -2.5)))
    expected = (Piece("\u2581a", -2.5, "normal"),)
    assert model == SentencePieceModel(expected, b"", prefix=True, collapse=True)


NO_MODEL = {
    "text": b"a tokenizer, surely",
    "half": (MADE / "slow_albert" / "spiece.model").read_bytes()[:-700],
    "nothing": b"",
    "a BPE model": b"\x0a\x05\x0a\x03abc\x12\x02\x18\x02",
    "a long number": b"\x0a" + b"\xff" * 20,
    "a kind of its own": piece(b"abc", b"\x18\x09"),
    "a score that is no float": piece(b"a", b"\x10" + b"\xff" * 8 + b"\x01"),
    "no UTF-8": piece(b"\xff"),
    "half a piece": piece(b"a")[:-1],
    "an algorithm of its own": piece(b"a") + b"\x12\x02\x18\x09",
    "a switch that is a text": piece(b"a") + b"\x1a\x03\x1a\x01x",
    "more pieces than any model": b"\x0a\x00" * (2 * MAX_PIECES + 1),
    "more bytes than any model": piece(b"a") + b"\x12" * MAX_BYTES,
    "pieces that are not counted before": b"\x8a\x00\x00" * (MAX_PIECES + 1),
}


@pytest.mark.parametrize("what", NO_MODEL)
def test_files_that_are_not_sentencepiece_models_are_refused(what: str) -> None:
    expected = "not a unigram model" if what == "a BPE model" else "not a SentencePiece model"
    with pytest.raises(UnsupportedLearner, match=expected):
        read_sentencepiece(NO_MODEL[what])


@pytest.mark.parametrize("held", ["{", "[]", '{"model": 1}', "[" * 100_000])
def test_invalid_tokenizer_json_is_refused(held: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(held)
    with pytest.raises(UnsupportedLearner, match=r"not a tokenizer\.json"):
        read_user_tokenizer(tmp_path)


def test_a_tokenizer_of_another_learner_is_refused(tmp_path: Path) -> None:
    found = tokenizer_folder("slow_xlnet")
    assert found is not None
    golden = tmp_path / "golden.jsonl"
    write_goldens("slow_albert", golden)
    with pytest.raises((ParityError, UnsupportedLearner)):
        convert(MADE / "slow_albert.pkl", tmp_path / "bundle", golden=golden, tolerance=1e-4,
                name="x", report=silent, tokenizer=found)  # fmt: skip
    assert not (tmp_path / "bundle").exists()
