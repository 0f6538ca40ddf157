"""The notebook cell that writes a golden file: the learner's own answers, from ``learn.predict``.

It runs in fastai 1 and 2, and asks a few texts of the user's and those that show what the file does
not: a short one, an empty one, one that spells out special tokens, and texts that are too long,
whose two halves differ so that it shows which of them the learner reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from fastai_deploy.learner.anatomy import Anatomy
from fastai_deploy.learner.text.found import Tokenizer
from fastai_deploy.learner.text.rules import blank_residue

FILE = "golden.jsonl"
_SPECIAL = (("cls", "bos"), ("sep", "eos"), ("pad",), ("unk",))
_MOST_LONG = 3
_USUAL_LENGTH = 512  # tokens
_MOST_WORDS = 16_384
_LONGEST_SPECIAL = 20  # characters

_CELL = """\
import json; file = open("{file}", "w", encoding="utf-8")
mine = ["A text of your own.", "Another, of another label.", "And a third."]
long = [" ".join([a] * {length} + [b] * {length}) for a, b in zip(mine, mine[::-1])]
for text in [*mine, {others}, *long]:
    try: label, _, p = learn.predict(text)
    except Exception as error: row = {{"error": repr(error)}}
    else: row = {{{row}}}
    print(json.dumps({{"text": text, **row}}), file=file, flush=True)
"""


def golden_cell(anatomy: Anatomy) -> str:
    """The cell for a learner: eight lines of Python."""
    others = ", ".join(map(ascii, _short_texts(anatomy)))
    return _CELL.format(file=FILE, length=_length(anatomy), others=others, row=_row(anatomy))


def telling_texts(anatomy: Anatomy, mine: Sequence[str]) -> list[str]:
    """The texts that the cell asks beside ``mine``: of those at least one."""
    length = _length(anatomy)
    pairs = zip(mine, mine[::-1], strict=True)
    long = [" ".join([a] * length + [b] * length) for a, b in islice(pairs, _MOST_LONG)]
    return [*_short_texts(anatomy), *long]


def _short_texts(anatomy: Anatomy) -> list[str]:
    special = _special_tokens(anatomy.tokenizer)
    return [
        "ok",
        *([""] if _answers_blank(anatomy.tokenizer) else ()),
        *([f"{special[0]} a {' '.join(special[1:])}"] if special else ()),
    ]


def _row(anatomy: Anatomy) -> str:
    """What is written of an answer: with an unknown loss, fastai may not know the label."""
    loss = anatomy.loss
    if loss.raw or loss.assumed:
        return f'"{"scores" if loss.raw else "probabilities"}": p.tolist()'
    predicted = "str(label)"
    if anatomy.task == "multi-label":
        predicted = "[*map(str, label)]" if anatomy.fastai != 1 else "label.obj"
    return f'"predicted": {predicted}, "probabilities": p.tolist()'


def _answers_blank(tokenizer: Tokenizer | None) -> bool:
    """Whether an empty text has an answer: some tokenizers put a random token in its place."""
    return tokenizer is None or blank_residue(tokenizer) is None


def _special_tokens(tokenizer: Tokenizer | None) -> list[str]:
    """A few special tokens of the tokenizer; none that a terminal or a line cannot take."""
    found = []
    for roles in _SPECIAL:
        held = tokenizer.special if tokenizer else {}
        text = next((held[role].text for role in roles if role in held), "")
        if text and text.isascii() and text.isprintable() and len(text) <= _LONGEST_SPECIAL:
            found.append(text)
    return found


def _length(anatomy: Anatomy) -> int:
    """Words that are surely more tokens than the learner reads."""
    stated = anatomy.text.max_length if anatomy.text else None
    config = anatomy.transformer.config if anatomy.transformer else {}
    positions = config.get("max_position_embeddings")
    usual = positions if type(positions) is int and positions > 0 else _USUAL_LENGTH
    return min(stated or usual, _MOST_WORDS)
