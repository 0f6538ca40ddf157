"""The documents that are shipped with the Lambda, which serves them."""

from __future__ import annotations

from pathlib import Path

from fastai_deploy.lambda_package import build_lambda_package
from fastai_deploy.public.face import face_of
from fastai_deploy.public.openapi import encoded
from fastai_deploy.public.page import page
from fastai_deploy.settings import Settings


def lambda_package(settings: Settings, bundle: Path, *, target: str) -> bytes:
    """The Lambda's zip for a stage's API on a target (``local`` or ``aws``). Raises FileError."""
    face = face_of(settings, bundle, target=target)
    documents = {"openapi.json": encoded(face)}
    if face.page:
        documents["page.html"] = page(face, settings.sections.api.examples)
    return build_lambda_package(documents)
