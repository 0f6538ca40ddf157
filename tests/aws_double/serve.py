"""The double's process: ``python -m tests.aws_double.serve --announce FILE --python PYTHON``.

FILE appears once it listens, as ``{"pid": ..., "port": ...}``. It listens on 127.0.0.1, and exits
when its standard input is closed, so it never outlives the process that started it.

    POST /_double/<account>/faults      [{"kind": "lost", "call": 7}]; begins a new journal
    GET  /_double/<account>/calls       the journal
    GET  /_double/<account>/actions     the IAM actions that were checked
    POST /_double/<account>/<region>/behaviour   {"quota": {"ml.m5.large": 0}}
    POST /_double/<account>/<region>/time        "2026-11-22T16:00:00+00:00"; schedules run
    POST /_double/<account>/end         ends the account's model servers; nobody uses it again
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.aws_double.faults import SILENT, Fault, Journal, answer, skewed
from tests.aws_double.operation import Operation, Request, operation_of
from tests.aws_double.wire import BREAK, HANG, Answer, Connection, ask

_HOST = "127.0.0.1"
Handle = Callable[[str, bytes], tuple[int, Any]]


class Double:
    """Answers every request, or injects a fault; created once the port is known."""

    def __init__(self, port: int, python: str) -> None:
        # ministack reads the environment when it is imported: how a function finds the door back.
        os.environ.update(
            GATEWAY_PORT=str(port),
            LOG_LEVEL="WARNING",
            SFTP_ENABLED="0",
            IOT_MTLS_ENABLED="0",
            LAMBDA_EXECUTOR="local",
        )
        from tests.aws_double import emulator, lambda_limits, resource_types  # noqa: PLC0415
        from tests.aws_double.authorization import Authorization  # noqa: PLC0415
        from tests.aws_double.ecr import Ecr, Images, action_of, whose  # noqa: PLC0415
        from tests.aws_double.market import Market  # noqa: PLC0415
        from tests.aws_double.principals import Principals  # noqa: PLC0415
        from tests.aws_double.registry import AwsRegistries  # noqa: PLC0415
        from tests.aws_double.runtime import Runtime  # noqa: PLC0415
        from tests.aws_double.sagemaker import SageMaker  # noqa: PLC0415
        from tests.aws_double.scaling import Scaling  # noqa: PLC0415
        from tests.aws_double.schedules import Schedules  # noqa: PLC0415
        from tests.registry import Registry  # noqa: PLC0415

        self._port = port
        self._emulator = emulator
        emulator.run_functions_with(python)
        self._registry = Registry(
            access="basic",
            namespace=whose,
            refuses=self._refuses,
            creates=False,
            redirects=True,
            mounts=False,
        )
        self._action_of = action_of
        self._registry.start()
        self._sagemaker = SageMaker(python, Images(self._registry))
        self._runtime = Runtime(self._sagemaker)
        scaling = Scaling()
        market = Market(self._sagemaker.account_behaviour)
        self._principals = Principals(self._sagemaker.account_behaviour)
        self._authorization = Authorization(self._sagemaker.account_behaviour)
        others = AwsRegistries(self._sagemaker.account_behaviour)
        self._services: dict[str, Handle] = {
            "sagemaker": self._sagemaker.handle,
            "ecr": Ecr(self._registry, others.handle).handle,
            "servicequotas": market.handle,
            "pricing": market.handle,
            "application-autoscaling": scaling.handle,
        }
        self._schedules = Schedules()
        self._journals: defaultdict[str, Journal] = defaultdict(Journal)
        resource_types.install(self._sagemaker, scaling)
        lambda_limits.install(self._sagemaker.account_behaviour)
        self._authorization.install(emulator.resource_types)

    async def start(self) -> None:
        """Let ministack start what it runs beside requests."""
        started = asyncio.Event()
        arrived = [{"type": "lifespan.startup"}]

        async def receive() -> dict[str, str]:
            if not arrived:
                await asyncio.Event().wait()
            return arrived.pop()

        async def send(_message: object) -> None:
            started.set()

        self._lifespan = asyncio.create_task(
            self._emulator.app({"type": "lifespan"}, receive, send)
        )
        await started.wait()

    async def respond(self, request: Request) -> Answer:
        """Answer a request, or return the marker for no answer."""
        if request.path.startswith("/_double/"):
            return await self._control(request)
        operation = operation_of(request)
        if not operation.account:
            operation = replace(operation, account=self._account_of_api(request))
        fate = self._journals[operation.account].fate(operation, request)
        if fate == "hang":
            return HANG
        if fate == "reset":
            return BREAK
        if fate and fate not in SILENT:
            status, headers, body = answer(fate, operation)
            return status, [(n.encode(), v.encode()) for n, v in headers.items()], body
        done = self._skewed(operation, request) or await self._answer(operation, request)
        return BREAK if fate == "lost" else done

    def close(self) -> None:
        """End what the double started."""
        self._sagemaker.close()
        self._registry.close()

    def _refuses(self, namespace: str, name: str, method: str, kind: str) -> str:
        """IAM's words for a request to the registry that is not allowed; empty if it is."""
        account, _, region = namespace.partition("/")
        arn = f"arn:aws:ecr:{region}:{account}:repository/{name}"
        with self._emulator.request_scope(account, region):
            return self._authorization.words(self._action_of(method, kind), arn)

    async def _answer(self, operation: Operation, request: Request) -> Answer:
        with self._emulator.request_scope(operation.account, operation.region):
            refusal = self._authorization.refusal(operation, request)
        if refusal is not None:
            status, headers, body = refusal
            return status, [(n.encode(), v.encode()) for n, v in headers.items()], body
        if operation.service == "sagemaker" and operation.name.startswith("Invoke"):
            return await asyncio.to_thread(self._runtime.invoke, operation, request)
        handle = self._services.get(operation.service)
        with self._emulator.request_scope(operation.account, operation.region):
            if answered := self._principals.answer(operation, request):
                return answered
            if handle is None:
                return await ask(self._emulator.app, _as_emulated(request), self._port)
            status, body = handle(operation.name, request.body)
        kind = b"application/x-amz-json-1.1"
        return status, [(b"content-type", kind)], json.dumps(body).encode()

    def _skewed(self, operation: Operation, request: Request) -> Answer | None:
        """The refusal of a request that was signed by a wrong clock."""
        with self._emulator.request_scope(operation.account, operation.region):
            ahead = timedelta(seconds=self._sagemaker.account_behaviour().clock)
        refusal = skewed(operation, request, datetime.now(timezone.utc) + ahead)
        if refusal is None:
            return None
        status, headers, body = refusal
        return status, [(n.encode(), v.encode()) for n, v in headers.items()], body

    def _account_of_api(self, request: Request) -> str:
        """Whose public API an unsigned request calls."""
        api = request.headers.get("host", "").partition(".")[0]
        if found := self._emulator.lambdas.resolve_function_url(api):
            return str(found[0])
        for store in (self._emulator.rest_apis, self._emulator.http_apis):
            for account, _region, identifier in list(store._data):  # noqa: SLF001 - all accounts
                if identifier == api:
                    return str(account)
        return ""

    async def _run_schedules(self, request: Request) -> Answer:
        """Delete what the schedules of an account delete at a time; the stacks' names."""
        _, _, account, region, _time = request.path.split("/")
        now = datetime.fromisoformat(json.loads(request.body))
        with self._emulator.request_scope(account, region):
            stacks = self._schedules.due(account, region, now)
        scope = f"Credential={account}/20260101/{region}/cloudformation/aws4_request"
        headers = {
            "host": f"cloudformation.{region}.amazonaws.com",
            "content-type": "application/x-www-form-urlencoded",
            "authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0",
        }
        for stack in stacks:
            body = urlencode({"Action": "DeleteStack", "StackName": stack}).encode()
            with self._emulator.request_scope(account, region):
                call = Request("POST", "/", "", headers, body)
                status, _, said = await ask(self._emulator.app, call, self._port)
            assert status == 200, said
        return _json(200, stacks)

    async def _control(self, request: Request) -> Answer:
        _, _, account, *rest = request.path.split("/")
        if rest[-1] == "time":
            return await self._run_schedules(request)
        if rest == ["faults"]:
            faults = [Fault(**values) for values in json.loads(request.body)]
            self._journals[account] = Journal(faults)
            return _json(200, {})
        if rest == ["calls"]:
            return _json(200, self._journals[account].told())
        if rest == ["end"]:
            asyncio.get_running_loop().run_in_executor(None, self._sagemaker.close, account)
            return _json(200, {})
        if rest == ["actions"]:
            return _json(200, self._authorization.asked(account))
        region, _behaviour = rest
        with self._emulator.request_scope(account, region):
            for name, value in json.loads(request.body).items():
                setattr(self._sagemaker.account_behaviour(), name, value)
        return _json(200, {})


