"""fastai's rules on a text before its tokenizer, and on the words after it.

The rules of fastai 1 and 2 have the same names but differ. Each is reimplemented from its effect on
texts; tests compare it with fastai's own answers. Patterns run in linear time.
"""

from __future__ import annotations

import html
import re
from typing import Any, Callable, Dict, List, Match

Rule = Callable[[str], str]
WordRule = Callable[[List[str]], List[str]]

_REPLACED = (
    ("#39;", "'"), ("amp;", "&"), ("#146;", "'"), ("nbsp;", " "), ("#36;", "$"), ("\\n", "\n"),
    ("quot;", "'"), ("<br />", "\n"), ('\\"', '"'), ("<unk>", "xxunk"), (" @.@ ", "."),
    (" @-@ ", "-"),
)  # fmt: skip
_SPACES = re.compile(" {2,}")
_FOUR_ALIKE = re.compile(r"(\S)\1{3,}")
_THREE_ALIKE = re.compile(r"(\S)\1{2,}")
_FOUR_WORDS = re.compile(r"(\b\w+\W+)(\1{3,})")
_THREE_WORDS = re.compile(
    r"(?:\s|^)(?P<word>\w+)\s+(?P<more>(?:(?P=word)\s+)+)(?P=word)(?P<next>\s|\W|$)"
)
_SIGNS_1 = re.compile(r"([/#\n])")
_SIGNS_2 = re.compile(r"([/#\\])")
# A capital, and no lower-case letter up to the next white space; or no other capital.
_CAPITALS = re.compile(r"(\s|^)([A-Z][^a-z\s]*)(?=\s|$)")
_CAPITALIZED = re.compile(r"(\s|^)([A-Z][^A-Z\s]*)(?=\s|$)")


def _spell_out(text: str) -> str:
    """Replace leftovers of HTML and escapes by what they mean."""
    for old, new in _REPLACED:
        text = text.replace(old, new)
    return text


def _fix_html_1(text: str) -> str:
    text = _spell_out(text).replace(" @,@ ", ",").replace("\\", " \\ ")
    return _SPACES.sub(" ", html.unescape(text))


def _fix_html_2(text: str) -> str:
    return html.unescape(_spell_out(text).replace("...", " …"))


def _count_characters(found: Match[str]) -> str:
    return f" xxrep {len(found.group())} {found.group(1)} "


def _count_words_1(found: Match[str]) -> str:
    return f" xxwrep {len(found.group(2).split()) + 1} {found.group(1)} "


def _count_words_2(found: Match[str]) -> str:
    word, more, after = found.group("word", "more", "next")
    return f" xxwrep {len(more.split()) + 2} {word} {after}"


def _mark(mark: str) -> Callable[[Match[str]], str]:
    """Put a marker before a word of more than one character, and lower-case the word."""

    def replace(found: Match[str]) -> str:
        before, word = found.groups()
        return before + (mark if len(word) > 1 else "") + word.lower()

    return replace


_MARK_UP, _MARK_MAJ = _mark("xxup "), _mark("xxmaj ")


def _upper_words(words: List[str]) -> List[str]:
    """Put ``xxup`` before each word in capitals, and lower-case the word."""
    marked: List[str] = []
    for word in words:
        marked += ["xxup", word.lower()] if len(word) > 1 and word.isupper() else [word]
    return marked


def _capitalized_words(words: List[str]) -> List[str]:
    """Put ``xxmaj`` before each capitalized word; lower-case all words and drop empty ones."""
    marked: List[str] = []
    for word in words:
        if len(word) > 1 and word[0].isupper() and word[1:].islower():
            marked.append("xxmaj")
        if word:
            marked.append(word.lower())
    return marked


def _lowercase(text: str, *, add_bos: bool = True, add_eos: bool = False) -> str:
    return ("xxbos " if add_bos else "") + text.lower().strip() + (" xxeos" if add_eos else "")


def _wrap(text: str, *, before: str, after: str) -> str:
    return before + text + after


TEXT_RULES: Dict[str, Callable[..., str]] = {
    "drop-trailing-nul": lambda text: text.rstrip("\0"),
    "wrap": _wrap,
    "fastai1.fix_html": _fix_html_1,
    "fastai1.replace_rep": lambda text: _FOUR_ALIKE.sub(_count_characters, text),
    "fastai1.replace_wrep": lambda text: _FOUR_WORDS.sub(_count_words_1, text),
    "fastai1.spec_add_spaces": lambda text: _SIGNS_1.sub(r" \1 ", text),
    "fastai1.rm_useless_spaces": lambda text: _SPACES.sub(" ", text),
    "fastai2.fix_html": _fix_html_2,
    "fastai2.replace_rep": lambda text: _THREE_ALIKE.sub(_count_characters, text),
    "fastai2.replace_wrep": lambda text: _THREE_WORDS.sub(_count_words_2, text),
    "fastai2.spec_add_spaces": lambda text: _SIGNS_2.sub(r" \1 ", text),
    "fastai2.rm_useless_spaces": lambda text: _SPACES.sub(" ", text),
    "fastai2.replace_all_caps": lambda text: _CAPITALS.sub(_MARK_UP, text),
    "fastai2.replace_maj": lambda text: _CAPITALIZED.sub(_MARK_MAJ, text),
    "fastai2.lowercase": _lowercase,
    "fastai2.replace_space": lambda text: text.replace(" ", "\u2581"),
}
WORD_RULES: Dict[str, WordRule] = {
    "fastai1.replace_all_caps": _upper_words,
    "fastai1.deal_caps": _capitalized_words,
}


def text_rule(name: str, arguments: Dict[str, Any]) -> Rule:
    """The rule called ``name``. Raises KeyError for an unknown one."""
    rule = TEXT_RULES[name]
    return (lambda text: rule(text, **arguments)) if arguments else rule
