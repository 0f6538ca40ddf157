"""A tokenizer that the user supplies, for a learner whose file lost its own: ``--tokenizer``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai_deploy.errors import FileMissing, UnsupportedLearner
from fastai_deploy.files import read, sha256
from fastai_deploy.learner.text.sentencepiece_model import SentencePieceModel, read_sentencepiece

Json = dict[str, Any]

SERIALIZED = "tokenizer.json"
# The file names that transformers uses for the models of its architectures.
MODELS = (
    "spiece.model", "sentencepiece.bpe.model", "spm.model", "sentencepiece.model",
    "tokenizer.model",
)  # fmt: skip
MOST = 64 << 20  # bytes; the largest are 20 MB


@dataclass(frozen=True, eq=False, repr=False)
class UserTokenizer:
    """A ``tokenizer.json`` or a SentencePiece model; ``file`` is its path."""

    file: Path
    serialized: Json | None
    model: SentencePieceModel | None


def tokenizer_file(path: Path) -> Path:
    """The file to read for the path that the user gave: itself, or the best one in a folder.

    Raises FileMissing.
    """
    if not path.is_dir():
        if not path.exists():
            raise FileMissing(f"{path} does not exist", hint="check the path of --tokenizer")
        return path
    for name in (SERIALIZED, *MODELS):
        if (path / name).is_file():
            return path / name
    raise FileMissing(
        f"{path} contains no tokenizer: neither {SERIALIZED} nor a SentencePiece model "
        f"({', '.join(MODELS)})",
        hint="write one with tokenizer.save_pretrained(DIR), where the learner was trained",
    )


def tokenizer_digest(path: Path) -> str:
    """The hash of the file that will be read. Raises FileMissing or FileError."""
    return sha256(tokenizer_file(path), most=MOST)


def read_user_tokenizer(path: Path) -> UserTokenizer:
    """Read the tokenizer. Raises FileMissing, FileError or UnsupportedLearner."""
    file = tokenizer_file(path)
    held = read(file, most=MOST)
    if file.suffix != ".json":
        return UserTokenizer(file, None, read_sentencepiece(held))
    try:
        made = json.loads(held)
    except (ValueError, RecursionError):
        made = None
    if not isinstance(made, dict) or not isinstance(made.get("model"), dict):
        raise UnsupportedLearner(
            f"{file} is not a tokenizer.json of the tokenizers library",
            hint="write one with tokenizer.save_pretrained(DIR)",
        )
    return UserTokenizer(file, made, None)
