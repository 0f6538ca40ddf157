"""The documents that are packed into the Lambda, which serves them."""

from __future__ import annotations

from pathlib import Path

from fastai_deploy import files
from fastai_deploy.api_docs.demo_page import page
from fastai_deploy.api_docs.openapi import describe_api, encoded
from fastai_deploy.bundle.folder import CARD
from fastai_deploy.errors import FileMissing
from fastai_deploy.packaging.lambda_zip import build_lambda_package
from fastai_deploy.settings import Settings

_LONGEST_CARD = 1 << 20


def lambda_package(settings: Settings, bundle: Path, *, target: str) -> bytes:
    """Build the Lambda's zip for a stage's API on ``local`` or ``aws``. Raises FileError."""
    return build_lambda_package(lambda_documents(settings, bundle, target=target))


def lambda_documents(settings: Settings, bundle: Path, *, target: str) -> dict[str, bytes]:
    """The documents that a stage's API serves, by name. Raises FileError."""
    described_api = describe_api(settings, bundle, target=target)
    documents = {"openapi.json": encoded(described_api)}
    if described_api.page:
        examples = settings.sections.api.examples
        documents["page.html"] = page(described_api, examples, _card(bundle))
    return documents


def _card(bundle: Path) -> str:
    """The model card; empty without one. It is in the bundle's folder but not in its manifest."""
    try:
        return files.read(bundle / CARD, most=_LONGEST_CARD).decode("utf-8", "replace")
    except FileMissing:
        return ""
