"""Check that the goldens prove what a learner's file does not, or print the cell that does."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

from fastai_deploy.errors import ParityError, UnprovenLearner
from fastai_deploy.learner.examine.anatomy import Anatomy
from fastai_deploy.learner.examine.unproven import RUNTIME, Part, Unproven, printable
from fastai_deploy.learner.examine.verdict import DEFINITIONS, users_classes
from fastai_deploy.learner.text.rules import blank_residue
from fastai_deploy.learner.text.tokenizer import Tokenizer
from fastai_deploy.parity.goldens import Case

FILE = "golden.jsonl"
_SPECIAL = (("cls", "bos"), ("sep", "eos"), ("pad",), ("unk",))
_MOST_LONG = 3
_USUAL_LENGTH = 512  # tokens
_MOST_WORDS = 16_384
_LONGEST_SPECIAL = 20  # characters
# What code that cleans texts is likely to change: markup, entities, capitals, accents, wide
# letters, emoji, numbers, links, mentions, repeated letters, white space.
_ODD = "<b>Café \uff41 &amp;</b>\n@me #x http://a.b  12 sooo GOOD \U0001f44d"

_CELL = """\
import json; file = open("{file}", "w", encoding="utf-8")
mine = ["A text of your own.", "Another, of another label.", "And a third."]
odd = {odd}
long = [" ".join([a] * {length} + [b] * {length}) for a, b in zip(mine, mine[::-1])]
for text in [*mine, odd, {others}, *long]:
    try: label, _, p = learn.predict(text)
    except Exception as error: row = {{"error": repr(error)}}
    else: row = {{{row}}}
    print(json.dumps({{"text": text, **row}}), file=file, flush=True)
"""


def golden_cell(anatomy: Anatomy) -> str:
    """The notebook cell for a learner: nine lines of Python."""
    others = ", ".join(map(ascii, _short_texts(anatomy)))
    return _CELL.format(
        file=FILE, odd=ascii(_ODD), length=_length(anatomy), others=others, row=_row(anatomy)
    )


def telling_texts(anatomy: Anatomy, mine: Sequence[str]) -> list[str]:
    """The texts that the cell answers in addition to ``mine``, which must not be empty."""
    length = _length(anatomy)
    pairs = zip(mine, mine[::-1], strict=True)
    long = [" ".join([a] * length + [b] * length) for a, b in islice(pairs, _MOST_LONG)]
    return [_ODD, *_short_texts(anatomy), *long]


def _short_texts(anatomy: Anatomy) -> list[str]:
    special = _special_tokens(anatomy.tokenizer)
    return [
        "ok",
        *([""] if _answers_blank(anatomy.tokenizer) else ()),
        *([f"{special[0]} a {' '.join(special[1:])}"] if special else ()),
    ]


def _names_labels(anatomy: Anatomy) -> bool:
    """Whether fastai knows the label of an answer: with an unknown loss, it may not."""
    return not (anatomy.loss.raw or anatomy.loss.assumed)


def _row(anatomy: Anatomy) -> str:
    """The answer's fields."""
    if not _names_labels(anatomy):
        return f'"{"scores" if anatomy.loss.raw else "probabilities"}": p.tolist()'
    predicted = "str(label)"
    if anatomy.task == "multi-label":
        predicted = "[*map(str, label)]" if anatomy.fastai != 1 else "label.obj"
    return f'"predicted": {predicted}, "probabilities": p.tolist()'


def _answers_blank(tokenizer: Tokenizer | None) -> bool:
    """Whether an empty text has an answer: some tokenizers replace it with a random token."""
    return tokenizer is None or blank_residue(tokenizer) is None


def _special_tokens(tokenizer: Tokenizer | None) -> list[str]:
    """A few special tokens of the tokenizer, printable and short enough for one line."""
    found = []
    for roles in _SPECIAL:
        held = tokenizer.special if tokenizer else {}
        text = next((held[role].text for role in roles if role in held), "")
        if text and text.isascii() and text.isprintable() and len(text) <= _LONGEST_SPECIAL:
            found.append(text)
    return found


