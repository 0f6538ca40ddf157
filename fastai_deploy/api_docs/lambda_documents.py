"""The documents that are packed into the Lambda, which serves them."""

from __future__ import annotations

from pathlib import Path

from fastai_deploy.api_docs.demo_page import page
from fastai_deploy.api_docs.openapi import describe_api, encoded
from fastai_deploy.packaging.lambda_zip import build_lambda_package
from fastai_deploy.settings import Settings


def lambda_package(settings: Settings, bundle: Path, *, target: str) -> bytes:
    """Build the Lambda's zip for a stage's API on ``local`` or ``aws``. Raises FileError."""
    described_api = describe_api(settings, bundle, target=target)
    documents = {"openapi.json": encoded(described_api)}
    if described_api.page:
        documents["page.html"] = page(described_api, settings.sections.api.examples)
    return build_lambda_package(documents)
