"""The demo page as people use it: `make test-page` runs this in a real Chromium."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, FilePayload, Locator, Page, expect

from tests.gateway.conftest import GatewayProcess
from tests.gateway.servers import Received, Reply, Server, refusing
from tests.page.conftest import EXAMPLES, pages
from tests.page.reviews import answer, reviews

MARKUP = '<img src=x onerror="document.title=\'run\'"><script>document.title="run"</script> loved'


def opened(context: BrowserContext, gateway: GatewayProcess) -> Page:
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{gateway.port}/")
    return page


def classify(page: Page, text: str, key: str) -> None:
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Classify", exact=True).click()


def part(page: Page, name: str) -> Locator:
    """A part that is closed at first, opened."""
    found = page.locator("details").filter(has=page.get_by_role("heading", name=name))
    found.locator("summary").click()
    return found


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
    expect(page.get_by_label("Text", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Text", exact=True)).to_have_value(EXAMPLES[0])
    for _ in range(len(EXAMPLES) + 1):
        page.keyboard.press("Tab")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(gateway.key)
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_have_text("positive")
    expect(page.get_by_role("status")).to_contain_text("positive")
    page.get_by_label("Text", exact=True).fill("dull and late")
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
    page.get_by_role("button", name="Classify", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("The API does not answer.")
    expect(page.locator("#result")).to_be_hidden()
    expect(page.get_by_role("button", name="Classify", exact=True)).to_be_enabled()


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


def test_the_key_comes_in_the_fragment_and_does_not_stay(
    context: BrowserContext, gateway: GatewayProcess
) -> None:
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(f"{request.url} {request.headers}"))
    page.goto(f"http://127.0.0.1:{gateway.port}/#key={gateway.key}")
    expect(page.get_by_label("API key")).to_have_value(gateway.key)
    assert page.url == f"http://127.0.0.1:{gateway.port}/"
    assert page.evaluate("history.length") <= 2
    page.get_by_label("Text", exact=True).fill("loved")
    page.get_by_role("button", name="Classify", exact=True).click()
    expect(page.locator("#verdict")).to_have_text("positive")
    assert [url for url in asked if gateway.key in url and "x-api-key" not in url] == []


def test_the_answer_comes_into_view_on_a_phone(
    context: BrowserContext, gateway: GatewayProcess
) -> None:
    page = opened(context, gateway)
    page.set_viewport_size({"width": 375, "height": 640})
    page.emulate_media(reduced_motion="reduce")
    classify(page, "loved", gateway.key)
    expect(page.locator("#verdict")).to_be_in_viewport()
    expect(page.locator("#bars li").last).to_be_in_viewport()
    classify(page, "loved", "wrong")
    expect(page.get_by_role("alert").locator("strong")).to_be_in_viewport()


TABLE = (
    'id;review;note\r\n1;"I loved it; ""really""";a\r\n2;"dull\nand late";b\r\n'
    "3;<b>thin</b>, but warm;c\r\n"
)


def test_a_table_is_classified_and_downloaded(
    context: BrowserContext, gateway: GatewayProcess
) -> None:
    page = opened(context, gateway)
    page.get_by_label("API key").fill(gateway.key)
    many = part(page, "Many texts")
    file = FilePayload(name="r.csv", mimeType="text/csv", buffer=("\ufeff" + TABLE).encode())
    many.get_by_label("Or a file").set_input_files(file)
    expect(many.locator("#column")).to_have_value("1")
    expect(many.locator("#all-count")).to_have_text("3 texts")
    many.get_by_role("button", name="Classify all").click()
    expect(many.locator("#all-count")).to_have_text("3 of 3 classified")
    expect(many.locator("tbody tr td:nth-child(2)")).to_have_text(
        ["positive", "negative", "neutral"]
    )
    accessible(page)
    with page.expect_download() as download:
        many.get_by_role("button", name="Download as CSV").click()
    written = download.value.path().read_bytes().decode()
    found = list(csv.reader(io.StringIO(written, newline="")))
    assert found[0] == ["id", "review", "note", "label", "score", "error"]
    assert [row[1] for row in found[1:]] == [
        'I loved it; "really"', "dull\nand late", "<b>thin</b>, but warm",
    ]  # fmt: skip
    assert [row[3] for row in found[1:]] == ["positive", "negative", "neutral"]
    assert float(found[1][4]) == pytest.approx(answer("loved")["score"], abs=1e-4)


