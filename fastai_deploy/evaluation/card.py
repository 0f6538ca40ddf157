"""The model card: what is known of a bundle's model, in the format of the Hugging Face Hub.

It states what the manifest, the goldens, the parity report and the last evaluation hold, and says
"unknown" of what they do not. It lies in the bundle's folder but is not listed in its manifest: it
is no part of the artifact, and writing it again changes no version. Source of the format:
huggingface/hub-docs, ``modelcard.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai_deploy import files
from fastai_deploy.bundle import Manifest
from fastai_deploy.bundle.folder import CARD
from fastai_deploy.errors import FileError
from fastai_deploy.evaluation.result import files_of
from fastai_deploy.json_reader import BadJson, parse
from fastai_deploy.naming import short
from fastai_deploy.parity.gate import stored_goldens
from fastai_deploy.parity.goldens import PROBES, Golden
from fastai_deploy.parity.report import served_accuracy
from fastai_deploy.runtime.bundle import FP32, KIND_LEARNER, KIND_WORDS, LEARNER, MULTI_LABEL

_TASK = "text-classification"  # the Hub's name, also with several labels
_UNKNOWN = "unknown"
_LABELS = 200  # labels listed; the manifest has all of them
_NOTICE = (
    "<!-- The export and an evaluation of the bundle write this file. "
    "Copy it before you edit it. -->"
)


@dataclass(frozen=True)
class Evaluated:
    """An evaluation as the card states it: values by the Hub's name of the metric."""

    file: str
    texts: int
    metrics: Mapping[str, tuple[float, str]]


@dataclass(frozen=True)
class Known:
    """Everything that the card is made from; ``version`` is the manifest's SHA-256."""

    manifest: Manifest
    version: str
    goldens: Sequence[Golden]
    accuracy: float | None
    labelled: int
    evaluated: Evaluated | None


@dataclass(frozen=True)
class Card:
    """The result of ``inspect --card``: the card in ``path``, as Markdown."""

    path: str
    card: str

    def values(self) -> Card:
        """The card itself."""
        return self

    def lines(self) -> Iterator[str]:
        """The card's lines."""
        yield from self.card.rstrip("\n").split("\n")


def read_card(bundle: Path) -> Card:
    """The card of a bundle, written anew if an earlier version of fdeploy made the bundle.

    Raises FileError.
    """
    path = bundle / CARD
    if files.size_of(path) is None:
        write_card(bundle)
    return Card(str(path), files.read(path).decode("utf-8", "replace"))


def write_card(bundle: Path) -> Path:
    """Write the card into a bundle's folder; return its path. Raises FileError."""
    path = bundle / CARD
    files.write(path, render(known(bundle)).encode("utf-8", "replace"))
    return path


def known(bundle: Path) -> Known:
    """What is known of a bundle's model. Raises FileError for a damaged bundle."""
    manifest, goldens = stored_goldens(bundle)
    version = files.sha256(bundle / "manifest.json")
    accuracy, labelled = served_accuracy(bundle)
    return Known(manifest, version, goldens, accuracy, labelled, _evaluated(bundle, version))


_METRICS = {"accuracy": "accuracy", "macro_f1": "f1"}
_SEVERAL = {"accuracy": "exact_match", "micro_f1": "f1"}
_NAMES = {
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "f1": "macro F1",
    "f1-several": "micro F1",
}


def _evaluated(bundle: Path, version: str) -> Evaluated | None:
    """The last evaluation, if it was of this bundle; None too if it was edited by hand."""
    data, _ = files_of(bundle)
    try:
        found = parse(files.read(data))
        judged = next(each for each in found["columns"] if each["name"] == found["judged"])
        if judged["version"] != short(version):
            return None
        several = found["task"] == MULTI_LABEL
        figures = judged["figures"]
        return Evaluated(
            Path(str(found["source"]["file"])).name,
            int(figures["texts"]),
            {
                name: (float(figures[key]["value"]), _interval(figures[key]["interval"]))
                for key, name in (_SEVERAL if several else _METRICS).items()
                if figures[key] and figures[key]["value"] is not None
            },
        )
    except (FileError, BadJson, LookupError, StopIteration, TypeError, ValueError,
            AttributeError, OverflowError):  # fmt: skip
        return None


