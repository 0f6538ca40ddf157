"""Downloads a model from the Hugging Face Hub: ``hf:owner/name`` or ``hf:owner/name@revision``.

The revision is resolved to a commit first, and that commit is what is downloaded and recorded. Only
the files that are read are downloaded, into the cache of ``huggingface_hub``, which finds the token
(``HF_TOKEN`` or ``hf auth login``) and the server (``HF_ENDPOINT``) itself. If the Hub cannot be
reached, what is in the cache is used.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastai_deploy.errors import (
    DiskFull,
    FileError,
    HubError,
    LearnerError,
    NotALearner,
    UsageError,
    need_extra,
)
from fastai_deploy.learner.pretrained.folder import (
    CONFIG,
    INDEX,
    LEARNER,
    PICKLED,
    PROJECT,
    TOKENIZERS,
    WEIGHTS,
    check_no_adapter,
    listed_names,
    no_weights,
    other_formats,
)
from fastai_deploy.naming import HUB
from fastai_deploy.progress import Reporter, Step, Warned

_NAME = re.compile(r"(?P<id>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[^\s@:]+))?", re.ASCII)
_SECONDS = 30  # for an answer about a repository
_SHOWN = 12  # digits of a commit
_UNAUTHORIZED, _MANY, _SERVER = 401, 429, 500
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOG_IN = "run hf auth login, or set HF_TOKEN to a token that may read it"


@dataclass(frozen=True)
class Repository:
    """A model's repository on the Hub; ``revision`` is a branch, a tag or a commit, or None."""

    id: str
    revision: str | None

    def __str__(self) -> str:
        return f"{HUB}{self.id}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Snapshot:
    """A downloaded commit of a repository: ``folder`` holds its files."""

    folder: Path
    id: str
    commit: str

    @property
    def pinned(self) -> str:
        """``owner/name@commit``."""
        return f"{self.id}@{self.commit}"


def parse_repository(learner: str) -> Repository:
    """The repository of ``hf:owner/name[@revision]``. Raises UsageError."""
    found = _NAME.fullmatch(learner.removeprefix(HUB))
    if found is None:
        raise UsageError(
            f"{learner[:200]!a} names no repository of the Hugging Face Hub",
            hint=f"write {HUB}owner/name or {HUB}owner/name@revision",
        )
    return Repository(found["id"], found["revision"])


def download(wanted: Repository, report: Reporter) -> Snapshot:
    """Download what is needed of a repository.

    Raises HubError, NotALearner or UnsupportedLearner for a repository without a model that can be
    read, DiskFull or another FileError, and ExtraMissing.
    """
    need_extra("hub", "huggingface_hub")
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415 - an extra

    with _hub_errors(wanted):
        try:
            found = HfApi().model_info(
                wanted.id, revision=wanted.revision, files_metadata=True, timeout=_SECONDS
            )
        except Exception as error:
            kept = _cached(wanted) if _unreachable(error) else None
            if kept is None:
                raise
            report(
                Warned(
                    f"the Hub cannot be reached: using {kept.pinned} from the cache",
                    "export again when it can, if there may be a newer commit",
                )
            )
            return kept
        sizes = {each.rfilename: each.size or 0 for each in found.siblings or ()}
        names = files_to_read(str(wanted), sizes)
        total = sum(sizes[name] for name in names)
        report(
            Step(
                f"{wanted.id} at commit {str(found.sha)[:_SHOWN]}: {len(names)} files, "
                f"{total:,} bytes, downloaded unless they are in the cache"
            )
        )
        with _without_bars():
            # By its revision, which the cache remembers; the folder is called after the commit.
            folder = Path(
                snapshot_download(wanted.id, revision=wanted.revision, allow_patterns=names)
            )
    return Snapshot(folder, wanted.id, folder.name)


