"""Which versions of which libraries wrote a learner, as far as the file shows."""

from __future__ import annotations

from collections.abc import Iterable

from fastai_deploy.learner.reading.archive import Format
from fastai_deploy.learner.reading.values import Global
from fastai_deploy.learner.reading.views import Plain
from fastai_deploy.learner.text.found import Era, Tokenizer

_TRANSFORMERS: dict[Era, str] = {
    "2.1": "2.0 or 2.1", "2.2": "2.2 to 2.3", "2.5": "2.4 to 2.11", "3": "3 to 4.14",
}  # fmt: skip


def library_hints(
    major: int,
    file_format: Format,
    names: Iterable[Global],
    config: dict[str, Plain] | None,
    tokenizer: Tokenizer | None,
) -> dict[str, str]:
    """Library to version, or to a range of versions."""
    modules = {name.module for name in names}
    hints = {"fastai": _fastai(major, modules)}
    if file_format != "plain":
        hints["torch"] = "1.6 or newer" if file_format == "zip" else "older than 1.6, or saved so"
    written = (config or {}).get("transformers_version")
    if isinstance(written, str):
        hints["transformers"] = written
    elif tokenizer is not None and tokenizer.era in _TRANSFORMERS:
        hints["transformers"] = _TRANSFORMERS[tokenizer.era]
    elif any(module.startswith("transformers.models.") for module in modules):
        hints["transformers"] = "4 or newer"
    elif any(module.startswith("transformers.") for module in modules):
        hints["transformers"] = "older than 4"
    if any(module.startswith("numpy._core") for module in modules):
        hints["numpy"] = "2 or newer"
    return hints


def _fastai(major: int, modules: set[str]) -> str:
    if major == 1:
        return "1"
    if any(module.startswith("fasttransform") for module in modules):
        return "2.8 or newer"
    if any(module.startswith("fastcore.transform") for module in modules):
        return "2 before 2.8"
    return "2"