def _interval(found: Mapping[str, Any] | None) -> str:
    return f"{float(found['low']):.3f} to {float(found['high']):.3f}" if found else _UNKNOWN


def render(found: Known) -> str:
    """The card; what is known determines its bytes."""
    import yaml  # noqa: PLC0415 - most commands need no card

    front = yaml.safe_dump(_metadata(found), sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{front}---\n\n{_NOTICE}\n\n" + "\n".join(_body(found)) + "\n"


def _metadata(found: Known) -> dict[str, Any]:
    """The YAML at the top. The Hub has no word for an unknown language, so that key is missing."""
    manifest = found.manifest
    tags = [_TASK, *["fastai"] * bool(manifest.provenance.learner.fastai), "fdeploy"]
    tags += ["onnx"] * (manifest.text.kind != KIND_LEARNER)
    tags += ["multi-label-classification"] * (manifest.several)
    results = list(_results(found))
    index = [{"name": manifest.name, "results": results}] if results else None
    return {
        "license": _UNKNOWN,
        "pipeline_tag": _TASK,
        "tags": tags,
        **({"metrics": _metric_ids(results), "model-index": index} if index else {}),
    }


def _results(found: Known) -> Iterator[dict[str, Any]]:
    if found.evaluated is not None:
        metrics = {name: value for name, (value, _) in found.evaluated.metrics.items()}
        yield _result(found.evaluated.file, metrics)
    if found.accuracy is not None:
        name = "exact_match" if found.manifest.several else "accuracy"
        yield _result("labelled goldens", {name: found.accuracy})


def _result(dataset: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    return {
        "task": {"type": _TASK, "name": "Text Classification"},
        "dataset": {"type": "local", "name": dataset},
        "metrics": [{"type": name, "value": round(value, 4)} for name, value in metrics.items()],
    }


def _metric_ids(results: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(each["type"] for result in results for each in result["metrics"]))


def _body(found: Known) -> Iterator[str]:
    manifest = found.manifest
    learner = manifest.provenance.learner
    yield f"# {_plain(manifest.name)}"
    yield ""
    kind = f"the fastai {learner.fastai} learner " if learner.fastai else ""
    yield (f"A {manifest.task} text classifier, made from {kind}{_code(learner.file)} by fdeploy.")
    yield ""
    yield from _table(
        ("property", "value"),
        [
            ("architecture", _code(manifest.model.architecture)),
            ("parameters", f"{manifest.model.parameters:,}"),
            ("answers", _answers(manifest)),
            ("precision", ", ".join(form.precision for form in manifest.model.forms)),
            ("bundle", _code(short(found.version))),
            ("languages", _UNKNOWN),
            ("license", _UNKNOWN),
        ],
    )
    yield from _section("Labels")
    yield from _label_lines(found)
    yield from _section("Intended use")
    yield "Unknown: the files of the model do not say what it was trained for."
    yield from _section("Limits")
    yield from (f"- {line}" for line in _limits(manifest))
    yield from _section("Training data")
    yield "Unknown: the files of the model hold neither the texts nor where they came from."
    yield from _section("Evaluation")
    yield from _evaluation(found)
    yield from _section("Bias and risks")
    yield "Unknown: fdeploy does not measure them."
    yield from _section("How it was made")
    yield from _made(found)


def _answers(manifest: Manifest) -> str:
    if manifest.threshold is None:
        return "the label with the highest probability"
    return f"every label whose probability is above {manifest.threshold:g}"


def _label_lines(found: Known) -> Iterator[str]:
    names = found.manifest.labels
    yield from (f"- {_code(name)}" for name in names[:_LABELS])
    if len(names) > _LABELS:
        yield f"- and {len(names) - _LABELS:,} more in `manifest.json`"


def _limits(manifest: Manifest) -> Iterator[str]:
    text = manifest.text
    if text.kind == KIND_LEARNER:
        yield "Longest text: unknown; the original learner decides."
    else:
        dropped = (
            "the beginning (or the end, if the learner reads backwards)"
            if text.kind == KIND_WORDS
            else "the end"
        )
        yield (
            f"It reads at most {text.max_length:,} tokens of a text, special tokens included. Of a "
            f"longer one, {dropped} is dropped, and the answer says so (`truncated`)."
        )
    yield "Languages: unknown. A text in any other language is answered all the same."
    if manifest.threshold is None:
        yield "A text that fits no label gets one all the same."
    yield from (f"May differ from the learner: {_plain(each)}." for each in manifest.residues)
    yield from (f"Not proven: {_plain(each)}." for each in manifest.unproven)


def _evaluation(found: Known) -> Iterator[str]:
    several = found.manifest.several
    if found.evaluated is not None:
        texts = found.evaluated
        yield f"On {texts.texts:,} labelled texts of {_code(texts.file)}, with 95 % intervals:"
        yield ""
        yield from _table(
            ("metric", "value", "interval"),
            [
                (_metric_name(name, several=several), f"{value:.3f}", limits)
                for name, (value, limits) in texts.metrics.items()
            ],
        )
    if found.accuracy is not None:
        share = "exact match" if several else "accuracy"
        yield ""
        yield f"On {found.labelled:,} labelled goldens: {share} {found.accuracy:.3f}."
    if found.evaluated is None and found.accuracy is None:
        yield (
            "Unknown: it was not asked any labelled text. `fdeploy evaluate labelled.csv` does "
            "that."
        )


def _metric_name(name: str, *, several: bool) -> str:
    return _NAMES[f"{name}-several" if several and name == "f1" else name]


def _made(found: Known) -> Iterator[str]:
    manifest = found.manifest
    learner, converter = manifest.provenance.learner, manifest.provenance.converter
    own = sum(golden.source == "learner" for golden in found.goldens)
    what = "Learner" if learner.fastai else "Model"
    yield f"- {what}: {_code(learner.file)}, {learner.bytes:,} bytes, SHA-256 `{learner.sha256}`."
    versions = ", ".join(f"{name} {version}" for name, version in converter.items())
    yield f"- Converted with: {_plain(versions) or _UNKNOWN}."
    if own:
        yield (
            f"- Proven by {own:,} of the learner's own answers: in float32, every probability is "
            f"within {manifest.tolerance:g}."
        )
    else:
        texts = "fdeploy's own texts" if _are_probes(found.goldens) else "the user's texts"
        yield (
            f"- Compared with the rebuilt model on {texts}; whether it answers as the learner does "
            "was not checked with the learner's own answers."
        )
    for form in manifest.model.forms:
        if form.precision not in (FP32, LEARNER):
            by = "unknown" if form.difference is None else f"at most {form.difference:.2g}"
            yield f"- In {form.precision}, probabilities on the goldens differ by {by}."


def _are_probes(goldens: Sequence[Golden]) -> bool:
    return {golden.text for golden in goldens} <= set(PROBES)


def _section(title: str) -> tuple[str, ...]:
    return ("", f"## {title}", "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _code(text: str) -> str:
    """A text in a code span, in which Markdown and HTML mean nothing; `|` would end a cell."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    shown = shown.replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if "`" in shown or not shown.strip() else ""
    return f"{fence}{space}{shown}{space}{fence}"


def _plain(text: str) -> str:
    """A text outside a code span, with what Markdown and HTML would read as their own escaped."""
    shown = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", shown)
