"""The process in which transformers' own pipeline answers: see ``pipeline``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from fastai_deploy.environments.limited_process import answer
from fastai_deploy.learner.text.rules import longest

_LONGEST_ERROR = 500  # characters
_SAMPLE = "a"


def work(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pipeline of each folder, and its answers."""
    # Imported after the limits are in force.
    from transformers.utils import logging as library_logging  # noqa: PLC0415

    library: Any = library_logging
    library.set_verbosity(logging.CRITICAL)
    library.disable_progress_bar()
    return {"models": [_model(each) for each in given["models"]]}


def _model(given: Mapping[str, Any]) -> Mapping[str, Any]:
    import torch  # noqa: PLC0415 - as above
    import transformers  # noqa: PLC0415

    try:
        classifier: Any = transformers.pipeline(
            "text-classification",
            model=given["folder"],
            tokenizer=given["folder"],
            device="cpu",
            dtype=torch.float32,
            trust_remote_code=False,
        )
    except Exception as error:  # noqa: BLE001 - whatever a class raises on a folder
        return {"problem": _told(error).replace(given["folder"], "DIR")}
    tokenizer, config = classifier.tokenizer, classifier.model.config
    limit = longest(tokenizer.model_max_length, config, classifier.model)
    described = _tokenizer(tokenizer)
    texts = [*given["texts"], *(_telling(described["special"]) if given["more"] else ())]
    return {
        "problem": "",
        "architecture": type(classifier.model).__name__,
        "tokenizer": described,
        "token_types": None if described["problem"] else _token_types(tokenizer),
        "longest": limit,
        "answers": [_answer(classifier, text, limit) for text in dict.fromkeys(texts)],
    }


def _answer(classifier: Any, text: str, limit: int) -> Mapping[str, Any]:
    try:
        [rows] = classifier([text], top_k=None, truncation=True, max_length=limit)
    except Exception as error:  # noqa: BLE001 - whatever a model raises on a text
        return {"text": text, "scores": {}, "error": _told(error)}
    return {"text": text, "scores": {row["label"]: row["score"] for row in rows}, "error": ""}


def _tokenizer(tokenizer: Any) -> dict[str, Any]:
    special = {
        name.removesuffix("_token"): str(token)
        for name, token in tokenizer.special_tokens_map.items()
        if name.endswith("_token") and isinstance(token, str)
    }
    found = {
        "class": type(tokenizer).__name__,
        "special": special,
        "max_length": int(min(tokenizer.model_max_length, 1 << 53)),
        "problem": next(_problems(tokenizer), ""),
        "json": "",
    }
    if not found["problem"]:
        found["json"] = tokenizer.backend_tokenizer.to_str()
    return found


def _problems(tokenizer: Any) -> Iterator[str]:
    """Why a tokenizer.json would not give the ids that this tokenizer gives."""
    if not tokenizer.is_fast:
        yield "transformers has only a version of it in Python, and no tokenizer.json"
    elif tokenizer.truncation_side != "right":
        yield "it cuts long texts at the start (truncation_side)"
    elif getattr(tokenizer, "split_special_tokens", False):
        yield "it splits special tokens (split_special_tokens)"


def _token_types(tokenizer: Any) -> tuple[list[int], int, list[int]] | None:
    """The types of the tokens before a text, of the text, and of those after it."""
    if "token_type_ids" not in tokenizer.model_input_names:
        return None
    found = tokenizer(_SAMPLE, return_special_tokens_mask=True)
    types, special = found["token_type_ids"], found["special_tokens_mask"]
    places = [place for place, marked in enumerate(special) if not marked]
    if not places:
        return [], 0, []
    return types[: places[0]], types[places[0]], types[places[-1] + 1 :]


def _telling(special: Mapping[str, str]) -> Iterator[str]:
    """Texts that show how blanks and literal special tokens are read."""
    yield ""
    shown = [
        special[role] for role in ("cls", "sep", "bos", "eos", "pad", "unk") if role in special
    ]
    if shown:
        yield f"{shown[0]} a {' '.join(shown[1:])}"


def _told(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}"[:_LONGEST_ERROR]


if __name__ == "__main__":
    answer(sys.argv[1:], work)
