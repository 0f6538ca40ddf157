"""Convert one of the tiny learners, which cover every architecture, and check the result.

``generators/`` has the scripts that made them. ``NAME.golden.json`` beside ``NAME.pkl`` holds the
answers of the reloaded learner to the texts of ``golden_texts.json``, by their ids.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai_deploy.bundle import read_bundle
from fastai_deploy.errors import FdeployError
from fastai_deploy.learner.convert import convert
from fastai_deploy.progress import Event, Step

LEARNERS = Path(__file__).parent.parent / "learners"
MADE = LEARNERS / "v2" / "tiny"
TOLERANCE = 1e-4
# For weights in half precision, which round the learner's own answers to three digits.
HALF_TOLERANCE = 5e-3


@dataclass(frozen=True)
class Outcome:
    """The outcome for a learner: ``proven``, with the largest |Δprobability|, or ``refused``.

    ``gpu``: whether a GPU can run its graph; None if that was not checked.
    """

    architecture: str
    tokenizer: str
    wrapper: str
    fastai: str
    transformers: str
    outcome: str
    answers: int
    torch: float | None = None
    onnx: float | None = None
    padding: str = ""
    reason: str = ""
    gpu: bool | None = None


def names(folder: Path = MADE) -> list[str]:
    """The learners in a folder."""
    return sorted(path.stem for path in folder.glob("*.pkl"))


def document(name: str, folder: Path = MADE) -> dict[str, Any]:
    """The recorded answers of a learner."""
    found: dict[str, Any] = json.loads((folder / f"{name}.golden.json").read_text("utf-8"))
    return found


def golden_texts() -> list[dict[str, str]]:
    """The texts that every learner was given, each with its ``id``."""
    found: list[dict[str, str]] = json.loads((MADE / "golden_texts.json").read_text("utf-8"))
    return found


def answered(name: str, folder: Path = MADE) -> list[tuple[str, tuple[float, ...]]]:
    """The texts with the learner's answers, without those on which it failed."""
    found = document(name, folder)
    texts = {each["id"]: each["text"] for each in (*golden_texts(), *found["texts"])}
    return [
        (texts[key], tuple(answer))
        for key, answer in found["answers"].items()
        if isinstance(answer, list)
    ]


def tokenizer_folder(name: str, folder: Path = MADE) -> Path | None:
    """The folder for ``--tokenizer``, for a learner that lost its own tokenizer."""
    return folder / name if (folder / name).is_dir() else None


def write_goldens(name: str, path: Path, folder: Path = MADE) -> int:
    """Write the goldens in the format of a user's golden file; return their number."""
    lines = [
        json.dumps({"text": text, "probabilities": answer})
        for text, answer in answered(name, folder)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return len(lines)


def outcome(name: str, scratch: Path, folder: Path = MADE) -> Outcome:
    """Convert a learner against its goldens, in ``scratch``."""
    meta = document(name, folder)["meta"]
    golden = scratch / f"{name}.jsonl"
    said: list[str] = []

    def tell(event: Event) -> None:
        if isinstance(event, Step):
            said.append(event.message)

    known = {
        "architecture": meta["architecture"],
        "tokenizer": meta["tokenizer"],
        "wrapper": meta["wrapper"],
        "fastai": meta["fastai"],
        "transformers": meta["transformers"],
        "answers": write_goldens(name, golden, folder),
    }
    try:
        bundle = convert(
            folder / f"{name}.pkl",
            scratch / name,
            golden=golden if meta["labels"] else None,  # a regression has no probabilities
            tolerance=HALF_TOLERANCE if meta["wrapper"] == "half" else TOLERANCE,
            name=name,
            report=tell,
            tokenizer=tokenizer_folder(name, folder),
        )
    except FdeployError as error:
        return Outcome(**known, outcome="refused", reason=error.message.partition(": '")[0])
    manifest, _ = read_bundle(bundle.path)
    in_torch = next(line for line in said if "reproduced in torch" in line)
    return Outcome(
        **known,
        outcome="proven",
        torch=float(in_torch.rpartition(" ")[2]),
        onnx=float(f"{bundle.max_difference:.1e}"),
        padding=manifest.text.padding,
        gpu=manifest.model.gpu is not None,
    )