def files_to_read(where: str, names: Collection[str]) -> list[str]:
    """The files of a repository that are downloaded.

    Raises NotALearner or UnsupportedLearner if it has no model that can be read.
    """
    pickles = sorted(name for name in names if name.endswith(".pkl") and "/" not in name)
    if LEARNER in pickles:
        return [name for name in (LEARNER, PROJECT, CONFIG) if name in names]
    if len(pickles) == 1 and CONFIG not in names:
        return pickles
    check_no_adapter(where, names)
    weights = _weights(names)
    if not weights and (CONFIG in names or other_formats(names)):
        raise no_weights(where, names)
    if CONFIG not in names:
        raise NotALearner(
            f"{where} holds neither a learner nor a model of transformers: its files are "
            f"{listed_names(sorted(names)) or 'none'}",
            hint="name a repository with config.json and model.safetensors, or with model.pkl",
        )
    return [CONFIG, *(name for name in TOKENIZERS if name in names), *weights]


def _weights(names: Collection[str]) -> list[str]:
    """The files of the weights, chosen as transformers does: one, or shards and their index."""
    for single in (WEIGHTS, PICKLED):
        if single in names:
            return [single]
        if single + INDEX in names:
            suffix = Path(single).suffix
            shards = sorted(name for name in names if name.endswith(suffix) and "/" not in name)
            return [single + INDEX, *shards]
    return []


def _cached(wanted: Repository) -> Snapshot | None:
    """The commit in the cache, if there is one."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - an extra

    for name in (CONFIG, LEARNER):
        found = try_to_load_from_cache(wanted.id, name, revision=wanted.revision)
        if isinstance(found, str):
            folder = Path(found).parent
            return Snapshot(folder, wanted.id, folder.name)
    return None


def _unreachable(error: Exception) -> bool:
    """Whether an error says nothing about the repository: no network, or a failing server."""
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415 - an extra

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= _SERVER or error.response.status_code == _MANY
    return True


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without the library's progress bars, which would be drawn over fdeploy's own."""
    from huggingface_hub.utils.tqdm import (  # noqa: PLC0415 - an extra
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


@contextmanager
def _hub_errors(wanted: Repository) -> Iterator[None]:
    """Turn the library's errors into fdeploy's. Its messages may hold a request, never a token."""
    try:
        yield
    except (LearnerError, FileError):
        raise
    except Exception as error:
        raise _translated(error, wanted) from error


def _translated(error: Exception, wanted: Repository) -> HubError | DiskFull:
    from huggingface_hub import constants, errors  # noqa: PLC0415 - an extra

    if isinstance(error, OSError) and error.errno in _FULL:
        return DiskFull(
            f"the disk of the Hub's cache ({constants.HF_HUB_CACHE}) is full",
            hint="free some space, or set HF_HOME to a folder on another disk",
        )
    page = f"{constants.ENDPOINT}/{wanted.id}"
    match error:
        case errors.GatedRepoError():
            message = f"{wanted.id} is gated: its owner gives access to people who ask for it"
            hint = f"accept its conditions at {page}, then {_LOG_IN}"
        case errors.RevisionNotFoundError():
            message = f"{wanted.id} has no revision {wanted.revision}"
            hint = f"name a branch, a tag or a full commit: {page}/tree/main"
        case errors.RepositoryNotFoundError():
            message = f"there is no model {wanted.id} on {constants.ENDPOINT}, or it is private"
            hint = f"check the name; if it is private, {_LOG_IN}"
        case errors.HfHubHTTPError() if error.response.status_code == _UNAUTHORIZED:
            message = "the Hub does not accept the token (401)"
            hint = _LOG_IN
        case errors.HfHubHTTPError():
            message = f"the Hub answers {wanted.id} with status {error.response.status_code}"
            hint = "wait a little, then run the same command again"
        case errors.OfflineModeIsEnabled():
            message = f"{wanted} is not in the cache, and HF_HUB_OFFLINE forbids to ask the Hub"
            hint = "unset HF_HUB_OFFLINE, or name a folder"
        case _:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            message = f"{constants.ENDPOINT} cannot be reached, and {wanted} is not in the cache: "
            message += said
            hint = "check the network and the proxy; or download it elsewhere, and name the folder"
    return HubError(message, hint=hint)
