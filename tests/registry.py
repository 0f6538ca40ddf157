"""A container registry in this process, for tests: the OCI distribution protocol over HTTP.

It listens on 127.0.0.1, on a free port, and keeps everything in memory. It does what the
specification asks of a registry (v1.1: pull, push in one request or in chunks, cross-repository
mounts, tags), and what real registries add:

    access="basic"     401 with a Basic realm, as ECR; ``namespace`` says whose repositories
    access="token"     401 with a Bearer realm and a token for everybody, as ECR Public, Docker Hub
    redirects=True     blobs come from elsewhere, which refuses credentials, as ECR's do (S3)
    creates=False      a repository must be there before an image is pushed, as in ECR
    immutable          a tag of such a repository stays, even for the same image, as in ECR

It takes requests for other hosts too, as a proxy gets them, and answers them itself.

``test_registry.py`` compares it with Debian's ``docker-registry``, where that is installed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, cast
from urllib.parse import parse_qs, quote, urlsplit

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker.distribution"
_INDEXES = (f"{OCI}.index.v1+json", f"{DOCKER}.manifest.list.v2+json")
_NAME = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ROUTE = re.compile(
    rf"/v2/(?P<name>{_NAME})/(?P<kind>blobs/uploads|blobs|manifests|tags)/(?P<rest>.*)"
)
_TOKEN = "token-for-everybody"
_JSON = "application/json; charset=utf-8"
_STORAGE = "/storage/"

Refuses = Callable[[str, str, str, str], str]
"""Why a request is refused, empty if it is not: namespace, repository, method and kind of path."""
Namespace = Callable[[str, str], "str | None"]
"""Whose repositories a user and a password open, ``""`` for everybody's; None if they are wrong."""


