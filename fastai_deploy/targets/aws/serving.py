"""Whose image serves a stage: the one that fdeploy makes for its own server, or one of AWS.

| ``server``              | a converted model on a processor        | a GPU, an original learner |
|-------------------------|-----------------------------------------|----------------------------|
| ``auto``                | fdeploy's if it can be had, else AWS's  | AWS's                      |
| ``fdeploy``             | fdeploy's, or an error                  | an error                   |
| ``ray-serve``, ``torchserve``, or an ``image`` of the user's | that one | that one             |

``package`` decides: it looks for the image in ECR, and builds it if it is not there. The record of
the artifact keeps the decision, and later commands follow it without asking AWS. ``upload`` pushes
the image, and ``deploy`` makes sure that it is still there.

The base of an image is the one that the stage's live image has, as its labels say, so that an
unchanged project has the same image on every machine, although the tag of its base has moved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from fastai_deploy import naming
from fastai_deploy.aws.capacity import Instance, known_types
from fastai_deploy.aws.images import OWN
from fastai_deploy.aws.permission_check import check_permissions
from fastai_deploy.aws.permissions import Needs, user_policies
from fastai_deploy.aws.repository import ImageRepository, Pushable, StoredImage
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.stacks import find_stack
from fastai_deploy.aws.wanted import wanted_instance
from fastai_deploy.bundle import read_manifest
from fastai_deploy.errors import (
    AwsCredentials,
    AwsDenied,
    AwsError,
    AwsMissing,
    AwsThrottled,
    AwsUnreachable,
    ExtraMissing,
    FdeployError,
    NotOurs,
    RecordStale,
    TargetUnavailable,
)
from fastai_deploy.image.build import BASE_DIGEST, BASE_NAME, Wanted, container_of
from fastai_deploy.image.names import Reference
from fastai_deploy.packaging.artifact import needs_openvino
from fastai_deploy.packaging.served_model import served_model
from fastai_deploy.progress import Reporter, Step, Warned
from fastai_deploy.records import Artifact, StoredArtifact
from fastai_deploy.settings import Settings
from fastai_deploy.stage_reports import Check
from fastai_deploy.targets.aws.stacks import OwnImage, chosen_image, could_be_own

# What keeps fdeploy from its own image. A registry or AWS that does not answer now may do so later.
_IN_THE_WAY = (AwsCredentials, AwsDenied, NotOurs, TargetUnavailable, ExtraMissing)
_PASSING = (AwsThrottled, AwsUnreachable)


class ServingImage(Pushable, Protocol):
    """An image of fdeploy's own server; see :mod:`fastai_deploy.image.build`."""

    @property
    def base_digest(self) -> str:
        """The digest of its base."""

    def build(self) -> Any:
        """Make its layers on this machine. Raises FdeployError."""


FindImage = Callable[[Wanted], ServingImage]
"""Finds which image is wanted; nothing is made yet. Raises FdeployError."""


