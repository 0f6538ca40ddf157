"""The texts of each kind of load, cut from running text to exact numbers of tokens."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

SEED = 20261125
EACH = 16  # texts of each length
MIXTURE = 64
SHORTEST, MEDIAN, SPREAD, LONGEST = 6, 32, 0.9, 400  # tokens; a log-normal, as reviews are
_TRIES = 1000

Encode = Callable[[str], Sequence[int]]


def loads(words: Sequence[str], encode: Encode, lengths: Sequence[int]) -> dict[str, list[str]]:
    """Texts by kind of load: one kind for each length in tokens, and the mixture."""
    chance = random.Random(SEED)  # noqa: S311  # the same texts each time
    found = {
        str(length): [text_of(length, words, encode, chance) for _ in range(EACH)]
        for length in lengths
    }
    return {**found, "mixture": mixture(MIXTURE, words, encode, chance)}


def mixture(number: int, words: Sequence[str], encode: Encode, chance: random.Random) -> list[str]:
    """Texts with log-normal lengths."""
    lengths = [
        min(LONGEST, max(SHORTEST, round(MEDIAN * chance.lognormvariate(0, SPREAD))))
        for _ in range(number)
    ]
    return [text_of(length, words, encode, chance) for length in lengths]


def text_of(length: int, words: Sequence[str], encode: Encode, chance: random.Random) -> str:
    """A passage of exactly ``length`` tokens, special ones included; ``words`` are in order."""
    for _ in range(_TRIES):
        start = chance.randrange(len(words))
        passage = list(words[start : start + length // 2])
        while len(passage) < length and start + len(passage) < len(words):
            found = len(encode(" ".join(passage))) if passage else 0
            if found == length:
                return " ".join(passage)
            if found > length:
                break
            passage.append(words[start + len(passage)])
    raise ValueError(f"no passage of {length} tokens")
