"""How a word-based fastai learner (ULMFiT) turns a text into ids, versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fastai_deploy.learner.examine.modules import Root
from fastai_deploy.learner.reading.graph import (
    Call,
    Global,
    attribute,
    attributes,
    class_of,
    elements,
    entries,
    lookup,
    named_entries,
)
from fastai_deploy.learner.text.spacy_rules import Rules, rules_in_file
from fastai_deploy.learner.user_code.objects import function_name
from fastai_deploy.runtime.fastai_rules import TEXT_RULES, WORD_RULES

Splitter = Literal["spaCy", "spaces", "SentencePiece", "unknown"]
Step = tuple[str, dict[str, Any]]

UNKNOWN = 0  # the id of a word that is not in the vocabulary: fastai looks ids up in a dict of int
MAX_RULES = 100
MAX_WORDS = 2_000_000  # of a vocabulary; fastai keeps 60,000 by default
_PARTIAL = Global("functools", "partial")
_ARGUMENTS = frozenset({"add_bos", "add_eos"})


@dataclass(frozen=True, eq=False, repr=False)
class WordRules:
    """From a text to ids: ``before`` on the text, the splitter, ``after`` on the words.

    ``splitting`` are the splitter's rules if the file holds them; otherwise they are those of
    ``language``, and ``marks`` are never split. ``ids`` maps words to ids, of which there are
    ``size``; ``backwards`` reverses the ids of a text. ``described`` says all of it in words;
    ``assumptions`` is what the file does not show. ``problem`` says why the rules cannot be served,
    and is empty if they can.
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
    """Why a learner's text rules cannot be served; caught where the rules are assembled."""


def text_steps(rules: Iterable[object], major: int) -> list[Step]:
    """The rules on the text, by name. Raises NotServed for one that is not fastai's."""
    return [_step(rule, major) for rule in list(rules)[:MAX_RULES]]


def _step(rule: object, major: int) -> Step:
    """One of fastai's rules, perhaps with bound arguments."""
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
        raise NotServed(f"its texts go through a user-defined rule ({name_of(rule)})")
    known = name == "fastai2.lowercase" and arguments.keys() <= _ARGUMENTS
    if arguments and not (known and all(type(value) is bool for value in arguments.values())):
        raise NotServed(f"the rule {name} has unknown arguments")
    return name, arguments


def word_steps(rules: Iterable[object], major: int) -> list[str]:
    """The rules on the words, by name. Raises NotServed for one that is not fastai's."""
    names = []
    for rule in list(rules)[:MAX_RULES]:
        name = f"fastai{major}.{rule.name}" if isinstance(rule, Global) else ""
        if name not in WORD_RULES or not str(rule).startswith("fastai.text"):
            raise NotServed(f"its words go through a user-defined rule ({name_of(rule)})")
        names.append(name)
    return names


def name_of(value: object) -> str:
    """The name of a function or an object, as far as the file says."""
    if isinstance(value, Global):
        return value.name
    return function_name(value) or str(class_of(value) or "a function")


def vocabulary(listed: Sequence[object], *, fake: bool = True) -> dict[str, int]:
    """Words to ids; of equal words the last one wins, as in fastai.

    ``fake``: whether the words that only pad the vocabulary can be looked up.
    Raises NotServed if a word is not text.
    """
    ids: dict[str, int] = {}
    if len(listed) > MAX_WORDS:
        raise NotServed(f"its vocabulary has {len(listed):,} words")
    for place, word in enumerate(listed):
        if not isinstance(word, str):
            raise NotServed("its vocabulary contains something that is not text")
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
    """The values that are text."""
    return tuple(value for value in values if isinstance(value, str))


def processor(processors: Iterable[object], name: str) -> Call | None:
    """The object of the class called ``name`` among the item processors."""
    for value in processors:
        cls = class_of(value)
        if cls is not None and cls.name == name and isinstance(value, Call):
            return value
    return None


def listed_in(data: object, key: str) -> list[object]:
    """A list in the data of a learner of fastai 1."""
    return elements(lookup(data, key))


_DEFAULT_MARKS = ("xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxmaj", "xxup", "xxrep", "xxwrep")
_SPLITTERS_v1: dict[str, Splitter] = {"SpacyTokenizer": "spaCy", "BaseTokenizer": "spaces"}
_PASSED = frozenset({"OpenFileProcessor", "TokenizeProcessor", "NumericalizeProcessor"})
_BACKWARDS = (
    "the file does not say whether the learner reads texts backwards, because load_learner decides "
    "it; forwards is assumed"
)


