"""AWS Lambda's entry point: the public API and the model in one function.

    event of API Gateway, or of a function URL --gateway--> checked request --> model --> answer
    {"text": ...}, {"texts": ...} (Invoke)  ------^       --> the answer, or {"status", "error"}

The model is loaded while Lambda initializes the environment, so a snapshot (SnapStart) holds it. A
model that cannot be loaded is an answer of the contract (503), and the next event tries again.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from .. import error_responses, hardware
from ..codec import read, write
from ..contract import JSON, Encoded, Json, Outcome, RequestError
from ..gateway import events, failures
from ..gateway.endpoint import GatewaySettings, fitting
from ..gateway.failures import ErrorResponse
from ..gateway.gateway import Gateway
from ..golden_check import Predicting
from ..loading import VERSION_VARIABLE, load
from ..log import Log

STORED_VARIABLE = "FDEPLOY_ARTIFACT"
"""Where the artifact is (``s3://bucket/key``) from which the model's larger files are read."""
MODEL_FOLDER = "model"
CORE_MB = 1_769
"""The memory with which a function has one whole core (AWS: "Configure Lambda function memory")."""

_MIB = 1 << 20
_OK = 200


class Model:
    """Answers checked requests with the model in this process; loads it once.

    ``folder`` is where the function's package is unpacked; ``clock`` is the gateway's.
    """

    def __init__(
        self, folder: Path, log: Log, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._log = log
        self._clock = clock
        self._predictor: Optional[Predicting] = None
        self._load_ms = 0.0
        self._cold = True

    def load(self) -> Predicting:
        """The predictor. Raises ErrorResponse 503 if it cannot be loaded, after logging why."""
        if self._predictor is None:
            started = time.perf_counter()
            try:
                self._predictor = self._opened(started)
            except Exception as error:
                self._log("refused", reason=str(error)[:1_000], error=type(error).__name__)
                raise ErrorResponse(
                    error_responses.not_ready(), facts={"error": type(error).__name__}
                ) from error
        return self._predictor

    def invoke(self, body: bytes, *, deadline: float, ends: float, facts: Dict[str, Json]) -> bytes:
        """The answer to a JSON body. Raises ErrorResponse, 504 if it takes longer than ``ends``.

        What nobody waits for is not computed, or Lambda would bill it and then end the environment.
        """
        del deadline  # nothing is tried again
        predictor = self.load()
        if self._cold:
            facts.update(cold=True, load_ms=self._load_ms)
            self._cold = False
        parsed = read(body, JSON, predictor.encode)
        outcomes = predictor.predict_encoded(parsed.encoded, run_all=self._until(ends))
        for outcome in (*parsed.texts, *outcomes):
            if isinstance(outcome, RequestError) and outcome.__cause__ is not None:
                self._log.defect("-", outcome.__cause__)
        answer = write(parsed, outcomes, predictor.bundle.answered_as)
        facts["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        if answer.status != _OK:
            error = json.loads(answer.body)["error"]
            raise ErrorResponse(
                RequestError(answer.status, retry_after=answer.retry_after, **error)
            )
        return fitting(answer.body)

    def _until(self, ends: float) -> Callable[..., Iterator[List[Outcome]]]:
        """Maps runs over groups of texts; the first is always run, none begins after ``ends``."""

        def run_all(
            run: Callable[[Sequence[Encoded]], List[Outcome]], groups: Sequence[Sequence[Encoded]]
        ) -> Iterator[List[Outcome]]:
            for number, texts in enumerate(groups):
                if number and self._clock() >= ends:
                    done = sum(len(each) for each in groups[:number])
                    raise failures.timeout({"answered": done})
                yield run(texts)

        return run_all

    def _opened(self, started: float) -> Predicting:
        memory = int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", CORE_MB))
        cores = max(1, memory // CORE_MB)
        found = replace(hardware.detect(), cores=cores, memory=memory * _MIB)
        version = os.environ.get(VERSION_VARIABLE)
        loaded = load(self._model(), found, cores, alone=True, version=version, brief=True)
        self._load_ms = round((time.perf_counter() - started) * 1_000, 1)
        self._log("ready", ms=self._load_ms, memory=memory, threads=cores, **loaded.facts)
        gc.freeze()  # what is there now stays, so no collection needs to look at it
        return loaded.predictor

    def _model(self) -> Path:
        """The folder of the model; the larger files are read from the bucket if not packed."""
        packed = self._folder / MODEL_FOLDER
        stored = os.environ.get(STORED_VARIABLE)
        if not stored:
            return packed
        # Imported only here, because botocore takes longer than all else.
        from ..stored_model import complete  # noqa: PLC0415

        return complete(packed, stored)


def handler(event: Any, context: Any) -> Json:
    """Answer an event. Raises KeyError or ValueError if the function's variables are wrong."""
    gateway = _gateway()
    if not events.is_direct(event):
        return gateway.handle(event, context)
    call = events.direct(event, gateway.route, getattr(context, "aws_request_id", "-"))
    response = gateway.respond(call, context)
    answer = json.loads(response["body"])
    return answer if response["statusCode"] == _OK else {"status": response["statusCode"], **answer}


@functools.lru_cache(maxsize=1)
def _gateway() -> Gateway:
    return Gateway(_model(), GatewaySettings.from_environment(os.environ), log=sys.stdout)


@functools.lru_cache(maxsize=1)
def _model() -> Model:
    return Model(Path(__file__).resolve().parents[2], Log(sys.stdout))


if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    # What fails is logged, and tried again with the first event.
    with contextlib.suppress(ErrorResponse):
        _model().load()
