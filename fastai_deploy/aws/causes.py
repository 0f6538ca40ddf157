"""Why a deploy failed, in most cases: a table of what AWS and containers say, and what helps.

The first row whose words stand in the reason or in the container's last lines is taken. Sources:
"Troubleshoot Amazon SageMaker model deployments" in the SageMaker guide, and the messages of
TorchServe, Ray Serve, pip and the Linux kernel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """What probably happened, and what to do about it."""

    what: str
    hint: str


_TABLE: tuple[tuple[str, Cause], ...] = (
    (
        r"ResourceLimitExceeded|account-level service limit|service quota",
        Cause(
            "the account's quota for this instance type is used up, or 0 as in new accounts",
            "ask for a higher one in the console under Service Quotas, SageMaker, "
            "'<instance> for endpoint usage', or choose another --instance",
        ),
    ),
    (
        r"InsufficientInstanceCapacity|Unable to provision requested ML compute capacity",
        Cause(
            "AWS has no such instance free in this region now",
            "try again later, or choose another --instance or --region",
        ),
    ),
    (
        r"instance_?[tT]ype.*enum value set|is not supported in this region|not supported for",
        Cause(
            "this instance type does not exist in this region, or not for endpoints",
            "choose another --instance, such as ml.m5.large",
        ),
    ),
    (
        r"Could not (find|access) model data|NoSuchKey|HeadObject.*404",
        Cause(
            "the artifact is not in the bucket any more, or the role may not read it",
            "run fdeploy upload, then fdeploy deploy",
        ),
    ),
    (
        r"(image|repository).*(does not exist|not found)|CannotPullContainer|ImageNotFound",
        Cause(
            "the container image does not exist in this region",
            "remove image from [endpoint], or name one that exists",
        ),
    ),
    (
        r"not authorized to perform|AccessDenied|Could not assume role",
        Cause(
            "a permission is missing",
            "fdeploy doctor --policy prints what is needed",
        ),
    ),
    (
        r"ModuleNotFoundError|No module named|ImportError|No matching distribution",
        Cause(
            "the artifact lacks a package that the container does not have",
            "run fdeploy package, which takes the packages for the chosen image along",
        ),
    ),
    (
        r"exit code 137|OutOfMemory|out of memory|Cannot allocate memory|MemoryError|Killed",
        Cause(
            "the model does not fit into the memory",
            "choose a larger --instance, or more serverless_memory",
        ),
    ),
    (
        r"Worker died|Backend worker process died|actor died",
        Cause(
            "the server's worker died while it loaded the model",
            "read the lines above; fdeploy up --target local runs the same artifact here",
        ),
    ),
    (
        r"goldens? (was|were) not reproduced|is off by",
        Cause(
            "the model answers otherwise on this hardware than it should",
            "run fdeploy export and fdeploy up again; report it if it stays",
        ),
    ),
    (
        r"ping health check|health check",
        Cause(
            "the server was not healthy in time",
            "read the lines above; startup_timeout in [endpoint] gives it longer",
        ),
    ),
)


def likely_cause(reason: str, lines: Sequence[str]) -> Cause | None:
    """The likely cause of a failure; None for one that is not known."""
    said = "\n".join((reason, *lines))
    return next((cause for words, cause in _TABLE if re.search(words, said)), None)
