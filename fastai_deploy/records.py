"""What each stage returns, and the next one starts from: frozen records.

    Bundle --package--> Artifact --upload--> StoredArtifact --deploy--> Endpoint --create-api--> Api

Every record names what it was made from, so that a stage can tell whether it is still current.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

UNPROVEN = "not all of its answers are proven to be the learner's"
_SHOWN = 12  # hexadecimal digits of a version
DEPLOYED_AT = "%Y%m%dT%H%M%SZ"  # how the date of a deploy is written


@dataclass(frozen=True)
class Source:
    """The learner file as it was when it was exported."""

    path: str
    sha256: str
    bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Bundle:
    """A converted learner in ``path``; ``version`` is the SHA-256 of its manifest.

    ``proven`` counts the goldens that hold the learner's own answers, and ``max_difference`` is the
    largest |Δprobability| of the ONNX model against all goldens. ``golden`` is the user's golden
    file. ``made_from`` is a digest of the learner, the golden file and the settings of the export.
    ``definitions``, ``requirements`` and ``tokenizer`` are the user's files, ``runtime`` and
    ``python`` are those of the settings. ``unproven`` is what the manifest says is unproven.
    """

    path: str
    version: str
    name: str
    task: str
    labels: tuple[str, ...]
    proven: int
    max_difference: float
    source: Source
    golden: str | None
    made_from: str
    definitions: str | None = None
    requirements: str | None = None
    tokenizer: str | None = None
    runtime: str = "onnx"
    python: str | None = None
    unproven: tuple[str, ...] = ()


@dataclass(frozen=True)
class Artifact:
    """``model.tar.gz``; ``made_from`` is the digest of the bundle and the settings of package.

    ``fits`` is the Python and the platform of the image that its wheels are for; empty without any.
    ``unproven``: not all of the model's answers are proven, which every answer says.
    """

    path: str
    sha256: str
    bytes: int
    made_from: str
    fits: str = ""
    unproven: bool = False

    @property
    def version(self) -> str:
        """What answers call the model's version: the first 12 hexadecimal digits."""
        return self.sha256[:_SHOWN]


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact where the target can read it; ``made_from`` is the artifact's SHA-256.

    ``region`` is AWS's, empty for another target.
    """

    target: str
    uri: str
    sha256: str
    bytes: int
    made_from: str
    region: str = ""
    unproven: bool = False

    @property
    def version(self) -> str:
        """That of the artifact."""
        return self.sha256[:_SHOWN]


@dataclass(frozen=True)
class Deployed:
    """A version that was verified; ``at`` is in UTC, ``by`` who deployed it."""

    version: str
    sha256: str
    uri: str
    bytes: int
    at: str
    by: str
    unproven: bool = False

    @classmethod
    def of(cls, stored: StoredArtifact, at: datetime, by: str) -> Deployed:
        """The version of a stored artifact, verified at a date in UTC."""
        return cls(
            version=stored.version,
            sha256=stored.sha256,
            uri=stored.uri,
            bytes=stored.bytes,
            at=f"{at:{DEPLOYED_AT}}",
            by=by,
            unproven=stored.unproven,
        )

    def stored(self, target: str) -> StoredArtifact:
        """The artifact, to be deployed again."""
        return StoredArtifact(
            target, self.uri, self.sha256, self.bytes, self.sha256, unproven=self.unproven
        )


@dataclass(frozen=True)
class Endpoint:
    """A model server that answered its goldens; ``made_from`` is the artifact's SHA-256.

    ``region`` is AWS's, empty for another target.
    """

    target: str
    name: str
    url: str
    version: str
    made_from: str
    region: str = ""


@dataclass(frozen=True)
class Api:
    """The public API; its key stands in ``key_file`` and nowhere else.

    ``made_from`` is the endpoint's name; ``auth`` is who may call; ``document`` and ``page`` are
    the URLs of the OpenAPI document and of the page to try it, empty where there is none.
    """

    target: str
    url: str
    endpoint: str
    key_file: str
    made_from: str
    auth: Literal["key", "iam", "jwt", "none"] = "key"
    document: str = ""
    page: str = ""


@dataclass(frozen=True)
class Teardown:
    """The proof of a teardown: what was found, what was deleted, and what is left (nothing).

    ``kept`` is what was to stay: stored artifacts. ``begun`` is what nobody waited for: it is
    neither deleted nor left yet.
    """

    target: str
    found: tuple[str, ...]
    deleted: tuple[str, ...]
    left: tuple[str, ...]
    kept: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()
