"""The speed of ``fdeploy package`` on 500 MB of weights, compared with ``tar``.

The weights are random float32 numbers as large as trained ones, and compress as little.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.paired import compare, table

SIZE = 500_000_000
ROUNDS = 3
PACK = (
    "from pathlib import Path; from fastai_deploy.packaging.artifact import write_artifact\n"
    "write_artifact(Path('bundle'), Path('model.tar.gz'), name='n', notify=lambda *_: None)"
)


def make_bundle(folder: Path) -> None:
    folder.mkdir()
    generator = np.random.default_rng(0)
    weights = generator.normal(scale=0.02, size=SIZE // 4).astype("<f4").tobytes()
    (folder / "model.onnx").write_bytes(weights)
    manifest = {
        "name": "n",
        "files": {"model.onnx": {"sha256": hashlib.sha256(weights).hexdigest()}},
        "provenance": {"converter": {"numpy": "1", "onnxruntime": "1", "tokenizers": "1"}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def main() -> None:
    commands = {
        "fdeploy package (its packer)": [sys.executable, "-c", PACK],
        "tar cf": ["tar", "cf", "plain.tar", "bundle/model.onnx"],
        "tar czf": ["tar", "czf", "plain.tar.gz", "bundle/model.onnx"],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_bundle(folder / "bundle")
        timings = compare(commands, rounds=ROUNDS, cwd=folder)
        table(f"packing {SIZE / 1e6:.0f} MB of weights", timings)
        for timing, made in zip(
            timings, ("model.tar.gz", "plain.tar", "plain.tar.gz"), strict=True
        ):
            size = (folder / made).stat().st_size
            print(f"{timing.name:<34} {SIZE / 1e6 / timing.median:7.0f} MB/s {size:>12,} bytes")


if __name__ == "__main__":
    main()
