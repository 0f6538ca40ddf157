"""The text rules of a fastai 2 learner around a transformers tokenizer.

The tokenizer is an attribute of a transform, usually of the user's own. Its code is in the file
when cloudpickle stored it by value (fastai 2.8.1 and later); else only its attributes are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fastai_deploy.learner.embedded import MAX_NAMES, Code, class_bodies, read_code
from fastai_deploy.learner.reading.values import Call, Global
from fastai_deploy.learner.reading.views import (
    attribute,
    attributes,
    class_of,
    elements,
    lookup,
    named_entries,
)
from fastai_deploy.learner.text.found import Tokenizer, fast_json
from fastai_deploy.learner.text.rules import TextRules, length_of
from fastai_deploy.learner.unproven import Unproven
from fastai_deploy.learner.words import words

# Methods that change a text; a transform that uses one before the tokenizer is not the plain way.
CHANGES_TEXT = words(
    """
    lower upper casefold title strip lstrip rstrip replace sub translate normalize unescape
    fix_text clean split join removeprefix removesuffix
    """
)
_ASSUMED = (
    "its code is not in the file; it is taken to call the tokenizer with special tokens and to cut "
    "the text at the end"
)
PLAIN_CLASSES = frozenset({"ToTensor", "ColReader", "AttrGetter", "ItemGetter"})


def rules_v2(calls: Iterable[Call], tokenizer: Tokenizer) -> TextRules:
    """The rules of a learner of fastai 2."""
    calls = tuple(calls)
    holder = _holder(calls, tokenizer)
    own = attributes(holder)
    code = _code(calls, holder)
    limit = _truncation(tokenizer) or length_of(own, tokenizer)
    name = code.name if code is not None and _is_function(holder) else class_of(holder)
    specials = _adds_specials(code)
    unproven: tuple[Unproven, ...] = ()
    if code is None:
        unproven = (Unproven(f"the transform {name or ''}".strip(), _ASSUMED, part="text"),)
    return TextRules(
        steps=(),
        prefix_space=False,
        max_length=limit,
        rules=tuple(
            filter(
                None,
                (
                    f"the tokenizer is called by {name}" if name else "",
                    "special tokens around the text" if specials is not False else "",
                    f"cut to {limit} tokens, special tokens included" if limit else "",
                ),
            )
        ),
        unproven=unproven,
        problem=_problem(calls, holder, code, specials=specials),
    )


def _holder(calls: Iterable[Call], tokenizer: Tokenizer) -> Call | None:
    """The object of which the tokenizer is an attribute, or the function that uses it by name."""
    for call in calls:
        if call.states and call is not tokenizer.node:
            own = attributes(call)
            if any(value is tokenizer.node for value in own.values()):
                return call
    for call in calls:
        match call:
            case Call(
                func=Global(name="_function_setstate"), args=(Call() as function, (_, slots))
            ):
                if any(each is tokenizer.node for each in _names_of(slots)):
                    return function
    return None


def _names_of(state: object) -> list[object]:
    """What a function stored by value finds under global names and in its closure."""
    closure = lookup(state, "__closure__")
    cells = closure[:MAX_NAMES] if isinstance(closure, tuple) else ()
    return [
        *named_entries(lookup(state, "__globals__")).values(),
        *(value for cell in cells if isinstance(cell, Call) for value in cell.args[:1]),
    ]


def _is_function(holder: Call | None) -> bool:
    return read_code(holder) is not None


def _code(calls: Iterable[Call], holder: Call | None) -> Code | None:
    """The code of the method that turns a text into ids, where the file holds it."""
    if holder is None or _is_function(holder):
        return read_code(holder)
    body: Mapping[str, object] = class_bodies(calls).get(id(holder.func), {})
    for method in ("encodes", "__call__"):
        found = read_code(body.get(method))
        if found is not None:
            return found
    return None


def _truncation(tokenizer: Tokenizer) -> int | None:
    """The length at which a fast tokenizer cut the last text that it was given."""
    made = fast_json(tokenizer.attributes)
    truncation = made.get("truncation") if made is not None else None
    length = truncation.get("max_length") if isinstance(truncation, dict) else None
    return length if type(length) is int and length > 0 else None


def _adds_specials(code: Code | None) -> bool | None:
    """Whether the transform's code adds special tokens; None when it is not in the file."""
    if code is None:
        return None
    if "add_special_tokens" in code.keywords:
        return None
    return not ("tokenize" in code.names and "build_inputs_with_special_tokens" not in code.names)


def _problem(
    calls: Iterable[Call], holder: Call | None, code: Code | None, *, specials: bool | None
) -> str:
    if holder is None:
        return "no transform in its pipeline holds the tokenizer"
    if code is not None:
        changed = sorted(code.names & CHANGES_TEXT)
        if changed:
            return f"its transform changes texts before the tokenizer ({changed[0]}())"
        if "add_special_tokens" in code.keywords or specials is False:
            return "its transform may leave special tokens out"
        if "padding" in code.keywords and "max_length" in code.texts:
            return "its transform pads every text to the full length"
    other = _other_transform(calls, holder)
    return f"its texts go through {other} before the tokenizer" if other else ""


def _is_by(transform: object, holder: Call) -> bool:
    """Whether a transform is the holder of the tokenizer, or was made from it."""
    return transform is holder or attribute(transform, "encodes", "_f") is holder


def _other_transform(calls: Iterable[Call], holder: Call) -> str | None:
    """A transform of the user's that a text given to ``predict`` meets beside the tokenizer.

    fastai notes the type after each transform; for a text it begins with the first transform
    whose input was text, so that those which read a row of the table are left out.
    """
    for call in calls:
        cls = class_of(call)
        if cls is None or cls.name != "TfmdLists":
            continue
        own = attributes(call)
        transforms = elements(attribute(own.get("tfms"), "fs"))
        if not any(_is_by(item, holder) for item in transforms):
            continue
        types = elements(own.get("types"))
        text = Global("builtins", "str")
        first = next((i for i, found in enumerate(types) if found == text), len(transforms) - 1)
        for item in transforms[first:]:
            found = class_of(item)
            if not _is_by(item, holder) and found is not None and found.name not in PLAIN_CLASSES:
                named = attributes(item).get("_name")
                return named if isinstance(named, str) else found.name
        return None
    return None
