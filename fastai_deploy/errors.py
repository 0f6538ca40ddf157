"""Everything that can go wrong, as one tree.

    FdeployError
    ├── UsageError             2   the command line asks for something impossible
    ├── SettingsError          3   fdeploy.toml, a flag or a variable is wrong
    │   ├── UnknownStage
    │   └── NoProject
    ├── FileError              4   a file cannot be read or written
    │   ├── FileMissing
    │   ├── FileDenied
    │   └── DiskFull
    ├── LearnerError           5   the learner cannot be read or rebuilt
    │   ├── NotAPickle
    │   ├── LearnerTruncated
    │   ├── LearnerTooComplex
    │   ├── NotALearner
    │   ├── DangerousLearner
    │   ├── UnsupportedLearner
    │   ├── UnprovenLearner
    │   ├── DefinitionsError
    │   ├── UntrustedLearner
    │   └── RuntimeUnproven
    ├── GoldenError            5   the golden texts cannot be used
    ├── ParityError            6   the answers differ from the learner's
    ├── StageError             7   the stage cannot start from what is there
    │   ├── RecordMissing
    │   └── RecordStale
    ├── WorkspaceBusy          8   another fdeploy is at work in this stage
    │   └── StackBusy
    ├── DeployError            9   the target could not be brought up
    │   ├── PortTaken
    │   ├── ServerDied
    │   └── StackFailed
    ├── InvocationError       10   the endpoint or the API answered with an error
    │   └── NoAnswer
    ├── LeftoverError         11   teardown could not remove everything
    ├── ExtraMissing          12   an optional dependency is not installed
    ├── TargetUnavailable     13   the target cannot be used from here
    │   ├── WheelMissing
    │   └── HashMismatch
    └── AwsError              14   AWS refused, or could not be asked
        ├── AwsCredentials
        ├── AwsDenied
        ├── AwsMissing
        ├── AwsQuota
        ├── AwsThrottled
        ├── AwsUnreachable
        └── NotOurs

The number is the exit code of the command. 0 is success, 1 a defect of fdeploy itself and 130 an
interruption (Ctrl-C). Every error says what happened, why, and in ``hint`` what to type next.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, ClassVar


class FdeployError(Exception):
    """The base of every error that fdeploy raises on purpose.

    ``code`` is stable and meant for programs; ``hint`` is the way out, meant for people.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def values(self) -> dict[str, Any]:
        """The error as plain data, for programs."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class UsageError(FdeployError):
    """The command line asks for something impossible."""

    code = "usage"
    exit_code = 2


class SettingsError(FdeployError):
    """A setting is unknown, has the wrong type or cannot be combined with another."""

    code = "settings"
    exit_code = 3


class UnknownStage(SettingsError):
    """The stage named by ``--stage`` is not declared in the project file."""

    code = "unknown-stage"


class NoProject(SettingsError):
    """The project file that ``--config`` names does not exist."""

    code = "no-project"


class FileError(FdeployError):
    """A file cannot be read or written."""

    code = "file"
    exit_code = 4


class FileMissing(FileError):
    """A file that the user named does not exist."""

    code = "file-missing"


class FileDenied(FileError):
    """The operating system refuses to read or write a file."""

    code = "file-denied"


class DiskFull(FileError):
    """The disk or the quota is full; nothing half-written was kept."""

    code = "disk-full"


class LearnerError(FdeployError):
    """The learner cannot be read or rebuilt."""

    code = "learner"
    exit_code = 5


class NotAPickle(LearnerError):
    """The file is not a pickle in any format that ``learn.export()`` ever wrote."""

    code = "not-a-pickle"


class LearnerTruncated(LearnerError):
    """The file ends before the learner does, or its parts contradict each other."""

    code = "learner-truncated"


class LearnerTooComplex(LearnerError):
    """Reading the file would take more memory, depth or steps than any real learner needs."""

    code = "learner-too-complex"


class NotALearner(LearnerError):
    """The file is a sound pickle, but no fastai learner is in it."""

    code = "not-a-learner"


class DangerousLearner(LearnerError):
    """Loading the file would run code that no learner needs. Nothing of it was run."""

    code = "dangerous-learner"


class UnsupportedLearner(LearnerError):
    """The learner is sound, but cannot be rebuilt exactly, and is not guessed."""

    code = "unsupported-learner"


class UnprovenLearner(LearnerError):
    """The learner holds code that its file does not prove, and no golden shows what it does.

    ``unproven`` are those pieces of code, each as subject, reason and line of code; ``cell`` is the
    Python that writes a golden file in the learner's notebook.
    """

    code = "unproven-learner"

    def __init__(
        self, message: str, *, hint: str, unproven: Sequence[dict[str, str]] = (), cell: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.unproven = tuple(unproven)
        self.cell = cell

    def values(self) -> dict[str, Any]:
        """The error as plain data, with the pieces of code and the cell."""
        return {**super().values(), "unproven": list(self.unproven), "cell": self.cell}


class DefinitionsError(LearnerError):
    """The user's definitions cannot be loaded, or do not fit the learner."""

    code = "definitions"


