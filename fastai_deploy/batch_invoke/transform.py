"""A batch answered by a batch transform: the rows as shards, and their answers as a run's.

A shard has a request of the contract on each line, with as many texts as a request should have, so
that each line is answered by one line.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastai_deploy.batch_invoke.job import Work, as_list
from fastai_deploy.errors import InvocationError, UsageError
from fastai_deploy.progress import Advanced, Step, Warned
from fastai_deploy.targets.base import ShardService

_LINE_ROWS = 100
_SHARD_ROWS = 20_000
_SHARD_BYTES = 16 << 20
_SHARDS_EACH = 4  # of an instance, so that all of them end at about the same time
_TASK = "batch"
_SHOWN = 300


@dataclass(frozen=True)
class Shard:
    """Some of the rows, as requests."""

    name: str
    rows: int
    data: bytes


def transformed(work: Work, top_k: int | None, service: ShardService, instances: int) -> None:
    """Add the answers to the run. Raises DeployError, InvocationError or AwsError."""
    run = work.run
    name = run.way or secrets.token_hex(4)
    try:
        service.agree(name)
    except UsageError:
        if run.way is None:  # the answer was no, and nothing is there to continue
            run.remove()
        raise
    run.use(name)
    shards = _uploaded(work, top_k, service, instances)

    def notify(answered: frozenset[str]) -> None:
        done = sum(rows for shard, rows in shards.items() if shard in answered)
        work.report(Advanced(_TASK, done, work.layout.rows, "rows"))

    try:
        service.transform(name, list(shards), notify)
    except KeyboardInterrupt:
        work.report(
            Warned(
                "a transform job that has been started runs on, and costs",
                "the same command follows it; fdeploy teardown stops it",
            )
        )
        raise
    first = 0
    for shard, rows in shards.items():
        if first + rows > run.done:
            _collect(work, service.answers(name, shard), first, rows)
        first += rows


def _uploaded(
    work: Work, top_k: int | None, service: ShardService, instances: int
) -> dict[str, int]:
    """Upload the shards that are not there yet; how many rows each has, by name."""
    name = str(work.run.way)
    there = service.stored(name)
    shards: dict[str, int] = {}
    sent = 0
    for shard in _shards(work, top_k, instances):
        shards[shard.name] = shard.rows
        if there.get(shard.name) != len(shard.data):
            service.upload(name, shard.name, shard.data)
            sent += 1
    work.report(Step(f"uploaded {sent:,} of {len(shards):,} shards"))
    return shards


def _shards(work: Work, top_k: int | None, instances: int) -> Iterator[Shard]:
    """Split the rows, the same way each time."""
    most = math.ceil(work.layout.rows / (instances * _SHARDS_EACH * _LINE_ROWS)) * _LINE_ROWS
    most = min(most, _SHARD_ROWS)
    extra: dict[str, Any] = {} if top_k is None else {"top_k": top_k}
    lines: list[bytes] = []
    number = rows = size = 0
    for batch in work.source.batches(work.layout, _LINE_ROWS, texts_only=True):
        line = json.dumps({"texts": list(batch.texts), **extra}).encode() + b"\n"
        if lines and (rows + len(batch.texts) > most or size + len(line) > _SHARD_BYTES):
            yield Shard(f"{number:05}.jsonl", rows, b"".join(lines))
            lines, rows, size = [], 0, 0
            number += 1
        lines.append(line)
        rows += len(batch.texts)
        size += len(line)
    if lines:
        yield Shard(f"{number:05}.jsonl", rows, b"".join(lines))


def _collect(work: Work, data: bytes, first: int, rows: int) -> None:
    """Add the answers to a shard that begins with row ``first``, from 0; some may be there."""
    run, at = work.run, first
    for line in data.splitlines():
        answers = json.loads(line)
        if not isinstance(answers, list):
            raise InvocationError(
                f"SageMaker answered a request with {line[:_SHOWN].decode(errors='replace')}",
                hint="this is a bug in fdeploy: report it",
            )
        if at >= run.done:
            for answer in answers:
                answer.pop("model", None)
            run.add(len(answers), as_list(answers))
        at += len(answers)
    if at != first + rows:
        raise InvocationError(
            f"a shard of {rows:,} rows has {at - first:,} answers",
            hint="run fdeploy teardown, then the same command again with --overwrite",
        )
