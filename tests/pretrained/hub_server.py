"""A small server of the Hugging Face Hub's HTTP API, for models, with repositories in memory.

    GET  /api/models/ID[/revision/REV]      the commit and the files       (model_info)
    GET  /api/models/ID/tree/REV            the files with their sizes     (list_repo_tree)
    HEAD, GET /ID/resolve/REV/FILE          a file                         (hf_hub_download)

Paths, headers and error codes as in https://huggingface.co/docs/hub/api and in huggingface_hub's
``utils/_http.py``: ``X-Error-Code`` names the error, ``X-Repo-Commit`` the commit.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

_INFO = re.compile(r"/api/models/(?P<id>[\w.-]+/[\w.-]+)(/revision/(?P<revision>.+))?")
_TREE = re.compile(r"/api/models/(?P<id>[\w.-]+/[\w.-]+)/tree/(?P<revision>[^/]+)")
_FILE = re.compile(r"/(?P<id>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Repository:
    """``commits`` maps a commit to its files; ``refs`` a branch or tag to its commit."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files: Mapping[str, bytes], ref: str = "main") -> str:
        """Add a commit, and point a branch or tag to it."""
        digest = hashlib.sha1(usedforsecurity=False)
        for name, data in sorted(files.items()):
            digest.update(name.encode() + b"\0" + data)
        name = digest.hexdigest()
        self.commits[name] = dict(files)
        self.refs[ref] = name
        return name

    def find(self, revision: str) -> str | None:
        """The commit of a revision."""
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass
class Hub:
    """The server; ``requests`` are the paths asked for, ``failing`` a status for every answer."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    failing: int = 0

    def add(self, name: str, files: Mapping[str, bytes], *, gated: bool = False) -> str:
        """A repository with one commit; returns it."""
        found = self.repositories.setdefault(name, Repository(gated=gated))
        return found.commit(files)


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub on a free port of 127.0.0.1."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

        def _answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(path)
            token = self.headers.get("authorization", "").removeprefix("Bearer ")
            if token:
                hub.seen.add(token)
            status, headers, data = _respond(hub, path, token)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


Response = tuple[int, dict[str, str], bytes]


def _respond(hub: Hub, path: str, token: str) -> Response:
    info, tree, file = (each.fullmatch(path) for each in (_INFO, _TREE, _FILE))
    match = tree or file or info
    if hub.failing or match is None:
        return hub.failing or 404, {}, b""
    repository = hub.repositories.get(match["id"])
    if repository is None:  # the Hub does not tell a private repository from none
        return 401, {"X-Error-Code": "RepoNotFound"}, _message("Invalid username or password.")
    if repository.gated and token not in hub.tokens and match is file:
        return 403 if token else 401, {"X-Error-Code": "GatedRepo"}, _message("Access restricted.")
    commit = repository.find(match["revision"] or "main")
    if commit is None:
        return 404, {"X-Error-Code": "RevisionNotFound"}, _message("Invalid rev id.")
    files = repository.commits[commit]
    return _file(files, commit, match["file"]) if match is file else _listing(match, commit, files)


def _listing(match: re.Match[str], commit: str, files: Mapping[str, bytes]) -> Response:
    entries: list[dict[str, object]] = [
        {"type": "file", "path": name, "rfilename": name, "size": len(data), "oid": _oid(data)}
        for name, data in sorted(files.items())
    ]
    found: object = entries
    if match.re is _INFO:
        found = {"id": match["id"], "modelId": match["id"], "sha": commit, "siblings": entries}
    return 200, {"Content-Type": "application/json"}, json.dumps(found).encode()


def _file(files: Mapping[str, bytes], commit: str, name: str) -> Response:
    data = files.get(name)
    if data is None:
        return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
    headers = {
        "X-Repo-Commit": commit,
        "ETag": f'"{_oid(data)}"',
        "Content-Type": "application/octet-stream",
    }
    return 200, headers, data


def _oid(data: bytes) -> str:
    """The name of a file in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _message(text: str) -> bytes:
    return json.dumps({"error": text}).encode()
