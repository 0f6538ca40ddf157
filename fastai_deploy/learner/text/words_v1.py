"""The words of a fastai 1 learner: its ``Tokenizer``, its processors, its ``Vocab``."""

from __future__ import annotations

from fastai_deploy.learner.reading.values import Call, Global
from fastai_deploy.learner.reading.views import attribute, attributes, class_of, elements
from fastai_deploy.learner.roots import Root
from fastai_deploy.learner.text.words import (
    NotServed,
    Splitter,
    Step,
    WordRules,
    in_words,
    listed_in,
    name_of,
    processor,
    text_steps,
    texts,
    vocabulary,
    word_steps,
)

_DEFAULT_MARKS = ("xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxmaj", "xxup", "xxrep", "xxwrep")
_SPLITTERS: dict[str, Splitter] = {"SpacyTokenizer": "spaCy", "BaseTokenizer": "spaces"}
_PASSED = frozenset({"OpenFileProcessor", "TokenizeProcessor", "NumericalizeProcessor"})
_BACKWARDS = (
    "whether the learner reads texts backwards is not in the file: load_learner is told; here it "
    "reads them forwards"
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
    splitter = _splitter(tokenizer)
    try:
        return _rules(processors, tokenizing, tokenizer, splitter)
    except NotServed as reason:
        return WordRules(splitter, language=_language(tokenizer), problem=str(reason))


def _rules(
    processors: list[object], tokenizing: Call, tokenizer: Call, splitter: Splitter
) -> WordRules:
    for value in processors:
        if (cls := class_of(value)) is None or cls.name not in _PASSED:
            raise NotServed(f"its texts go through {name_of(value)}")
    own = attributes(tokenizer)
    if splitter == "unknown":
        raise NotServed(
            f"its texts are split by a class of the user's own ({name_of(own.get('tok_func'))})"
        )
    before: list[Step] = [("drop-trailing-nul", {}), *_wrapping(tokenizing)]
    before += text_steps(elements(own.get("pre_rules")), 1)
    after = word_steps(elements(own.get("post_rules")), 1)
    numericalizing = processor(processors, "NumericalizeProcessor")
    listed = elements(attribute(numericalizing, "vocab", "itos"))
    marks = texts(elements(own.get("special_cases"))) if "special_cases" in own else _DEFAULT_MARKS
    return WordRules(
        splitter,
        language=_language(tokenizer),
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
    """The marks around the text: its beginning, its field, its end."""
    own = attributes(tokenizing)
    before = "xxbos " if own.get("include_bos", True) is True else ""
    before += "xxfld 1 " if own.get("mark_fields") is True else ""
    after = " xxeos" if own.get("include_eos") is True else ""
    return [("wrap", {"before": before, "after": after})] if before or after else []


def _splitter(tokenizer: Call) -> Splitter:
    function = attribute(tokenizer, "tok_func")
    if isinstance(function, Global) and function.module.startswith("fastai.text"):
        return _SPLITTERS.get(function.name, "unknown")
    return "unknown"


def _language(tokenizer: Call) -> str | None:
    found = attribute(tokenizer, "lang")
    return found if isinstance(found, str) else None
