"""The page in a real Chromium, served by a real gateway.

Playwright is imported where it is used, because pytest reads this file without browsers too.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastai_deploy.api_docs.demo_page import page
from fastai_deploy.api_docs.openapi import ApiDescription, encoded
from fastai_deploy.packaging.lambda_zip import build_lambda_package
from tests.gateway.conftest import GatewayProcess, gateways
from tests.gateway.servers import Server
from tests.page.reviews import LABELS, reviews

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
FACE = ApiDescription("film-reviews", "/classify", "key", 20_000, labels=LABELS, page=True)
EXAMPLES = (
    "The plot is thin but I loved every warm, brilliant minute of it.",
    "An unexpected pleasure, from the first page to the last.",
    "It arrived late, and the box was open.",
)


CARD = """\
---
language: en
---
# film-reviews

Accuracy: 0.91 on <b>200</b> texts.
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "no Chromium: make test-page installs one"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def model() -> Iterator[Server]:
    with Server(reviews).running() as server:
        yield server


@pytest.fixture
def gateway(served: GatewayProcess, model: Server) -> GatewayProcess:
    """A gateway with a page, shared; its model is as it was at first."""
    model.script = reviews
    model.received.clear()
    return served


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, model: Server) -> Iterator[GatewayProcess]:
    with pages(tmp_path_factory.mktemp("served"), model) as gateway:
        yield gateway


@contextmanager
def pages(folder: Path, model: Server) -> Iterator[GatewayProcess]:
    """A gateway whose page tries a model that knows film reviews."""
    package = folder / "lambda.zip"
    documents = {"openapi.json": encoded(FACE), "page.html": page(FACE, EXAMPLES, CARD)}
    package.write_bytes(build_lambda_package(documents))
    with gateways(folder, model) as start:
        yield start(package=str(package), page=True, max_body=FACE.max_body)


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 900, "height": 1000})
    yield context
    context.close()
