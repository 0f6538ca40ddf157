"""Names of images and the documents that registries keep about them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace

from fastai_deploy.errors import ImageError

# The types of manifests that a registry may answer with.
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
INDEXES = frozenset((_INDEX, OCI_INDEX))
ACCEPTED = f"{OCI_INDEX}, {_INDEX}, {OCI_MANIFEST}, {MANIFEST}"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DOCKER_HUB = "registry-1.docker.io"
_REFERENCE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)+)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)
ANOTHER_BASE = "name another base_image in [package], such as python:3.13-slim of a public registry"


@dataclass(frozen=True)
class Reference:
    """An image's name: ``repository`` with its registry, and a tag, a digest or both."""

    repository: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a name; one without a registry is of Docker Hub, as Docker reads it.

        Raises ImageError.
        """
        first, _, rest = text.partition("/")
        if not rest:
            text = f"docker.io/library/{text}"
        elif not any(mark in first for mark in ".:") and first != "localhost":
            text = f"docker.io/{text}"
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise ImageError(f"{text!r} is not the name of an image", hint=ANOTHER_BASE)
        digest = match["digest"] or ""
        return cls(match["name"], match["tag"] or ("" if digest else "latest"), digest)

    @property
    def place(self) -> str:
        """The repository with the host that serves it."""
        host, _, path = self.repository.partition("/")
        return f"{_DOCKER_HUB if host == 'docker.io' else host}/{path}"

    @property
    def named(self) -> str:
        """The name for messages: a digest says nothing beside a tag."""
        return str(replace(self, digest="") if self.tag else self)

    def __str__(self) -> str:
        """The name in full."""
        tag = f":{self.tag}" if self.tag else ""
        return self.repository + tag + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True)
class Destination:
    """A repository to push to; ``insecure`` speaks HTTP instead of HTTPS."""

    registry: str
    repository: str
    username: str
    password: str = field(repr=False)
    insecure: bool = False


@dataclass(frozen=True)
class Document:
    """A manifest or an index: its digest, media type and bytes."""

    digest: str
    media_type: str
    data: bytes


def digest_of(data: bytes) -> str:
    """The digest of bytes, ``sha256:...``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
