"""Frozen records: what each stage returns and the next one takes.

    Bundle --package--> Artifact --upload--> StoredArtifact --deploy--> Endpoint --create-api--> Api

Every record names what it was made from, so that a stage can tell whether it is up to date.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fastai_deploy.naming import short
from fastai_deploy.runtime.bundle import MULTI_LABEL

UNPROVEN = "some answers are not proven to match the learner's"
_OWN_BUCKET = re.compile(r"s3://fdeploy-([0-9]{12})-")  # see aws.bucket.default_bucket
_ARTIFACT_KEY = re.compile(r"s3://[^/]+/fdeploy/([a-z0-9-]+)/models/.+")  # see naming.artifact_key
DEPLOYED_AT = "%Y%m%dT%H%M%SZ"  # format of Deployed.at


@dataclass(frozen=True)
class Source:
    """The learner file at the time of its export, or the folder of a transformers model.

    ``hub`` names the repository of the Hugging Face Hub that it came from, pinned to a commit
    (``owner/name@commit``); empty if it came from this machine.
    """

    path: str
    sha256: str
    bytes: int
    modified_ns: int
    kind: Literal["learner", "folder"] = "learner"
    hub: str = ""


@dataclass(frozen=True)
class Bundle:
    """A converted learner in ``path``; ``version`` is the SHA-256 of its manifest.

    ``proven`` counts the goldens that hold the learner's own answers; ``max_difference`` is the
    largest |Δprobability| between the ONNX model and all goldens. ``made_from`` is a digest of the
    learner, the golden file and the export settings. ``golden``, ``definitions``, ``requirements``
    and ``tokenizer`` are the user's files; ``runtime`` and ``python`` come from the settings.
    ``unproven`` lists what the manifest marks as unproven.
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

    @property
    def several(self) -> bool:
        """Whether several labels may apply to a text."""
        return self.task == MULTI_LABEL


@dataclass(frozen=True)
class ModelSummary:
    """What callers notice of a model, to compare one version with another.

    ``precision`` lists the forms that may be served, such as ``bf16, fp32``; ``learner`` is an
    original pickle. ``accuracy`` is that of the first form on the ``labelled`` goldens, those with
    true labels; None without.
    """

    task: str
    labels: tuple[str, ...]
    precision: str
    accuracy: float | None = None
    labelled: int = 0


@dataclass(frozen=True)
class FunctionCode:
    """The package of a function with the model in it, in the bucket under its ``sha256``.

    ``reads``: the model's larger files are read from the artifact in the bucket.
    """

    sha256: str
    reads: bool


@dataclass(frozen=True)
class Artifact:
    """``model.tar.gz``; ``made_from`` is a digest of the bundle and the package settings.

    ``fits`` names the Python and the platform of the container image its wheels are for; empty if
    it has none. ``unproven``: some answers are not proven, and every answer says so. AWS's adapter
    reaches its model server beside Ray Serve at ``backend_url``. ``model`` is None and
    ``backend_url`` empty in the records of older versions of fdeploy, here and in what is made from
    an artifact; such an artifact answers through Ray.

    ``server`` is ``fdeploy`` if the image of fdeploy's own server serves it, which brings the
    serving code, else empty; ``image_tag`` is the tag of that image, empty for one of the user's,
    and ``image_base`` the digest of its base.
    """

    path: str
    sha256: str
    bytes: int
    made_from: str
    fits: str = ""
    unproven: bool = False
    model: ModelSummary | None = None
    backend_url: str = ""
    server: str = ""
    image_tag: str = ""
    image_base: str = ""

    @property
    def version(self) -> str:
        """The model version in answers: the first 12 hexadecimal digits of the hash."""
        return short(self.sha256)


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact stored where the target reads it; ``made_from`` is the artifact's SHA-256.

    ``region`` and ``account`` are those of AWS, empty for another target. A record of an earlier
    version has no ``account``. ``image`` is the container image that it was proven in on
    ``instance``, empty if it was not deployed yet; ``function`` the package that it was proven in.
    ``server``, ``image_tag`` and ``image_base`` are the artifact's; with a tag, ``image`` is that
    image by its digest.
    """

    target: str
    uri: str
    sha256: str
    bytes: int
    made_from: str
    region: str = ""
    unproven: bool = False
    account: str = ""
    image: str = ""
    instance: str = ""
    model: ModelSummary | None = None
    backend_url: str = ""
    function: FunctionCode | None = None
    server: str = ""
    image_tag: str = ""
    image_base: str = ""

    @classmethod
    def of(
        cls, artifact: Artifact, target: str, uri: str, region: str = "", account: str = ""
    ) -> StoredArtifact:
        """The record of an artifact that is stored at ``uri``, or would be."""
        return cls(
            target=target,
            uri=uri,
            sha256=artifact.sha256,
            bytes=artifact.bytes,
            made_from=artifact.sha256,
            region=region,
            unproven=artifact.unproven,
            account=account,
            model=artifact.model,
            backend_url=artifact.backend_url,
            server=artifact.server,
            image_tag=artifact.image_tag,
            image_base=artifact.image_base,
        )

    @property
    def version(self) -> str:
        """The artifact's version."""
        return short(self.sha256)

    @property
    def known_account(self) -> str:
        """The account; in a record of an earlier version, the one in the name of the bucket."""
        named = _OWN_BUCKET.match(self.uri)
        return self.account or (named[1] if named else "")

    @property
    def project(self) -> str:
        """The project's name, of an artifact on AWS; else empty."""
        named = _ARTIFACT_KEY.fullmatch(self.uri)
        return named[1] if named else ""