def digest_of(data: bytes) -> str:
    """The digest of a blob: ``sha256:...``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Trouble:
    """What happens to requests whose method and path match (``path`` is a regular expression).

    ``kind`` is a status such as ``"429"``, or one of these:

        reset      the connection breaks off; what has arrived of an upload is half of it
        lost       done, but the answer never comes
        hang       no answer until the client leaves or the registry ends
        html       200, and a page for people, as behind the login of a hotel
        altered    other bytes of the same length
        cut        the connection breaks off in the middle of the answer

    ``skip`` requests pass before, and ``times`` are hit (0: all). ``headers`` go with a status.
    """

    kind: str
    method: str = ""
    path: str = ""
    times: int = 1
    skip: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    met: int = 0

    def meets(self, method: str, path: str) -> bool:
        """Whether this request is hit; counts it."""
        if self.method not in ("", method) or not re.search(self.path, path):
            return False
        self.met += 1
        return self.met > self.skip and (not self.times or self.met <= self.skip + self.times)


@dataclass
class Repository:
    """The content of one repository; ``manifests`` are media type and bytes by digest."""

    immutable: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def digest(self, reference: str) -> str | None:
        """The digest of a manifest, by its tag or digest; None if there is none."""
        found = reference if _DIGEST.fullmatch(reference) else self.tags.get(reference)
        return found if found in self.manifests else None

    def missing(self, media_type: str, manifest: bytes) -> list[str]:
        """The digests that a manifest names and the repository lacks. Raises ValueError."""
        try:
            parsed = json.loads(manifest)
            if media_type in _INDEXES:
                named, there = [each["digest"] for each in parsed["manifests"]], [*self.manifests]
            else:
                named = [each["digest"] for each in (parsed["config"], *parsed["layers"])]
                there = [*self.blobs]
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from None
        return [digest for digest in named if digest not in there]


@dataclass(frozen=True)
class Asked:
    """A request that the registry got, and the status of its answer (0: none was sent)."""

    method: str
    path: str
    status: int
    headers: Mapping[str, str]


class _Refused(Exception):
    """An error of the specification."""

    def __init__(self, status: int, code: str, message: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


class _Gone(Exception):
    """The connection breaks off."""


class Registry:
    """A registry; it listens between ``start`` and ``close``, or see ``running_registry``."""

    def __init__(
        self,
        *,
        access: Literal["open", "basic", "token"] = "open",
        namespace: Namespace = lambda _user, _password: "",
        refuses: Refuses = lambda _namespace, _name, _method, _kind: "",
        creates: bool = True,
        redirects: bool = False,
        mounts: bool = True,
    ) -> None:
        self.access = access
        self.namespace = namespace
        self.refuses = refuses
        self.creates = creates
        self.redirects = redirects
        self.mounts = mounts
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytearray] = {}
        self.troubles: list[Trouble] = []
        self.asked: list[Asked] = []
        self.lock = threading.RLock()
        self.ended = threading.Event()
        self._servers = [_Server(("127.0.0.1", 0), _Handler) for _ in ("registry", "storage")]
        for server in self._servers:
            server.registry = self
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            for server in self._servers
        ]

    @property
    def address(self) -> str:
        """The registry as an image's name has it: ``127.0.0.1:5000``."""
        return f"127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        return f"http://{self.address}"

    @property
    def storage(self) -> str:
        """The URL of where blobs come from, if the registry redirects: of another port."""
        return f"http://127.0.0.1:{self._servers[1].server_address[1]}{_STORAGE}"

    def start(self) -> None:
        """Listen."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End it, and the requests that hang."""
        self.ended.set()
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()

    def trouble(self, *troubles: Trouble) -> None:
        """Let these happen from now on, instead of earlier ones; forget what was asked."""
        with self.lock:
            self.troubles = list(troubles)
            self.asked = []

    def repository(self, name: str, *, immutable: bool = False, namespace: str = "") -> Repository:
        """A repository, which is made if there is none."""
        with self.lock:
            made = Repository(immutable=immutable)
            return self.repositories.setdefault(_place(namespace, name), made)

    def put_image(
        self,
        name: str,
        tag: str,
        *,
        layers: Sequence[bytes] = (),
        config: Mapping[str, Any] | None = None,
        kind: str = OCI,
        more: Mapping[str, Any] | None = None,
    ) -> str:
        """Put an image of these layers (as they are stored) there; its digest.

        ``kind`` is ``OCI`` or ``DOCKER``; ``more`` are further members of the manifest.
        """
        repository = self.repository(name)
        docker = kind == DOCKER
        types = {
            "config": "application/vnd.docker.container.image.v1+json"
            if docker
            else f"{OCI}.config.v1+json",
            "layer": "application/vnd.docker.image.rootfs.diff.tar.gzip"
            if docker
            else f"{OCI}.layer.v1.tar+gzip",
            "manifest": f"{DOCKER}.manifest.v2+json" if docker else f"{OCI}.manifest.v1+json",
        }

        def blob(kind: str, data: bytes) -> dict[str, Any]:
            repository.blobs[digest_of(data)] = data
            return {"mediaType": types[kind], "digest": digest_of(data), "size": len(data)}

        manifest = {
            "schemaVersion": 2,
            "mediaType": types["manifest"],
            "config": blob("config", json.dumps(config or {}).encode()),
            "layers": [blob("layer", layer) for layer in layers],
            **(more or {}),
        }
        return self.put_manifest(name, tag, types["manifest"], json.dumps(manifest).encode())

    def put_index(self, name: str, tag: str, images: Mapping[str, str], *, kind: str = OCI) -> str:
        """Put an index of images there, by platform such as ``linux/amd64``; its digest."""
        repository = self.repository(name)
        listed = []
        for platform, digest in images.items():
            system, machine, *variant = platform.split("/")
            media_type, data = repository.manifests[digest]
            about = {"os": system, "architecture": machine}
            about.update({"variant": variant[0]} if variant else {})
            listed.append(
                {"mediaType": media_type, "digest": digest, "size": len(data), "platform": about}
            )
        media_type = _INDEXES[1] if kind == DOCKER else _INDEXES[0]
        index = {"schemaVersion": 2, "mediaType": media_type, "manifests": listed}
        return self.put_manifest(name, tag, media_type, json.dumps(index).encode())

    def put_manifest(self, name: str, tag: str, media_type: str, data: bytes) -> str:
        """Put a manifest there without looking at it; its digest. ``tag`` may be empty."""
        repository = self.repository(name)
        with self.lock:
            repository.manifests[digest_of(data)] = media_type, data
            if tag:
                repository.tags[tag] = digest_of(data)
        return digest_of(data)


@contextlib.contextmanager
def running_registry(**options: Any) -> Iterator[Registry]:
    """A registry that listens inside the block; ``options`` are those of :class:`Registry`."""
    registry = Registry(**options)
    registry.start()
    try:
        yield registry
    finally:
        registry.close()