def _length(anatomy: Anatomy) -> int:
    """A number of words that is certain to exceed the tokens that the learner reads."""
    stated = anatomy.text.max_length if anatomy.text else None
    config = anatomy.transformer.config if anatomy.transformer else {}
    positions = config.get("max_position_embeddings")
    usual = positions if type(positions) is int and positions > 0 else _USUAL_LENGTH
    return min(stated or usual, _MOST_WORDS)


_WIDTH = 79  # columns
_MOST_SHOWN = 12  # pieces of code that an error lists
_CONSEQUENCE = (
    "The answers may then be wrong, and fdeploy status, the try-it page and every answer say "
    '"unproven".'
)
_NOT_PROVEN = "the file does not prove how this learner computes its answers:"
_NOT_ALL_PROVEN = "the goldens do not prove every part of this learner:"
_NOT_NAMED = "no golden has the label that the learner itself names (predicted)"
_NOT_ASKED = "no golden text is longer than {:,} tokens, so how it cuts such texts is assumed"


@dataclass(frozen=True)
class Proof:
    """What must be proven about a learner, and what the user is willing to leave unproven.

    ``learner`` is the file, ``options`` the command-line options that name other files.
    ``defined``: the user supplied the model's classes, which are run and need no other proof.
    ``waived``: the user passed ``--unproven``.
    """

    anatomy: Anatomy
    learner: Path
    options: tuple[str, ...] = ()
    defined: bool = False
    waived: bool = False

    @property
    def needed(self) -> tuple[Unproven, ...]:
        """The pieces of code that only the learner's own answers can prove."""
        found = self.anatomy.unproven
        return tuple(each for each in found if not (self.defined and each.part == "model"))

    def require_answers(self, cases: Sequence[Case]) -> None:
        """Raise UnprovenLearner if answers are needed and no golden has any."""
        if self.needed and not self.waived and not _answered(cases):
            raise self.refusal(_NOT_PROVEN, self.needed)

    def left(
        self, cases: Sequence[Case], is_cut: Callable[[str], bool], max_length: int
    ) -> tuple[Unproven, ...]:
        """What these goldens leave unproven; ``max_length`` is in tokens.

        Raises UnprovenLearner if anything is left and the user did not allow it.
        """
        if not _answered(cases):
            return self.needed
        answered = (case for case in cases if case.probabilities is not None or case.error)
        named = not _names_labels(self.anatomy) or any(case.predicted is not None for case in cases)
        missing: dict[Part, str] = {}
        if not any(is_cut(case.text) for case in answered):
            missing["text"] = _NOT_ASKED.format(max_length)
        if not named:
            missing["label"] = _NOT_NAMED
        left = tuple(
            replace(each, reason=missing[each.part], code="")
            for each in self.needed
            if each.part in missing
        )
        if left and not self.waived:
            raise self.refusal(_NOT_ALL_PROVEN, left)
        return left

    def refusal(self, message: str, items: Sequence[Unproven]) -> UnprovenLearner:
        """The error: what is unproven, and the two ways to continue."""
        cell = golden_cell(self.anatomy)
        hint = (
            "paste this cell into the notebook that has this learner as learn,\n"
            f"replace the texts in mine with a few of your own, and run it:\n\n{cell}\n"
            f"It writes {FILE}. Copy it here, then run:\n"
            f"  {self._command('--golden', FILE)}\n\n"
            f"Or convert it without proof:\n  {self._command('--unproven')}\n"
            f"{textwrap.fill(_CONSEQUENCE, _WIDTH)}"
        )
        return UnprovenLearner(
            "\n".join((message, listed(items))),
            hint=hint,
            unproven=[{k: printable(v) for k, v in asdict(each).items()} for each in items],
            cell=cell,
        )

    def disproved(self, error: ParityError) -> ParityError:
        """The error for goldens that the rebuilt model does not reproduce, with likely causes."""
        taken = self.anatomy.text.assumptions if self.anatomy.text else ()
        words = self.anatomy.ulmfit.words.assumptions if self.anatomy.ulmfit else ()
        assumed = [Unproven("assumed", printable(each), part="text") for each in (*taken, *words)]
        if not self.needed and not assumed:
            return ParityError(error.message, hint=self._other_model())
        return ParityError(
            f"{error.message}\nThe learner does something that its file does not show:\n"
            f"{listed((*self.needed, *assumed))}",
            hint=self._way_out(),
        )

    def _other_model(self) -> str:
        if self.anatomy.pretrained:
            return (
                "if the golden file has answers, leave them out: fdeploy then asks transformers' "
                "own pipeline. If it has none, this architecture cannot be converted exactly"
            )
        known = ", ".join(f"{k} {v}".strip() for k, v in self.anatomy.libraries.items())
        return (
            "fdeploy knows all the code in this learner, so the goldens probably come from another "
            "model, or from other library versions than the learner was trained "
            f"with ({known or 'unknown'}): export the learner and write the goldens in one session"
        )

    def _way_out(self) -> str:
        about_model = any(each.part == "model" for each in self.needed)
        classes = users_classes(self.anatomy.tree)
        if about_model and classes:
            file = shlex.quote(printable(self.learner.name))
            return f"{DEFINITIONS.format(', '.join(map(printable, classes)), file)}; or {RUNTIME}"
        return RUNTIME

    def _command(self, *more: str) -> str:
        name = printable(as_typed(self.learner))
        return " ".join(map(shlex.quote, ("fdeploy", "export", name, *self.options, *more)))