@dataclass(frozen=True)
class OwnServer:
    """The image of fdeploy's own server for one stage; ``find`` is None where there is none."""

    settings: Settings
    aws: Aws
    repository: ImageRepository
    bundle: Path
    find: FindImage | None
    report: Reporter

    def decided(self, packaged: Artifact | None) -> OwnImage | None:
        """The image, as far as it is known without asking; None for another one.

        Raises SettingsError.
        """
        if not could_be_own(self.settings, self.bundle):
            return None
        if packaged is not None and packaged.server == OWN and packaged.image_tag:
            return OwnImage(packaged.image_tag, packaged.image_base)
        return OwnImage() if self.settings.sections.endpoint.server == OWN else None

    def decide(self, packaged: Artifact | None, *, pull: bool = False) -> OwnImage | None:
        """Look for the image, and build it if it is not in ECR; None for an image of AWS.

        ``pull`` asks the base's registry which build its tag names now. Raises SettingsError, and
        what is in the way if the settings demand the image, or if a newer base cannot be had.
        """
        if self.find is None or not could_be_own(self.settings, self.bundle):
            return self.decided(packaged)
        try:
            return self._available(pull=pull)
        except (*_IN_THE_WAY, *_PASSING) as error:
            demanded = self.settings.sections.endpoint.server == OWN
            if demanded or (pull and isinstance(error, TargetUnavailable)):
                raise
            before = self.decided(packaged)
            if before is not None and isinstance(error, _PASSING):
                return before
            self._tell(error)
            return None

    def image(self, base: str = "", *, pull: bool = False) -> ServingImage:
        """The image for the settings' processor, on the base of a digest. Raises FdeployError."""
        if self.find is None:
            raise TargetUnavailable("there are no images to make", hint="run fdeploy up")
        return self.find(Wanted(self.machine, self._needs_openvino(), base, pull))

    @property
    def machine(self) -> str:
        """The processor of the settings' instance type."""
        on = wanted_instance(self.settings, known_types())
        return "aarch64" if on.arm else "x86_64"

    def store(self, wanted: OwnImage) -> StoredImage:
        """Push the image unless it is in ECR, and note that the stage uses it.

        Raises RecordStale if another image would be made now, NotOurs, AwsError, and the errors of
        building it.
        """
        try:
            found = self.repository.find(wanted.tag)
            if found is None:
                image = self.image(wanted.base)
                if image.tag != wanted.tag:
                    raise RecordStale(
                        f"the image {wanted.tag} is not in ECR, and what it was made from has "
                        "changed",
                        hint="run fdeploy package",
                    )
                found = self.repository.push(image)
            self.repository.mark(found)
        except AwsDenied as error:
            raise AwsDenied(error.message, hint=f"{error.hint}; {self._way_out}") from None
        return found

    def ready(self, stored: StoredArtifact) -> StoredArtifact:
        """The artifact, with its image in ECR; one that is gone is made again, if it can be.

        Raises AwsMissing if it cannot, NotOurs, AwsError, and the errors of building it.
        """
        if stored.server != OWN or not stored.image_tag:
            return stored
        digest = stored.image.partition("@")[2]
        fits = not stored.instance or self._machine_of(stored.instance) == self.machine
        found = self.repository.find(digest or stored.image_tag) if fits else None
        if found is None:
            found = self._made_again(stored, fits=fits)
        self.repository.mark(found)
        return replace(stored, image=self.repository.uri(found.digest), image_tag=found.tag)

    def base_check(self, stored: StoredArtifact) -> Check | None:
        """Whether the base of the image was patched since.

        None without an image in ECR, and for a base that the settings name by its digest.
        It is the image that serves, else the artifact's. The image itself says which base it has.
        Without an answer it is unknown, and warned about.
        """
        digest = stored.image.partition("@")[2]
        if not stored.image_tag or self._asked_base.digest:
            return None
        from fastai_deploy.image.registry import Repository  # noqa: PLC0415 - requests

        try:
            live = self._live_digest()
            digest = live if live and self.repository.find(live) else digest
            name, used = self._base_of(digest) if digest else ("", "")
            if not name:  # none is in ECR, or pushed by something else
                return None
            base = Reference.parse(name)
            newest = Repository(base.place).digest(base.tag)
        except (AwsError, TargetUnavailable) as error:
            why = f"whether the image's base was patched since is unknown: {error.message}"
            return Check("base image", "warned", why, error.hint)
        if newest in (None, used):
            return Check("base image", "passed", f"{name} is {used}, which the image has")
        return Check(
            "base image",
            "warned",
            f"{name} was patched since: it is {newest}, and the image has {used}",
            "run fdeploy up --pull",
        )

    def _made_again(self, stored: StoredArtifact, *, fits: bool) -> StoredImage:
        image = self.image(stored.image_base)
        if fits and image.tag != stored.image_tag:
            raise AwsMissing(
                f"the image in which version {stored.version} was proven is gone: "
                f"{stored.image or self.repository.uri(stored.image_tag)}",
                hint="run fdeploy up, which makes the image of today and proves the model in it",
            )
        if fits:
            self.report(Step(f"the image {image.tag} is no longer in ECR: it is made again"))
        return self.repository.push(image)

    def _available(self, *, pull: bool) -> OwnImage:
        """The image, which is in ECR, or is built now and may be pushed."""
        live = self._live_digest()
        newest = self.repository.newest(live)  # who may not look there needs no base
        base = self._base_in_use(newest) if newest and not pull else ""
        image = self.image(base, pull=pull)
        if self.repository.find(image.tag) is None:
            self.repository.login()
            self._check_permissions()
            image.build()
        return OwnImage(image.tag, image.base_digest)

    def _live_digest(self) -> str:
        """The digest of the image that serves the stage, of whatever repository; empty for none."""
        owner = self.repository.owner
        stack = find_stack(self.aws, naming.endpoint_stack(owner.project, owner.stage))
        return stack.parameters.get("Image", "").partition("@")[2] if stack else ""

    def _base_in_use(self, image: StoredImage) -> str:
        """The digest of an image's base; empty if it is another base than that of the settings."""
        try:
            name, digest = self._base_of(image.digest)
        except (AwsError, TargetUnavailable) as error:
            self.report(Step(f"which base the image in use has is unknown: {error.message}"))
            return ""
        return digest if name == str(self._asked_base) else ""

    @property
    def _asked_base(self) -> Reference:
        return Reference.parse(self.settings.sections.package.base_image)

    def _base_of(self, digest: str) -> tuple[str, str]:
        """The name and the digest of an image's base, from its labels; empty without them."""
        from fastai_deploy.image.registry import Repository  # noqa: PLC0415 - requests

        labels = Repository.of(self.repository.login()).labels(digest)
        return labels.get(BASE_NAME, ""), labels.get(BASE_DIGEST, "")

    def _check_permissions(self) -> None:
        """Raise AwsDenied if IAM's simulator says that the caller may not push an image."""
        project = self.settings.sections.project
        needs = Needs(
            self.settings.project_name,
            bucket="",
            partition=self.aws.partition,
            kms_key=project.kms_key,
            own_image=True,
        )
        images = {"images": user_policies(needs)["images"]}
        stage = self.settings.stage
        try:
            found = check_permissions(self.aws, images, needs, stage, unused=frozenset())
        except AwsError:  # who may not ask finds out when pushing
            return
        if found.outcome == "failed":
            raise AwsDenied(found.message, hint=found.hint)

    def _needs_openvino(self) -> bool:
        try:
            manifest, _ = read_manifest(self.bundle)
        except FdeployError:  # nothing is exported yet
            return False
        return needs_openvino(manifest, container_of(self.machine))

    def _machine_of(self, instance: str) -> str:
        return "aarch64" if Instance(instance).arm else "x86_64"

    def _tell(self, error: FdeployError) -> None:
        self.report(
            Warned(
                "an image of AWS serves the model, which takes more memory and starts later, "
                f"because fdeploy's own cannot be had: {error.message}",
                hint=f"{error.hint}; {self._way_out}",
            )
        )

    @property
    def _way_out(self) -> str:
        served = served_model(self.bundle)
        _, image = chosen_image(self.settings, self.aws.region, served)
        return f'or set server = "{image.family}" in [endpoint] to keep AWS\'s image'