async def serve(listener: socket.socket, announce: Path, python: str) -> None:
    """Serve until standard input ends."""
    port = listener.getsockname()[1]
    double = Double(port, python)

    await double.start()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(reader, writer, double.respond).serve()

    server = await asyncio.start_server(connected, sock=listener)
    partial = announce.with_suffix(".partial")
    partial.write_text(json.dumps({"pid": os.getpid(), "port": port}))
    partial.replace(announce)
    try:
        await asyncio.to_thread(sys.stdin.read)
    finally:
        server.close()
        double.close()


def main() -> None:
    """Listen and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--announce", type=Path, required=True)
    parser.add_argument("--python", required=True, help="runs the model servers")
    options = parser.parse_args()
    # asyncio sets TCP_NODELAY for sockets that name their protocol, and for no others. Without it,
    # every answer waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind((_HOST, 0))
    listener.listen(256)
    asyncio.run(serve(listener, options.announce, options.python))
    os._exit(0)  # threads of the emulator would wait for work that never comes


def _as_emulated(request: Request) -> Request:
    """The request with the host by which ministack knows a public API."""
    api, found, _ = request.headers.get("host", "").partition(".execute-api.")
    if not found:
        return request
    headers = {**request.headers, "host": f"{api}.execute-api.localhost"}
    return replace(request, headers=headers)


def _json(status: int, values: object) -> Answer:
    return status, [(b"content-type", b"application/json")], json.dumps(values).encode()


if __name__ == "__main__":
    main()
