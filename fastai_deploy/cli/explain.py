"""``fdeploy explain``: what an error's code or an exit code means, and what usually helps."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fastai_deploy import errors
from fastai_deploy.errors import FdeployError, UsageError

_ADVICE = """\
usage: Read the hint: it names the option or the command to type. fdeploy COMMAND --help has
  examples.
settings: The error names the file, the line and the key. fdeploy config shows every setting with
  its origin; fdeploy config set KEY VALUE changes one.
unknown-stage: Declare the stage with a table such as [stages.prod] in fdeploy.toml, or check the
  spelling after --stage.
no-project: Change to the project's folder, or name its file with --config. fdeploy init makes
  one.
file: Check the path, its permissions and the disk. If fdeploy wrote the file, run the command
  again that wrote it.
file-missing: Check the path. If an earlier command wrote the file, run that command again.
file-denied: Check the owner and the permissions of the file and of its folder.
disk-full: Free some space and run the same command again. Nothing half-written was kept.
learner: fdeploy inspect LEARNER shows what is in the file. docs/learners.md lists what converts.
not-a-pickle: Use the file that learn.export() wrote, not learn.save() or the model's weights.
learner-truncated: Copy or download the file again, and compare its size with the original.
learner-too-complex: Export the learner again with learn.export(); a learner needs far less. Do
  not load this file.
not-a-learner: Use the file that learn.export() wrote for a text classifier.
dangerous-learner: Do not load this file anywhere. Ask whoever gave it to you how it was made.
unsupported-learner: The hint names the way out: the source of your classes (--definitions), the
  tokenizer (--tokenizer), or serving the original pickle (--runtime learner).
unproven-learner: Run the notebook cell that the error prints, and give its file with --golden; or
  accept unproven answers with --unproven.
definitions: Correct the file that --definitions names; it must define the learner's classes as
  they were when the learner was exported.
untrusted-learner: If you made the learner yourself, run the command that the error shows. Loading
  a pickle runs its code.
runtime-unproven: Read the last lines of output in the error: usually a package is missing from
  --requirements, or --python is not the Python that the learner was made with.
golden: Compare the file's labels and columns with docs/bundle.md.
parity: Look at the parity page: it lists the texts that differ. More or better goldens, quantize
  = "none", or the learner's own library versions usually settle it.
stage: Run the command that the hint names; fdeploy up runs all of them.
record-missing: Run the command that the hint names; fdeploy up runs all of them.
record-stale: Run the command that the hint names; fdeploy up runs what is out of date.
workspace-busy: Wait until the other command has ended, or use another --stage.
stack-busy: Wait until the other deploy has ended, then run the same command again.
deploy: The previous version still serves. fdeploy logs shows what the server said; fdeploy doctor
  looks for the cause.
port-taken: Choose another port with --port, or 0 for a free one.
server-died: Read the log lines in the error, and fdeploy logs for the rest.
stack-failed: Read the first failure in the error; fdeploy doctor checks permissions and quotas.
  The stack was rolled back: run the same command again after the correction.
invocation: The answer's own code and hint are in the error; fdeploy logs shows the server's side.
no-answer: Try again. fdeploy status shows whether the endpoint runs; this says nothing about the
  model.
leftover: Run fdeploy teardown again. If the same resource stays, the error says who holds it.
extra-missing: Run the pip command in the hint.
target-unavailable: fdeploy doctor says what is missing on this machine.
wheel-missing: Choose an instance or an image with another Python, or a machine that reaches the
  package index.
hash-mismatch: Do not use this package. Check the index that pip is configured for (pip config
  list).
aws: AWS's own words are in the error. fdeploy doctor checks the account.
aws-credentials: Run aws sso login or aws configure, or name a profile with AWS_PROFILE.
aws-denied: Give the missing action to your user or role; fdeploy doctor --policy prints all that
  are needed.
aws-missing: Check --region, --stage and the account; fdeploy status shows what is there.
aws-quota: Ask for a higher quota in Service Quotas (the error names it), or choose another
  instance type.
aws-throttled: Wait a minute and run the same command again; it continues where it stopped.
aws-unreachable: Check the network and the region's name, then run the same command again.
aws-wrong-account: Use credentials of the account that the error names. If that account is gone,
  fdeploy teardown --forget forgets the stage.
not-ours: Choose another project name, or rename the other resource. fdeploy never takes over what
  it did not make.
"""

ADVICE: Mapping[str, str] = {
    code: " ".join(said.split())
    for code, said in re.findall(r"^([a-z-]+): (.*(?:\n  .*)*)", _ADVICE, re.MULTILINE)
}
"""What usually helps, by the code of an error."""

_OTHERS: Mapping[int, str] = {
    0: "Success.",
    1: "A bug in fdeploy: run the same command with --verbose and report its output.",
    15: "Not an error: fdeploy plan found that up would change something.",
    130: "Interrupted by Ctrl-C. Finished work is kept: run the same command again to continue.",
    141: "The reader of the output closed the pipe, as head does.",
}


@dataclass(frozen=True)
class Explained:
    """Errors that share a code or an exit code."""

    code: str
    exit_code: int
    meaning: str
    advice: str
    errors: tuple[str, ...] = ()

    def values(self) -> Explained:
        """The result itself is its shape."""
        return self

    def lines(self) -> Iterator[str]:
        """What it means, and what helps."""
        yield self.code if self.errors else f"{self.code}, exit code {self.exit_code}"
        yield f"  {self.meaning}"
        if self.advice:
            yield f"  {self.advice}"
        for error in self.errors:
            yield f"  {error}"


def explain(code: str) -> Explained:
    """Explain an error's code, such as ``record-stale``, or an exit code. Raises UsageError."""
    kinds = error_kinds()
    if code in kinds:
        kind = kinds[code]
        return Explained(code, kind.exit_code, meaning(kind), ADVICE[code])
    number = int(code) if code.isdecimal() else None
    if number is not None:
        named = tuple(
            f"{each.code}: {meaning(each)}" for each in kinds.values() if each.exit_code == number
        )
        if number in _OTHERS or named:
            about = _OTHERS.get(number, "One of these errors; fdeploy explain CODE says more:")
            return Explained(f"exit code {number}", number, about, "", named)
    raise UsageError(
        f"{code!r} is neither the code of an error nor an exit code",
        hint=f"use one of {', '.join(kinds)}",
    )


def error_kinds() -> dict[str, type[FdeployError]]:
    """Every kind of error, by its code."""
    return {kind.code: kind for kind in _kinds(FdeployError)}


def meaning(kind: type[FdeployError]) -> str:
    """The first paragraph of an error's docstring, in one line."""
    first = (inspect.getdoc(kind) or "").partition("\n\n")[0]
    return re.sub(r"``([^`]*)``", r"\1", " ".join(first.split()))


def _kinds(base: type[FdeployError]) -> Iterator[type[FdeployError]]:
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from _kinds(kind)