def test_lines_are_sent_in_chunks_and_a_busy_api_is_waited_for(
    context: BrowserContext, gateway: GatewayProcess, model: Server
) -> None:
    refused = [
        Reply(429, b'{"message": "Too Many Requests"}', {"retry-after": "1"}),
        Reply(503, b"{}", {"retry-after": "1"}),
    ]

    def busy(received: Received) -> Reply:
        return refused.pop() if refused else reviews(received)

    model.script = busy
    page = opened(context, gateway)
    page.get_by_label("API key").fill(gateway.key)
    many = part(page, "Many texts")
    many.get_by_label("Texts", exact=True).fill("\n".join(f"loved {at}" for at in range(70)))
    many.get_by_role("button", name="Classify all").click()
    expect(many.locator("#all-count")).to_have_text("70 of 70 classified", timeout=20_000)
    sizes = [len(json.loads(each.body)["texts"]) for each in model.received[-3:]]
    assert sizes == [32, 32, 6]


def test_a_text_that_fails_does_not_stop_the_others(
    context: BrowserContext, gateway: GatewayProcess, model: Server
) -> None:
    def strict(received: Received) -> Reply:
        bad = "bad" in json.loads(received.body)["texts"]
        return Reply(500, b"{}") if bad else reviews(received)

    model.script = strict
    page = opened(context, gateway)
    page.get_by_label("API key").fill(gateway.key)
    many = part(page, "Many texts")
    many.get_by_label("Texts", exact=True).fill("loved\nbad\ndull and late")
    many.get_by_role("button", name="Classify all").click()
    expect(many.locator("#all-count")).to_have_text("3 of 3 classified, 1 failed")
    expect(many.locator("td.bad")).to_have_count(1)


def test_it_can_be_stopped(context: BrowserContext, gateway: GatewayProcess, model: Server) -> None:
    page = opened(context, gateway)
    page.get_by_label("API key").fill(gateway.key)
    many = part(page, "Many texts")

    def late(received: Received) -> Reply:
        if len(model.received) > 1:
            return Reply(503, b"{}", {"retry-after": "30"})
        return reviews(received)

    model.script = late
    many.get_by_label("Texts", exact=True).fill("\n".join(["loved"] * 64))
    many.get_by_role("button", name="Classify all").click()
    expect(many.locator("#all-count")).to_contain_text("waiting")
    many.get_by_role("button", name="Stop").click()
    expect(many.locator("#all-count")).to_have_text("32 of 64 classified, stopped")
    expect(many.get_by_role("button", name="Download as CSV")).to_be_visible()


def test_a_file_that_is_not_text(context: BrowserContext, gateway: GatewayProcess) -> None:
    page = opened(context, gateway)
    many = part(page, "Many texts")
    file = FilePayload(name="r.csv", mimeType="text/csv", buffer=b"\xff\xfe\x00a")
    many.get_by_label("Or a file").set_input_files(file)
    expect(page.get_by_role("alert")).to_contain_text("not text in UTF-8")


def test_the_code_runs_as_it_is(
    context: BrowserContext, gateway: GatewayProcess, tmp_path: Path
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = opened(context, gateway)
    code = part(page, "Use it in code")
    assert gateway.key not in code.inner_text()
    environ = {**os.environ, "KEY": gateway.key}
    for language, program in (("curl", ["sh", "-c"]), ("Python", [sys.executable, "-c"])):
        code.get_by_role("button", name=f"Copy {language}").click()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == code.get_by_role("region", name=language).inner_text()
        done = subprocess.run(
            [*program, copied],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert "film-reviews" in done.stdout, done.stderr
    script = code.get_by_role("region", name="JavaScript").inner_text()
    stand_ins = "const logged = [], console = { log: (said) => logged.push(said) };"
    process = f"const process = {{ env: {{ KEY: {json.dumps(gateway.key)} }} }};"
    logged = page.evaluate(f"async () => {{ {process} {stand_ins}\n{script}\nreturn logged; }}")
    assert logged[0]["model"]["name"] == "film-reviews"


def test_the_reference_comes_from_the_document(
    context: BrowserContext, gateway: GatewayProcess
) -> None:
    page = opened(context, gateway)
    reference = part(page, "API reference")
    expect(reference.locator("h3")).to_have_text(
        ["POST /classify", "GET /health", "GET /openapi.json", "GET /"]
    )
    expect(reference).to_contain_text("top_k")
    expect(reference.locator("td code").filter(has_text="too_large")).to_be_visible()
    assert "`" not in reference.inner_text()
    expect(reference).to_contain_text("429")
    accessible(page)


def test_the_model_card_is_text(context: BrowserContext, gateway: GatewayProcess) -> None:
    page = opened(context, gateway)
    card = part(page, "Model card")
    expect(card).to_contain_text("Accuracy: 0.91 on <b>200</b> texts.")
    expect(card).not_to_contain_text("language: en")


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
    for name in ("Many texts", "Use it in code", "API reference", "Model card"):
        part(page, name)
    expect(page.locator("#operations h3").first).to_be_visible()
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    classify(page, "loved", "wrong")
    expect(page.get_by_role("alert")).to_contain_text("key")
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
