"""The parity gate: an endpoint or API must answer the goldens as the learner does."""

from __future__ import annotations

import http
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.bundle import Manifest, read_manifest
from fastai_deploy.bundle.manifest import EXPORT_AGAIN
from fastai_deploy.errors import FileError, InvocationError, NoAnswer
from fastai_deploy.parity import Invoke, Json, Verify
from fastai_deploy.parity.compare import check
from fastai_deploy.parity.goldens import Golden, Labels, carried, load_goldens
from fastai_deploy.parity.report import served_accuracy
from fastai_deploy.progress import Reporter, Step
from fastai_deploy.records import ModelSummary
from fastai_deploy.runtime.parity import compare

# Well below the body limit of every target; a text that is larger goes alone.
_REQUEST_BYTES = 100_000
_REQUEST_TEXTS = 32
GOLDENS = "goldens.json"
# An answer with one of these says that the server is busy, and nothing about the model.
_BUSY = frozenset((http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE))
_ATTEMPTS = 6
_LEAST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds


def stored_goldens(bundle: Path) -> tuple[Manifest, tuple[Golden, ...]]:
    """The manifest and the goldens of a bundle. Raises FileError."""
    manifest, _ = read_manifest(bundle)
    path, listed = bundle / GOLDENS, manifest.files.get(GOLDENS)
    if listed is None or files.sha256(path, most=files.MOST) != listed.sha256:
        raise FileError(f"{path} does not match the manifest", hint=EXPORT_AGAIN)
    labels = Labels(manifest.labels, several=manifest.several)
    return manifest, load_goldens(path, labels)


def model_summary(bundle: Path) -> ModelSummary:
    """What callers notice of a bundle's model. Raises FileError for a damaged manifest."""
    manifest, _ = read_manifest(bundle)
    accuracy, labelled = served_accuracy(bundle)
    precision = ", ".join(form.precision for form in manifest.model.forms)
    return ModelSummary(manifest.task, manifest.labels, precision, accuracy, labelled)


def verifier(bundle: Path, subject: str, report: Reporter, *, version: str) -> Verify:
    """Return a check that sends the goldens of a bundle's artifact; ``subject`` is what is checked.

    The answers name the precision that they were computed in, whose rules they must keep to, and
    the version of the artifact, which explains a difference if it is not ``version``. The check
    raises ParityError if they do not and InvocationError if there is no answer.
    """
    manifest, stored = stored_goldens(bundle)
    goldens = carried(stored, manifest.threshold)
    model = "learner" if any(golden.source == "learner" for golden in goldens) else "rebuilt model"

    def verify(invoke: Invoke) -> None:
        answers = [answer for chunk in _chunks(goldens) for answer in _ask(invoke, chunk)]
        result = compare(
            [golden.text for golden in goldens],
            [golden.probabilities for golden in goldens],
            [_probabilities(answer, manifest.labels) for answer in answers],
            threshold=manifest.threshold,
        )
        precision = _of_model(answers, "precision") or manifest.model.forms[0].precision
        served, hint = _of_model(answers, "version"), ""
        if served not in ("", version):
            hint = (
                f"version {served} answers, and this folder deployed {version}: run fdeploy "
                "versions to see who deployed what, or fdeploy deploy to serve this one again"
            )
        check(result, manifest.rules(precision), subject=subject, hint=hint)
        report(
            Step(
                f"{subject} matches the {model} on {len(goldens)} goldens in {precision}: "
                f"max |Δprobability| {result.max_difference:.1e}"
            )
        )

    return verify


def patient(invoke: Invoke, sleep: Callable[[float], None]) -> Invoke:
    """An ``invoke`` that tries again after a 429 or 503, when the answer says so.

    It raises NoAnswer if the last attempt, or a quota that ends tomorrow, is refused too: a golden
    that was not answered shows no difference.
    """

    def ask(request: Json) -> Json:
        pause = _LEAST_PAUSE
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return invoke(request)
            except InvocationError as error:
                if error.status not in _BUSY:
                    raise
                busy = error
            if busy.answer_code == "quota_exceeded":
                break
            if attempt < _ATTEMPTS:
                sleep(min(max(pause, busy.retry_after), _LONGEST_PAUSE))
                pause *= 2
        raise NoAnswer(busy.message, hint=busy.hint, status=busy.status) from None

    return ask


def _chunks(goldens: Sequence[Golden]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for golden in goldens:
        length = len(golden.text.encode())
        if chunk and (size + length > _REQUEST_BYTES or len(chunk) == _REQUEST_TEXTS):
            yield chunk
            chunk, size = [], 0
        chunk.append(golden.text)
        size += length
    if chunk:
        yield chunk


def _ask(invoke: Invoke, texts: list[str]) -> list[Json]:
    answers = invoke({"texts": texts})
    if not isinstance(answers, list) or len(answers) != len(texts):
        raise InvocationError(
            f"{len(texts)} texts were sent, but the answer is not a list of that length",
            hint="run fdeploy teardown, then fdeploy up",
        )
    return answers


def _of_model(answers: Sequence[Json], what: str) -> str:
    """What the first answer that names it says of its model; older servers name no precision."""
    for answer in answers:
        model = answer.get("model") if isinstance(answer, dict) else None
        found = model.get(what) if isinstance(model, dict) else None
        if isinstance(found, str):
            return found
    return ""


def _probabilities(answer: Json, labels: Sequence[str]) -> tuple[float, ...]:
    """The probabilities in the order of the labels; empty if the answer is an error."""
    given = answer.get("probabilities", {}) if isinstance(answer, dict) else {}
    return tuple(given[label] for label in labels if label in given)
