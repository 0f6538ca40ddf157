"""A model's answers, computed on this machine by the serving code.

served     the form that this machine's processor answers fastest with, as a server chooses it
float32    the float32 form, where another one is served
the learner's original pickle, if that is served, in a process of its own
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from fastai_deploy.bundle import read_bundle
from fastai_deploy.bundle.manifest import EXPORT_AGAIN, LOCK, REQUIREMENTS
from fastai_deploy.environments.requirements import read_requirements
from fastai_deploy.environments.serving_process import ask_learner
from fastai_deploy.environments.venv import Environments
from fastai_deploy.errors import ParityError, need_extra
from fastai_deploy.evaluation.metrics import Answer
from fastai_deploy.json_reader import read_object
from fastai_deploy.progress import Advanced, Reporter, Step
from fastai_deploy.runtime.bundle import FP32, TEXT_FILES, WORDS
from fastai_deploy.runtime.bundle import Bundle as ServedBundle
from fastai_deploy.runtime.contract import Outcome, Prediction
from fastai_deploy.runtime.golden_check import Predicting
from fastai_deploy.runtime.parity import answer

SERVED, FLOAT32 = "served", "float32"
_AT_ONCE = 128  # texts answered before the progress is reported


@dataclass(frozen=True)
class Column:
    """Answers to the labelled texts, in their order; None where there is none to judge.

    ``name`` is unique in an evaluation, ``what`` says what answered, ``version`` is empty if it has
    none.
    """

    name: str
    what: str
    version: str
    answers: tuple[Answer | None, ...]


def answers_of(
    model: Path,
    texts: Sequence[str],
    environments: Environments,
    report: Reporter,
    *,
    version: str,
    name: str = SERVED,
    float32: bool = False,
) -> Iterator[Column]:
    """The answers of a bundle or an unpacked artifact; with ``float32`` also those of that form.

    Raises FileError, ExtraMissing, RuntimeUnproven, or ParityError if the model does not reproduce
    its goldens.
    """
    manifest, _ = read_bundle(model)
    if manifest.runtime is not None:
        report(Step("starting the learner in a process of its own"))
        requirements = read_requirements(model / REQUIREMENTS)
        python = environments.interpreter(manifest.runtime.python, requirements, model / LOCK)
        rows = ask_learner(python, model, asdict(manifest.runtime), texts)
        answers = tuple(labelled_answer(row, manifest.labels, manifest.threshold) for row in rows)
        yield Column(name, "the learner's original pickle", version, answers)
        return
    need_extra("local", "numpy", "onnxruntime", "tokenizers")
    served = _load(model)
    yield Column(name, served.way, version, _ask(served.predictor, texts, name, report))
    if float32 and served.predictor.bundle.form.precision != FP32:
        exact = _load_float32(model)
        answers = _ask(exact.predictor, texts, FLOAT32, report)
        yield Column(FLOAT32, exact.way, version, answers)


def labelled_answer(
    probabilities: Sequence[float], labels: Sequence[str], threshold: float | None
) -> Answer:
    """An answer from the probabilities in the order of the labels."""
    chosen = answer(probabilities, threshold)
    return Answer(
        tuple(labels[place] for place in chosen), dict(zip(labels, probabilities, strict=True))
    )


@dataclass(frozen=True)
class _Loaded:
    """A predictor of the serving code, and what runs it."""

    predictor: Predicting
    way: str


def _load(model: Path) -> _Loaded:
    """The form that a server would choose here, verified against its goldens."""
    from fastai_deploy.runtime import hardware  # noqa: PLC0415 - numpy, onnxruntime
    from fastai_deploy.runtime.bundle import ModelError  # noqa: PLC0415
    from fastai_deploy.runtime.loading import load  # noqa: PLC0415

    found = hardware.detect()
    try:
        loaded = load(model, found, found.cores)
    except ModelError as error:
        raise ParityError(
            f"the model in {model} cannot be served: {error}", hint=EXPORT_AGAIN
        ) from error
    return _Loaded(loaded.predictor, loaded.way)


def _load_float32(model: Path) -> _Loaded:
    """The last form, which every processor can compute: float32."""
    from fastai_deploy.runtime import hardware  # noqa: PLC0415 - numpy, onnxruntime
    from fastai_deploy.runtime.backends import processor_backends  # noqa: PLC0415
    from fastai_deploy.runtime.bundle import open_bundle  # noqa: PLC0415
    from fastai_deploy.runtime.predictor import Predictor  # noqa: PLC0415
    from fastai_deploy.runtime.word_tokenizer import open_encoder  # noqa: PLC0415

    bundle, found = open_bundle(model), hardware.detect()
    *_, last = processor_backends(bundle, found, found.cores, alone=False, most_runs=1)
    return _Loaded(
        Predictor(last.bundle, open_encoder(bundle), last.open(), last.limits), last.name
    )


def _ask(
    predictor: Predicting, texts: Sequence[str], name: str, report: Reporter
) -> tuple[Answer, ...]:
    found: list[Answer] = []
    for start in range(0, len(texts), _AT_ONCE):
        found += (
            _answer(outcome, predictor.bundle.labels, predictor.bundle.threshold)
            for outcome in predictor.predict(texts[start : start + _AT_ONCE])
        )
        report(Advanced(f"asking {name}", len(found), len(texts), "texts"))
    return tuple(found)


def _answer(outcome: Outcome, labels: Sequence[str], threshold: float | None) -> Answer:
    if isinstance(outcome, Prediction):
        return labelled_answer([value for _, value in outcome.probabilities], labels, threshold)
    return Answer((), error=f"{outcome.code}: {outcome.message}")


def unknown_tokens(model: Path) -> Callable[[str], float | None]:
    """A function that returns the share of a text's tokens that the vocabulary lacks.

    It returns None if the model has no token for them, decides itself how to read a text, or if the
    tokenizers are not installed. Raises ParityError for a damaged bundle.
    """
    from fastai_deploy.runtime.bundle import ModelError, open_bundle  # noqa: PLC0415

    try:
        bundle = open_bundle(model)
        unknown = _unknown_id(bundle)
        if unknown is None or find_spec("tokenizers") is None:
            return lambda _text: None
        from fastai_deploy.runtime.word_tokenizer import open_encoder  # noqa: PLC0415

        encoder = open_encoder(bundle)
    except ModelError as error:
        raise ParityError(f"the bundle {model} is damaged: {error}", hint=EXPORT_AGAIN) from error

    def share(text: str) -> float | None:
        try:
            ids = encoder.encode(text).ids
        except Exception:  # noqa: BLE001 - the tokenizer's errors have no common base
            return None
        return sum(each == unknown for each in ids) / len(ids) if ids else None

    return share


def _unknown_id(bundle: ServedBundle) -> int | None:
    """The id of all words or pieces that are not in the vocabulary; None if there is none."""
    name = TEXT_FILES[bundle.kind]
    if name is None:
        return None
    document = read_object(bundle.folder / name, EXPORT_AGAIN).value
    if name == WORDS:
        return int(document["unknown"])
    model = document["model"]
    if model.get("unk_id") is not None:  # Unigram
        return int(model["unk_id"])
    token = model.get("unk_token")
    found = model["vocab"].get(token) if token and isinstance(model["vocab"], dict) else None
    return None if found is None else int(found)
