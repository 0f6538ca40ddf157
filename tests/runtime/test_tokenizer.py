from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from fastai_deploy.runtime.bundle import ModelError, open_bundle
from fastai_deploy.runtime.tokenizer import Encoded, Encoder, word_end
from tests.runtime.bundles import MAX_LENGTH, WORDS, byte_level, wordpiece, write_bundle

Encode = Callable[[str], Encoded]
Pair = tuple[Encode, Encode]

# Words and characters on which tokenizers differ; long enough to be cut several times.
_SIGNS = (
    " \n\t.,!?'\"-_/#0123\r\x00\x1c\x85\xa0\u00ad\u0301\u0130\u03a3\u2028\u200d\u3000\u3002\uff0c"
)
_LETTERS = "\uff9e\U0001f600\U0001f1e9\u0627\u0600"
_OTHERS = ("\u4e2d\u6587", "n't", "'s", "[SEP]", "<s>", "</s>", "x" * 120)
PIECES = st.sampled_from([*WORDS[:20], *_SIGNS, *_LETTERS, *_OTHERS])
TEXTS = st.lists(PIECES, max_size=300).map("".join) | st.lists(PIECES, max_size=300).map(" ".join)


def plain(tokenizer: Tokenizer) -> Encode:
    """The reference: the library tokenizes and truncates the whole text."""
    whole = Tokenizer.from_str(tokenizer.to_str())
    whole.enable_truncation(MAX_LENGTH)

    def encode(text: str) -> Encoded:
        encoding = whole.encode(text.rstrip("\0"))
        return Encoded(encoding.ids, bool(encoding.overflowing))

    return encode


def old_byte_level() -> Tokenizer:
    """A slow tokenizer of the first versions, as exporters write it: greedy special tokens."""
    tokenizer = byte_level()
    tokenizer.add_special_tokens(
        [AddedToken(token, lstrip=True, rstrip=True) for token in ("<s>", "</s>")]
    )
    tokenizer.normalizer = normalizers.Strip()
    return tokenizer


def old_byte_level_that_deletes() -> Tokenizer:
    """The same, with a normalizer that deletes characters."""
    tokenizer = old_byte_level()
    tokenizer.normalizer = normalizers.Sequence([deleting(), normalizers.Strip()])
    return tokenizer


def old_wordpiece() -> Tokenizer:
    """BERT's, as exporters write it: deletes characters that Unicode did not have at the time."""
    tokenizer = wordpiece()
    tokenizer.normalizer = normalizers.Sequence([deleting(), normalizers.BertNormalizer()])
    return tokenizer


def deleting() -> normalizers.Normalizer:
    return normalizers.Replace(Regex(r"[\p{Cn}a\x{4E2D}\x{1F600}-\x{1F6FF}\]]"), "")


TOKENIZERS = {
    "wordpiece": wordpiece(),
    "byte-level": byte_level(),
    "byte-level, lower case": byte_level(lowercase=True),
    "old byte-level": old_byte_level(),
    "old byte-level that deletes": old_byte_level_that_deletes(),
    "old wordpiece": old_wordpiece(),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The encoder and the reference, with the same tokenizer."""
    tokenizer = TOKENIZERS[request.param]
    assert word_end(tokenizer) is not None
    folder = tmp_path_factory.mktemp("encoding") / "bundle"
    write_bundle(folder, tokenizer=tokenizer)
    return Encoder(open_bundle(folder)).encode, plain(tokenizer)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=TEXTS)
def test_the_ids_are_those_of_the_whole_text(pair: Pair, text: str) -> None:
    encode, whole = pair
    assert encode(text) == whole(text)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=600))
def test_the_ids_are_those_of_any_whole_text(pair: Pair, text: str) -> None:
    encode, whole = pair
    assert encode(text) == whole(text)


@given(text=TEXTS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_text_cut_where_a_word_ends_gives_the_first_tokens(
    tokenizer: Tokenizer, text: str
) -> None:
    expression = word_end(tokenizer)
    assert expression is not None
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    for match in expression.finditer(text):
        before = tokenizer.encode(text[: match.end()], add_special_tokens=False).ids
        assert ids[: len(before)] == before, repr(text[: match.end()])


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\0",
        "the",
        "the " * 30,
        "the " * 31,
        "the " * 100_000,
        " " * 5_000 + "the",
        "x" * 9_999,
    ],
)
def test_lengths_around_the_limit(pair: Pair, text: str) -> None:
    encode, whole = pair
    assert encode(text) == whole(text)


def test_truncated_texts_are_reported(pair: Pair) -> None:
    encode, _ = pair
    room = MAX_LENGTH - 2
    assert encode(" ".join(["the"] * room)) == Encoded(encode("the " * room).ids, truncated=False)
    cut = encode(" ".join(["the"] * (room + 1)))
    assert (len(cut), cut.truncated) == (MAX_LENGTH, True)


def test_nul_at_the_end_vanishes(pair: Pair) -> None:
    encode, _ = pair
    assert encode("the\0\0") == encode("the")
    assert encode("the " * 100_000 + "\0") == encode("the " * 100_000)


def tokenizer_with(change: Callable[[Tokenizer], object]) -> Tokenizer:
    tokenizer = byte_level()
    change(tokenizer)
    return tokenizer


def set_splitter(splitter: pre_tokenizers.PreTokenizer) -> Callable[[Tokenizer], None]:
    def change(tokenizer: Tokenizer) -> None:
        tokenizer.pre_tokenizer = splitter

    return change


def set_normalizer(normalizer: normalizers.Normalizer) -> Callable[[Tokenizer], None]:
    def change(tokenizer: Tokenizer) -> None:
        tokenizer.normalizer = normalizer

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_splitter(pre_tokenizers.ByteLevel(use_regex=False)),
        set_splitter(pre_tokenizers.Metaspace()),
        set_splitter(
            pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.ByteLevel()])
        ),
        set_normalizer(normalizers.Replace("the movie", "it")),
        set_normalizer(normalizers.Replace(Regex("[a-z]"), "!")),
        set_normalizer(normalizers.Replace(Regex("[a-z] [a-z]"), "")),
        set_normalizer(normalizers.Sequence([normalizers.NFC(), normalizers.Prepend("the")])),
        lambda tokenizer: tokenizer.add_tokens(["new york"]),
        lambda tokenizer: tokenizer.add_tokens([AddedToken("a\u00a0b", normalized=True)]),
    ],
)
def test_no_cut_without_a_certain_position(change: Callable[[Tokenizer], object]) -> None:
    assert word_end(tokenizer_with(change)) is None


def test_no_cut_within_an_added_token() -> None:
    expression = word_end(tokenizer_with(lambda tokenizer: tokenizer.add_tokens(["u.s"])))
    assert expression is not None
    assert not expression.search("u.s.")
    assert expression.search("u,s")


def test_a_tokenizer_without_a_sure_cut_reads_the_whole_text(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(lambda tokenizer: tokenizer.add_tokens(["the the"]))
    write_bundle(tmp_path / "bundle", tokenizer=tokenizer)
    encoded = Encoder(open_bundle(tmp_path / "bundle")).encode("the " * 1_001)
    assert encoded == plain(tokenizer)("the " * 1_001)


def test_a_limit_that_leaves_no_room(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    bundle.edit_text(max_length=2)
    with pytest.raises(ModelError, match="leaves no room for a token"):
        Encoder(open_bundle(tmp_path / "bundle"))
