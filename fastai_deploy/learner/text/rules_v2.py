"""The text rules of a fastai 2 learner around a transformers tokenizer.

The tokenizer is an attribute of a transform, usually of the user's own. Its code is in the file
when cloudpickle stored it by value (fastai 2.8.1 and later), and then says where texts are cut;
else only attributes tell.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastai_deploy.learner.code.follow import Followed
from fastai_deploy.learner.code.objects import Objects
from fastai_deploy.learner.reading.values import Call
from fastai_deploy.learner.reading.views import attributes, class_of
from fastai_deploy.learner.text.found import Tokenizer, fast_json
from fastai_deploy.learner.text.rules import TextRules, length_of


def rules_v2(
    calls: Iterable[Call], tokenizer: Tokenizer, objects: Objects, followed: Followed
) -> TextRules:
    """The rules of a learner of fastai 2; ``followed`` is what its code shows of them."""
    holder = _holder(tuple(calls), tokenizer, objects)
    encoded, unproven = followed.encoded, followed.unproven
    if encoded is not None:
        limit = encoded.limit
    else:
        limit = _truncation(tokenizer) or length_of(attributes(holder), tokenizer)
    function = objects.function(holder)
    name = function.code.name if function is not None else class_of(holder)
    return TextRules(
        steps=(),
        prefix_space=False,
        max_length=limit,
        rules=tuple(
            filter(
                None,
                (
                    f"the tokenizer is called by {name}" if name else "",
                    "special tokens around the text",
                    f"cut to {limit} tokens, special tokens included" if limit else "",
                ),
            )
        ),
        unproven=unproven,
        problem="" if holder is not None else "no transform in its pipeline holds the tokenizer",
    )


def _holder(calls: Iterable[Call], tokenizer: Tokenizer, objects: Objects) -> Call | None:
    """The object of which the tokenizer is an attribute, or the function that uses it by name."""
    for call in calls:
        if call.states and call is not tokenizer.node:
            own = attributes(call)
            if any(value is tokenizer.node for value in own.values()):
                return call
    for call in calls:
        function = objects.function(call)
        if function is not None:
            around = (*function.globals.values(), *function.closure)
            if any(each is tokenizer.node for each in around):
                return call
    return None


def _truncation(tokenizer: Tokenizer) -> int | None:
    """The length at which a fast tokenizer cut the last text that it was given."""
    made = fast_json(tokenizer.attributes)
    truncation = made.get("truncation") if made is not None else None
    length = truncation.get("max_length") if isinstance(truncation, dict) else None
    return length if type(length) is int and length > 0 else None
