"""Everything the AWS target needs to work on one stage, in one frozen value."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai_deploy import naming
from fastai_deploy.api_docs.lambda_documents import lambda_package
from fastai_deploy.aws.bucket import Bucket, find_bucket
from fastai_deploy.aws.change_sets import StackRequest
from fastai_deploy.aws.deployment import Deployment
from fastai_deploy.aws.ownership import Operator, Owner
from fastai_deploy.aws.public_api import ApiPublisher, PublicApi
from fastai_deploy.aws.repository import ImageRepository
from fastai_deploy.aws.rollout import LogWatch, Rollout
from fastai_deploy.aws.session import Aws, open_aws
from fastai_deploy.aws.upload import Uploads
from fastai_deploy.aws.versions import Deployments
from fastai_deploy.errors import AwsMissing, FileMissing
from fastai_deploy.image.blobs import default_store
from fastai_deploy.image.build import Wanted, serving_image
from fastai_deploy.progress import UNASKED, Consent, Reporter, Step, Warned
from fastai_deploy.records import StoredArtifact
from fastai_deploy.settings import Settings
from fastai_deploy.targets.aws.serving import FindImage, OwnServer, ServingImage
from fastai_deploy.targets.aws.stacks import (
    SettingsStackDefinitions,
    StackDefinition,
    StackDefinitions,
)


@dataclass(frozen=True)
class Context:
    """One stage in one account and region.

    ``home`` is the folder of the API key; ``bundle`` is where export writes the bundle;
    ``find_image`` finds the images of fdeploy's own server, None for images of AWS alone.
    """

    settings: Settings
    home: Path
    bundle: Path
    report: Reporter
    aws: Aws
    definitions: StackDefinitions
    public: PublicApi
    operator: Operator
    consent: Consent = UNASKED
    find_image: FindImage | None = None

    @property
    def owner(self) -> Owner:
        """The project and stage that own the resources."""
        settings = self.settings
        id_ = settings.sections.project.id or ""
        return Owner(settings.project_name, settings.stage, id_, adopts=self.consent.adopt)

    @property
    def images(self) -> ImageRepository:
        """The repository of the project's images."""
        project = self.settings.sections.project
        return ImageRepository(
            self.aws, self.owner, self.report, tags=project.tags, kms_key=project.kms_key
        )

    @property
    def own_server(self) -> OwnServer:
        """The image of fdeploy's own server."""
        return OwnServer(
            self.settings, self.aws, self.images, self.bundle, self.find_image, self.report
        )

    @property
    def api_publisher(self) -> ApiPublisher:
        """Calls the public API."""
        return ApiPublisher(self.aws, self.public, self.report)

    def deployment(self, watch: LogWatch | None = None) -> Deployment:
        """Applies and deletes stacks."""
        heard: dict[str, Any] = {"watch": watch} if watch else {}
        project = self.settings.sections.project
        return Deployment(
            self.aws,
            self.owner,
            self.operator,
            self.report,
            bucket=project.bucket,
            role=project.cloudformation_role,
            **heard,
        )

    def rollout(self, log_group: str) -> Rollout:
        """Applies a stack whose service logs to ``log_group`` and is verified."""
        watch = LogWatch(self.aws, log_group)
        return Rollout(self.deployment(watch), watch, self.report)

    def uploads(self, bucket: Bucket) -> Uploads:
        """Uploads objects to the bucket."""
        about = {"uploaded-by": str(self.operator)}
        kms_key = self.settings.sections.project.kms_key
        return Uploads(self.aws, bucket, self.report, about, kms_key)

    def deployments(self, bucket: Bucket) -> Deployments:
        """The history of deployed versions."""
        return Deployments(self.aws, bucket, self.owner.project, self.owner.stage)

    def bucket_of(self, stored: StoredArtifact) -> Bucket:
        """The bucket that holds an artifact. Raises FileMissing if the artifact is gone."""
        bucket = find_bucket(self.aws, self.settings.sections.project.bucket)
        place, _, key = stored.uri.removeprefix("s3://").partition("/")
        if bucket is not None and bucket.name == place:
            with contextlib.suppress(AwsMissing):
                self.aws.call("s3", "head_object", **bucket.owned, Key=key)
                return bucket
        raise FileMissing(f"the stored artifact {stored.uri} is gone", hint="run fdeploy upload")

    def lambda_package(self) -> bytes:
        """The Lambda's zip for the bundle's labels. Raises FileError."""
        return lambda_package(self.settings, self.bundle, target="aws")

    def request(self, stack: str, definition: StackDefinition) -> StackRequest:
        """The request for a stack; reports the definition's notes and warnings."""
        for note in definition.notes:
            self.report(Step(note))
        for warning in definition.warnings:
            self.report(Warned(warning))
        protected = self.settings.sections.project.protect
        tags = self.tags(definition)
        return StackRequest(stack, definition.template, tags, protected=protected)

    def tags(self, definition: StackDefinition) -> dict[str, str]:
        """The tags of a stack, which CloudFormation gives to everything in it."""
        version = {naming.VERSION_TAG: definition.version}
        return {**self.settings.sections.project.tags, **self.owner.tags, **version}


def open_context(
    settings: Settings,
    home: Path,
    bundle: Path,
    report: Reporter,
    consent: Consent = UNASKED,
    *,
    base_record: Path | None = None,
) -> Context:
    """The context of these settings, with the user's own credentials. Raises AwsError.

    ``base_record`` is the file that keeps which base the images of fdeploy's own server have.

    Requests of the public API go where boto3 sends its own: ``AWS_ENDPOINT_URL``, if that is set.
    """
    project = settings.sections.project
    # A stage stays in its region even if the environment now names another one.
    region = project.region or settings.last_region
    aws = open_aws(region, project.profile, only=settings.last_account)
    return Context(
        settings=settings,
        home=home,
        bundle=bundle,
        report=report,
        aws=aws,
        definitions=SettingsStackDefinitions(settings, aws, bundle),
        public=PublicApi(os.environ.get("AWS_ENDPOINT_URL")),
        operator=Operator.here(),
        consent=consent,
        find_image=_images(settings, base_record, report) if base_record else None,
    )


def _images(settings: Settings, base_record: Path, report: Reporter) -> FindImage:
    """Finds images on the base that the settings name."""
    store = default_store()

    def find(wanted: Wanted) -> ServingImage:
        return serving_image(
            settings.sections.package.base_image,
            wanted,
            lambda message: report(Step(message)),
            store=store,
            record=base_record,
        )

    return find
