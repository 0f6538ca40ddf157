"""Asks transformers' own pipeline for a model's answers, in a process of its own.

    pipeline("text-classification", model=FOLDER)(text, top_k=None, truncation=True)

The process gets a copy of the folder that holds only what was read and checked: the configuration,
the tokenizer's files, and the weights as safetensors. It has no network, no token of the Hub and
no code from the folder. What it answers are the goldens, so the rebuilt model is compared with the
library that the model was made for, and never with itself.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastai_deploy import files
from fastai_deploy.environments.limited_process import Limits, Stopped, ask
from fastai_deploy.errors import LearnerTooComplex, UnsupportedLearner
from fastai_deploy.learner.examine.anatomy import Anatomy
from fastai_deploy.learner.examine.unproven import printable
from fastai_deploy.learner.pretrained.folder import (
    CONFIG,
    INDEX,
    TOKENIZER_CONFIG,
    WEIGHTS,
    Opened,
    inside,
)
from fastai_deploy.learner.reading.graph import Call, Global
from fastai_deploy.learner.reading.safetensors_file import SUFFIX, write_safetensors
from fastai_deploy.learner.text.rules import TextRules
from fastai_deploy.learner.text.tokenizer import NO_LIMIT, SpecialToken, Tokenizer, fast_vocabulary
from fastai_deploy.parity.goldens import Case

PROCESS = "fastai_deploy.learner.pretrained.pipeline_process"
SECONDS = 300  # of processor time, to start and to load a model
MEMORY = 4 << 30  # bytes of address space, on top of the weights
_PER_TEXT = 2_000_000  # parameters per second of processor time for a text; a slow core does 10x
_COPIES = 6  # of the weights, in float32: mapped, converted, and while they are merged
# No request, and nothing from the user's own cache of models, code and tokens.
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
# Settings that say how the library should compute, or where it should read, on another machine.
_MACHINE = (
    "_attn_implementation", "attn_implementation", "_experts_implementation", "_name_or_path",
    "use_kernels", "fusion_config", "task_specific_params", "device_map",
)  # fmt: skip
_PATHS = ("_file", "name_or_path")
CHOOSE_TOKENIZER = (
    "save the tokenizer as a fast one where the model was trained: "
    "AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)"
)

# What to do about a setting that the problem names.
_CHANGE_SETTING = {
    "truncation_side": 'set "truncation_side": "right" in tokenizer_config.json, which changes the '
    "answers to long texts: check them with fdeploy evaluate",
    "split_special_tokens": 'set "split_special_tokens": false in tokenizer_config.json, which '
    "changes the answers to texts with special tokens",
}


@dataclass(frozen=True)
class Question:
    """A staged folder, and texts for its model; ``more``: add texts that show its tokenizer."""

    folder: Path
    texts: tuple[str, ...]
    more: bool = False


@dataclass(frozen=True)
class Answer:
    """What the pipeline says of a text: a probability for each label, or its error."""

    text: str
    probabilities: Mapping[str, float]
    error: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Asked:
    """A model, as the pipeline has it, and its answers.

    ``problem`` says why the pipeline could not be made; everything else is then empty.
    ``tokenizer`` is described by its class, its tokenizer.json and its special tokens.
    ``token_types`` are the types of the tokens before a text, of the text, and of those after it,
    or None if the model does not get them. ``longest`` is where texts are cut, in tokens.
    """

    problem: str
    architecture: str = ""
    tokenizer: Mapping[str, Any] | None = None
    token_types: tuple[tuple[int, ...], int, tuple[int, ...]] | None = None
    longest: int = 0
    answers: tuple[Answer, ...] = ()


@contextmanager
def staged(opened: Opened, anatomy: Anatomy) -> Iterator[Path]:
    """A copy of the folder with only what was read. Raises FileError or LearnerTruncated."""
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as place:
        folder = Path(place)
        config = dict(anatomy.transformer.config) if anatomy.transformer else {}
        for name in _MACHINE:
            config.pop(name, None)
        files.write(folder / CONFIG, json.dumps(config).encode())
        for name in opened.listing.tokenizer:
            held = opened.read(name)
            files.write(folder / name, _without_paths(held) if name == TOKENIZER_CONFIG else held)
        if any(name.endswith(SUFFIX) for name in opened.listing.weights):
            for name in opened.listing.weights:
                (folder / name).symlink_to(inside(opened.path, name))
            if opened.listing.index:
                files.write(folder / (WEIGHTS + INDEX), opened.read(opened.listing.index))
        else:
            write_safetensors(folder / WEIGHTS, anatomy.weights)
        yield folder


def _without_paths(config: bytes) -> bytes:
    """The tokenizer's settings without paths, which name files of the machine that wrote them."""
    held = json.loads(config.decode("utf-8-sig"))
    kept = {name: value for name, value in held.items() if not name.endswith(_PATHS)}
    return json.dumps(kept).encode()


