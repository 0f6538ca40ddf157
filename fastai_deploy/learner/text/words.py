"""How a fastai learner turns a text into ids by words: rules, a splitter, and a vocabulary.

This is the way of ULMFiT. What is here is what the file says; the rules themselves are in the
serving code (``runtime/fastai_rules.py``), and ``words.json`` of the bundle names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fastai_deploy.learner.code.objects import function_name
from fastai_deploy.learner.reading.values import Call, Global
from fastai_deploy.learner.reading.views import (
    class_of,
    elements,
    lookup,
    named_entries,
)
from fastai_deploy.learner.text.spacy_rules import Rules
from fastai_deploy.runtime.fastai_rules import TEXT_RULES, WORD_RULES

Splitter = Literal["spaCy", "spaces", "SentencePiece", "unknown"]
Step = tuple[str, dict[str, Any]]

UNKNOWN = 0  # the id of a word that is not in the vocabulary: fastai looks ids up in a dict of int
MAX_RULES = 100
MAX_WORDS = 2_000_000  # of a vocabulary; fastai keeps 60,000 unless it is asked for more
_PARTIAL = Global("functools", "partial")
_ARGUMENTS = frozenset({"add_bos", "add_eos"})


@dataclass(frozen=True, eq=False, repr=False)
class WordRules:
    """From a text to ids: ``before`` on the text, the splitter, ``after`` on the words.

    ``splitting`` are the splitter's rules where the file holds them; else they are those of
    ``language``, with ``marks`` never split. ``ids`` maps words to ids, of which there are
    ``size``; ``backwards`` turns the ids of a text round. ``described`` says all of it in words;
    ``assumptions`` what the file does not show. ``problem`` is why the rules cannot be served,
    empty when they can.
    """

    splitter: Splitter
    language: str | None = None
    before: tuple[Step, ...] = ()
    after: tuple[str, ...] = ()
    separator: str = " "
    splitting: Rules | None = None
    marks: tuple[str, ...] = ()
    ids: Mapping[str, int] = field(default_factory=dict)
    size: int = 0
    backwards: bool = False
    direction_known: bool = True
    described: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    problem: str = ""


class NotServed(Exception):
    """Why the text rules of a learner cannot be served; caught where they are put together."""


def text_steps(rules: Iterable[object], major: int) -> list[Step]:
    """The rules on the text, by name. Raises NotServed for one that is not fastai's own."""
    return [_step(rule, major) for rule in list(rules)[:MAX_RULES]]


def _step(rule: object, major: int) -> Step:
    """A rule of fastai's, perhaps with arguments given beforehand."""
    arguments: dict[str, Any] = {}
    if isinstance(rule, Call) and rule.func == _PARTIAL:
        state = rule.states[-1] if rule.states else None
        match state:
            case (_, (), given, _):
                arguments = dict(named_entries(given))
            case _:
                raise NotServed("a rule of its text pipeline has arguments that cannot be read")
        rule = rule.args[0] if rule.args else None
    name = f"fastai{major}.{rule.name}" if isinstance(rule, Global) else ""
    own = isinstance(rule, Global) and rule.module.startswith("fastai.text")
    if not own or name not in TEXT_RULES:
        raise NotServed(f"its texts go through a rule of the user's own ({name_of(rule)})")
    known = name == "fastai2.lowercase" and arguments.keys() <= _ARGUMENTS
    if arguments and not (known and all(type(value) is bool for value in arguments.values())):
        raise NotServed(f"the rule {name} has arguments that are not known")
    return name, arguments


def word_steps(rules: Iterable[object], major: int) -> list[str]:
    """The rules on the words, by name. Raises NotServed for one that is not fastai's own."""
    names = []
    for rule in list(rules)[:MAX_RULES]:
        name = f"fastai{major}.{rule.name}" if isinstance(rule, Global) else ""
        if name not in WORD_RULES or not str(rule).startswith("fastai.text"):
            raise NotServed(f"its words go through a rule of the user's own ({name_of(rule)})")
        names.append(name)
    return names


def name_of(value: object) -> str:
    """What a function or an object is called, as far as the file tells."""
    if isinstance(value, Global):
        return value.name
    return function_name(value) or str(class_of(value) or "a function")


def vocabulary(listed: Sequence[object], *, fake: bool = True) -> dict[str, int]:
    """Words to ids; of equal words the last counts, as in fastai.

    ``fake``: whether the words that only fill the vocabulary up can be found.
    Raises NotServed when a word is no text.
    """
    ids: dict[str, int] = {}
    if len(listed) > MAX_WORDS:
        raise NotServed(f"its vocabulary has {len(listed):,} words")
    for place, word in enumerate(listed):
        if not isinstance(word, str):
            raise NotServed("its vocabulary holds something that is no text")
        if fake or word != "xxfake":
            ids[word] = place
    if not ids:
        raise NotServed("its vocabulary is not in the file")
    return ids


def in_words(steps: Iterable[Step], after: Iterable[str]) -> list[str]:
    """The rules in order, as ``fdeploy inspect`` shows them."""
    shown = []
    for name, arguments in steps:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        shown.append(f"{name}({given})" if given else name)
    return [*shown, "the splitter", *after]


def texts(values: Iterable[object]) -> tuple[str, ...]:
    """Those of the values that are text."""
    return tuple(value for value in values if isinstance(value, str))


def processor(processors: Iterable[object], name: str) -> Call | None:
    """The object of the class called ``name``, among those that process items."""
    for value in processors:
        cls = class_of(value)
        if cls is not None and cls.name == name and isinstance(value, Call):
            return value
    return None


def listed_in(data: object, key: str) -> list[object]:
    """A list in the data of a learner of fastai 1."""
    return elements(lookup(data, key))
