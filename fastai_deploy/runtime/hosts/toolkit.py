"""The four functions that the SageMaker PyTorch toolkit calls, around the same predictor.

The toolkit calls ``model_fn`` once, then ``input_fn`` -> ``predict_fn`` -> ``output_fn`` for each
request. It answers exceptions with status 500 and a traceback, so these functions raise none for a
request: an error of the contract is also an answer, and ``output_fn`` sets its status.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Optional, Tuple, Union

from .. import error_responses, hardware
from ..codec import Answer, read, refuse, write
from ..contract import RequestError
from ..golden_check import Predicting
from ..loading import start
from ..log import Log

_WORKERS_VARIABLE = "SAGEMAKER_MODEL_SERVER_WORKERS"


@dataclass(frozen=True)
class Received:
    """A request's body as received."""

    body: bytes
    content_type: Optional[str]


def model_fn(model_dir: str) -> Predicting:
    """Load and self-check the model. Raises ModelError, so the worker does not become healthy."""
    # By default TorchServe starts a worker for every core.
    workers = int(os.environ.get(_WORKERS_VARIABLE) or hardware.detect().cores)
    loaded, _ = start(Path(model_dir), Log(sys.stderr), workers=max(1, workers))
    return loaded.predictor


def input_fn(data: Union[str, bytes, bytearray], content_type: Optional[str]) -> Received:
    """Accept a body; the toolkit passes JSON as ``str`` and everything else as bytes."""
    body = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    return Received(body, content_type)


def predict_fn(received: Received, predictor: Predicting) -> Answer:
    """Answer a request, or refuse it."""
    try:
        parsed = read(received.body, received.content_type, predictor.encode)
        for failure in parsed.failures:
            Log(sys.stderr).defect("-", failure)
        outcomes = predictor.predict_encoded(parsed.encoded)
        return write(parsed, outcomes, predictor.bundle.answered_as)
    except RequestError as error:
        return refuse(error)
    except Exception as error:  # noqa: BLE001  # the toolkit would answer with the traceback
        Log(sys.stderr).defect("-", error)
        return refuse(error_responses.internal())


def output_fn(answer: Answer, _accept: str, context: Any) -> Tuple[bytes, str]:
    """The body and its content type; ``context`` is TorchServe's, for the status."""
    if answer.status != HTTPStatus.OK and context is not None:
        context.set_response_status(code=answer.status, phrase=HTTPStatus(answer.status).phrase)
    return answer.body, answer.content_type
