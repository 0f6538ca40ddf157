"""The error hierarchy: every error that fdeploy raises, with its exit code.

    FdeployError
    ├── UsageError             2   the command cannot do what was asked
    ├── SettingsError          3   fdeploy.toml, a flag or an environment variable is invalid
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
    │   ├── RuntimeUnproven
    │   └── HubError
    ├── GoldenError            5   the golden file cannot be used
    ├── ParityError            6   the predictions differ from the learner's
    ├── StageError             7   an earlier stage has to run first
    │   ├── RecordMissing
    │   └── RecordStale
    ├── WorkspaceBusy          8   another fdeploy command is running in this stage
    │   └── StackBusy
    ├── DeployError            9   the deployment failed
    │   ├── PortTaken
    │   ├── ServerDied
    │   └── StackFailed
    ├── InvocationError       10   the endpoint or the API returned an error
    │   └── NoAnswer
    ├── LeftoverError         11   teardown could not remove everything
    ├── ExtraMissing          12   an optional dependency is not installed
    ├── TargetUnavailable     13   the target cannot be used from this machine
    │   ├── WheelMissing
    │   ├── HashMismatch
    │   └── ImageError
    ├── AwsError              14   AWS refused a request or could not be reached
    │   ├── AwsCredentials
    │   ├── AwsDenied
    │   ├── AwsMissing
    │   ├── AwsQuota
    │   ├── AwsThrottled
    │   ├── AwsUnreachable
    │   ├── AwsWrongAccount
    │   └── NotOurs
    └── QualityError          16   the model does not keep to a limit of the command
        ├── AccuracyTooLow
        ├── SignificantlyWorse
        └── DriftTooLarge

The number is the command's exit code. 0 means success, 1 a bug in fdeploy, and 130 an interruption
(Ctrl-C). Every error says what happened and why; its ``hint`` says what to type next.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, ClassVar


class FdeployError(Exception):
    """The base class of every error that fdeploy raises deliberately.

    ``code`` is stable and meant for programs; ``hint`` tells the user what to do next.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def values(self) -> dict[str, Any]:
        """Return the error as plain data, for ``--json``."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class UsageError(FdeployError):
    """The command cannot do what was asked."""

    code = "usage"
    exit_code = 2


class SettingsError(FdeployError):
    """A setting is unknown, has the wrong type or conflicts with another."""

    code = "settings"
    exit_code = 3


class UnknownStage(SettingsError):
    """The project file does not declare the stage given with ``--stage``."""

    code = "unknown-stage"


class NoProject(SettingsError):
    """There is no project in this folder, or the file given with ``--config`` does not exist."""

    code = "no-project"


class FileError(FdeployError):
    """A file cannot be read or written."""

    code = "file"
    exit_code = 4


class FileMissing(FileError):
    """A file does not exist: one that the user named, or one that fdeploy wrote earlier."""

    code = "file-missing"


class FileDenied(FileError):
    """The operating system denies access to a file."""

    code = "file-denied"


class DiskFull(FileError):
    """The disk or the quota is full; no partial file was kept."""

    code = "disk-full"


class LearnerError(FdeployError):
    """The learner cannot be read or rebuilt."""

    code = "learner"
    exit_code = 5


class NotAPickle(LearnerError):
    """The file is not a pickle in any format that ``learn.export()`` has ever written."""

    code = "not-a-pickle"


class LearnerTruncated(LearnerError):
    """The file ends too early, or its parts contradict each other."""

    code = "learner-truncated"


class LearnerTooComplex(LearnerError):
    """Reading the file would take more memory, nesting or steps than any real learner needs."""

    code = "learner-too-complex"


class NotALearner(LearnerError):
    """The file is a valid pickle that does not contain a fastai text classifier."""

    code = "not-a-learner"


class DangerousLearner(LearnerError):
    """Loading the file would run code that no learner needs. None of it was run."""

    code = "dangerous-learner"


class UnsupportedLearner(LearnerError):
    """The learner is valid but cannot be rebuilt exactly, and fdeploy does not guess."""

    code = "unsupported-learner"


class UnprovenLearner(LearnerError):
    """The file does not show what some of the learner's code does, and no golden proves it.

    ``unproven`` lists those pieces of code, each with its subject, the reason and the line of code;
    ``cell`` is Python code that writes a golden file when run in the learner's notebook.
    """

    code = "unproven-learner"

    def __init__(
        self, message: str, *, hint: str, unproven: Sequence[dict[str, str]] = (), cell: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.unproven = tuple(unproven)
        self.cell = cell

    def values(self) -> dict[str, Any]:
        """Return the error as plain data, including ``unproven`` and ``cell``."""
        return {**super().values(), "unproven": list(self.unproven), "cell": self.cell}


class DefinitionsError(LearnerError):
    """The definitions file cannot be loaded or does not match the learner."""

    code = "definitions"


class UntrustedLearner(LearnerError):
    """Serving the original learner runs code from its pickle, which the user has not allowed."""

    code = "untrusted-learner"


class RuntimeUnproven(LearnerError):
    """The learner failed to load or to predict in its own environment and process."""

    code = "runtime-unproven"


class HubError(LearnerError):
    """The Hugging Face Hub does not give the model, or cannot be reached."""

    code = "hub"


class GoldenError(FdeployError):
    """The golden file cannot be read or does not match the learner's labels."""

    code = "golden"
    exit_code = 5


class ParityError(FdeployError):
    """The predictions differ from the learner's by more than the tolerance."""

    code = "parity"
    exit_code = 6


