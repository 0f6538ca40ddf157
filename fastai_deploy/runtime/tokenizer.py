"""Text to token ids, with the result of tokenizing the whole text but the work of a prefix."""

from __future__ import annotations

import json
import re
from typing import Any, List, Optional, Pattern

from tokenizers import Tokenizer

from .bundle import TOKENIZER, Bundle, ModelError
from .contract import Encoded

# Pre-tokenizers that always end a word between a letter or digit and any of the characters below:
# BertPreTokenizer and Whitespace split at punctuation and white space; the expression of ByteLevel
# matches letters, digits, other signs and white space separately.
_SPLITTING = ("BertPreTokenizer", "ByteLevel", "Whitespace")
# Normalizers that work character by character, or up to the next character that cannot combine
# with the previous one. White space and punctuation never combine.
_LOCAL = ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Strip", "StripAccents")
# One character class, and nothing around it.
_CLASS = re.compile(r"\[(?:[^\[\]\\]|\\.)+\]", re.DOTALL)
_SPACE = " \n\t"
_PUNCTUATION = ".,;:!?\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
# Python and the tokenizer may know different versions of Unicode. A sign that only one of them
# counts as a letter still ends a word before white space; before punctuation only these surely do.
_OLD_LETTERS = "0-9A-Za-z\u3041-\u3094\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"


def word_end(tokenizer: Any) -> Optional[Pattern[str]]:
    """An expression whose matches end where a text may be cut; None if no position is certain.

    Certain means: with this kind of tokenizer, the tokens of ``text[:match.end()]`` are the first
    tokens of ``text``. ``tokenizer`` is a ``tokenizers.Tokenizer``.
    """
    splitters = _components(tokenizer.pre_tokenizer, "pretokenizers")
    if not splitters or splitters[0]["type"] not in _SPLITTING:
        return None
    if not splitters[0].get("use_regex", True):
        return None
    normalizers = _components(tokenizer.normalizer, "normalizers")
    deleting = [each for each in normalizers if _deletes_characters(each)]
    if any(each["type"] not in _LOCAL for each in normalizers if each not in deleting):
        return None
    added = _added_characters(tokenizer)
    if any(char.isspace() for char in added):
        return None
    space = rf"[^\W_](?=[{_SPACE}])"
    signs = re.escape("".join(sign for sign in _PUNCTUATION if sign not in added))
    # If letters may be deleted, a sign may end up after a space and share its token.
    return re.compile(space if deleting or not signs else rf"{space}|[{_OLD_LETTERS}](?=[{signs}])")


def _deletes_characters(normalizer: Any) -> bool:
    """Whether it removes single characters anywhere, and does nothing else."""
    return bool(
        normalizer["type"] == "Replace"
        and not normalizer["content"]
        and _CLASS.fullmatch(normalizer["pattern"].get("Regex", ""))
    )


def _added_characters(tokenizer: Any) -> str:
    """The characters of added tokens: no text may be cut inside one of those."""
    contents = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    if tokenizer.normalizer is not None:
        contents += [tokenizer.normalizer.normalize_str(content) for content in contents]
    return "".join(contents)


def _components(component: Any, members: str) -> List[Any]:
    """The parts of a normalizer or pre-tokenizer in order, with sequences flattened."""
    if component is None:
        return []
    parts: List[Any] = []
    waiting = [json.loads(component.__getstate__())]
    while waiting:
        part = waiting.pop(0)
        if part["type"] == "Sequence":
            waiting = part[members] + waiting
        else:
            parts.append(part)
    return parts


__all__ = ["Encoded", "Encoder", "TokenizerFailed"]

# English has 4 to 5 characters per token, so one prefix of this size is nearly always enough.
_CHARACTERS_PER_TOKEN = 6
_GROWTH = 4


class TokenizerFailed(Exception):
    """The tokenizers library failed on a text; the cause is what it raised."""


class Encoder:
    """Turns texts into ids. Thread-safe; the work is done in Rust, without Python's lock.

    Raises ModelError if the tokenizer cannot be read or does not match the manifest.
    """

    def __init__(self, bundle: Bundle) -> None:
        tokenizer = _open_tokenizer(bundle)
        self._steps = [_STEPS[name] for name in bundle.steps]
        # Without offsets, if the library supports that: a quarter of the time on long texts.
        self._encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
        self._word_end = word_end(tokenizer)
        self._first_cut = bundle.max_length * _CHARACTERS_PER_TOKEN

    def encode(self, text: str) -> Encoded:
        """The ids of one text, from the shortest of a few prefixes that certainly gives them.

        A prefix that ends where a word ends gives the first tokens of the whole text; if they are
        more than the model takes, the rest of the text does not matter. Raises TokenizerFailed.
        """
        for step in self._steps:
            text = step(text)
        length = self._first_cut
        while self._word_end is not None and length < len(text):
            end = self._word_end.search(text, length)
            if end is None:
                break
            encoded = self._whole(text[: end.end()])
            if encoded.truncated:
                return encoded
            length = end.end() * _GROWTH
        return self._whole(text)

    def _whole(self, text: str) -> Encoded:
        try:
            encoding = self._encode([text])[0]
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic in Rust comes as a BaseException
            raise TokenizerFailed("the tokenizer failed on a text") from error
        return Encoded(encoding.ids, bool(encoding.overflowing))


def _drop_trailing_nul(text: str) -> str:
    return text.rstrip("\0")


def _prefix_space(text: str) -> str:
    return text if not text or text[0].isspace() else " " + text


_STEPS = {"drop-trailing-nul": _drop_trailing_nul, "prefix-space": _prefix_space}


def _open_tokenizer(bundle: Bundle) -> Any:
    try:
        tokenizer = Tokenizer.from_file(str(bundle.folder / TOKENIZER))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # Exception itself, or a panic in Rust
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{TOKENIZER} cannot be loaded: {reason}") from None
    if tokenizer.num_special_tokens_to_add(is_pair=False) >= bundle.max_length:
        raise ModelError(f"text.max_length of {bundle.max_length} leaves no room for a token")
    tokenizer.no_padding()
    tokenizer.enable_truncation(bundle.max_length)
    return tokenizer