def words_v1(root: Root) -> WordRules:
    """The rules of a learner of fastai 1."""
    processors = listed_in(root.data, "x_proc")
    if processor(processors, "SPProcessor"):
        return WordRules("SentencePiece", problem=(
            "its texts are split by SentencePiece, which fdeploy cannot rebuild"
        ))  # fmt: skip
    tokenizing = processor(processors, "TokenizeProcessor")
    tokenizer = attribute(tokenizing, "tokenizer")
    if tokenizing is None or not isinstance(tokenizer, Call):
        return WordRules("unknown", problem="its texts do not go through fastai's Tokenizer")
    splitter = _splitter_v1(tokenizer)
    try:
        return _rules_v1(processors, tokenizing, tokenizer, splitter)
    except NotServed as reason:
        return WordRules(splitter, language=_language_v1(tokenizer), problem=str(reason))


def _rules_v1(
    processors: list[object], tokenizing: Call, tokenizer: Call, splitter: Splitter
) -> WordRules:
    for value in processors:
        if (cls := class_of(value)) is None or cls.name not in _PASSED:
            raise NotServed(f"its texts go through {name_of(value)}")
    own = attributes(tokenizer)
    if splitter == "unknown":
        raise NotServed(
            f"its texts are split by a user-defined class ({name_of(own.get('tok_func'))})"
        )
    before: list[Step] = [("drop-trailing-nul", {}), *_wrapping(tokenizing)]
    before += text_steps(elements(own.get("pre_rules")), 1)
    after = word_steps(elements(own.get("post_rules")), 1)
    numericalizing = processor(processors, "NumericalizeProcessor")
    listed = elements(attribute(numericalizing, "vocab", "itos"))
    marks = texts(elements(own.get("special_cases"))) if "special_cases" in own else _DEFAULT_MARKS
    return WordRules(
        splitter,
        language=_language_v1(tokenizer),
        before=tuple(before),
        after=tuple(after),
        marks=marks,
        ids=vocabulary(listed),
        size=len(listed),
        direction_known=False,
        described=tuple(in_words(before, after)),
        assumptions=(_BACKWARDS,),
    )


def _wrapping(tokenizing: Call) -> list[Step]:
    """The marks around the text: beginning, field and end."""
    own = attributes(tokenizing)
    before = "xxbos " if own.get("include_bos", True) is True else ""
    before += "xxfld 1 " if own.get("mark_fields") is True else ""
    after = " xxeos" if own.get("include_eos") is True else ""
    return [("wrap", {"before": before, "after": after})] if before or after else []


def _splitter_v1(tokenizer: Call) -> Splitter:
    function = attribute(tokenizer, "tok_func")
    if isinstance(function, Global) and function.module.startswith("fastai.text"):
        return _SPLITTERS_v1.get(function.name, "unknown")
    return "unknown"


def _language_v1(tokenizer: Call) -> str | None:
    found = attribute(tokenizer, "lang")
    return found if isinstance(found, str) else None


_CORE = "fastai.text.core"
_SPLITTERS_v2: dict[str, Splitter] = {
    "SpacyTokenizer": "spaCy",
    "BaseTokenizer": "spaces",
    "SentencePieceTokenizer": "SentencePiece",
}
_TEXT = Global("builtins", "str")
_AFTER = frozenset({"ToTensor"})


def words_v2(calls: Iterable[Call]) -> WordRules:
    """The rules of a learner of fastai 2."""
    calls = tuple(calls)
    pipelines = [call for call in calls if _is(call, "fastai.data.core", "TfmdLists")]
    found: dict[int, tuple[Call, list[object], list[object]]] = {}
    for pipeline in pipelines:
        own = attributes(pipeline)
        transforms = elements(attribute(own.get("tfms"), "fs"))
        for transform in transforms:
            if isinstance(transform, Call) and _is(transform, _CORE, "Tokenizer"):
                found[id(transform)] = (transform, transforms, elements(own.get("types")))
    if len(found) != 1:
        many = "more than one fastai Tokenizer" if found else "no fastai Tokenizer"
        return WordRules("unknown", problem=f"its text pipeline has {many}")
    tokenizer, transforms, types = next(iter(found.values()))
    splitter = _splitter_v2(tokenizer)
    try:
        return _rules_v2(calls, tokenizer, transforms, types)
    except NotServed as reason:
        return WordRules(splitter, language=_language_v2(tokenizer), problem=str(reason))


