"""What of a bucket is whose: a stage's own data, and the artifacts that stages share.

A stage's data stands below its own folder. An artifact belongs to every stage whose deploys name
it, so one stage's teardown leaves alone what another stage may go back to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fastai_deploy.aws.bucket import Bucket, object_versions
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.session import Aws
from fastai_deploy.naming import project_folder, stage_folder

_VERSION = re.compile(r"/deployments/[^/]*-([0-9a-f]{12})\.json$")
_ARTIFACT = re.compile(r"/models/([0-9a-f]{12})")

Versioned = tuple[str, str]  # the key and the version of an object


def data_of(aws: Aws, bucket: Bucket, owner: Owner) -> Iterator[Versioned]:
    """What stands below the stage's own folder. Raises AwsError."""
    return object_versions(aws, bucket, stage_folder(owner.project, owner.stage))


def artifacts_of(aws: Aws, bucket: Bucket, owner: Owner) -> list[Versioned]:
    """Artifacts and packages of the project that no other stage needs. Raises AwsError."""
    own = stage_folder(owner.project, owner.stage)
    stages = stage_folder(owner.project, "")[:-1]
    shared: list[Versioned] = []
    needed: set[str] = set()
    others = False
    for key, version in object_versions(aws, bucket, project_folder(owner.project)):
        if not key.startswith(stages):
            shared.append((key, version))
        elif not key.startswith(own):
            others = True
            needed.update(_VERSION.findall(key))
    return [(key, version) for key, version in shared if not _is_needed(key, needed, others=others)]


def _is_needed(key: str, needed: set[str], *, others: bool) -> bool:
    artifact = _ARTIFACT.search(key)
    # The Lambda's package is named by its own hash: it goes with the last stage.
    return artifact[1] in needed if artifact else others
