"""The public API of a stack: its URL, who may call it, and the proof that others may not.

    key     the header x-api-key; without it 403       iam    a signed request; without 403
    none    everybody                                  jwt    a token that only its issuer makes

API Gateway takes a while until it knows a new key, so the first answers may be refusals.
"""

from __future__ import annotations

import http
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastai_deploy.aws.public_api import PublicApi
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.stacks import Stack, first_of, resources
from fastai_deploy.errors import DeployError
from fastai_deploy.progress import Reporter, Step
from fastai_deploy.public.proofs import Reply, check_preflight, check_throttle
from fastai_deploy.settings import ApiSettings

Auth = Literal["key", "iam", "jwt", "none"]
Json = Any

URL_OUTPUT = "Url"
_REFUSED_WITHOUT = {"key": 403, "iam": 403, "jwt": 401, "none": 200}
_NOT_YET = frozenset((403, 404, 429, 500, 502, 503, 504))
_POLL_SECONDS = 2.0
_WAIT_SECONDS = 120.0
_FEW = 20  # requests at once that a proof may cost


@dataclass(frozen=True)
class Gate:
    """An API: where it is, who may call it, and with which key (empty without keys)."""

    url: str
    auth: Auth
    key: str = ""


class Publishing:
    """Calls the API of a stack through ``public``."""

    def __init__(self, aws: Aws, public: PublicApi, report: Reporter) -> None:
        self._aws = aws
        self._public = public
        self._report = report

    def gate(self, stack: Stack, auth: Auth) -> Gate:
        """The gate that a stack has made. Raises DeployError or AwsError."""
        url = stack.outputs.get(URL_OUTPUT)
        if url is None:
            raise DeployError(
                f"the stack {stack.name} says no URL", hint="run fdeploy create-api again"
            )
        return Gate(url, auth, self._key(stack) if auth == "key" else "")

    def call(self, gate: Gate, request: Json) -> Json:
        """Send a request as somebody who may. Raises InvocationError."""
        return self._public.call(gate.url, request, self._headers(gate, request))

    def prove(self, gate: Gate, verify: Callable[[Callable[[Json], Json]], None]) -> None:
        """The goldens through the public URL, and a refusal for everybody else.

        Raises ParityError, InvocationError or DeployError.
        """
        if gate.auth != "jwt":  # nobody but the issuer makes tokens
            self._await(gate)
            verify(lambda request: self.call(gate, request))
        self._check_refusal(gate)

    def prove_limits(
        self, stack: Stack, gate: Gate, settings: ApiSettings, *, untouched: bool
    ) -> None:
        """Which pages may call, and how often a key may.

        The usage plan is read back. Only where a few requests are too many, and nobody uses the API
        yet, they are sent, until one is answered 429. Raises DeployError, NoAnswer or AwsError.
        """

        def send(method: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
            key = {"x-api-key": gate.key} if gate.key and method != "OPTIONS" else {}
            return self._public.send(method, gate.url, {**headers, **key}, body)

        check_preflight(send, settings.cors_origins, self._report)
        if not gate.key:
            return
        self._check_plan(stack, settings)
        if untouched and settings.burst <= _FEW and settings.quota is None:
            check_throttle(
                send, rate=settings.rate, burst=settings.burst, at_once=_FEW, report=self._report
            )

    def _check_plan(self, stack: Stack, settings: ApiSettings) -> None:
        plan = first_of(resources(self._aws, stack), "AWS::ApiGateway::UsagePlan")
        found: Json = {}
        if plan is not None:
            found = self._aws.call("apigateway", "get_usage_plan", usagePlanId=plan.physical_id)
        throttle = found.get("throttle", {})
        if (throttle.get("rateLimit"), throttle.get("burstLimit")) != (
            settings.rate,
            settings.burst,
        ):
            raise DeployError(
                f"the usage plan of {stack.name} does not have the rate and burst of the settings",
                hint="run fdeploy create-api again",
            )
        told = f"a key may send {settings.rate:g} requests a second, {settings.burst} at once"
        self._report(Step(f"{told}, says API Gateway"))

    def _headers(self, gate: Gate, request: Json) -> dict[str, str]:
        if gate.auth == "key":
            return {"x-api-key": gate.key}
        if gate.auth == "iam":
            return self._aws.signature("execute-api", gate.url, json.dumps(request).encode())
        return {}

    def _await(self, gate: Gate) -> None:
        """Wait until the API knows its key; what it answers then, the goldens will tell."""
        deadline = self._aws.clock() + _WAIT_SECONDS
        request = {"text": "ready?"}
        self._report(Step(f"asking {gate.url}"))
        while self._aws.clock() < deadline:
            status, _ = self._public.exchange(gate.url, request, self._headers(gate, request))
            if status not in _NOT_YET:
                return
            self._aws.sleep(_POLL_SECONDS)

    def _check_refusal(self, gate: Gate) -> None:
        wanted = _REFUSED_WITHOUT[gate.auth]
        status, _ = self._public.exchange(gate.url, {"text": "no key"}, {})
        if status != wanted:
            raise DeployError(
                f"the API answered {status} to a request without credentials, and not {wanted}",
                hint="run fdeploy teardown, then fdeploy up",
            )
        if wanted != http.HTTPStatus.OK:
            self._report(Step(f"who brings no credentials is answered {status}"))

    def _key(self, stack: Stack) -> str:
        key = first_of(resources(self._aws, stack), "AWS::ApiGateway::ApiKey")
        if key is None:
            raise DeployError(
                f"the stack {stack.name} has no API key", hint="run fdeploy create-api again"
            )
        answer = self._aws.call(
            "apigateway", "get_api_key", apiKey=key.physical_id, includeValue=True
        )
        return str(answer["value"])
