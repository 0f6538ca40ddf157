"""Text to token ids, as tokenizing the whole text gives them, without doing so for long texts."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer

from .bundle import TOKENIZER, Bundle, ModelError
from .encoded import Encoded
from .word_end import word_end

__all__ = ["Encoded", "Encoder", "TokenizerFailed"]

# English has 4 to 5 characters a token, so that one prefix of this size is nearly always enough.
_CHARACTERS_PER_TOKEN = 6
_GROWTH = 4


class TokenizerFailed(Exception):
    """The tokenizers library failed on a text; the cause is what it raised."""


class Encoder:
    """Turns texts into ids. Thread-safe; the work is done in Rust, without Python's lock.

    Raises ModelError when the tokenizer cannot be read or does not fit the manifest.
    """

    def __init__(self, bundle: Bundle) -> None:
        tokenizer = _open_tokenizer(bundle)
        self._steps = [_STEPS[name] for name in bundle.steps]
        # Without offsets, where the library has that: a quarter of the time on long texts.
        self._encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
        self._word_end = word_end(tokenizer)
        self._first_cut = bundle.max_length * _CHARACTERS_PER_TOKEN

    def encode(self, text: str) -> Encoded:
        """The ids of one text, from the shortest of a few prefixes that is sure to give them.

        A prefix that ends where a word ends gives the first tokens of the whole text; if they are
        more than the model takes, the rest of the text cannot matter. Raises TokenizerFailed.
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
