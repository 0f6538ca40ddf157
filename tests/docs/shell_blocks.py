"""The shell blocks of the documentation, and what each page says about running them.

A page with shell blocks says, in a comment, how they are checked:

    <!-- run: NAME -->             its blocks are run in order, in a copy of examples/NAME
    <!-- page not run: REASON -->  none of its blocks is run
    <!-- not run: REASON -->       the block below is not run

Every line that starts with ``fdeploy`` is parsed by the real command line, run or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
)

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\s*$")
_RUN = re.compile(r"^<!-- run: (\S+) -->$", re.MULTILINE)
_PAGE_NOT_RUN = re.compile(r"^<!-- page not run: (.+?) -->$", re.MULTILINE)
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
_SHELL = ("sh", "bash", "shell", "console")
_PROGRAMS = ("fdeploy", "pip", "make", "curl", "aws", "uv", "npx", "git", "python", "python3")
_COMMAND = re.compile(rf"^(?:\$ )?(?:{'|'.join(_PROGRAMS)})(?: |$)")
_INLINE = re.compile(r"`(fdeploy [^`]+)`")


@dataclass(frozen=True)
class Block:
    """A shell block: its lines, where it begins, and why it is not run, if it says so."""

    line: int
    lines: tuple[str, ...]
    reason: str | None

    @property
    def commands(self) -> Iterator[str]:
        """Its commands of fdeploy, with continued lines joined and without prompts."""
        text = "\n".join(self.lines).replace("\\\n", " ")
        for line in text.splitlines():
            said = re.sub(r"(^|\s)#.*$", "", line.strip().removeprefix("$ "))
            for part in re.split(r"\s*(?:;|&&|\|\||\||>|<)\s*", said):
                if part.startswith("fdeploy"):
                    yield part


@dataclass(frozen=True)
class Page:
    """A page of the documentation."""

    path: Path
    text: str

    @property
    def runs_in(self) -> str | None:
        """The example in whose copy the blocks are run."""
        found = _RUN.search(self.text)
        return found[1] if found else None

    @property
    def reason(self) -> str | None:
        """Why no block of the page is run."""
        found = _PAGE_NOT_RUN.search(self.text)
        return found[1] if found else None

    @property
    def blocks(self) -> list[Block]:
        """The shell blocks, fenced or indented."""
        return [*_blocks(self.text.splitlines())]

    @property
    def inline(self) -> list[str]:
        """Commands of fdeploy in running text, such as `fdeploy up`."""
        return [found[1] for found in _INLINE.finditer(self.text)]


def pages() -> list[Page]:
    """Every page with a shell block or a command."""
    return [Page(path, path.read_text(encoding="utf-8")) for path in PAGES]


def _blocks(lines: list[str]) -> Iterator[Block]:
    at = 0
    reason: str | None = None
    while at < len(lines):
        line = lines[at]
        said = _NOT_RUN.search(line)
        if said:
            reason = said[1]
        fence = _FENCE.match(line)
        if fence:
            end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
            inside = tuple(each.removeprefix(fence["indent"]) for each in lines[at + 1 : end])
            if _is_shell(fence["language"], inside):
                yield Block(at + 1, inside, reason)
            at, reason = end + 1, None
        elif line.startswith("    ") and (at == 0 or not lines[at - 1].strip()):
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            inside = tuple(each.strip() for each in lines[at:end] if each.strip())
            if _is_shell("", inside):
                yield Block(at + 1, inside, reason)
            at, reason = end, None
        else:
            if line.strip() and not said:
                reason = None
            at += 1


def _is_shell(language: str, inside: tuple[str, ...]) -> bool:
    return language in _SHELL or (not language and any(_COMMAND.match(each) for each in inside))
