"""The lines that ``inspect``, ``plan``, ``status``, ``logs``, ``versions`` and ``doctor`` print."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import groupby
from typing import Any

from fastai_deploy.cli.escaping import shortened, some
from fastai_deploy.naming import short
from fastai_deploy.records import DEPLOYED_AT, UNPROVEN, ModelSummary
from fastai_deploy.stage_reports import (
    BY_USAGE,
    Bill,
    Checkup,
    Cost,
    LogLine,
    ModelChange,
    StagePlan,
    Status,
    Version,
    change_rows,
    money,
    without_hour,
)

_DEPTH = 3  # levels of the module tree that are shown; --json has all of them
_LONGEST = 2_000  # characters per line
_NAMES = 12  # names shown per list
_EFFECTS = {
    "none": "does not affect predictions",
    "takes the scores out": "takes the logits out of the model's output, as fdeploy does too",
    "unknown": "its code may change predictions; not converted",
    "unseen": "its code is not in the file; not converted",
}
_LOADING = {
    "dangerous": "dangerous: loading this file would run harmful code. fdeploy only reads the file",
    "unknown": "runs code that fdeploy does not know. Nothing in it is known to be dangerous, but "
    "that does not make it safe. fdeploy only reads the file",
    "harmless": "imports and calls only names known to be harmless",
}


def anatomy_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Summarize a learner, one fact per line; very long lines are cut."""
    for line in _lines(found):
        yield shortened(line, _LONGEST)


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    file, model, verdict = found["file"], found["model"], found["verdict"]
    hints = ", ".join(f"{name} {version}".strip() for name, version in found["libraries"].items())
    yield f"file       {file['name']}, {file['bytes']:,} bytes, format {file['format']}"
    folder = file["format"] == "folder"
    if not folder:
        yield f"learner    {found['learner_class']} of fastai {found['fastai']}"
    yield f"libraries  {hints or 'unknown'}"
    if not folder:
        yield f"python     {found['python'] or 'any'}"
    raw = ", on raw scores: learn.predict returns those" if found["raw_scores"] else ""
    yield f"task       {found['task']}, loss {found['loss']}{raw}"
    yield f"labels     {len(found['labels'])}: {some(found['labels'], _NAMES)}"
    size = f"{model['parameters']:,} parameters, {model['bytes']:,} bytes"
    yield f"model      {model['architecture'] or model['family']}, {size}"
    if model["head"]:
        yield f"head       {', '.join(model['head'])}"
    if model["mask"] and not folder:
        yield f"mask       {model['mask']}"
    yield from _tree(model["modules"])
    yield from _tokenizer(found["tokenizer"], found["text"])
    yield from _ulmfit(found["ulmfit"])
    for each in found["callbacks"]:
        events = f" ({', '.join(each['events'])})" if each["events"] else ""
        yield f"callback   {each['class']}: {_EFFECTS[each['effect']]}{events}"
    for each in found["unproven"]:
        yield f"unproven   {each['subject']}: {each['reason']}"
        if each["code"]:
            yield f"           | {each['code']}"
    yield from _loading(found)
    for source in found["sources"]:
        yield f"source     of {source['class']}, {len(source['text'].splitlines())} lines"
        yield from (f"           | {line}" for line in source["text"].splitlines())
    yield f"verdict    {verdict['kind']}"
    if verdict["reason"]:
        yield f"           {verdict['reason']}"
        yield f"     try:  {verdict['hint']}"


def _loading(found: Mapping[str, Any]) -> Iterator[str]:
    imports, calls = found["imports"], found["calls"]
    for what, kinds in (("imports", imports), ("calls", calls)):
        own = f" ({len(kinds['own'])} your own)" if kinds["own"] else ""
        unknown = f"{len(kinds['unknown'])} unknown{own}"
        harmless = f"{len(kinds['harmless'])} harmless"
        yield f"{what:<10} {len(kinds['dangerous'])} dangerous, {unknown}, {harmless}"
    for kind in ("dangerous", "unknown"):
        named = [name for name in imports[kind] if name not in imports["own"]]
        called = [what for what in calls[kind] if what not in calls["own"]]
        if named or called:
            yield f"{kind:<10} {some([*named, *called], _NAMES)}"
    if imports["own"] or calls["own"]:
        yield f"your own   {some([*imports['own'], *calls['own']], _NAMES)}"
    yield f"loading    {_LOADING[found['loading']]}"


