"""Lambda's limits, and what API Gateway and function URLs make of a function that fails.

    Invoke, function URL    413 above 6 MB, 429 above the account's concurrency
    REST API                413 above 10 MB, or if the event for the function is above 6 MB;
                            500 if Lambda refuses for its concurrency; 502 if the function fails

Sources: "Lambda quotas"; the message of a refused request as Z. Charles quotes it in "Deep Dive:
Lambda's Request Payload Size Limit" (2022); "Amazon API Gateway quotas"; "How do I resolve HTTP 502
errors from API Gateway REST APIs with Lambda proxy integration?" (AWS re:Post); for the 500, the
observations in re:Post question QUfI6bsdd0SOiPeyimzxSkfQ. A REST API words its own answers with the
gateway responses of its stage. That a layer is asked for by an unknown runtime is an error is what
LocalStack's tests recorded from AWS ("validate_layer_runtime", pull request 8499).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.aws_double import emulator
from tests.aws_double.behaviour import Behaviour

_REQUEST = 6_291_456  # bytes of an event, as JSON
_BODY = 10 * 1024 * 1024
_LAMBDA = "ministack.services.lambda_svc"
_REST = "ministack.services.apigateway_v1"
_RUNTIMES = ("python3.12", "python3.13", "python3.14")
Answer = tuple[int, dict[str, str], bytes]


class _Refused(Exception):
    """What API Gateway answers itself: the type of the gateway response, and its status."""

    def __init__(self, response: str, status: int) -> None:
        super().__init__(response)
        self.response, self.status = response, status


def install(behaviour: Callable[[], Behaviour]) -> None:
    """Teach ministack; ``behaviour`` gives that of the request's account."""
    _refuse_runtimes(emulator.resource_types["AWS::Lambda::Function"], behaviour)
    emulator.replace_part(_LAMBDA, "_invoke", _limited_invoke)
    emulator.replace_part(_LAMBDA, "_list_layers", lambda before: _known(before, behaviour))
    emulator.replace_part(_LAMBDA, "_get_account_settings", lambda b: _settings(b, behaviour))
    emulator.replace_part(_LAMBDA, "_acquire_execution_slot", lambda b: _slots(b, behaviour))
    emulator.replace_part(_LAMBDA, "handle_function_url_request", _limited_url)
    emulator.replace_part(_REST, "_call_lambda_raw", _failing)
    emulator.replace_part(_REST, "_invoke_lambda_proxy_v1", _answering)
    emulator.replace_part(_REST, "_gateway_error_response", _with_status)


def _size(event: Any) -> int:
    return len(json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _error(code: str, message: str, status: int) -> Answer:
    answered: Answer = emulator.lambdas.error_response_json(code, message, status)
    return answered


def _limited_invoke(before: Any) -> Any:
    async def invoke(name: str, event: Any, *arguments: Any) -> Any:
        if _size(event) > _REQUEST:
            said = f"Request must be smaller than {_REQUEST} bytes for the InvokeFunction operation"
            return _error("RequestEntityTooLargeException", said, 413)
        return await before(name, event, *arguments)

    return invoke


def _limited_url(before: Any) -> Any:
    async def handle(url: str, method: str, path: str, headers: Any, body: bytes, *more: Any,
                     **options: Any) -> Any:  # fmt: skip
        if len(body) > _REQUEST:
            kind = {"Content-Type": "application/json"}
            return 413, kind, b'{"Message":"Request Entity Too Large"}'
        return await before(url, method, path, headers, body, *more, **options)

    return handle


def _known(before: Any, behaviour: Callable[[], Behaviour]) -> Any:
    def list_layers(query: Any) -> Any:
        asked = query.get("CompatibleRuntime")
        runtime = asked[0] if isinstance(asked, list) else asked
        there = [each for each in _RUNTIMES if each not in behaviour().missing_runtimes]
        if runtime and runtime not in there:
            said = (
                f"1 validation error detected: Value '{runtime}' at 'compatibleRuntime' failed to "
                f"satisfy constraint: Member must satisfy enum value set: [{', '.join(there)}]"
            )
            return _error("ValidationException", said, 400)
        return before(query)

    return list_layers


def _refuse_runtimes(handlers: dict[str, Any], behaviour: Callable[[], Behaviour]) -> None:
    """Creating a function fails in a region that lacks its runtime; the words are CreateFunction's.

    LocalStack's issue 278 of serverless-localstack quotes them.
    """
    create = handlers["create"]

    def checked(logical_id: str, props: Any, stack: str) -> Any:
        runtime = props.get("Runtime")
        if runtime in behaviour().missing_runtimes:
            raise ValueError(
                f"Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy "
                "enum value set: [python3.12] or be a valid ARN (Service: Lambda, 400)"
            )
        return create(logical_id, props, stack)

    handlers["create"] = checked


def _settings(before: Any, behaviour: Callable[[], Behaviour]) -> Any:
    def account_settings() -> Any:
        status, headers, body = before()
        found = json.loads(body)
        limit, most = found["AccountLimit"], behaviour().concurrency
        reserved = limit["ConcurrentExecutions"] - limit["UnreservedConcurrentExecutions"]
        limit.update(ConcurrentExecutions=most, UnreservedConcurrentExecutions=most - reserved)
        return status, headers, json.dumps(found).encode()

    return account_settings


def _slots(before: Any, behaviour: Callable[[], Behaviour]) -> Any:
    def acquire(function: Any, config: Any) -> Any:
        mine = f"{emulator.get_account()}:"
        _, by_function = emulator.lambdas.executions_in_flight()
        running = sum(count for key, count in by_function.items() if key.startswith(mine))
        if running >= behaviour().concurrency:
            return None, "account"
        return before(function, config)

    return acquire


def _failing(before: Any) -> Any:
    async def call(reference: str, event: Any, **scope: Any) -> Any:
        if _size(event) > _REQUEST:
            raise _Refused("REQUEST_TOO_LARGE", 413)
        result, wrong = await before(reference, event, **scope)
        if result and result.get("throttle"):
            raise _Refused("DEFAULT_5XX", 500)
        if result and result.get("error"):
            raise _Refused("DEFAULT_5XX", 502)
        return result, wrong

    return call


def _answering(before: Any) -> Any:
    async def invoke(*arguments: Any, **options: Any) -> Any:
        *_, body, _query, _path = arguments
        if len(body or b"") > _BODY:
            return _gateway_error("REQUEST_TOO_LARGE", 413)
        try:
            return await before(*arguments, **options)
        except _Refused as refused:
            return _gateway_error(refused.response, refused.status)

    return invoke


def _gateway_error(response: str, status: int) -> Any:
    error = emulator.rest_gateway._gw_error(response, "Internal server error")  # noqa: SLF001 - its own
    error.status = status
    return error


def _with_status(before: Any) -> Any:
    def respond(error: Any, request: Any) -> Any:
        status, headers, body = before(error, request)
        return getattr(error, "status", status), headers, body

    return respond
