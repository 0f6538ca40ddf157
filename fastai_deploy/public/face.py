"""What an API shows of itself, in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastai_deploy.bundle import read_manifest
from fastai_deploy.errors import FileMissing
from fastai_deploy.settings import ApiSettings, Settings

Auth = Literal["key", "iam", "jwt", "none"]


@dataclass(frozen=True)
class Face:
    """An API as its callers see it.

    ``labels`` are those of the model, none where no bundle is there to tell; ``several``: a text
    may have more than one. ``own_words``: what the gateway refuses itself it says in the words of
    the contract (an HTTP API of AWS does not). ``page``: there is a page at ``/``. ``unproven``:
    not all of the model's answers are proven to be the learner's.
    """

    title: str
    route: str
    auth: Auth
    max_body: int
    labels: tuple[str, ...] = ()
    several: bool = False
    own_words: bool = True
    page: bool = False
    issuer: str | None = None
    unproven: bool = False


def face_of(settings: Settings, bundle: Path, *, target: str) -> Face:
    """The face of a stage's API on a target (``local`` or ``aws``). Raises FileError.

    On this machine the key is always asked for, and the page is always there.
    """
    api: ApiSettings = settings.sections.api
    local = target == "local"
    try:
        manifest, _ = read_manifest(bundle)
    except FileMissing:
        manifest = None
    return Face(
        title=settings.project_name,
        route=api.route,
        auth="key" if local else api.auth,
        max_body=api.max_body,
        labels=manifest.labels if manifest else (),
        several=manifest is not None and manifest.task == "multi-label",
        own_words=local or api.type == "rest",
        page=local or api.page,
        issuer=api.jwt_issuer,
        unproven=manifest is not None and bool(manifest.unproven),
    )