def as_typed(path: Path) -> str:
    """A path, relative to the current folder if it is inside."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def listed(items: Sequence[Unproven]) -> str:
    """The pieces of code, wrapped to fit a terminal of 80 columns."""
    lines = []
    for each in items[:_MOST_SHOWN]:
        message = str(replace(each, code=""))
        lines += textwrap.wrap(message, _WIDTH, initial_indent="  - ", subsequent_indent="    ")
        if each.code:
            code = printable(each.code)
            lines += textwrap.wrap(code, _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 12)
    if len(items) > _MOST_SHOWN:
        lines.append(f"  and {len(items) - _MOST_SHOWN} more")
    return "\n".join(lines)


def check_decoding(anatomy: Anatomy, cases: Sequence[Case], tolerance: float) -> None:
    """Raise ParityError if the learner predicts a label that its probabilities contradict."""
    names, threshold = anatomy.labels.names, anatomy.threshold
    for case in cases:
        if case.predicted is None or case.probabilities is None:
            continue
        given = dict(zip(names, case.probabilities, strict=True))
        least = max(given.values()) if threshold is None else threshold
        sure = {name for name, value in given.items() if value > least + tolerance}
        possible = {name for name, value in given.items() if value >= least - tolerance}
        predicted = set(case.predicted)
        if not sure <= predicted <= possible:
            named = printable(", ".join(case.predicted)) or "no label"
            meant = ", ".join(sorted(possible)) or "no label"
            raise ParityError(
                f"the learner answers {case.text[:60]!r} with {named}, but its probabilities give "
                f"{meant}: it chooses its labels by a rule that the file does not show",
                hint=RUNTIME,
            )


def unshown(
    cases: Sequence[Case], is_cut: Callable[[str], bool], anatomy: Anatomy
) -> tuple[str, ...]:
    """Residues: kinds of text on which the learner itself fails."""
    asked = "transformers' own pipeline" if anatomy.pretrained else "learn.predict"
    failed = [case for case in cases if case.error]
    kinds = {
        "an empty text": any(not case.text.strip() for case in failed),
        "a text that is too long": any(is_cut(case.text) for case in failed),
        "some texts": any(case.text.strip() and not is_cut(case.text) for case in failed),
    }
    return tuple(
        f"{kind}: {asked} fails; the bundle answers" for kind, found in kinds.items() if found
    )


def _answered(cases: Sequence[Case]) -> bool:
    return any(case.probabilities is not None for case in cases)