def _rules_v2(
    calls: tuple[Call, ...], tokenizer: Call, transforms: list[object], types: list[object]
) -> WordRules:
    splitter, splitting = _splitter_v2(tokenizer), None
    inner = attribute(tokenizer, "tok")
    if splitter == "SentencePiece":
        raise NotServed("its texts are split by SentencePiece, which fdeploy cannot rebuild")
    if splitter == "unknown":
        raise NotServed(f"its texts are split by a user-defined class ({name_of(inner)})")
    separator = attribute(inner, "split_char") if splitter == "spaces" else " "
    if not isinstance(separator, str) or not separator:
        raise NotServed("its texts are split at something that is not text")
    if splitter == "spaCy":
        rules = rules_in_file(calls)
        if isinstance(rules, str):
            raise NotServed(rules)
        splitting = rules
    before = text_steps(elements(attributes(tokenizer).get("rules")), 2)
    numericalize, backwards = _around(tokenizer, transforms, types)
    return WordRules(
        splitter,
        language=_language_v2(tokenizer),
        before=tuple(before),
        separator=separator,
        splitting=splitting,
        marks=texts(elements(attribute(inner, "special_toks"))),
        ids=_ids(numericalize),
        size=len(elements(attributes(numericalize).get("vocab"))),
        backwards=backwards,
        described=(*in_words(before, ()), *(("the ids are reversed",) if backwards else ())),
    )


def _around(tokenizer: Call, transforms: list[object], types: list[object]) -> tuple[Call, bool]:
    """The transform that looks up ids, and whether it reverses them.

    fastai records the input type of each transform; a text passed to ``predict`` enters at the
    first one that takes text. Raises NotServed for any other transform on its way.
    """
    first = next((place for place, found in enumerate(types) if _takes_text(found)), 0)
    numericalize: Call | None = None
    backwards = False
    place = next(i for i, transform in enumerate(transforms) if transform is tokenizer)
    for transform in transforms[min(first, place) : place]:
        raise NotServed(f"its texts go through {_called(transform)} before the tokenizer")
    for transform in transforms[place + 1 :]:
        cls = class_of(transform)
        if isinstance(transform, Call) and _is(transform, "fastai.text.data", "Numericalize"):
            numericalize = transform
        elif numericalize is not None and _called(transform) == "reverse_text":
            backwards = not backwards
        elif cls is None or cls.name not in _AFTER:
            raise NotServed(f"its words go through {_called(transform)}")
    if numericalize is None:
        raise NotServed("its words are not looked up by fastai's Numericalize")
    return numericalize, backwards


def _takes_text(found: object) -> bool:
    return found == _TEXT or (isinstance(found, tuple) and _TEXT in found)


def _called(transform: object) -> str:
    """The name of a transform, or of the function that it was created from."""
    for holder in (transform, attribute(transform, "encodes")):
        for inner in attributes(holder).values():
            if isinstance(inner, Global) and inner.module.startswith("fastai.text"):
                return inner.name
    name = attributes(transform).get("_name")
    return name if isinstance(name, str) else name_of(transform)


def _ids(numericalize: Call) -> dict[str, int]:
    """The lookup table from the pickle, or built from the vocabulary."""
    own = attributes(numericalize)
    listed = elements(own.get("vocab"))
    known = vocabulary(listed)
    pairs = entries(own.get("o2i"))
    if not pairs:
        return known
    found: dict[str, int] = {}
    for word, place in pairs:
        if not isinstance(word, str) or type(place) is not int or not 0 <= place < len(listed):
            raise NotServed("its lookup table does not match its vocabulary")
        if place != UNKNOWN or listed[place] == word:  # looking up an unknown word adds it
            found[word] = place
    return found


def _splitter_v2(tokenizer: Call) -> Splitter:
    cls = class_of(attribute(tokenizer, "tok"))
    return (
        _SPLITTERS_v2.get(cls.name, "unknown")
        if cls is not None and cls.module == _CORE
        else "unknown"
    )


def _language_v2(tokenizer: Call) -> str | None:
    """The language of the spaCy pipeline, from its module's name: ``spacy.lang.en``."""
    pipe = attribute(tokenizer, "tok", "pipe")
    for value in pipe.args if isinstance(pipe, Call) else ():
        # A bound method, through getattr, has the pipeline among its arguments.
        for held in (value, *(value.args if isinstance(value, Call) else ())):
            cls = class_of(held)
            if cls is not None and cls.module.startswith("spacy.lang."):
                return cls.module.split(".")[2]
    return None


def _is(call: Call, module: str, name: str) -> bool:
    return class_of(call) == Global(module, name)
