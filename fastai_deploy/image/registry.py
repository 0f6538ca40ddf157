"""Reads images from a container registry and pushes them, over its HTTP protocol.

The protocol is that of the OCI distribution specification, as ``oras`` speaks it. Logins come from
Docker's configuration and its credential helpers, proxies from the environment.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import requests
from oras.container import Container
from oras.provider import Registry
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from urllib3 import Retry
from urllib3.exceptions import MaxRetryError, ProxyError

from fastai_deploy.errors import HashMismatch, ImageError
from fastai_deploy.image.blobs import BlobStore
from fastai_deploy.image.names import (
    ACCEPTED,
    DIGEST,
    INDEXES,
    MANIFEST,
    OCI_MANIFEST,
    Destination,
    Document,
    digest_of,
)

_MOST = 4 << 20  # bytes of a manifest or a configuration; the specification's own limit
_CHUNK = 1 << 20
_CONNECT_SECONDS, _READ_SECONDS = 10.0, 60.0
_TRIES = 4
_PASSING = (429, 500, 502, 503, 504)  # statuses that are tried again
_DONE = (200, 201, 202)
_NOT_FOUND = 404
_THIS_MACHINE = ("localhost", "127.0.0.1")  # without HTTPS, as Docker
_REFUSED = (401, 403)
_PROXY_LOGIN = 407
_UNTRUSTED = "its certificate is not trusted"
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")  # as http.client says it


class Repository:
    """One repository of a registry, such as ``public.ecr.aws/docker/library/python``.

    Without a ``login`` (user and password), it is found as Docker does. Every method raises
    ImageError if the registry refuses, is not reached or does not speak the protocol.
    """

    def __init__(
        self, name: str, *, login: tuple[str, str] | None = None, insecure: bool = False
    ) -> None:
        self.name = name
        self.host = name.partition("/")[0]
        self._login = login
        self._insecure = insecure or self.host.partition(":")[0] in _THIS_MACHINE

    @classmethod
    def of(cls, destination: Destination) -> Repository:
        """The repository to push to."""
        return cls(
            f"{destination.registry}/{destination.repository}",
            login=(destination.username, destination.password),
            insecure=destination.insecure,
        )

    def document(self, reference: str) -> Document:
        """The manifest or index that a tag or a digest names. Raises HashMismatch as well."""
        answer = self._ask("GET", f"manifests/{reference}", headers={"Accept": ACCEPTED})
        media_type = answer.headers.get("Content-Type", "").partition(";")[0]
        if media_type not in {*INDEXES, MANIFEST, OCI_MANIFEST}:
            by = f", or the proxy in {self._proxy}," if self._proxy else ""
            raise self._error(f"{by} answered with {media_type or 'no type'}, not a manifest")
        data = answer.content
        if len(data) > _MOST:
            raise self._error(f" sent a manifest of {len(data):,} bytes")
        digest = digest_of(data)
        if DIGEST.fullmatch(reference) and digest != reference:
            raise self._mismatch(f"the manifest {reference}")
        return Document(digest, media_type, data)

    def digest(self, tag: str) -> str | None:
        """The digest that a tag names now; None if there is no such tag."""
        answer = self._send("HEAD", f"manifests/{tag}", headers={"Accept": ACCEPTED})
        if answer.status_code == _NOT_FOUND:
            return None
        self._check(answer, f"manifests/{tag}")
        found = answer.headers.get("Docker-Content-Digest", "")
        return found if DIGEST.fullmatch(found) else self.document(tag).digest

    def resolve(self, tag: str) -> str:
        """The digest that a tag names now; an error if there is no such tag."""
        found = self.digest(tag)
        if found is None:
            raise self._missing(f"image {tag}")
        return found

    def labels(self, reference: str) -> Mapping[str, str]:
        """The labels of an image, from its configuration. Raises HashMismatch as well."""
        document = self.document(reference)
        try:
            digest = str(json.loads(document.data)["config"]["digest"])
            answer = self._ask("GET", f"blobs/{digest}")
            if digest_of(answer.content) != digest:
                raise self._mismatch(f"the blob {digest}")
            found = json.loads(answer.content)["config"].get("Labels") or {}
            return {str(name): str(value) for name, value in found.items()}
        except (ValueError, LookupError, TypeError, AttributeError):
            raise self._error(f" has an image {reference} without a configuration") from None

    def download(self, digest: str, size: int, store: BlobStore) -> None:
        """Download a blob into the store, unless it is there. Raises HashMismatch or FileError."""
        if store.find(digest, size) is not None:
            return
        answer = self._ask("GET", f"blobs/{digest}", stream=True)
        with answer, self._errors():
            found, _ = store.add(_at_most(size, answer.iter_content(_CHUNK)), size=size)
        if found != digest:
            raise self._mismatch(f"the blob {digest}")

    def has(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        answer = self._send("HEAD", f"blobs/{digest}")
        if answer.status_code == _NOT_FOUND:
            return False
        self._check(answer, f"blobs/{digest}")
        return True

    def upload(self, digest: str, size: int, path: Path) -> None:
        """Upload a blob, unless it is there: so an interrupted push goes on where it ended."""
        if self.has(digest):
            return
        blob = {"digest": digest, "size": size}
        with self._errors():
            answer = self._client.put_upload(str(path), self._container, blob)
        # An answer may be lost, and the upload be repeated when it has ended already.
        if answer.status_code != _NOT_FOUND or not self.has(digest):
            self._check(answer, "blobs/uploads")

    def put(self, tag: str, document: Document) -> None:
        """Store a manifest under a tag. Raises HashMismatch if the registry stored another."""
        answer = self._ask(
            "PUT",
            f"manifests/{tag}",
            data=document.data,
            headers={"Content-Type": document.media_type},
        )
        stored = answer.headers.get("Docker-Content-Digest") or self.digest(tag)
        if stored != document.digest:
            raise self._mismatch(f"the manifest {document.digest}")

    def _ask(self, method: str, path: str, **options: Any) -> requests.Response:
        answer = self._send(method, path, **options)
        self._check(answer, path)
        return answer

    def _send(self, method: str, path: str, **options: Any) -> requests.Response:
        repository = self.name.partition("/")[2]
        url = f"{self._scheme}://{self.host}/v2/{repository}/{path}"
        with self._errors():
            answer: requests.Response = self._client.do_request(url, method, **options)
        return answer

    def _check(self, answer: requests.Response, path: str) -> None:
        status = answer.status_code
        if status in _DONE:
            return
        if status in _REFUSED:
            raise self._refused()
        if status == _PROXY_LOGIN:
            raise self._unreachable(status)
        if status == _NOT_FOUND:
            raise self._missing(path.replace("manifests/", "image "))
        raise self._error(f" answered {status} ({answer.reason}){_said(answer)}")

    @cached_property
    def _client(self) -> Any:
        return _client(self._container, self._login, insecure=self._insecure)

    @cached_property
    def _container(self) -> Any:
        return Container(f"{self.name}:latest")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the libraries' errors into ours, without URLs, which may hold a token."""
        try:
            yield
        except requests.exceptions.ProxyError as error:
            refused = _TUNNEL.search(str(error))
            raise self._unreachable(int(refused[1]) if refused else 0) from None
        except requests.RequestException as error:
            reason = _reason(error)
            found = self._error(f" cannot be reached: {reason}")
            if reason == _UNTRUSTED:
                found.hint = "set REQUESTS_CA_BUNDLE to the certificates of your network"
            raise found from None
        except (ValueError, KeyError) as error:  # oras: no way to log in, no place to upload to
            if "authentication" in str(error):
                raise self._refused() from None
            raise self._error(" does not speak the protocol of registries") from None

    def _refused(self) -> ImageError:
        return ImageError(
            f"the registry {self.host} refuses access to {self.name}",
            hint=f"log in (docker login {self.host}), or name another base_image in [package]",
        )

    def _missing(self, what: str) -> ImageError:
        another = "name another base_image in [package]"
        if "sha256:" in what:
            another += ", or add --pull if its tag names a newer build"
        return ImageError(f"the registry {self.host} has no {what} in {self.name}", hint=another)

    def _error(self, what: str) -> ImageError:
        return ImageError(
            f"the registry {self.host}{what}",
            hint=f"{self._check_network}, or name another base_image in [package]",
        )

    def _mismatch(self, what: str) -> HashMismatch:
        return HashMismatch(
            f"{what} from {self.host} does not have its hash: it was damaged or changed on the way",
            hint=f"{self._check_network}, and run the command again",
        )

    def _unreachable(self, status: int) -> ImageError:
        """The error if the proxy keeps us from the registry; ``status`` is its answer, or 0."""
        variable = self._proxy or "your proxy"
        proxy = f"the proxy in {variable}" if self._proxy else "the proxy"
        hint = f"check {variable}, or add {self.host.partition(':')[0]} to NO_PROXY"
        if status == _PROXY_LOGIN:
            why = f"{proxy} asks for a user and a password"
            hint = f"put the right ones into {variable}: http://USER:PASSWORD@HOST:PORT"
        else:
            why = f"{proxy} refuses it ({status})" if status else f"{proxy} does not answer"
        return ImageError(f"the registry {self.host} cannot be reached: {why}", hint=hint)

    @property
    def _check_network(self) -> str:
        return f"check the network and its proxy ({self._proxy or 'HTTPS_PROXY'})"

    @property
    def _proxy(self) -> str:
        """The environment variable that names the proxy to the registry; empty without one."""
        url = f"{self._scheme}://{self.host}"
        if select_proxy(url, get_environ_proxies(url)) is None:
            return ""
        names = (f"{self._scheme}_proxy", "all_proxy")
        spelled = (each for name in names for each in (name, name.upper()))
        return next((name for name in spelled if os.environ.get(name)), "")

    @property
    def _scheme(self) -> str:
        return "http" if self._insecure else "https"


