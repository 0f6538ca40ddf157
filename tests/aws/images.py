"""Images for the double: small ones, pushed by a registry client of the tests' own."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

import fastai_deploy
from fastai_deploy.errors import TargetUnavailable
from fastai_deploy.image.names import Destination
from tests.registry import DOCKER, digest_of

KIND = f"{DOCKER}.manifest.v2+json"
BASE = "registry.example/python:3.13-slim@sha256:" + "b" * 64
CONFIG, LAYER = b"{}", b"layer"
_RUNTIME = Path(fastai_deploy.__file__).parent / "runtime"


def manifest(layer: bytes = LAYER, config: bytes = CONFIG) -> bytes:
    """The manifest of an image of one layer, in Docker's format."""

    def part(data: bytes) -> dict[str, Any]:
        return {"mediaType": "x/y", "digest": digest_of(data), "size": len(data)}

    document = {"schemaVersion": 2, "mediaType": KIND, "config": part(config)}
    return json.dumps({**document, "layers": [part(layer)]}).encode()


@dataclass
class Client:
    """Pushes to one repository of a registry."""

    to: Destination

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Any:
        """The answer to a request about a path in the repository, or to a URL."""
        scheme = "http" if self.to.insecure else "https"
        own = f"{scheme}://{self.to.registry}/v2/{self.to.repository}/{path}"
        login = f"{self.to.username}:{self.to.password}"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.to.username:
            sent.update(urllib3.make_headers(basic_auth=login))
        with urllib3.PoolManager(retries=False) as http:
            url = path if path.startswith("http") else own
            return http.request(method, url, body=body, headers=sent, timeout=10)

    def push(self, tag: str, layer: bytes = LAYER, config: bytes = CONFIG) -> Any:
        """The answer to the manifest, after its parts were pushed."""
        for data in (config, layer):
            begun = self.ask("POST", "blobs/uploads/")
            if begun.status != 202:
                return begun
            where = begun.headers["Location"]
            done = self.ask("PUT", f"{where}&digest={digest_of(data)}", data)
            if done.status != 201:
                return done
        return self.ask("PUT", f"manifests/{tag}", manifest(layer, config), Content_Type=KIND)


def login(ecr: Any, repository: str) -> Destination:
    """A repository of an account, with the login that ECR gives."""
    (given,) = ecr.get_authorization_token()["authorizationData"]
    user, _, password = base64.b64decode(given["authorizationToken"]).decode().partition(":")
    registry = given["proxyEndpoint"].removeprefix("http://")
    return Destination(registry, repository, user, password, insecure=True)


@dataclass
class TinyImage:
    """An image of the serving code alone, by the interface of ``fastai_deploy.image``."""

    tag: str = "0.1.0-x86_64-000000000001"
    machine: str = "x86_64"
    base: str = BASE
    layer: bytes = b""
    labels: dict[str, str] = field(default_factory=dict)
    built: int = field(default=0, compare=False)
    pushed: int = field(default=0, compare=False)

    @property
    def base_digest(self) -> str:
        """The digest of its base."""
        return self.base.partition("@")[2]

    def build(self) -> None:
        """Count."""
        self.built += 1

    def push(self, to: Destination) -> str:
        """Push it; another process may have pushed the tag before."""
        self.pushed += 1
        layer = self.layer or code_layer()
        config = {"tag": self.tag, "config": {"Labels": self.labels}}
        answer = Client(to).push(self.tag, layer, json.dumps(config).encode())
        if answer.status != 201:
            raise TargetUnavailable(f"the registry said {answer.data!r}", hint="none")
        return str(answer.headers["Docker-Content-Digest"])


def code_layer() -> bytes:
    """The serving code, as a layer."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for source in sorted((*_RUNTIME.glob("*.py"), *_RUNTIME.glob("hosts/*.py"))):
            tar.add(source, f"opt/fdeploy_runtime/{source.relative_to(_RUNTIME).as_posix()}")
    return gzip.compress(data.getvalue(), mtime=0)
