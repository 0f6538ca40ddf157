"""Hooks of the docs site: files beside docs/, search without a server, and llms.txt.

Pages link to files of the repository that are not in ``docs/`` (an example, a template). The site
gets those files too, so that every link works offline. A README becomes a page; anything else is
copied as it is.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.nav import Navigation
    from mkdocs.structure.pages import Page

_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
_COPIES = "repository"
# The offline plugin names this address; a browser without a network cannot reach it.
_FETCHED, _SHIM = "https://unpkg.com/iframe-worker/shim", "file-worker.js"
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LEAD = re.compile(r"^(?![#|<!`\s-]|\d\.)(.+?)(?:\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?])\s")
_MARKUP = re.compile(r"\[([^\]]*)\]\([^)]*\)|[*`]")


def _targets(text: str, folder: str) -> dict[str, str]:
    """The links of a page that leave docs/: as written, to the path from the repository's root."""
    found = {}
    for _, target, _ in _LINK.findall(text):
        if "://" in target or target.startswith("mailto:"):
            continue
        path = posixpath.normpath(posixpath.join(folder, target))
        if not path.startswith("docs/"):
            found[target] = path
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that a page links to, and those that these link to."""
    root = Path(config.docs_dir).parent
    sources = [
        (f"docs/{file.src_uri}", Path(config.docs_dir, file.src_uri))
        for file in files.documentation_pages()
    ]
    added: set[str] = set()
    while sources:
        name, source = sources.pop()
        text = source.read_text(encoding="utf-8")
        for path in _targets(text, posixpath.dirname(name)).values():
            outside = root / path
            if path in added or path.startswith("..") or not outside.is_file():
                continue
            added.add(path)
            files.append(File.generated(config, f"{_COPIES}/{path}", abs_src_path=str(outside)))
            if outside.suffix == ".md":
                sources.append((path, outside))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Point the links that leave docs/ to the copies in the site."""
    copied = page.file.src_uri.startswith(f"{_COPIES}/")
    name = page.file.src_uri.removeprefix(f"{_COPIES}/") if copied else f"docs/{page.file.src_uri}"
    here = posixpath.dirname(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match.group(0)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        inside = path.removeprefix("docs/") if path.startswith("docs/") else f"{_COPIES}/{path}"
        return f"{before}{posixpath.relpath(inside, here or '.')}{after}"

    return _LINK.sub(moved, markdown)


def on_post_page(output: str, *, page: Page, **_: Any) -> str:
    """Search in pages that are opened from a disk, without the script that the theme fetches."""
    depth = page.url.count("/")
    return output.replace(_FETCHED, "../" * depth + _SHIM)


def on_post_template(output_content: str, **_: Any) -> str:
    """Do the same for the theme's own pages (404.html)."""
    return output_content.replace(_FETCHED, _SHIM)


_pages: list[tuple[str, str, str]] = []


def on_nav(nav: Navigation, **_: Any) -> Navigation:
    """Note what llms.txt lists: the pages in the order of the navigation."""
    _pages[:] = []
    for page in nav.pages:
        text = Path(str(page.file.abs_src_path)).read_text(encoding="utf-8")
        title = next(line[2:] for line in text.splitlines() if line.startswith("# "))
        lead = _LEAD.search(_FENCED.sub("", text.split("\n", 1)[1]))
        first = _SENTENCE.split(" ".join(lead[1].split()))[0] if lead else ""
        _pages.append((title, page.file.src_uri, _MARKUP.sub(r"\1", first)))
    return nav


def on_post_build(*, config: MkDocsConfig, **_: Any) -> None:
    """Write llms.txt (https://llmstxt.org) and the Markdown that it lists."""
    site = Path(config.site_dir)
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", "", "## Pages", ""]
    for title, source, lead in _pages:
        lines.append(f"- [{title}]({source}): {lead}" if lead else f"- [{title}]({source})")
        target = site / source
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(config.docs_dir, source).read_bytes())
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