@dataclass(frozen=True)
class Deployed:
    """A version that was deployed and verified, ``at`` a time in UTC, ``by`` a user.

    ``image`` is the container image by its digest and ``instance`` the type that it ran on, on AWS;
    ``function`` is the package of a Lambda function instead.
    """

    version: str
    sha256: str
    uri: str
    bytes: int
    at: str
    by: str
    unproven: bool = False
    image: str = ""
    instance: str = ""
    model: ModelSummary | None = None
    backend_url: str = ""
    function: FunctionCode | None = None
    server: str = ""
    image_tag: str = ""
    image_base: str = ""

    @classmethod
    def of(cls, stored: StoredArtifact, at: datetime, by: str) -> Deployed:
        """Make the entry of a stored artifact that was verified at ``at``, in UTC."""
        return cls(
            version=stored.version,
            sha256=stored.sha256,
            uri=stored.uri,
            bytes=stored.bytes,
            at=f"{at:{DEPLOYED_AT}}",
            by=by,
            unproven=stored.unproven,
            image=stored.image,
            instance=stored.instance,
            model=stored.model,
            backend_url=stored.backend_url,
            function=stored.function,
            server=stored.server,
            image_tag=stored.image_tag,
            image_base=stored.image_base,
        )

    def stored(self, target: str) -> StoredArtifact:
        """The artifact, to be deployed again."""
        return StoredArtifact(
            target,
            self.uri,
            self.sha256,
            self.bytes,
            self.sha256,
            unproven=self.unproven,
            image=self.image,
            instance=self.instance,
            model=self.model,
            backend_url=self.backend_url,
            function=self.function,
            server=self.server,
            image_tag=self.image_tag,
            image_base=self.image_base,
        )


@dataclass(frozen=True)
class Endpoint:
    """A model server verified against its goldens; ``made_from`` is the artifact's SHA-256.

    ``region`` and ``account`` are those of AWS, empty for another target. A record of an earlier
    version has no ``account``. ``kind``, ``instance`` and ``ttl`` are the deploy's flags, which the
    next one repeats.
    """

    target: str
    name: str
    url: str
    version: str
    made_from: str
    region: str = ""
    account: str = ""
    instance: str = ""
    ttl: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Api:
    """The public API; its key is in ``key_file`` and nowhere else on this machine.

    ``made_from`` is the endpoint's name; ``auth`` is how callers authenticate; ``document`` and
    ``page`` are the URLs of the OpenAPI document and the demo page, empty if there is none.
    ``region`` and ``account`` are as in :class:`Endpoint`.
    """

    target: str
    url: str
    endpoint: str
    key_file: str
    made_from: str
    auth: Literal["key", "iam", "jwt", "none"] = "key"
    document: str = ""
    page: str = ""
    region: str = ""
    account: str = ""


@dataclass(frozen=True)
class Teardown:
    """The result of a teardown: what was found, what was deleted, and what is left (nothing).

    ``kept`` lists what stays on purpose: stored artifacts, and images that another stage uses.
    ``begun`` lists stacks whose deletion was started but not awaited: they are neither deleted nor
    left. ``region`` and ``account`` are those of AWS that were searched, empty for another target.
    ``forgotten``: only the records of the stage were removed, and nothing was searched or deleted.
    ``workspace`` lists what commands before ``upload`` made in the project's folder, which stays.
    """

    target: str
    found: tuple[str, ...]
    deleted: tuple[str, ...]
    left: tuple[str, ...]
    kept: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()
    region: str = ""
    account: str = ""
    forgotten: bool = False
    workspace: tuple[str, ...] = ()

    @property
    def keeps_artifacts(self) -> bool:
        """Whether an artifact stays, which can be deployed again."""
        return any(kept.startswith("artifact ") for kept in self.kept)

    @property
    def where(self) -> str:
        """Where it was searched, for people."""
        return stage_place(self.target, self.account, self.region)

    @property
    def summary(self) -> str:
        """The result in one line."""
        if self.forgotten:
            return "forgot the records of this stage; nothing was deleted"
        if not self.found:
            return f"nothing to delete {self.where}"
        left = f"{len(self.left)} left" if self.left else "none left"
        return f"deleted {counted(len(self.deleted), 'resource')}; {left}"


def stage_place(target: str, account: str, region: str) -> str:
    """Where a stage is, in words."""
    return "on this machine" if target == "local" else f"in account {account}, region {region}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 stack``, ``2 stacks``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
