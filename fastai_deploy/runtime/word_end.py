"""Where a text may be cut so that the part before gives the first tokens of the whole."""

from __future__ import annotations

import json
import re
from typing import Any, List, Optional, Pattern

# Pre-tokenizers that end a word between a letter or digit and what follows it below, wherever they
# stand: BertPreTokenizer and Whitespace split at punctuation and white space; the expression of
# ByteLevel matches letters, digits, other signs and white space apart from each other.
_SPLITTING = ("BertPreTokenizer", "ByteLevel", "Whitespace")
# Normalizers that work character by character, or up to the next character that cannot combine
# with the one before it. White space and punctuation never combine.
_LOCAL = ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Strip", "StripAccents")
# One character class, and nothing around it.
_CLASS = re.compile(r"\[(?:[^\[\]\\]|\\.)+\]", re.DOTALL)
_SPACE = " \n\t"
_PUNCTUATION = ".,;:!?\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
# Python and the tokenizer may know different versions of Unicode. A sign that only one of them
# takes for a letter still ends before white space, but before punctuation only these surely do.
_OLD_LETTERS = "0-9A-Za-z\u3041-\u3094\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"


def word_end(tokenizer: Any) -> Optional[Pattern[str]]:
    """An expression whose matches end where a text may be cut; None if no place is sure.

    Sure means: for this kind of tokenizer, tokenizing ``text[:match.end()]`` gives a prefix of the
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
    # Where letters may be deleted, a sign may come to stand behind a space and share its token.
    return re.compile(space if deleting or not signs else rf"{space}|[{_OLD_LETTERS}](?=[{signs}])")


def _deletes_characters(normalizer: Any) -> bool:
    """Whether it takes out single characters, wherever they stand, and does nothing else."""
    return bool(
        normalizer["type"] == "Replace"
        and not normalizer["content"]
        and _CLASS.fullmatch(normalizer["pattern"].get("Regex", ""))
    )


def _added_characters(tokenizer: Any) -> str:
    """What added tokens are made of: within one of them, no text may be cut."""
    contents = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    if tokenizer.normalizer is not None:
        contents += [tokenizer.normalizer.normalize_str(content) for content in contents]
    return "".join(contents)


def _components(component: Any, members: str) -> List[Any]:
    """The parts of a normalizer or pre-tokenizer in order, sequences laid flat."""
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