def _at_most(size: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks until they have more bytes than were announced."""
    for chunk in chunks:
        yield chunk
        size -= len(chunk)
        if size < 0:
            return


class _Retry(Retry):
    """Tries again what may pass, which the refusal of a proxy does not."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> _Retry:
        if isinstance(error, ProxyError):
            raise MaxRetryError(_pool, url or "", error)
        return super().increment(method, url, response, error, _pool, _stacktrace)


class _Client(Registry):  # type: ignore[misc]  # it has no types
    do_request = Registry.do_request.__wrapped__  # without its decorator


class _Adapter(HTTPAdapter):
    def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]
        options["timeout"] = options.get("timeout") or (_CONNECT_SECONDS, _READ_SECONDS)
        return super().send(request, **options)


def _client(container: Any, login: tuple[str, str] | None, *, insecure: bool) -> Any:
    """A client of ``oras`` that gives up on a refused login at once, and after a while on silence.

    By itself it repeats whatever fails for two minutes, a wrong password too, and waits for ever.
    """
    # What it logs as errors, such as a token that it has not got yet, is no news for users.
    logging.getLogger("oras.logger").disabled = True
    backend = "token" if login is None else "basic"
    client = _Client(container.registry, insecure=insecure, auth_backend=backend)
    retry = _Retry(
        _TRIES,
        allowed_methods=None,  # every one: what is uploaded is named by its hash
        status_forcelist=_PASSING,
        backoff_factor=0.3,
        raise_on_status=False,
    )
    for scheme in ("https://", "http://"):
        client.session.mount(scheme, _Adapter(max_retries=retry))
    if login is not None:
        client.auth.set_basic_auth(*login)
        # With each request: as an answer to 401, a layer would be sent twice.
        client.session.auth = login
    else:
        client.auth.load_configs(container)
    return client


def _reason(error: Exception) -> str:
    """What happened, without addresses: the innermost cause's class, in words."""
    if isinstance(error, requests.exceptions.SSLError):
        return _UNTRUSTED if "CERTIFICATE_VERIFY_FAILED" in str(error) else "it does not speak TLS"
    if isinstance(error, requests.exceptions.Timeout):
        return "it does not answer in time"
    return "the connection fails"


def _said(answer: requests.Response) -> str:
    """The registry's own words about an error, if it has some."""
    try:
        return f": {str(answer.json()['errors'][0]['message'])[:200]}"
    except (ValueError, LookupError, TypeError):
        return ""
