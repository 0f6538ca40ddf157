"""The words of a fastai 2 learner: its ``Tokenizer`` and ``Numericalize`` transforms."""

from __future__ import annotations

from collections.abc import Iterable

from fastai_deploy.learner.reading.values import Call, Global
from fastai_deploy.learner.reading.views import attribute, attributes, class_of, elements, entries
from fastai_deploy.learner.text.spacy_rules import rules_in_file
from fastai_deploy.learner.text.words import (
    UNKNOWN,
    NotServed,
    Splitter,
    WordRules,
    in_words,
    name_of,
    text_steps,
    texts,
    vocabulary,
)

_CORE = "fastai.text.core"
_SPLITTERS: dict[str, Splitter] = {
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
        many = "more than one" if found else "no"
        return WordRules("unknown", problem=f"{many} fastai Tokenizer is in its text pipeline")
    tokenizer, transforms, types = next(iter(found.values()))
    splitter = _splitter(tokenizer)
    try:
        return _rules(calls, tokenizer, transforms, types)
    except NotServed as reason:
        return WordRules(splitter, language=_language(tokenizer), problem=str(reason))


def _rules(
    calls: tuple[Call, ...], tokenizer: Call, transforms: list[object], types: list[object]
) -> WordRules:
    splitter, splitting = _splitter(tokenizer), None
    inner = attribute(tokenizer, "tok")
    if splitter == "SentencePiece":
        raise NotServed("its texts are split by SentencePiece, which fdeploy cannot rebuild")
    if splitter == "unknown":
        raise NotServed(f"its texts are split by a class of the user's own ({name_of(inner)})")
    separator = attribute(inner, "split_char") if splitter == "spaces" else " "
    if not isinstance(separator, str) or not separator:
        raise NotServed("its texts are split at something that is no text")
    if splitter == "spaCy":
        rules = rules_in_file(calls)
        if isinstance(rules, str):
            raise NotServed(rules)
        splitting = rules
    before = text_steps(elements(attributes(tokenizer).get("rules")), 2)
    numericalize, backwards = _around(tokenizer, transforms, types)
    return WordRules(
        splitter,
        language=_language(tokenizer),
        before=tuple(before),
        separator=separator,
        splitting=splitting,
        marks=texts(elements(attribute(inner, "special_toks"))),
        ids=_ids(numericalize),
        size=len(elements(attributes(numericalize).get("vocab"))),
        backwards=backwards,
        described=(*in_words(before, ()), *(("the ids are turned round",) if backwards else ())),
    )


def _around(tokenizer: Call, transforms: list[object], types: list[object]) -> tuple[Call, bool]:
    """The transform that looks ids up, and whether they are turned round.

    fastai notes the type before each transform; a text that is given to ``predict`` enters at the
    first one that takes text. Raises NotServed for any other transform that it would meet.
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
    """The name of a transform, or of the function that it was made from."""
    for holder in (transform, attribute(transform, "encodes")):
        for inner in attributes(holder).values():
            if isinstance(inner, Global) and inner.module.startswith("fastai.text"):
                return inner.name
    name = attributes(transform).get("_name")
    return name if isinstance(name, str) else name_of(transform)


def _ids(numericalize: Call) -> dict[str, int]:
    """The look-up table as it was pickled, or made of the vocabulary."""
    own = attributes(numericalize)
    listed = elements(own.get("vocab"))
    known = vocabulary(listed)
    pairs = entries(own.get("o2i"))
    if not pairs:
        return known
    found: dict[str, int] = {}
    for word, place in pairs:
        if not isinstance(word, str) or type(place) is not int or not 0 <= place < len(listed):
            raise NotServed("its look-up table does not fit its vocabulary")
        if place != UNKNOWN or listed[place] == word:  # looking an unknown word up adds it
            found[word] = place
    return found


def _splitter(tokenizer: Call) -> Splitter:
    cls = class_of(attribute(tokenizer, "tok"))
    return (
        _SPLITTERS.get(cls.name, "unknown")
        if cls is not None and cls.module == _CORE
        else "unknown"
    )


def _language(tokenizer: Call) -> str | None:
    """The language of the spaCy pipeline, by the name of its module: ``spacy.lang.en``."""
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