class StageError(FdeployError):
    """The stage cannot start: an earlier one has to run first."""

    code = "stage"
    exit_code = 7


class RecordMissing(StageError):
    """The previous stage has not run yet."""

    code = "record-missing"


class RecordStale(StageError):
    """The input of this stage is out of date: what it was made from has changed since."""

    code = "record-stale"


class WorkspaceBusy(FdeployError):
    """Another fdeploy command is running in the same stage of the same project."""

    code = "workspace-busy"
    exit_code = 8


class StackBusy(WorkspaceBusy):
    """Someone else is updating a stack of this stage."""

    code = "stack-busy"


class DeployError(FdeployError):
    """The deployment failed; the previous version is still serving."""

    code = "deploy"
    exit_code = 9


class PortTaken(DeployError):
    """The configured port is in use."""

    code = "port-taken"


class ServerDied(DeployError):
    """The server exited or did not become healthy while it was starting."""

    code = "server-died"


class StackFailed(DeployError):
    """A CloudFormation operation failed; ``reason`` is its message about the first failure.

    The previous version is still serving.
    """

    code = "stack-failed"

    def __init__(self, message: str, *, hint: str, reason: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class InvocationError(FdeployError):
    """The endpoint or the API returned an error, or did not answer.

    ``status``, ``answer_code`` and ``retry_after`` (seconds) come from the response; what it does
    not have is 0 or empty.
    """

    code = "invocation"
    exit_code = 10

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        status: int = 0,
        answer_code: str = "",
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.answer_code = answer_code
        self.retry_after = retry_after


class NoAnswer(InvocationError):
    """No answer came back. The cause may be the network, so this says nothing about the model."""

    code = "no-answer"


class LeftoverError(FdeployError):
    """Teardown could not remove everything it found."""

    code = "leftover"
    exit_code = 11


class ExtraMissing(FdeployError):
    """An optional dependency is not installed."""

    code = "extra-missing"
    exit_code = 12


class TargetUnavailable(FdeployError):
    """The target cannot be used from this machine."""

    code = "target-unavailable"
    exit_code = 13


class WheelMissing(TargetUnavailable):
    """A package that serving needs has no wheel for the container image."""

    code = "wheel-missing"


class HashMismatch(TargetUnavailable):
    """A download's hash differs from the expected one; it was neither installed nor packed."""

    code = "hash-mismatch"


class ImageError(TargetUnavailable):
    """The container image of the own server cannot be built or pushed."""

    code = "image"


class AwsError(FdeployError):
    """AWS refused a request or could not be reached.

    ``aws_code`` is AWS's own error code (such as ``ValidationError``), empty if there is none.
    """

    code = "aws"
    exit_code = 14

    def __init__(self, message: str, *, hint: str, aws_code: str = "") -> None:
        super().__init__(message, hint=hint)
        self.aws_code = aws_code


class AwsCredentials(AwsError):
    """There are no credentials, or AWS does not (or no longer) accept them."""

    code = "aws-credentials"


class AwsDenied(AwsError):
    """The credentials are valid but lack a permission."""

    code = "aws-denied"


class AwsMissing(AwsError):
    """The resource does not exist in this account and region."""

    code = "aws-missing"


class AwsQuota(AwsError):
    """A quota of the account is exhausted or is 0."""

    code = "aws-quota"


class AwsThrottled(AwsError):
    """AWS still throttles requests after all retries."""

    code = "aws-throttled"


class AwsUnreachable(AwsError):
    """AWS did not answer: no connection, a timeout, or a service the region does not have."""

    code = "aws-unreachable"


class AwsWrongAccount(AwsError):
    """The credentials are valid, but of another account than the stage's last deploy."""

    code = "aws-wrong-account"


class NotOurs(AwsError):
    """A resource of that name exists but belongs to someone else; fdeploy leaves it alone."""

    code = "not-ours"


class QualityError(FdeployError):
    """The model does not keep to a limit that the command was given. Its results are shown."""

    code = "quality"
    exit_code = 16


class AccuracyTooLow(QualityError):
    """The accuracy on the labelled texts is below ``--min-accuracy``."""

    code = "accuracy-too-low"


class SignificantlyWorse(QualityError):
    """The answers are significantly worse than those of the version given with ``--against``."""

    code = "significantly-worse"


class DriftTooLarge(QualityError):
    """The captured requests or answers differ from the goldens by more than ``--max-drift``."""

    code = "drift-too-large"


def contract_error(body: Any) -> tuple[str, str, str] | None:
    """The code, message and hint of a contract error in a response body; None if it holds none."""
    try:
        said = json.loads(body)["error"]
        return str(said["code"]), str(said["message"]), str(said["hint"])
    except (ValueError, TypeError, KeyError):
        return None


def error_from_response(
    who: str, status: int, body: Any, *, retry_after: float = 0.0
) -> InvocationError | None:
    """Return the contract error in a response body, or None if the body holds none."""
    said = contract_error(body)
    if said is None:
        return None
    code, message, hint = said
    return InvocationError(
        f"{who} answered {status} {code}: {message}",
        hint=hint or "see docs/contract.md",
        status=status,
        answer_code=code,
        retry_after=retry_after,
    )


def need_extra(extra: str, *modules: str) -> None:
    """Raise ExtraMissing unless every module is installed, without importing any of them."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ExtraMissing(
            f"this command needs {', '.join(missing)}, which the {extra!r} extra of fastai-deploy "
            "installs",
            hint=f"pip install 'fastai-deploy[{extra}]'",
        )
