"""The learners to measure, and their fdeploy artifacts; created once and cached.

make_learner.py -> learner.pkl, huggingface/ -> fdeploy export, package -> unpacked artifacts
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai_deploy.packaging.artifact import unpack

LOADS = "loads.json"
"""The file with the texts of each kind of load."""

_TEXTS = 16  # per kind
_ROOT = Path(__file__).parents[2]
_INT8, _FLOAT32 = "int8", "float32"
INT8_TOLERANCE = 0.1
"""``tolerance`` in ``[model]`` of the int8 form; the gate is half of it. Weights are random."""

# The endpoint settings for each artifact.
_ENDPOINTS = {
    "local": "",
    "torchserve": 'instance = "ml.c7i.large"\nserver = "torchserve"',
    "ray-serve": 'instance = "ml.c7i.large"\nserver = "ray-serve"',
}


@dataclass(frozen=True)
class Golden:
    """A text and the answer of ``learn.predict`` from the reloaded learner."""

    text: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Model:
    """One shape in all served forms; ``texts`` by kind of load."""

    shape: str
    folder: Path
    texts: dict[str, list[str]]
    goldens: tuple[Golden, ...]

    @property
    def learner(self) -> Path:
        """The file that ``learn.export`` wrote."""
        return self.folder / "learner.pkl"

    @property
    def huggingface(self) -> Path:
        """The same model, written by ``save_pretrained``."""
        return self.folder / "huggingface"

    def artifact(self, precision: str, server: str) -> Path:
        """The unpacked fdeploy artifact."""
        return self.folder / precision / server

    def artifact_bytes(self, precision: str, server: str) -> int:
        """The size of the packed artifact in bytes."""
        return int((self.folder / precision / f"{server}.bytes").read_text())


def prepare(shape: str, folder: Path, fastai: Path, *, fresh: bool) -> Model:
    """Create or load the model below ``folder``; ``fastai`` is an interpreter with fastai.

    ``fresh`` exports again even if there is a cached export.
    """
    place = folder / shape
    if fresh:
        for precision in (_INT8, _FLOAT32):
            shutil.rmtree(place / precision, ignore_errors=True)
    if not (place / "texts.json").exists():
        place.mkdir(parents=True, exist_ok=True)
        reviews = _ROOT / "tests" / "learners" / "reviews.csv"
        script = Path(__file__).with_name("make_learner.py")
        with script.open("rb") as source:
            command = [str(fastai), "-W", "ignore", "-", shape, str(reviews), str(place)]
            subprocess.run(command, stdin=source, check=True, env=_quiet())
    for precision in (_INT8, _FLOAT32):
        _convert(place, shape, precision)
    lines = (place / "golden.jsonl").read_text(encoding="utf-8").splitlines()
    goldens = tuple(Golden(**json.loads(line)) for line in lines)
    texts = json.loads((place / "texts.json").read_bytes())
    texts = {kind: _sample(each) for kind, each in texts.items()}
    (place / LOADS).write_text(json.dumps(texts))
    return Model(shape, place, texts, goldens)


def _sample(texts: list[str]) -> list[str]:
    """A few texts of every length, so that even a slow server answers all of them in a cell."""
    chosen = sorted(texts, key=len)[:: len(texts) // _TEXTS]
    random.Random(_TEXTS).shuffle(chosen)  # noqa: S311  # a fixed order
    return chosen


def _convert(place: Path, shape: str, precision: str) -> None:
    """Export once, then package for each server that is measured with this precision.

    Packaging runs every time, because the artifact contains the current serving code.
    """
    project = place / precision
    exported = project / "exported"
    servers = list(_ENDPOINTS) if precision == _INT8 else ["local"]
    print(f"{shape}: {precision} with fdeploy", flush=True)
    project.mkdir(exist_ok=True)
    if not exported.exists():
        _settings(project, shape, precision, servers[0])
        _fdeploy(project, "export")
        exported.touch()
    for server in servers:
        _settings(project, shape, precision, server)
        target = "local" if server == "local" else "aws"
        packed = Path(_fdeploy(project, "package", "--target", target)["path"])
        shutil.rmtree(project / server, ignore_errors=True)
        unpack(packed, project / server)
        (project / f"{server}.bytes").write_text(str(packed.stat().st_size))


def _settings(project: Path, shape: str, precision: str, server: str) -> None:
    quantize = "int8" if precision == _INT8 else "none"
    tolerance = f"tolerance = {INT8_TOLERANCE}\n" if precision == _INT8 else ""
    (project / "fdeploy.toml").write_text(
        f'[project]\nname = "{shape}"\nregion = "us-east-1"\n'
        f'[model]\nlearner = "../learner.pkl"\ngolden = "../golden.jsonl"\n'
        f'quantize = "{quantize}"\n{tolerance}[endpoint]\n{_ENDPOINTS[server]}\n',
        encoding="utf-8",
    )


def _fdeploy(project: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "fastai_deploy", *arguments, "--json"]
    variables = {**_quiet(), "PYTHONPATH": str(_ROOT)}
    done = subprocess.run(command, cwd=project, env=variables, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"fdeploy {' '.join(arguments)} in {project}: {done.stderr.decode()[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _quiet() -> dict[str, str]:
    return {**os.environ, "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