def _place(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    registry: Registry

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no news; whatever else fails here fails its test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    _status = 0
    _read = 0
    _chunked_ended = False
    _data = b""

    @property
    def _registry(self) -> Registry:
        return cast("_Server", self.server).registry

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Write nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_CONNECT = do_GET  # noqa: N815 - its names

    def _answer(self) -> None:
        self._status, self._read, self._chunked_ended = 0, 0, False
        try:
            self._meet(self._fate())
        except _Refused as error:
            about = [{"code": error.code, "message": error.message, "detail": None}]
            self._send(error.status, json.dumps({"errors": about}).encode(), **error.headers)
        except (_Gone, ConnectionError):
            self.close_connection = True
        finally:
            with self._registry.lock:
                asked = Asked(self.command, self.path, self._status, dict(self.headers))
                self._registry.asked.append(asked)
        try:
            if not self.close_connection:
                self._body()  # what is left of the request, or it would be read as the next one
            self.wfile.flush()
        except (_Gone, ConnectionError):
            self.close_connection = True

    def _fate(self) -> Trouble | None:
        with self._registry.lock:
            met = (t for t in self._registry.troubles if t.meets(self.command, self.path))
            return next(met, None)

    def _meet(self, trouble: Trouble | None) -> None:
        kind = trouble.kind if trouble else ""
        if kind == "hang":
            self._registry.ended.wait()
            raise _Gone
        if kind == "reset":
            self._keep_half()
            raise _Gone
        if kind == "html":
            page = b"<!DOCTYPE html><title>Welcome</title><p>Please sign in."
            self._send(200, page, content_type="text/html; charset=utf-8")
        elif kind.isdecimal():
            assert trouble is not None
            words = {"401": "UNAUTHORIZED", "403": "DENIED", "429": "TOOMANYREQUESTS"}
            raise _Refused(int(kind), words.get(kind, "UNKNOWN"), "injected", **trouble.headers)
        else:
            self._serve(kind)

    def _keep_half(self) -> None:
        """What a broken connection leaves of an upload: half of what was on its way."""
        match = _ROUTE.fullmatch(urlsplit(self.path).path)
        body = self._body()
        with self._registry.lock:
            upload = self._registry.uploads.get(match["rest"] if match else "")
            if upload is not None and self.command == "PATCH":
                upload += body[: len(body) // 2]

    # Who asks, and for what

    def _serve(self, kind: str) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/token":
            self._send(200, json.dumps({"token": _TOKEN, "expires_in": 300}).encode())
            return
        if url.path.startswith(_STORAGE):
            self._storage(url.path, kind)
            return
        namespace = self._allowed()
        if url.path in ("/v2", "/v2/"):
            self._send(200, b"{}", content_type=_JSON)
            return
        match = _ROUTE.fullmatch(url.path)
        if match is None:
            raise _Refused(404, "NAME_INVALID", f"no route for {url.path}")
        why = self._registry.refuses(namespace, match["name"], self.command, match["kind"])
        if why:
            raise _Refused(403, "DENIED", why)
        place, rest = _place(namespace, match["name"]), match["rest"]
        self._data = self._body()  # before the lock: others are answered while it arrives
        with self._registry.lock:
            answer = {
                "blobs/uploads": lambda: self._upload(place, match["name"], rest, query, namespace),
                "blobs": lambda: self._blob(place, rest),
                "manifests": lambda: self._manifest(place, match["name"], rest),
                "tags": lambda: self._tags(place, match["name"], query),
            }[match["kind"]]()
        if kind == "lost":
            raise _Gone
        status, headers, body = answer
        self._send(status, body, kind=kind, **headers)

    def _allowed(self) -> str:
        """The namespace of the request's credentials. Raises _Refused."""
        registry, header = self._registry, self.headers.get("Authorization", "")
        scheme, _, value = header.partition(" ")
        if registry.access == "open":
            return ""
        if registry.access == "token":
            if (scheme, value) == ("Bearer", _TOKEN):
                return ""
            realm = f'Bearer realm="{registry.url}/token",service="{registry.address}",scope="aws"'
            raise _Refused(401, "UNAUTHORIZED", "a token is needed", www_authenticate=realm)
        if scheme == "Basic":
            try:
                user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
            except ValueError:
                user = password = ""
            namespace = registry.namespace(user, password)
            if namespace is not None:
                return namespace
        realm = f'Basic realm="{registry.url}/",service="ecr.amazonaws.com"'
        raise _Refused(401, "UNAUTHORIZED", "Not Authorized", www_authenticate=realm)

    def _repository(self, place: str, name: str) -> Repository:
        found = self._registry.repositories.get(place)
        if found is None and self._registry.creates and "/manifests/" in self.path:
            raise _Refused(404, "MANIFEST_UNKNOWN", "manifest unknown")
        if found is None:
            message = f"The repository with name '{name}' does not exist in the registry"
            raise _Refused(404, "NAME_UNKNOWN", message)
        return found

    # Reading

    def _blob(self, place: str, digest: str) -> tuple[int, dict[str, str], bytes]:
        repository = self._registry.repositories.get(place)
        if not _DIGEST.fullmatch(digest):
            raise _Refused(400, "DIGEST_INVALID", digest)
        if self.command not in ("GET", "HEAD"):
            raise _Refused(405, "UNSUPPORTED", "blobs are not deleted")
        if repository is None or digest not in repository.blobs:
            raise _Refused(404, "BLOB_UNKNOWN", digest)
        about = {"docker_content_digest": digest, "content_type": "application/octet-stream"}
        if self._registry.redirects and self.command == "GET":
            where = f"{self._registry.storage}{quote(place, safe='')}/{digest}?Signature=x"
            return 307, {"location": where}, b""
        return self._ranged(about, repository.blobs[digest])

    def _storage(self, path: str, kind: str) -> None:
        """A blob by a signed URL. S3 refuses two ways of signing at once."""
        if "Authorization" in self.headers:
            raise _Refused(400, "InvalidArgument", "Only one auth mechanism allowed")
        place, _, digest = path.removeprefix(_STORAGE).rpartition("/")
        place = place.replace("%2F", "/")
        status, headers, body = self._ranged({}, self._registry.repositories[place].blobs[digest])
        self._send(status, body, kind=kind, **headers)

    def _ranged(self, about: dict[str, str], data: bytes) -> tuple[int, dict[str, str], bytes]:
        """The blob, or the part from an offset to the end (RFC 9110, 14.2)."""
        about["accept_ranges"] = "bytes"
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            return 200, about, data
        start, end = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
        if start > end:
            raise _Refused(416, "RANGE_INVALID", "", content_range=f"bytes */{len(data)}")
        about["content_range"] = f"bytes {start}-{end}/{len(data)}"
        return 206, about, data[start : end + 1]

    def _tags(
        self, place: str, name: str, query: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        tags = sorted(self._repository(place, name).tags)
        tags = [tag for tag in tags if tag > query.get("last", "")]
        listed = {"name": name, "tags": tags[: int(query.get("n", "1000"))]}
        return 200, {"content_type": _JSON}, json.dumps(listed).encode()

    # Manifests

    def _manifest(self, place: str, name: str, reference: str) -> tuple[int, dict[str, str], bytes]:
        if self.command == "PUT":
            return self._put_manifest(place, name, reference)
        if self.command not in ("GET", "HEAD"):
            raise _Refused(405, "UNSUPPORTED", "manifests are not deleted")
        repository = self._repository(place, name)
        digest = repository.digest(reference)
        if digest is None:
            raise _Refused(404, "MANIFEST_UNKNOWN", f"Requested image not found: {reference}")
        media_type, data = repository.manifests[digest]
        return 200, {"content_type": media_type, "docker_content_digest": digest}, data

    def _put_manifest(
        self, place: str, name: str, reference: str
    ) -> tuple[int, dict[str, str], bytes]:
        repository, data = self._writable(place, name), self._data
        media_type, digest = self.headers.get("Content-Type", ""), digest_of(data)
        try:
            stated = json.loads(data).get("mediaType", media_type)
            missing = repository.missing(media_type, data)
        except (ValueError, AttributeError) as error:
            raise _Refused(400, "MANIFEST_INVALID", str(error)) from None
        if stated != media_type:
            raise _Refused(400, "MANIFEST_INVALID", f"{stated} was sent as {media_type}")
        by_digest = _DIGEST.fullmatch(reference)
        if by_digest and reference != digest:
            raise _Refused(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        if not by_digest and not _TAG.fullmatch(reference):
            raise _Refused(400, "TAG_INVALID", reference)
        if missing:
            raise _Refused(400, "MANIFEST_BLOB_UNKNOWN", f"blob unknown to registry: {missing[0]}")
        if not by_digest and repository.immutable and reference in repository.tags:
            raise _Refused(
                400,
                "TAG_INVALID",
                f"The image tag '{reference}' already exists in the '{name}' repository and cannot "
                "be overwritten because the tag is immutable.",
            )
        repository.manifests[digest] = media_type, data
        if not by_digest:
            repository.tags[reference] = digest
        where = f"/v2/{name}/manifests/{digest}"
        return 201, {"location": where, "docker_content_digest": digest}, b""

    # Uploads

    def _writable(self, place: str, name: str) -> Repository:
        if self._registry.creates:
            return self._registry.repositories.setdefault(place, Repository())
        return self._repository(place, name)

    def _upload(
        self, place: str, name: str, rest: str, query: Mapping[str, str], namespace: str
    ) -> tuple[int, dict[str, str], bytes]:
        if self.command == "POST" and not rest:
            return self._begin(place, name, query, namespace)
        upload = self._registry.uploads.get(rest)
        if upload is None:
            raise _Refused(404, "BLOB_UPLOAD_UNKNOWN", rest)
        if self.command in ("PATCH", "PUT") and query.get("_state") != str(len(upload)):
            raise _Refused(404, "BLOB_UPLOAD_INVALID", "not the location of the last answer")
        if self.command == "PATCH":
            self._append(upload)
            return 202, self._progress(name, rest), b""
        if self.command == "PUT":
            self._append(upload)
            del self._registry.uploads[rest]
            return self._finish(place, name, bytes(upload), query.get("digest", ""))
        if self.command == "DELETE":
            del self._registry.uploads[rest]
            return 204, {}, b""
        return 204, self._progress(name, rest), b""

    def _begin(
        self, place: str, name: str, query: Mapping[str, str], namespace: str
    ) -> tuple[int, dict[str, str], bytes]:
        repository = self._writable(place, name)
        if "mount" in query and self._registry.mounts:
            source = self._registry.repositories.get(_place(namespace, query.get("from", "")))
            if source is not None and query["mount"] in source.blobs:
                repository.blobs[query["mount"]] = source.blobs[query["mount"]]
                return self._created(name, query["mount"])
        if "digest" in query:
            return self._finish(place, name, self._data, query["digest"])
        identity = secrets.token_hex(16)
        self._registry.uploads[identity] = bytearray()
        return 202, self._progress(name, identity), b""

    def _append(self, upload: bytearray) -> None:
        """Append the body. Raises _Refused if it does not begin where the last one ended."""
        match = re.fullmatch(r"(\d+)-(\d+)", self.headers.get("Content-Range", ""))
        if match is not None and int(match[1]) != len(upload):
            raise _Refused(416, "RANGE_INVALID", f"{len(upload)} bytes have arrived")
        upload += self._data

    def _progress(self, name: str, identity: str) -> dict[str, str]:
        """Where the upload goes on: an absolute URL that has a query already, as real ones have."""
        state = len(self._registry.uploads[identity])
        return {
            "location": f"{self._registry.url}/v2/{name}/blobs/uploads/{identity}?_state={state}",
            "docker_upload_uuid": identity,
            "range": f"0-{max(state - 1, 0)}",
        }

    def _finish(
        self, place: str, name: str, data: bytes, digest: str
    ) -> tuple[int, dict[str, str], bytes]:
        if digest != digest_of(data):
            raise _Refused(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self._writable(place, name).blobs[digest] = data
        return self._created(name, digest)

    def _created(self, name: str, digest: str) -> tuple[int, dict[str, str], bytes]:
        where = f"{self._registry.url}/v2/{name}/blobs/{digest}"
        return 201, {"location": where, "docker_content_digest": digest}, b""

    # HTTP

    def _body(self) -> bytes:
        """The rest of the request's body, in either of HTTP's ways. Raises _Gone."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks()
        size = int(self.headers.get("Content-Length", 0)) - self._read
        if self.headers.get("Expect", "").lower() == "100-continue" and not self._read:
            self.wfile.flush()
        data = self.rfile.read(size)
        self._read += len(data)
        if len(data) != size:
            raise _Gone
        return data

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        while not self._chunked_ended:
            size = int(self.rfile.readline().split(b";")[0] or b"0", 16)
            parts.append(self.rfile.read(size))
            if len(parts[-1]) != size or self.rfile.readline() not in (b"\r\n", b"\n"):
                raise _Gone
            self._chunked_ended = not size
        return b"".join(parts)

    def _send(self, status: int, body: bytes, *, kind: str = "", **headers: str) -> None:
        if kind == "altered" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        self._status = status
        self.send_response(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-").title(), value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if kind == "cut" else body)
        if kind == "cut":
            self.wfile.flush()
            raise _Gone
