"""Text to word ids, as in fastai's own text learners: spaCy's rules without spaCy."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Mapping, Optional, Pattern, Sequence, Set, Tuple, Union

from .bundle import KIND_WORDS, WORDS, Bundle, ModelError
from .fastai_rules import WORD_RULES, text_rule
from .tokenizer import Encoded, Encoder

# Every sign that splits off requires a look at the whole rest of the word; a string with more signs
# or more characters is not a word in any vocabulary.
LONGEST_WORD = 1_000
MOST_SIGNS = 50
_CACHED_WORDS = 50_000
_CACHED_LENGTH = 40
_SPANS = re.compile(r"\S+|\s+")

SplitWords = Tuple[str, ...]


class SeparatorSplitter:
    """Splits at separators, keeping empty words."""

    def __init__(self, separator: str) -> None:
        self._separator = separator

    def split(self, text: str) -> List[str]:
        """The words of a text, in order."""
        return text.split(self._separator)


class RuleSplitter:
    """Splits by the rules of a language. Thread-safe.

    ``rules`` holds the patterns ``prefix``, ``suffix``, ``infix``, ``token_match`` and
    ``url_match``, each ``[pattern, flags]`` or null, and ``special``: a text to its parts.
    Raises ValueError or ``re.error`` for patterns that cannot be compiled.
    """

    def __init__(self, rules: Mapping[str, Any]) -> None:
        self._prefix = _compiled(rules["prefix"])
        self._suffix = _compiled(rules["suffix"])
        self._infix = _compiled(rules["infix"])
        self._whole = _compiled(rules["token_match"])
        self._url = _compiled(rules["url_match"])
        self._special: Dict[str, SplitWords] = {
            text: tuple(parts) for text, parts in rules["special"].items()
        }
        self._known: Dict[str, SplitWords] = {}
        self._sequences = self._find_sequences()

    def split(self, text: str) -> List[str]:
        """The words of a text, in order; white space beyond a single space is also a word."""
        words, spaces = self._split_spans(text, special=True)
        return self._join_sequences(words, spaces)

    def _split_spans(self, text: str, *, special: bool) -> Tuple[List[str], List[bool]]:
        """Words, and whether a single space follows each, which is then not a word itself."""
        words: List[str] = []
        spaces: List[bool] = []
        for found in _SPANS.finditer(text):
            span = found.group()
            if words and span[0] == " ":  # after a word, because the two kinds of spans alternate
                spaces[-1] = True
                span = span[1:]
            if span:
                parts = self._word(span) if special else self._split_word(span, special=False)
                words.extend(parts)
                spaces.extend([False] * len(parts))
        return words, spaces

    def _word(self, span: str) -> SplitWords:
        """The parts of a span without a change of white space, cached for spans seen before."""
        known = self._special.get(span) or self._known.get(span)
        if known is None:
            known = self._split_word(span, special=True)
            if len(span) <= _CACHED_LENGTH:
                if len(self._known) >= _CACHED_WORDS:
                    self._known = {}
                self._known[span] = known
        return known

    def _split_word(self, word: str, *, special: bool) -> SplitWords:
        """The parts of a span: what splits off at the start, the middle, and at the end."""
        if len(word) > LONGEST_WORD:
            return (word,)
        before: List[str] = []
        behind: List[str] = []
        for _ in range(MOST_SIGNS):
            if not word or self._stays(word, special=special):
                break
            front, end, last = self._peel(word, special=special)
            before += [word[:front]] if front else []
            behind += [word[len(word) - end :]] if end else []
            word = word[front : len(word) - end]
            if last:
                break
        return (*before, *self._split_inside(word, special=special), *reversed(behind))

    def _stays(self, word: str, *, special: bool) -> bool:
        whole = self._whole is not None and self._whole.match(word) is not None
        return whole or (special and word in self._special)

    def _peel(self, word: str, *, special: bool) -> Tuple[int, int, bool]:
        """How many characters split off at each end, and whether that was the last time."""
        front = _length(self._prefix, word)
        if front and special and word[front:] in self._special:
            return front, 0, True
        end = _length(self._suffix, word[front:])
        if end and special and word[:-end] in self._special:
            return 0, end, True
        if front + end > len(word):
            end = 0
        return front, end, not front and not end

    def _split_inside(self, word: str, *, special: bool) -> Sequence[str]:
        if not word:
            return ()
        if special and word in self._special:
            return self._special[word]
        if self._whole is not None and self._whole.match(word):
            return (word,)
        if self._url is not None and self._url.match(word):
            return (word,)
        parts: List[str] = []
        start = 0
        for found in self._infix.finditer(word) if self._infix is not None else ():
            if found.start() == 0:  # at the start it is not an infix
                continue
            parts += [word[start : found.start()], found.group()]
            start = found.end()
        return [part for part in (*parts, word[start:]) if part]

    def _find_sequences(self) -> Dict[str, List[SplitWords]]:
        """The special cases that the rules would split, by the first of their words.

        They are searched for again when all words are known: ``(c)`` in ``((c))``.
        """
        found: Dict[str, List[SplitWords]] = {}
        for text in self._special:
            affixed = (
                _length(self._prefix, text)
                or _length(self._suffix, text)
                or (self._infix is not None and self._infix.search(text))
                or " " in text
            )
            if affixed:
                words, _ = self._split_spans(text, special=False)
                found.setdefault(words[0], []).append(tuple(words))
        return found

    def _join_sequences(self, words: List[str], spaces: List[bool]) -> List[str]:
        """Words, with every sequence that forms a special case replaced by its parts."""
        matches = [
            (start, start + len(sequence))
            for start, word in enumerate(words)
            for sequence in self._sequences.get(word, ())
            if tuple(words[start : start + len(sequence)]) == sequence
        ]
        if not matches:
            return words
        # The longest first, of equal ones the first; none that overlaps an earlier one.
        matches.sort(key=lambda match: (match[0] - match[1], match[0]))
        chosen: Dict[int, int] = {}
        taken: Set[int] = set()
        for start, end in matches:
            if start not in taken and end - 1 not in taken:
                chosen[start] = end
            taken.update(range(start, end))
        joined: List[str] = []
        place = 0
        while place < len(words):
            end = chosen.get(place, place + 1)
            parts = None
            if place in chosen:
                parts = self._special.get(_text(words[place:end], spaces[place:end]))
            joined.extend(words[place:end] if parts is None else parts)
            place = end
        return joined


def _compiled(rule: Optional[Sequence[Any]]) -> Optional[Pattern[str]]:
    return None if rule is None else re.compile(rule[0], rule[1])


def _length(pattern: Optional[Pattern[str]], word: str) -> int:
    found = pattern.search(word) if pattern is not None else None
    return found.end() - found.start() if found else 0


def _text(words: Sequence[str], spaces: Sequence[bool]) -> str:
    """The text that the words came from, without the space after the last one."""
    joined = "".join(
        word + (" " if space else "")
        for word, space in zip(words, spaces)  # noqa: B905
    )
    return joined[:-1] if spaces[-1] else joined


FORMAT = 1
# English has 5 characters a word; a text beyond this many a token is cut before it is split.
_CHARACTERS_PER_TOKEN = 16


class WordTokenizer:
    """The text pipeline described by a ``words.json``. Thread-safe.

    Raises KeyError, TypeError, ValueError or ``re.error`` if the description is invalid.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        if document["format"] != FORMAT:
            raise ValueError("its format is unknown")
        self._before = [text_rule(name, arguments) for name, arguments in document["before"]]
        self._after = [WORD_RULES[name] for name in document["after"]]
        self._splitter = _splitter(document["splitter"])
        self._ids = {str(word): int(place) for word, place in document["ids"].items()}
        self._unknown = int(document["unknown"])
        self._backwards = bool(document["backwards"])
        self._step = int(document["step"])
        if self._step < 1:
            raise ValueError("its step is not a positive number")

    def split(self, text: str) -> List[str]:
        """The words of a text, in order."""
        for rule in self._before:
            text = rule(text)
        words = self._splitter.split(text)
        for word_rule in self._after:
            words = word_rule(words)
        return words

    def encode(self, text: str, max_length: int) -> Encoded:
        """The ids of a text in the order in which the model reads them, at most ``max_length``."""
        kept = self._kept(text, max_length * _CHARACTERS_PER_TOKEN)
        ids = [self._ids.get(word, self._unknown) for word in self.split(kept)]
        if self._backwards:
            ids.reverse()
        surplus = len(ids) - max_length
        if surplus > 0:
            ids = ids[-(-surplus // self._step) * self._step :]
        return Encoded(ids, truncated=surplus > 0 or len(kept) < len(text))

    def _kept(self, text: str, length: int) -> str:
        """The part of a text that is read last, in whole words."""
        if len(text) <= length:
            return text
        kept = text[:length] if self._backwards else text[-length:]
        words = kept.split(None, 1) if not self._backwards else kept.rsplit(None, 1)
        # One part is a word without end; its first or last piece stands for it.
        return words[0 if self._backwards else -1] if len(words) > 1 else kept


class WordEncoder:
    """Turns texts into ids. Thread-safe. Raises ModelError if ``words.json`` is invalid."""

    def __init__(self, bundle: Bundle) -> None:
        self._max_length = bundle.max_length
        try:
            document = json.loads((bundle.folder / WORDS).read_bytes())
            self._words = WordTokenizer(document)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{WORDS} cannot be used ({type(error).__name__}: {error})") from None

    def encode(self, text: str) -> Encoded:
        """The ids of one text, cut to the manifest's ``max_length``."""
        return self._words.encode(text, self._max_length)


def _splitter(described: Mapping[str, Any]) -> Union[RuleSplitter, SeparatorSplitter]:
    if described["kind"] == "separator":
        return SeparatorSplitter(described["separator"])
    if described["kind"] == "rules":
        return RuleSplitter(described["rules"])
    raise ValueError(f"its splitter is unknown: {described['kind']!r}")


def describe(
    before: Sequence[Any],
    splitter: Mapping[str, Any],
    after: Sequence[str],
    ids: Mapping[str, int],
    *,
    unknown: int,
    backwards: bool,
    step: int,
) -> Mapping[str, Any]:
    """The contents of ``words.json``; ``step`` is the model's, in tokens."""
    return {
        "format": FORMAT,
        "before": [list(each) for each in before],
        "splitter": dict(splitter),
        "after": list(after),
        "ids": dict(ids),
        "unknown": unknown,
        "backwards": backwards,
        "step": step,
    }


TextEncoder = Union[Encoder, WordEncoder]


def open_encoder(bundle: Bundle) -> TextEncoder:
    """The encoder for the manifest's ``text.kind``. Raises ModelError."""
    return WordEncoder(bundle) if bundle.kind == KIND_WORDS else Encoder(bundle)