def ask_pipeline(questions: Sequence[Question], *, weights: int, parameters: int) -> list[Asked]:
    """The answers of several models, in one process.

    ``weights`` is the size of the largest model in bytes, ``parameters`` the sum of all. Raises
    LearnerTooComplex if the process crashes or takes far more than such models need.
    """
    texts = max(len(question.texts) for question in questions)
    limits = Limits(
        SECONDS * len(questions) + texts * (1 + parameters // _PER_TEXT), MEMORY + _COPIES * weights
    )
    given = [
        {"folder": str(each.folder), "texts": list(each.texts), "more": each.more}
        for each in questions
    ]
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as home:
        try:
            found = ask(PROCESS, {"models": given}, limits, {**_OFFLINE, "HF_HOME": home})
        except Stopped as error:
            raise LearnerTooComplex(
                f"transformers' own pipeline, asked for {texts} texts, {error}",
                hint="the folder is damaged or malicious, or this machine has too little memory",
            ) from error
    return [_asked(each) for each in found["models"]]


def _asked(found: Mapping[str, Any]) -> Asked:
    if found["problem"]:
        return Asked(found["problem"])
    types = found["token_types"]
    return Asked(
        "",
        found["architecture"],
        found["tokenizer"],
        None if types is None else (tuple(types[0]), types[1], tuple(types[2])),
        found["longest"],
        tuple(Answer(each["text"], each["scores"], each["error"]) for each in found["answers"]),
    )


def proven_by_pipeline(
    opened: Opened, anatomy: Anatomy, cases: Sequence[Case], *, more: bool
) -> tuple[Anatomy, tuple[Case, ...]]:
    """The anatomy with the tokenizer that transformers builds, and the cases with its answers.

    A case that has an answer keeps it. ``more`` adds texts that show what the tokenizer does.
    Raises UnsupportedLearner if the pipeline cannot be made or differs from what fdeploy serves.
    """
    unanswered = tuple(case.text for case in cases if case.probabilities is None)
    with staged(opened, anatomy) as folder:
        [asked] = ask_pipeline(
            [Question(folder, unanswered, more)],
            weights=anatomy.weights_size,
            parameters=anatomy.parameters,
        )
    return with_tokenizer(anatomy, asked), answered_by(asked, anatomy, cases)


def with_tokenizer(anatomy: Anatomy, asked: Asked) -> Anatomy:
    """The anatomy with the tokenizer of the pipeline. Raises UnsupportedLearner."""
    wanted = anatomy.transformer.cls.name if anatomy.transformer else ""
    if asked.problem or asked.tokenizer is None:
        raise UnsupportedLearner(
            f"transformers' own pipeline cannot be made from this folder: {asked.problem}",
            hint="correct the folder until transformers.pipeline('text-classification', model=DIR) "
            "answers a text",
        )
    if asked.architecture != wanted:
        raise UnsupportedLearner(
            f"config.json says {wanted}, but transformers makes a {asked.architecture} of it",
            hint="correct architectures or model_type in config.json",
        )
    held = asked.tokenizer
    if held["problem"]:
        raise UnsupportedLearner(
            f"the tokenizer ({held['class']}) cannot be served: {held['problem']}",
            hint=next(
                (way for name, way in _CHANGE_SETTING.items() if name in held["problem"]),
                CHOOSE_TOKENIZER,
            ),
        )
    limit = held["max_length"]
    serialized = json.loads(held["json"])
    tokenizer = Tokenizer(
        cls=Global("transformers", held["class"]),
        kind="fast",
        era="fast",
        node=Call(None, ()),
        attributes={},
        special={role: SpecialToken(text) for role, text in held["special"].items()},
        additional=(),
        vocabulary_size=len(fast_vocabulary(serialized)),
        max_length=limit if limit < NO_LIMIT else None,
        splitting=None,
        serialized=serialized,
    )
    text = TextRules(
        steps=(),
        prefix_space=False,
        max_length=asked.longest,
        token_types=asked.token_types,
        rules=(
            "as transformers' pipeline with truncation=True",
            f"cut at the end to {asked.longest:,} tokens, including special tokens",
        ),
    )
    return replace(anatomy, tokenizer=tokenizer, text=text)


def answered_by(asked: Asked, anatomy: Anatomy, cases: Sequence[Case]) -> tuple[Case, ...]:
    """The cases with the pipeline's answers, then the texts that it was asked besides.

    Raises UnsupportedLearner if it failed on every text.
    """
    names = anatomy.labels.names
    given = {each.text: each for each in asked.answers}
    listed = [case.text for case in cases]
    errors = [each.error for each in asked.answers if each.error]
    if errors and len(errors) == len(asked.answers):
        raise UnsupportedLearner(
            f"transformers' own pipeline fails on every text: {printable(errors[0])}",
            hint="correct the folder until transformers.pipeline('text-classification', model=DIR) "
            "answers a text",
        )

    def complete(case: Case) -> Case:
        found = given.get(case.text)
        if case.probabilities is not None or found is None:
            return case
        if found.error:
            return replace(case, error=found.error)
        if found.probabilities.keys() != set(names):
            raise UnsupportedLearner(
                f"transformers' own pipeline answers with other labels than config.json has: "
                f"{', '.join(map(printable, list(found.probabilities)[:8]))}",
                hint="correct id2label in config.json",
            )
        return replace(case, probabilities=tuple(found.probabilities[name] for name in names))

    added = [Case(text, None, None, 0) for text in given if text not in listed]
    return tuple(complete(case) for case in (*cases, *added))
