"""TorchServe's native handler: requests that arrive together are answered together.

TorchServe collects up to ``batchSize`` requests and calls the handler with all of them; the
toolkit's own handler would answer them one by one. The worker that loads the model is the only one,
and uses every core: see ``model-config.yaml``. A model that cannot be served ends the server.
"""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from .. import error_responses
from ..codec import Answer, ParsedBody, read, refuse, write
from ..contract import Encoded, Outcome, RequestError
from ..golden_check import Predicting
from ..loading import start
from ..log import Log

_BODY = "body"
_SERVER = b"org.pytorch.serve.ModelServer"


class Handler:
    """Called once with None, to load the model, and then with each batch."""

    def __init__(self) -> None:
        self._predictor: Optional[Predicting] = None
        self._log = Log(sys.stderr)
        self._runs: Optional[ThreadPoolExecutor] = None

    def __call__(self, batch: Optional[Sequence[Dict[str, Any]]], context: Any) -> List[bytes]:
        """One body for each request of the batch, with its status and type set in the context.

        Raises ModelError in the first call, so the worker does not become healthy.
        """
        if self._predictor is None:
            self._predictor = self._load(Path(context.system_properties["model_dir"]))
        answers = self._answers(self._predictor, batch or (), context)
        for place, answer in enumerate(answers):
            context.set_response_content_type(place, answer.content_type)
            if answer.status != HTTPStatus.OK:
                context.set_response_status(
                    code=answer.status, phrase=HTTPStatus(answer.status).phrase, idx=place
                )
        return [answer.body for answer in answers]

    def _load(self, folder: Path) -> Predicting:
        try:
            loaded, planned = start(folder, self._log)
        except Exception:
            _end_server()
            raise
        if planned.workers > 1:
            self._runs = ThreadPoolExecutor(planned.workers)
        return loaded.predictor

    def _answers(
        self, predictor: Predicting, batch: Sequence[Dict[str, Any]], context: Any
    ) -> List[Answer]:
        questions = [_question(predictor, item, context, n) for n, item in enumerate(batch)]
        asked = [q for q in questions if isinstance(q, ParsedBody)]
        texts = [text for parsed in asked for text in parsed.encoded]
        for failure in (each for parsed in asked for each in parsed.failures):
            self._log.defect("-", failure)
        try:
            outcomes = iter(self._outcomes(predictor, texts))
        except Exception as error:  # noqa: BLE001  # TorchServe would send its own error
            self._log.defect("-", error)
            return [refuse(error_responses.internal())] * len(batch)
        return [
            self._written(predictor, parsed, [next(outcomes) for _ in parsed.encoded])
            if isinstance(parsed, ParsedBody)
            else refuse(parsed)
            for parsed in questions
        ]

    def _outcomes(self, predictor: Predicting, texts: Sequence[Encoded]) -> List[Outcome]:
        if self._runs is None:
            return predictor.predict_encoded(texts)
        return predictor.predict_encoded(texts, run_all=self._runs.map)

    def _written(
        self, predictor: Predicting, parsed: ParsedBody, outcomes: Sequence[Outcome]
    ) -> Answer:
        for outcome in outcomes:
            if isinstance(outcome, RequestError) and outcome.__cause__ is not None:
                self._log.defect("-", outcome.__cause__)
        try:
            return write(parsed, outcomes, predictor.bundle.answered_as)
        except Exception as error:  # noqa: BLE001  # the other requests must be answered
            self._log.defect("-", error)
            return refuse(error_responses.internal())


def _end_server() -> None:
    """End TorchServe itself, and with it the container.

    Otherwise it would restart the worker forever, and answer ``/ping`` with 200 all the while. Only
    a TorchServe that started this process is ended.
    """
    parent = os.getppid()
    try:
        command = Path(f"/proc/{parent}/cmdline").read_bytes()
    except OSError:
        return
    if _SERVER in command:
        os.kill(parent, signal.SIGTERM)


def _question(
    predictor: Predicting, item: Dict[str, Any], context: Any, place: int
) -> Union[ParsedBody, RequestError]:
    body, kind = _received(item, context, place)
    try:
        return read(body, kind, predictor.encode)
    except RequestError as error:
        return error


def _received(item: Dict[str, Any], context: Any, place: int) -> Tuple[bytes, Optional[str]]:
    """A body and its content type; TorchServe parses forms, which then are no longer a body."""
    if _BODY not in item:
        return b"", "multipart/form-data"
    data = item[_BODY]
    body = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    about = context.get_request_header(place, _BODY)
    kind = about.get("content-type") if isinstance(about, dict) else None
    return body, kind or None
