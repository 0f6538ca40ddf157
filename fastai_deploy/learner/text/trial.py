"""Try a learner's text pipeline before using it, in a separate process with limits.

A tokenizer's JSON, a vocabulary or a pattern from a file is run by native code or by ``re``, which
may abort, panic or never finish on it. So the pipeline first gets every golden text, and texts that
are hard for patterns, in a disposable process (``trial_process``). A pipeline that passes is then
used in this one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from fastai_deploy.environments.limited_process import Limits, Stopped, ask
from fastai_deploy.errors import LearnerTooComplex, UnsupportedLearner
from fastai_deploy.learner.examine.anatomy import Anatomy
from fastai_deploy.learner.examine.unproven import RUNTIME
from fastai_deploy.learner.text.spacy_rules import PATTERNS
from fastai_deploy.learner.text.tokenizer import NO_LIMIT
from fastai_deploy.learner.text.tokenizer_json import HAND_IN, Json

PROCESS = "fastai_deploy.learner.text.trial_process"
# The base limits; a tokenizer of 17 MB (XLM-RoBERTa) gets ten times more.
SECONDS = 5  # of processor time; the learners in the tests take half a second
MEMORY = 512 << 20  # bytes
_PER_SECOND = 100_000  # characters of the pipeline and the texts per additional second
_PER_CHARACTER = 40  # bytes of memory per character
_TOKENS = 512  # length that texts are cut to if the learner does not say


def try_text(anatomy: Anatomy, texts: Sequence[str]) -> None:
    """Run the text pipeline of a convertible learner on ``texts`` in a separate process.

    Raises LearnerTooComplex if it crashes or takes more time or memory than any real one, and
    UnsupportedLearner if it cannot be built or fails on a text.
    """
    given = _pipeline(anatomy)
    if given is None:
        return
    called = "tokenizer" if "tokenizer" in given else "rules for splitting texts"
    size = len(json.dumps(given)) + sum(map(len, texts))
    limits = Limits(SECONDS + size // _PER_SECOND, MEMORY + _PER_CHARACTER * size)
    try:
        found = ask(PROCESS, {**given, "texts": list(texts)}, limits)
    except Stopped as error:
        raise LearnerTooComplex(
            f"the learner's {called}, tried on {len(texts)} texts, {error}",
            hint="the file is damaged or malicious; export the learner again",
        ) from error
    if found["problem"]:
        raise UnsupportedLearner(
            f"the learner's {called} cannot be used: {found['problem']}",
            hint=HAND_IN if "tokenizer" in given else RUNTIME,
        )


def _pipeline(anatomy: Anatomy) -> dict[str, Any] | None:
    """What the other process needs; None if no pattern and no tokenizer comes from the file."""
    if anatomy.ulmfit is not None:
        words = anatomy.ulmfit.words
        if words.splitting is None:
            return None
        before = [list(step) for step in words.before]
        patterns = [rule[0] for name, rule in words.splitting.items() if name in PATTERNS and rule]
        return {
            "before": before, "after": list(words.after), "rules": words.splitting,
            "patterns": patterns,
        }  # fmt: skip
    if anatomy.tokenizer is None or anatomy.text is None:
        return None
    serialized = anatomy.tokenizer_json()
    return {
        "tokenizer": json.dumps(serialized),
        "max_length": min(anatomy.text.max_length or _TOKENS, NO_LIMIT),
        "patterns": list(_patterns(serialized)),
    }


def _patterns(serialized: Json) -> Iterator[str]:
    """The regular expressions in a ``tokenizer.json``."""
    waiting = [serialized.get(part) for part in ("normalizer", "pre_tokenizer")]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(part.get("Regex"), str):
                yield part["Regex"]
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
