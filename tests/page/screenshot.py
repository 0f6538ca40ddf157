"""Render ``docs/page.png``: ``python -m tests.page.screenshot``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.gateway.servers import Server
from tests.page.conftest import EXAMPLES, FLAGS, pages
from tests.page.reviews import reviews

PICTURE = Path(__file__).parents[2] / "docs/page.png"


def paint() -> None:
    """Classify an example, explain it, and save a screenshot."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(reviews).running() as model,
        pages(Path(folder), model) as gateway,
        sync_playwright() as playwright,
    ):
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(FLAGS)
        )
        page = chromium.new_page(
            viewport={"width": 800, "height": 900}, color_scheme="light", reduced_motion="reduce"
        )
        page.goto(f"http://127.0.0.1:{gateway.port}/")
        page.get_by_role("button", name=EXAMPLES[0]).click()
        page.get_by_label("API key").fill(gateway.key)
        for _ in range(2):  # the second answer has the latency of an open connection
            page.get_by_role("button", name="Classify").click()
            page.locator("#verdict").filter(has_text="positive").wait_for()
        page.get_by_role("button", name="Which words mattered?").click()
        page.locator("#reasons li").first.wait_for()
        page.screenshot(path=PICTURE, full_page=True)
        chromium.close()


if __name__ == "__main__":
    paint()
