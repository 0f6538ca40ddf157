"""Completes the commands in fdeploy's own messages, so that they can be typed as printed.

Hints are written where an error is raised: "run fdeploy teardown". Typed like that after ``fdeploy
up --stage prod``, the command would act on another stage. So before a hint is shown, each command
in it gets the flags of the command line that it accepts, and "the same command" is spelled out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from fastai_deploy.progress import Event, StageFinished, Step, Warned
from fastai_deploy.stage_reports import Checkup

LEARNER = "LEARNER"  # the positional argument, among the flags
_AWS_ONLY = frozenset({"--instance", "--lambda", "--region", "--ttl"})
_SAME = re.compile("run the same command(?: with)?")
_LONGEST = 200  # characters of a command line that is spelled out


@dataclass(frozen=True)
class CommandLine:
    """What was typed after ``fdeploy``.

    ``flags`` maps each flag that chooses a setting, a stage or a project file to its words as
    typed: ``{"--stage": ("--stage", "prod")}``. ``accepts`` returns the flags of every command; it
    is called only for a text that names one.
    """

    typed: tuple[str, ...]
    flags: Mapping[str, Sequence[str]]
    accepts: Callable[[], Mapping[str, Collection[str]]]

    @cached_property
    def accepted(self) -> Mapping[str, Collection[str]]:
        """The flags of every command."""
        return self.accepts()

    def complete(self, hint: str, *, sentence: bool = False) -> str:
        """Complete the commands in a hint; in a ``sentence`` only those after "run"."""
        if "fdeploy " not in hint or not self.accepted:
            return self._spelled_out(hint)
        before = r"(?<=\brun )" if sentence else r"\b"
        names = "|".join(sorted(self.accepted, key=len, reverse=True))
        commands = list(re.finditer(rf"{before}fdeploy ({names})(?![\w-])", hint))
        ends = [*(match.start() for match in commands[1:]), len(hint)]
        start = commands[0].start() if commands else len(hint)
        parts = [self._spelled_out(hint[:start])]
        for match, end in zip(commands, ends, strict=True) if commands else ():
            learner = self._learner.match(hint, match.end(), end)
            rest = hint[learner.end() if learner else match.end() : end]
            added = self._missing(match[1], rest, learner=bool(learner))
            parts += [match[0], learner[0] if learner else "", *added, self._spelled_out(rest)]
        return "".join(parts)

    def event(self, event: Event) -> Event:
        """Complete the commands in what an event says."""
        match event:
            case Warned(message, hint):
                return Warned(self.complete(message, sentence=True), self.complete(hint))
            case Step(message):
                return Step(self.complete(message, sentence=True))
            case StageFinished(stage, summary, seconds):
                return StageFinished(stage, self.complete(summary, sentence=True), seconds)
        return event

    def checkup(self, found: Checkup) -> Checkup:
        """Complete the commands in the hints of all checks."""
        return Checkup(
            tuple(replace(check, hint=self.complete(check.hint)) for check in found.checks)
        )

    @property
    def _learner(self) -> re.Pattern[str]:
        """A learner after a command: a path, a module:function, or the words that were typed."""
        typed = re.escape(shlex.join(self.flags.get(LEARNER, ())) or LEARNER)
        return re.compile(rf" (?:{typed}(?![\w-])|'[^']*'|[^\s'-]\S*[./:][^\s,;]+)")

    def _missing(self, command: str, rest: str, *, learner: bool) -> Iterator[str]:
        """The words that a command in a hint lacks, each after a space and quoted for a shell.

        ``rest`` follows the command and its ``learner``, if it has one.
        """
        if _has(rest, "--help"):
            return
        other = _AWS_ONLY if "--target local" in rest else ()
        for flag, words in self.flags.items():
            if flag not in self.accepted[command] or flag in other or _has(rest, flag):
                continue
            if not (learner and flag == LEARNER):
                yield f" {shlex.join(words)}"

    def _spelled_out(self, text: str) -> str:
        """Spell out "the same command", unless it is long or contains a user's text."""
        typed = shlex.join(self.typed)
        if not typed or len(typed) > _LONGEST or not typed.isprintable() or "invoke" in self.typed:
            return text
        return _SAME.sub(lambda _: f"run fdeploy {typed}", text)


UNKNOWN_LINE = CommandLine((), {}, dict)
"""For use as a library: hints stay as they are."""


def _has(rest: str, flag: str) -> bool:
    """Whether the words after a command already have a flag."""
    return re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", rest) is not None
