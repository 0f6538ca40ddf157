"""The texts that a user brings to ``invoke``."""

from __future__ import annotations

from typing import Any, BinaryIO

from fastai_deploy.errors import UsageError

STANDARD_INPUT = "-"


def request_for(argument: str, top_k: int | None, stdin: BinaryIO) -> dict[str, Any]:
    """The request of the contract for one text; ``-`` stands for all of standard input.

    Raises UsageError for input that is not UTF-8.
    """
    try:
        text = stdin.read().decode() if argument == STANDARD_INPUT else argument
        text.encode()
    except UnicodeError:
        raise UsageError("the text is not UTF-8", hint="save it as UTF-8") from None
    return {"text": text} if top_k is None else {"text": text, "top_k": top_k}
