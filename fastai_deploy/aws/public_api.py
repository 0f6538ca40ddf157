"""The public API as a client sees it: HTTPS, a route and a key.

``door`` is where requests go in the place of the URL's own host, as ``AWS_ENDPOINT_URL`` is for
boto3; the Host header stays what it is, which is how API Gateway finds the API.
"""

from __future__ import annotations

import http
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from fastai_deploy import __version__
from fastai_deploy.errors import InvocationError, NoAnswer
from fastai_deploy.public.proofs import Reply
from fastai_deploy.refusal import refused

_SECONDS = 60.0
Json = Any


class PublicApi:
    """Calls URLs; through ``door`` where one is given."""

    def __init__(self, door: str | None = None) -> None:
        self._door = door
        self._opener = urllib.request.build_opener()

    def call(self, url: str, request: Json, headers: Mapping[str, str]) -> Json:
        """POST a request and return the answer.

        Raises InvocationError with the API's own code, message and hint, or NoAnswer.
        """
        status, data = self.exchange(url, request, headers)
        if status != http.HTTPStatus.OK:
            raise _refused(url, status, data)
        try:
            return json.loads(data)
        except ValueError:
            raise InvocationError(f"{url} answered no JSON", hint="fdeploy logs --api") from None

    def exchange(self, url: str, request: Json, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """POST a request and return status and body, whatever they are. Raises NoAnswer."""
        every = {"content-type": "application/json", **headers}
        reply = self.send("POST", url, every, json.dumps(request).encode())
        return reply.status, reply.body

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """Send a request and return the answer, whatever it is. Raises NoAnswer."""
        asked = urllib.request.Request(  # noqa: S310 - the URL is that of our own stack
            self._through_door(url),
            body,
            {"host": urlsplit(url).netloc, "user-agent": f"fdeploy/{__version__}", **headers},
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
                f"{url} did not answer within {_SECONDS:g} s", hint="send less text at once"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(
                f"{url} does not answer: {error}",
                hint="check the connection; fdeploy status shows whether the API is there",
            ) from None

    def _through_door(self, url: str) -> str:
        if self._door is None:
            return url
        door = urlsplit(self._door)
        return urlsplit(url)._replace(scheme=door.scheme, netloc=door.netloc).geturl()


def _reply(status: int, answer: Any) -> Reply:
    headers = {str(name).lower(): str(value) for name, value in answer.headers.items()}
    return Reply(status, headers, answer.read())


def _refused(url: str, status: int, data: bytes) -> InvocationError:
    # Else it is in API Gateway's own words, such as {"message": "Forbidden"}.
    return refused(url, status, data) or InvocationError(
        f"{url} answered {status}: {data[:200].decode(errors='replace')}",
        hint="fdeploy logs --api shows why",
        status=status,
    )
