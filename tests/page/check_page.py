"""The demo page as people use it: `make test-page` runs this in a real Chromium."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect

from tests.gateway.conftest import GatewayProcess
from tests.gateway.servers import Server, refusing
from tests.page.conftest import EXAMPLES, pages
from tests.page.reviews import answer

MARKUP = '<img src=x onerror="document.title=\'run\'"><script>document.title="run"</script> loved'


def opened(context: BrowserContext, gateway: GatewayProcess) -> Page:
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{gateway.port}/")
    return page


def classify(page: Page, text: str, key: str) -> None:
    page.get_by_label("Text").fill(text)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Classify").click()


def accessible(page: Page) -> None:
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_a_text_is_classified_and_explained(
    context: BrowserContext, gateway: GatewayProcess, model: Server
) -> None:
    page = opened(context, gateway)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    text = EXAMPLES[0]
    classify(page, text, gateway.key)
    expected = answer(text)
    expect(page.locator("#verdict")).to_have_text("positive")
    shares = expected["probabilities"]
    assert isinstance(shares, dict)
    expect(page.locator("#bars .name")).to_have_text(list(shares))
    expect(page.locator("#latency")).to_contain_text("ms")
    expect(page.locator("#model")).to_have_text("film-reviews · 3f2a9c01b7de")

    before = len(model.received)
    page.get_by_role("button", name="Which words mattered?").click()
    expect(page.locator("#reasons li").first).to_contain_text("loved supports positive")
    expect(page.locator("#reasons")).to_contain_text("thin opposes positive")
    expect(page.locator("#words")).to_have_text(text)
    assert len(model.received) == before + 1, "one call explains"
    texts = json.loads(model.received[-1].body)["texts"]
    assert texts[0] == text
    assert len(texts) == 1 + len(text.split())

    assert {urlsplit(url).netloc for url in asked} == {f"127.0.0.1:{gateway.port}"}
    assert errors == []
    kept = page.evaluate(
        "[localStorage.length, sessionStorage.length, document.cookie, location.href]"
    )
    assert kept == [0, 0, "", f"http://127.0.0.1:{gateway.port}/"]
    page.reload()
    expect(page.get_by_label("API key")).to_have_value("")


def test_keyboard_only(context: BrowserContext, gateway: GatewayProcess) -> None:
    page = opened(context, gateway)
    page.keyboard.press("Tab")
    expect(page.get_by_label("Text")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Text")).to_have_value(EXAMPLES[0])
    for _ in range(len(EXAMPLES) + 1):
        page.keyboard.press("Tab")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(gateway.key)
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_have_text("positive")
    expect(page.get_by_role("status")).to_contain_text("positive")
    page.get_by_label("Text").fill("dull and late")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#verdict")).to_have_text("negative")


@pytest.mark.parametrize("key", ["", "wrong"])
def test_a_wrong_key(
    context: BrowserContext, gateway: GatewayProcess, model: Server, key: str
) -> None:
    page = opened(context, gateway)
    classify(page, "loved", key)
    expect(page.get_by_role("alert")).to_contain_text("key")
    expect(page.get_by_label("API key")).to_be_focused()
    expect(page.get_by_label("API key")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#result")).to_be_hidden()
    assert model.received == []
    classify(page, "loved", gateway.key)
    expect(page.locator("#verdict")).to_have_text("positive")
    expect(page.get_by_role("alert")).to_be_empty()


def test_the_server_is_down(context: BrowserContext, tmp_path: Path, model: Server) -> None:
    with pages(tmp_path, model) as gateway:
        page = opened(context, gateway)
        classify(page, "loved", gateway.key)
        expect(page.locator("#verdict")).to_have_text("positive")
    page.get_by_role("button", name="Classify").click()
    expect(page.get_by_role("alert")).to_contain_text("The API does not answer.")
    expect(page.locator("#result")).to_be_hidden()
    expect(page.get_by_role("button", name="Classify")).to_be_enabled()


def test_the_model_fails(context: BrowserContext, gateway: GatewayProcess, model: Server) -> None:
    page = opened(context, gateway)
    model.script = refusing(500, {"oops": 1})
    classify(page, "loved", gateway.key)
    expect(page.get_by_role("alert")).to_contain_text("500 · model_error · request ")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_no_text(
    context: BrowserContext, gateway: GatewayProcess, model: Server, text: str
) -> None:
    page = opened(context, gateway)
    classify(page, text, gateway.key)
    expect(page.get_by_role("alert")).to_contain_text("There is no text yet.")
    assert model.received == []


def test_too_much_text(context: BrowserContext, gateway: GatewayProcess, model: Server) -> None:
    page = opened(context, gateway)
    classify(page, "loved " * 4_000, gateway.key)
    expect(page.get_by_role("alert")).to_contain_text("The text is too long.")
    assert model.received == []
    classify(page, "a film that I loved " * 200, gateway.key)
    expect(page.locator("#truncated")).to_be_visible()
    page.get_by_role("button", name="Which words mattered?").click()
    expect(page.locator("#explained")).to_contain_text("words at a time")
    assert len(model.received[-1].body) <= gateway.config.max_body


def test_markup_stays_text(context: BrowserContext, gateway: GatewayProcess, model: Server) -> None:
    page = opened(context, gateway)
    classify(page, MARKUP, gateway.key)
    expect(page.locator("#verdict")).to_have_text("positive")
    page.get_by_role("button", name="Which words mattered?").click()
    expect(page.locator("#words")).to_have_text(MARKUP)
    named = {**answer("loved"), "label": MARKUP, "probabilities": {MARKUP: 1.0}}
    model.script = refusing(200, named)
    classify(page, "loved", gateway.key)
    expect(page.locator("#verdict")).to_have_text(MARKUP)
    assert page.locator("main img, main script").count() == 0
    assert "run" not in page.title()


def test_injected_code_does_not_run(context: BrowserContext, gateway: GatewayProcess) -> None:
    page = opened(context, gateway)
    page.evaluate(
        """() => {
            window.refused = [];
            document.addEventListener(
                "securitypolicyviolation", (event) => window.refused.push(event.effectiveDirective)
            );
            const script = document.createElement("script");
            script.textContent = "document.title = 'run'";
            document.body.append(script);
            fetch("http://127.0.0.1:9/").catch(() => {});
            document.body.insertAdjacentHTML("beforeend", "<p style='color: red'>x</p>");
        }"""
    )
    page.wait_for_function("() => window.refused.length >= 3")
    assert {"script-src-elem", "connect-src", "style-src-attr"} <= set(
        page.evaluate("window.refused")
    )
    assert "run" not in page.title()


@pytest.mark.parametrize("width", [320, 375, 900])
def test_everybody_can_use_it_at_any_width(
    context: BrowserContext, gateway: GatewayProcess, scheme: str, width: int
) -> None:
    page = opened(context, gateway)
    colours: Literal["light", "dark"] = "dark" if scheme == "dark" else "light"
    # Without animation, because a growing bar has another contrast.
    page.emulate_media(color_scheme=colours, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 700})
    accessible(page)
    classify(page, EXAMPLES[0] + " Donaudampfschifffahrtsgesellschaft" * 2, gateway.key)
    expect(page.locator("#verdict")).to_have_text("positive")
    page.get_by_role("button", name="Which words mattered?").click()
    expect(page.locator("#reasons li").first).to_be_visible()
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    classify(page, "loved", "wrong")
    expect(page.get_by_role("alert")).to_contain_text("key")
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