def _tree(modules: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for module in modules:
        depth = module["path"].count(".") + 1 if module["path"] else 0
        if depth <= _DEPTH:
            name = module["path"].rpartition(".")[2]
            label = f"{name}: {module['class']}" if name else str(module["class"])
            yield f"           {'  ' * depth}{label}  {module['parameters']:,}"


def _tokenizer(
    tokenizer: Mapping[str, Any] | None, text: Mapping[str, Any] | None
) -> Iterator[str]:
    if tokenizer:
        kind = f"{tokenizer['kind']}, era {tokenizer['era']}"
        yield f"tokenizer  {tokenizer['class']}: {kind}, {tokenizer['vocabulary']:,} tokens"
        special = tokenizer["special_tokens"].items()
        yield f"special    {', '.join(f'{role} {token}' for role, token in special)}"
    if text:
        yield f"length     {text['max_length'] or 'unknown'} tokens"
        yield from (f"rule       {rule}" for rule in text["rules"])
        yield from (f"assumed    {assumption}" for assumption in text["assumptions"])


def _ulmfit(ulmfit: Mapping[str, Any] | None) -> Iterator[str]:
    if ulmfit is None:
        return
    sizes = ", ".join(f"{name} {ulmfit[name]}" for name in ("emb_sz", "n_hid", "n_layers"))
    yield f"sizes      {sizes}{', bidirectional' if ulmfit['bidirectional'] else ''}"
    words = f"{ulmfit['vocabulary']:,} words" if ulmfit["vocabulary"] else "not found"
    yield f"vocabulary {words}; {ulmfit['embedding']:,} in the embedding"
    where = "rules in the file" if ulmfit["splitter_in_file"] else "rules not in the file"
    language = f" ({ulmfit['language']}), {where}" if ulmfit["splitter"] == "spaCy" else ""
    yield f"splitter   {ulmfit['splitter']}{language}"
    pooled = f"the last {ulmfit['max_len']:,}" if ulmfit["max_len"] else "all"
    yield f"length     pools {pooled} tokens, {ulmfit['bptt']} per step"
    yield from (f"rule       {rule}" for rule in ulmfit["rules"])
    if ulmfit["backwards"]:
        yield "direction  backwards"
    yield from (f"assumed    {assumption}" for assumption in ulmfit["assumptions"])


_UNKNOWN = "unknown"
_MARKS = {"passed": "ok", "warned": "warning", "failed": "FAILED"}


def plan(result: StagePlan) -> Iterator[str]:
    """A table of the changes, when the stage ends, and the price."""
    if not result.changed:
        yield "no changes: there is nothing to deploy"
    for stack, changes in groupby(result.changes, key=lambda change: change.stack):
        yield stack
        rows = change_rows(tuple(changes))
        cells = [(row.action, row.type, row.what) for row in rows]
        for row, line in zip(rows, _columns(cells), strict=True):
            yield f"  {line}{'  (service interruption)' if row.interrupts else ''}"
    if result.changed:
        stops = [change.name for change in result.changes if change.interrupts]
        yield f"interrupts  {', '.join(stops) if stops else 'nothing'}"
    if result.model is not None:
        yield from _model_change(result.model)
    if result.ends or result.ends_now:
        so_far = f"if deployed now; currently {result.ends_now or 'never'}"
        yield f"ends        {result.ends or 'never'}, {so_far}"
    yield from cost(result.cost)


def _model_change(change: ModelChange) -> Iterator[str]:
    """The new version beside the live one."""
    before, after = change.before, change.after
    yield f"version     {change.live or 'none'} -> {change.version}"
    if after is None:
        return
    added, removed = change.labels
    if added or removed:
        differences = (*(f"+{label}" for label in added), *(f"-{label}" for label in removed))
        yield f"labels      CHANGED: {some(differences, _NAMES)}"
    else:
        same = ", unchanged" if before else ""
        yield f"labels      {len(after.labels)}{same}: {some(after.labels, _NAMES)}"
    yield f"precision   {_beside(before.precision if before else None, after.precision)}"
    if after.accuracy is not None or (before and before.accuracy is not None):
        yield f"accuracy    {_beside(_accuracy(before) if before else None, _accuracy(after))}"


def _accuracy(model: ModelSummary) -> str:
    if model.accuracy is None:
        return _UNKNOWN
    return f"{model.accuracy:.3f} on {model.labelled} labelled texts"


def _beside(before: str | None, after: str) -> str:
    return after if before in (None, after) else f"{before} -> {after}"


def cost(found: Cost) -> Iterator[str]:
    """The cost per hour and per month."""
    yield f"price       {found}"
    if found.least_per_hour is not None:
        yield f"            {found.note}"
    for extra in found.extras:
        amount = "" if extra.per_month is None else f"{extra.per_month:,.2f} USD per month; "
        yield f"{extra.what:<11} {amount}{extra.note}"


def status(result: Status) -> Iterator[str]:
    """The state of a stage, one fact per line."""
    yield from _columns(
        [
            (part.name, part.state, f"since {part.since}" if part.since else "")
            for part in result.parts
        ]
    )
    if not result.endpoint:
        yield "nothing is deployed" if not result.parts else "no endpoint"
        return
    instances = f"{result.instances} instance{'' if result.instances == 1 else 's'}"
    where = f", {instances}" if result.target == "aws" and BY_USAGE not in result.bill.note else ""
    yield f"endpoint    {result.endpoint}, {result.endpoint_status or 'gone'}{where}"
    if result.reason:
        yield f"            {result.reason}"
    yield f"version     {result.version or _UNKNOWN}"
    if result.unproven:
        yield f"unproven    {UNPROVEN}"
    if result.image:
        yield f"image       {result.image}"
    yield f"url         {result.url or 'none; run fdeploy create-api'}"
    if result.ends:
        when = "when the stage deletes itself"
        if result.overdue:
            when = "but AWS has not deleted the stage: run fdeploy teardown"
        yield f"ends        {result.ends}, {when}"
    hour = result.last_hour
    asked = _UNKNOWN if hour.invocations is None else f"{hour.invocations:,} requests"
    if hour.errors is not None:
        asked += f", {hour.errors:,} errors"
    if hour.p50_ms is not None and hour.p95_ms is not None:
        asked += f", latency p50 {hour.p50_ms:.0f} ms, p95 {hour.p95_ms:.0f} ms"
    yield f"last hour   {asked}"
    yield from _bill(result.bill)


def versions(listed: Sequence[Version]) -> Iterator[str]:
    """One version per line, newest first."""
    if not listed:
        yield "no version has been deployed yet"
    yield from _columns(
        [
            (
                "live" if each.live else "",
                each.version,
                _date(each.at),
                f"{each.bytes:,} bytes",
                each.by,
                _image(each.image),
            )
            for each in listed
        ]
    )


def _image(uri: str) -> str:
    """An image without its registry and with the first digits of its digest."""
    name, _, digest = uri.partition("/")[2].partition("@sha256:")
    return f"{name}@{short(digest)}" if digest else name


def checkup(result: Checkup) -> Iterator[str]:
    """One check per line, and below it how to fix it."""
    for check in result.checks:
        yield f"{_MARKS[check.outcome]:<8} {check.name}: {check.message}"
        if check.hint and check.outcome != "passed":
            yield f"           try: {check.hint}"
    failed = len(result.failed)
    yield f"{failed} of {len(result.checks)} checks failed" if failed else "a deploy should work"


def log_line(line: LogLine) -> str:
    """The time and the message; a JSON object is shown as ``name=value`` pairs without its time."""
    return f"{line.at:%Y-%m-%d %H:%M:%S}  {_readable(line.message)}"


def _readable(message: str) -> str:
    try:
        values = json.loads(message)
    except ValueError:
        return message.expandtabs(1)
    if not isinstance(values, dict):
        return message
    event = values.pop("event", "")
    members = (
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in values.items()
        if name not in ("time", "_aws")
    )
    return " ".join(filter(None, (str(event), *members)))


def _bill(bill: Bill) -> Iterator[str]:
    if bill.per_hour is None:
        yield f"price       {without_hour(bill.note)}"
        return
    so_far = "" if bill.so_far is None else f", {bill.so_far:,.2f} so far"
    yield f"price       {money(bill.per_hour)} {bill.currency} per hour{so_far}"
    yield f"            {bill.note}"


def _date(at: str) -> str:
    """Format ``20260101T120000Z`` for reading."""
    date = datetime.strptime(at, DEPLOYED_AT).replace(tzinfo=timezone.utc)
    return f"{date:%Y-%m-%d %H:%M} UTC"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Align the cells of rows in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
