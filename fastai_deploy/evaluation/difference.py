"""Two versions of a model side by side: what callers notice, and what they were made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from fastai_deploy.bundle import Manifest
from fastai_deploy.evaluation.result import table
from fastai_deploy.naming import short
from fastai_deploy.records import DEPLOYED_AT, ModelSummary
from fastai_deploy.runtime.bundle import KIND_LEARNER, weights_file

_LABELS = 20  # labels named; --json has all of them
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Compared:
    """One side of a comparison.

    ``name`` says what it is, such as ``bundle`` or ``live``; ``version`` is that of the artifact,
    or of the bundle if it is not packed. ``bytes`` is the size of the artifact, None if there is
    none. ``at`` and ``by`` tell of its last deploy, empty without one.
    """

    name: str
    version: str
    manifest: Manifest
    summary: ModelSummary
    bytes: int | None = None
    at: str = ""
    by: str = ""
    image: str = ""
    instance: str = ""


@dataclass(frozen=True)
class Fact:
    """A fact of both versions; None is what one of them does not have."""

    what: str
    before: str | None
    after: str | None
    changed: bool


@dataclass(frozen=True)
class Side:
    """Which version a side is; ``deployed`` is when and by whom it was last, empty for never."""

    name: str
    version: str
    deployed: str = ""


@dataclass(frozen=True)
class Difference:
    """The result of ``diff``; ``added`` and ``removed`` are labels."""

    before: Side
    after: Side
    added: tuple[str, ...]
    removed: tuple[str, ...]
    facts: tuple[Fact, ...]

    def values(self) -> Difference:
        """The comparison itself."""
        return self

    def lines(self) -> Iterator[str]:
        """The facts that differ in a table, and the names of those that do not."""
        changed = [fact for fact in self.facts if fact.changed]
        sides = (self.before, self.after)
        named = [f"{side.name} {side.version}" for side in sides]
        for name, side in zip(named, sides, strict=True):
            if side.deployed:
                yield f"{name}, deployed {side.deployed}"
        if changed:
            rows = [(fact.what, fact.before or "-", fact.after or "-") for fact in changed]
            yield from table(iter([("", *named), *rows]))
        else:
            yield f"{named[0]} and {named[1]} do not differ"
        same = [fact.what for fact in self.facts if not fact.changed]
        if same:
            yield f"the same: {', '.join(same)}"


def difference(before: Compared, after: Compared) -> Difference:
    """Compare two versions."""
    old, new = dict(_facts(before)), dict(_facts(after))
    for what, (was, now) in {
        "instance": (before.instance, after.instance),
        "image": (before.image, after.image),
    }.items():
        if was and now:  # what is not deployed runs nowhere
            old[what], new[what] = was, now
    labels = before.manifest.labels, after.manifest.labels
    return Difference(
        Side(before.name, before.version, _deployed(before)),
        Side(after.name, after.version, _deployed(after)),
        tuple(label for label in labels[1] if label not in labels[0]),
        tuple(label for label in labels[0] if label not in labels[1]),
        tuple(
            Fact(what, old.get(what), new.get(what), old.get(what) != new.get(what))
            for what in dict.fromkeys((*old, *new))
        ),
    )


def _facts(side: Compared) -> Mapping[str, str]:
    """The facts of a version as people read them, in the order in which they are shown."""
    manifest, summary = side.manifest, side.summary
    learner, gate = manifest.provenance.learner, manifest.gate
    limits = (("margin", gate.margin), ("mean", gate.mean), ("p99", gate.p99))
    found = {
        "task": manifest.task,
        "labels": _labels(manifest.labels),
        "accuracy": UNKNOWN
        if summary.accuracy is None
        else f"{summary.accuracy:.3f} on {summary.labelled} labelled goldens",
        "form": summary.precision,
        "size": "not packed" if side.bytes is None else f"{side.bytes:,} bytes",
        "threshold": "none" if manifest.threshold is None else f"{manifest.threshold:g}",
        "longest text": UNKNOWN
        if manifest.text.kind == KIND_LEARNER
        else f"{manifest.text.max_length:,} tokens",
        "architecture": manifest.model.architecture,
        "parameters": f"{manifest.model.parameters:,}",
        "tolerance": f"{manifest.tolerance:g}",
        "gate": ", ".join(f"{name} {value:g}" for name, value in limits if value is not None)
        or "none",
        "unproven": f"{len(manifest.unproven)} parts" if manifest.unproven else "nothing",
        "learner": f"{learner.file}, {short(learner.sha256)}, fastai {learner.fastai}",
    }
    last = manifest.model.forms[-1].file
    for what, name in (("graph", last), ("weights", weights_file(last))):
        if name in manifest.files:
            found[what] = short(manifest.files[name].sha256)
    return found | dict(manifest.provenance.converter)


def _labels(names: tuple[str, ...]) -> str:
    more = f", and {len(names) - _LABELS} more" if len(names) > _LABELS else ""
    return f"{len(names)}: {', '.join(names[:_LABELS])}{more}"


def _deployed(side: Compared) -> str:
    if not side.at:
        return ""
    date = datetime.strptime(side.at, DEPLOYED_AT).replace(tzinfo=timezone.utc)
    return f"{date:%Y-%m-%d %H:%M} UTC by {side.by}"
