"""The public API of a stack: calls over HTTPS, and the check that unauthorized calls are refused.

    key     header x-api-key; 403 without it       iam    signed requests; 403 without
    none    open to everyone                       jwt    token of the issuer; 401 without

API Gateway takes a while to activate a new key, so the first answers may be refusals.
"""

from __future__ import annotations

import http
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from fastai_deploy import __version__
from fastai_deploy.api_docs.smoke_tests import Reply, check_preflight, check_throttle
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.stacks import Stack, first_of, resources
from fastai_deploy.errors import (
    AwsMissing,
    DeployError,
    InvocationError,
    NoAnswer,
    error_from_response,
)
from fastai_deploy.parity.gate import patient
from fastai_deploy.progress import Reporter, Step
from fastai_deploy.runtime.error_responses import KEY_HINT
from fastai_deploy.settings import ApiSettings

_SECONDS = 60.0
Json = Any


class PublicApi:
    """Calls URLs; ``door`` replaces their scheme and host, for tests."""

    def __init__(self, door: str | None = None) -> None:
        self._door = door
        self._opener = urllib.request.build_opener()

    def call(self, url: str, request: Json, headers: Mapping[str, str]) -> Json:
        """POST a request and return the answer.

        Raises InvocationError with the API's own code, message and hint, or NoAnswer.
        """
        reply = self.exchange(url, request, headers)
        if reply.status != http.HTTPStatus.OK:
            raise _refused(url, reply)
        try:
            return json.loads(reply.body)
        except ValueError:
            raise InvocationError(
                f"the answer of {url} is not JSON", hint="run fdeploy logs --api to see why"
            ) from None

    def exchange(self, url: str, request: Json, headers: Mapping[str, str]) -> Reply:
        """POST a request and return the answer, whatever its status. Raises NoAnswer."""
        every = {"content-type": "application/json", **headers}
        return self.send("POST", url, every, json.dumps(request).encode())

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """Send a request and return the answer, whatever its status. Raises NoAnswer."""
        asked = urllib.request.Request(  # noqa: S310 - the URL is that of our own stack
            self.through_door(url),
            body,
            {**self.own_headers(url), **headers},
            method=method,
        )
        try:
            with self._opener.open(asked, timeout=_SECONDS) as answer:
                return _reply(answer.status, answer)
        except urllib.error.HTTPError as refused:
            with refused:
                return _reply(refused.code, refused)
        except TimeoutError:
            raise NoAnswer(
                f"{url} did not answer within {_SECONDS:g} s", hint="send less text per request"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(
                f"{url} does not answer: {error}",
                hint="check the connection; run fdeploy status to see whether the API exists",
            ) from None

    @staticmethod
    def own_headers(url: str) -> dict[str, str]:
        """The headers of every request to a URL."""
        return {"host": urlsplit(url).netloc, "user-agent": f"fdeploy/{__version__}"}

    def through_door(self, url: str) -> str:
        """The URL to send a request to."""
        if self._door is None:
            return url
        door = urlsplit(self._door)
        return urlsplit(url)._replace(scheme=door.scheme, netloc=door.netloc).geturl()


def _reply(status: int, answer: Any) -> Reply:
    headers = {str(name).lower(): str(value) for name, value in answer.headers.items()}
    return Reply(status, headers, answer.read())


def _refused(url: str, reply: Reply) -> InvocationError:
    said = reply.headers.get("retry-after", "")
    seconds = float(said) if said.isdecimal() else 0.0
    found = error_from_response(url, reply.status, reply.body, retry_after=seconds)
    if found and found.hint == KEY_HINT:  # it was sent, and is not the API's any more
        found.hint = "run fdeploy key, which fetches the API's present key, then try again"
    # Otherwise it has API Gateway's own form, such as {"message": "Forbidden"}.
    unreached = reply.status in (http.HTTPStatus.FORBIDDEN, http.HTTPStatus.NOT_FOUND)
    return found or InvocationError(
        f"{url} answered {reply.status}: {reply.body[:200].decode(errors='replace')}",
        hint="run fdeploy status to see whether the API exists, and fdeploy doctor whether "
        "something of it was deleted"
        if unreached
        else "run fdeploy logs --api to see why",
        status=reply.status,
        retry_after=seconds,
    )


Auth = Literal["key", "iam", "jwt", "none"]

URL_OUTPUT = "Url"
_FUNCTION_URL = ".lambda-url."
_REFUSED_WITHOUT = {"key": 403, "iam": 403, "jwt": 401, "none": 200}
_NOT_YET = frozenset((403, 404, 500, 502, 504))  # patient() waits for the end of 429 and 503
_POLL_SECONDS = 2.0
_WAIT_SECONDS = 120.0
_FEW = 20  # concurrent requests that a check may send


@dataclass(frozen=True)
class ApiAccess:
    """How to call an API: its URL, its authentication, and the key (empty without keys)."""

    url: str
    auth: Auth
    key: str = ""


class ApiPublisher:
    """Calls the API of a stack through ``public``."""

    def __init__(self, aws: Aws, public: PublicApi, report: Reporter) -> None:
        self._aws = aws
        self._public = public
        self._report = report

    def access(self, stack: Stack, auth: Auth) -> ApiAccess:
        """The access to a stack's API. Raises DeployError or AwsError."""
        url = stack.outputs.get(URL_OUTPUT)
        if url is None:
            raise DeployError(
                f"the stack {stack.name} has no URL output", hint="run fdeploy create-api again"
            )
        return ApiAccess(url, auth, self._key(stack) if auth == "key" else "")

    def call(self, access: ApiAccess, request: Json) -> Json:
        """Send an authorized request. Raises InvocationError."""
        return self._public.call(
            access.url, request, self.headers(access, json.dumps(request).encode())
        )

    def prove(self, access: ApiAccess, verify: Callable[[Callable[[Json], Json]], None]) -> None:
        """Check the goldens through the public URL, and that other callers are refused.

        Raises ParityError, InvocationError or DeployError.
        """
        if access.auth != "jwt":  # only the issuer can create tokens
            self._report(Step(f"waiting for {access.url}"))
            verify(patient(self._opening(access), self._aws.sleep))
        self._check_refusal(access)

    def prove_limits(
        self, stack: Stack, access: ApiAccess, settings: ApiSettings, *, untouched: bool
    ) -> None:
        """Check CORS and the rate limit.

        The usage plan is read back. The limit itself is tried, until a request is answered 429,
        only if it takes few requests and nobody uses the API yet. Raises DeployError, NoAnswer or
        AwsError.
        """

        def send(method: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
            key = {"x-api-key": access.key} if access.key and method != "OPTIONS" else {}
            return self._public.send(method, access.url, {**headers, **key}, body)

        check_preflight(send, settings.cors_origins, self._report)
        if not access.key:
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
                f"the usage plan of {stack.name} does not match rate and burst in [api]",
                hint="run fdeploy create-api again",
            )
        limit = f"{settings.rate:g} requests per second, {settings.burst} at once"
        self._report(Step(f"rate limit in API Gateway: {limit} per key"))

    def headers(self, access: ApiAccess, body: bytes) -> dict[str, str]:
        """The headers that authorize a request. Raises AwsError."""
        if access.auth == "key":
            return {"x-api-key": access.key}
        if access.auth == "iam":
            service = "lambda" if _FUNCTION_URL in access.url else "execute-api"
            return self._aws.signature(service, access.url, body)
        return {}

    def _opening(self, access: ApiAccess) -> Callable[[Json], Json]:
        """A call that waits until the API accepts its key.

        The goldens themselves are sent until then: a request more would count in the key's quota.
        """
        deadline = self._aws.clock() + _WAIT_SECONDS
        is_open = False

        def ask(request: Json) -> Json:
            nonlocal is_open
            while True:
                try:
                    answer = self.call(access, request)
                except InvocationError as error:
                    waits = error.status in _NOT_YET and self._aws.clock() < deadline
                    if is_open or not waits:
                        raise
                else:
                    is_open = True
                    return answer
                self._aws.sleep(_POLL_SECONDS)

        return ask

    def _check_refusal(self, access: ApiAccess) -> None:
        wanted = _REFUSED_WITHOUT[access.auth]
        status = self._public.exchange(access.url, {"text": "no key"}, {}).status
        if status != wanted:
            raise DeployError(
                f"the API answered {status} instead of {wanted} to a request without credentials",
                hint="run fdeploy teardown, then fdeploy up",
            )
        if wanted != http.HTTPStatus.OK:
            self._report(Step(f"requests without credentials are refused with {status}"))

    def _key(self, stack: Stack) -> str:
        key = first_of(resources(self._aws, stack), "AWS::ApiGateway::ApiKey")
        if key is None:
            raise DeployError(
                f"the stack {stack.name} has no API key", hint="run fdeploy create-api again"
            )
        try:
            answer = self._aws.call(
                "apigateway", "get_api_key", apiKey=key.physical_id, includeValue=True
            )
        except AwsMissing:
            raise DeployError(
                f"somebody has deleted the API key of the stack {stack.name}",
                hint="run fdeploy key rotate to make a new one",
            ) from None
        return str(answer["value"])