class UntrustedLearner(LearnerError):
    """Serving the learner itself runs what its pickle says, and the user has not allowed that."""

    code = "untrusted-learner"


class RuntimeUnproven(LearnerError):
    """The learner did not load or answer in an environment and a process of its own."""

    code = "runtime-unproven"


class GoldenError(FdeployError):
    """The golden texts cannot be read, or do not fit the learner's labels."""

    code = "golden"
    exit_code = 5


class ParityError(FdeployError):
    """The answers differ from the learner's by more than the tolerance."""

    code = "parity"
    exit_code = 6


class StageError(FdeployError):
    """The stage cannot start from what is there."""

    code = "stage"
    exit_code = 7


class RecordMissing(StageError):
    """The stage before this one has not run yet."""

    code = "record-missing"


class RecordStale(StageError):
    """What this stage would start from was made from something that has changed since."""

    code = "record-stale"


class WorkspaceBusy(FdeployError):
    """Another fdeploy is at work in the same stage of the same project."""

    code = "workspace-busy"
    exit_code = 8


class StackBusy(WorkspaceBusy):
    """Somebody else is at work on a stack of this stage."""

    code = "stack-busy"


class DeployError(FdeployError):
    """The target could not be brought up; what was serving before still is."""

    code = "deploy"
    exit_code = 9


class PortTaken(DeployError):
    """The port that the settings name is in use."""

    code = "port-taken"


class ServerDied(DeployError):
    """The server ended, or never became healthy, while it was started."""

    code = "server-died"


class StackFailed(DeployError):
    """CloudFormation could not do what was asked; ``reason`` is what it says of the first failure.

    What was serving before still is.
    """

    code = "stack-failed"

    def __init__(self, message: str, *, hint: str, reason: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class InvocationError(FdeployError):
    """The endpoint or the API answered with an error, or not at all.

    ``status`` and ``answer_code`` are those of the answer, 0 and empty where there was none.
    """

    code = "invocation"
    exit_code = 10

    def __init__(self, message: str, *, hint: str, status: int = 0, answer_code: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.answer_code = answer_code


class NoAnswer(InvocationError):
    """Nothing was answered: that may be the way there, so it says nothing about the model."""

    code = "no-answer"


class LeftoverError(FdeployError):
    """Teardown found something that it could not remove."""

    code = "leftover"
    exit_code = 11


class ExtraMissing(FdeployError):
    """An optional dependency is not installed."""

    code = "extra-missing"
    exit_code = 12


class TargetUnavailable(FdeployError):
    """The target cannot be used from here."""

    code = "target-unavailable"
    exit_code = 13


class WheelMissing(TargetUnavailable):
    """A package that the serving code needs cannot be had for the container's image."""

    code = "wheel-missing"


class HashMismatch(TargetUnavailable):
    """A package is not the file that the lock names; it was not installed or packed."""

    code = "hash-mismatch"


class AwsError(FdeployError):
    """AWS refused a request, or could not be asked.

    ``aws_code`` is AWS's own name of the error (``ValidationError``), empty where there is none.
    """

    code = "aws"
    exit_code = 14

    def __init__(self, message: str, *, hint: str, aws_code: str = "") -> None:
        super().__init__(message, hint=hint)
        self.aws_code = aws_code


class AwsCredentials(AwsError):
    """There are no credentials, or AWS does not accept them (any more)."""

    code = "aws-credentials"


class AwsDenied(AwsError):
    """The credentials are accepted, and may not do what is asked."""

    code = "aws-denied"


class AwsMissing(AwsError):
    """What was asked for does not exist in this account and region."""

    code = "aws-missing"


class AwsQuota(AwsError):
    """A quota of the account is used up, or is 0."""

    code = "aws-quota"


class AwsThrottled(AwsError):
    """AWS asks for fewer requests, still after the retries."""

    code = "aws-throttled"


class AwsUnreachable(AwsError):
    """There was no answer: no connection, a time-out, or a service that the region lacks."""

    code = "aws-unreachable"


class NotOurs(AwsError):
    """Something of that name exists and belongs to somebody else; it is left alone."""

    code = "not-ours"


def error_from_response(who: str, status: int, body: Any) -> InvocationError | None:
    """The error that ``body`` holds in the form of the contract; None where it holds none."""
    try:
        said = json.loads(body)["error"]
        return InvocationError(
            f"{who} answered {status} {said['code']}: {said['message']}",
            hint=said["hint"] or "see docs/contract.md",
            status=status,
            answer_code=said["code"],
        )
    except (ValueError, TypeError, KeyError):
        return None


def need_extra(extra: str, *modules: str) -> None:
    """Raise ExtraMissing unless every module is installed; imports none of them."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ExtraMissing(
            f"this needs {', '.join(missing)}, which the extra {extra!r} of fastai-deploy brings",
            hint=f"pip install 'fastai-deploy[{extra}]'",
        )
