"""Text to ids by words, the way of fastai's own text learners: ``words.json`` says how.

    rules on the text -> words -> rules on the words -> ids, perhaps turned round

What is read first weighs least: the model's memory of it fades while the rest is read. Where a text
is too long, that is what is left out, in whole steps of the model, so that the steps that it pools
stay the same.
"""

from __future__ import annotations

import json
from typing import Any, List, Mapping, Sequence, Union

from .bundle import WORDS, Bundle, ModelError
from .encoding import Encoded
from .fastai_rules import WORD_RULES, text_rule
from .splitting import RuleSplitter, SeparatorSplitter

FORMAT = 1
# English has 5 characters a word; a text beyond this many a token is cut before it is split.
_CHARACTERS_PER_TOKEN = 16


class Words:
    """The text pipeline that a ``words.json`` describes. Thread-safe.

    Raises KeyError, TypeError, ValueError or ``re.error`` when the description is not sound.
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
            raise ValueError("its step is no positive number")

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
        """The part of a text that is read last, whole words of it."""
        if len(text) <= length:
            return text
        kept = text[:length] if self._backwards else text[-length:]
        words = kept.split(None, 1) if not self._backwards else kept.rsplit(None, 1)
        # One part is a word without end; its first or last piece stands for it.
        return words[0 if self._backwards else -1] if len(words) > 1 else kept


class WordEncoder:
    """Turns texts into ids. Thread-safe. Raises ModelError when ``words.json`` is not sound."""

    def __init__(self, bundle: Bundle) -> None:
        self._max_length = bundle.max_length
        try:
            document = json.loads((bundle.folder / WORDS).read_bytes())
            self._words = Words(document)
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
    """The content of ``words.json``; ``step`` is the model's, in tokens."""
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
