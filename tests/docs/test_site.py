"""The docs site: it builds without a warning, works offline, and no page is too long."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fastai_deploy.aws.rollout import CAUSES
from tests.docs.shell_blocks import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
WORDS = 2_000  # ten minutes at 200 words a minute
GENERATED = ("commands.md", "settings.md", "policies.md")
# Tables of measurements and of rules are looked up, not read; code is copied.
LOOKED_UP = re.compile(r"^```.*?^```|^\|.*?$|^ {4}.*?$|<!--.*?-->", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return place


class Fetched(HTMLParser):
    """What a browser fetches by itself when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"script", "img", "iframe", "source"}:
            self.urls.append(given.get("src") or "")
        if tag == "link" and given.get("rel") in {"stylesheet", "icon", "preconnect", "preload"}:
            self.urls.append(given.get("href") or "")


def test_pages_fetch_nothing_from_a_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = Fetched()
        fetched.feed(page.read_text(encoding="utf-8"))
        for url in filter(None, fetched.urls):
            assert "//" not in url, f"{page.relative_to(site)} fetches {url}"
            local = site if url.startswith("/") else page.parent
            assert (local / url.lstrip("/").split("?")[0]).is_file(), f"{page}: {url}"
    for sheet in site.rglob("*.css"):
        imported = re.findall(r"(?:@import|url\()\s*[\"']?https?:", sheet.read_text("utf-8"))
        assert imported == [], sheet.name


def test_links_work_from_a_disk(site: Path) -> None:
    """Every link within the site names a file, and an anchor that is there."""
    ids: dict[Path, set[str]] = {}
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        ids[page] = set(re.findall(r"\bid=\"([^\"]+)\"", text))
    for page in ids:
        if page.name == "404.html":
            continue
        for target in re.findall(r"<a [^>]*href=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
            if "://" in target or target.startswith("mailto:"):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.is_file(), f"{page.relative_to(site)}: {target}"
            if anchor and file in ids and not anchor.startswith("__"):
                assert anchor in ids[file], f"{page.relative_to(site)}: {target}"


def test_files_outside_docs_are_in_the_site(site: Path) -> None:
    assert (site / "repository/examples/github-actions/role.yaml").is_file()
    assert (site / "repository/fastai_deploy/aws/templates/api.yaml").is_file()


def test_llms_txt_lists_every_page_with_its_markdown(site: Path) -> None:
    text = (site / "llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# fdeploy\n\n> ")
    listed = re.findall(r"^- \[[^\]]+\]\(([^)]+)\)", text, re.MULTILINE)
    assert sorted(listed) == [str(page.relative_to(DOCS)) for page in PAGES]
    for source in listed:
        assert (site / source).read_bytes() == (DOCS / source).read_bytes()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_takes_at_most_ten_minutes(page: Path) -> None:
    if page.name not in GENERATED:
        words = LOOKED_UP.sub("", page.read_text(encoding="utf-8")).split()
        assert len(words) <= WORDS, f"{len(words)} words: split it"


def test_troubleshooting_knows_each_cause_of_a_failed_deploy() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    assert [words for words, _ in CAUSES if not re.search(words, page)] == []
