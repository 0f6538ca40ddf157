"""Records edited by hand or damaged: an error that says what to do, never a crash."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.local.stage import Ran, Stage

SEED = 12
EACH = 30  # mutations per file
# Each file, with the commands that read it and start no server if it is valid.
READERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "dev/export.json": (("package",), ("openapi",), ("plan",)),
    "dev/package.json": (("upload",), ("plan",), ("doctor",)),
    "dev/upload.json": (("plan",), ("status",), ("upload",)),
    "dev/deploy.json": (("status",), ("invoke", "a text"), ("teardown",)),
    "dev/create-api.json": (("invoke", "a text", "--api"), ("key",), ("openapi",)),
    "dev/bundle/manifest.json": (("package",), ("openapi",), ("deploy",), ("diff", "bundle")),
    "dev/bundle/goldens.json": (("deploy",), ("create-api",)),
    "dev/bundle-parity.json": (("export",),),
    "dev/local/endpoint.json": (("status",), ("invoke", "a text"), ("plan",)),
    "dev/local/gateway.json": (("status",), ("plan",)),
    "dev/local/gateway.announce.json": (("status",),),
    "dev/local/deployments.jsonl": (("versions",), ("rollback", "--to", "zz"), ("deploy",)),
    "dev/local/servers/*.json": (("status",), ("invoke", "a text", "--api")),
}
WHOLE = (
    b"",
    b"\n",
    b"{}",
    b"[]",
    b"null",
    b"1e999",
    b"NaN",
    b'"a text"',
    b"\xff\xfe{\x00}\x00",
    b"\x80\x02}q\x00.",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"path": 1, "path": 2}',
    b"9" * 10_000,
    b'["\\ud800"]',
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**29, 10**400, float("inf"), float("nan")),
    *(
        "",
        "a\0b",
        "\x1b[31mx\x07",
        "../../../../etc/passwd",
        "/etc/passwd",
        "s3://x/y",
        "x" * 5_000,
    ),
    *(
        "\ud800",
        [],
        [None],
        [[]],
        {},
        {"a": 1},
        ["a", "a"],
        "\u202e",
        "http://x:99999/",
        "http://[",
    ),
)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value in a document."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in entries:
        yield (*path, key)
        if isinstance(each, dict | list):
            yield from paths_in(each, (*path, key))


def mutated(data: bytes, choose: random.Random) -> tuple[str, bytes]:
    """A description of one random change, and the changed content of the file."""
    kind = choose.choice(("whole", "cut", "key", "value", "value", "value", "unknown"))
    if kind == "whole":
        content = choose.choice(WHOLE)
        return f"whole: {content[:20]!r}", content
    if kind == "cut":
        at = choose.randrange(len(data))
        return f"cut at {at}", data[:at]
    document = json.loads(data.splitlines()[0] if data.count(b"\n{") else data)
    place = choose.choice(sorted(paths_in(document), key=repr))
    held = document
    for key in place[:-1]:
        held = held[key]
    if kind == "key":
        del held[place[-1]]
    elif kind == "unknown" and isinstance(held, dict):
        held["unknown"] = 1
    else:
        held[place[-1]] = choose.choice(VALUES)
    return f"{kind} of {place}", json.dumps(document).encode()


def check(ran: Ran, done: str) -> None:
    told = f"{done}, {ran.command}: {ran.err[-600:]}"
    assert ran.status != 1, told
    assert ran.status in {0, 2, 3, 4, 5, 6, 7, 9, 10, 15}, told
    if ran.status not in {0, 15}:
        assert ran.error["message"], told
        assert any(
            word in ran.error["hint"] for word in ("fdeploy", "rm ", "check", "line", "again")
        ), told
    assert "\x1b" not in ran.err, told


@pytest.mark.parametrize("name", READERS)
def test_an_edited_record_is_no_defect(stage: Stage, name: str) -> None:
    if name == "dev/bundle-parity.json":
        report = {"accuracy": {}, "rows": [{"answers": {"a": {"labels": ["x"]}}, "changed": False}]}
        report["rows"][0].update(difference=0.1, text="a")  # type: ignore[index]
        (stage.home / name).write_text(json.dumps(report))
    choose = random.Random(f"{SEED} {name}")  # noqa: S311 - the same mutations each time
    (path, *_) = sorted(stage.home.glob(name))
    data = path.read_bytes()
    for _ in range(EACH):
        done, content = mutated(data, choose)
        for command in READERS[name]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            check(stage(*command), f"{name}, {done}")
            if command[0] in ("teardown", "deploy", "create-api"):
                stage.restore()
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "command", "way_out"),
    [
        ("dev/export.json", ("package",), "run fdeploy export"),
        ("dev/package.json", ("upload",), "run fdeploy package"),
        ("dev/upload.json", ("deploy",), "run fdeploy upload"),
        ("dev/deploy.json", ("create-api",), "run fdeploy deploy"),
        ("dev/deploy.json", ("invoke", "a text"), "run fdeploy deploy"),
        ("dev/create-api.json", ("invoke", "a text", "--api"), "run fdeploy create-api"),
        ("dev/bundle/manifest.json", ("deploy",), "run fdeploy export"),
        ("dev/bundle/goldens.json", ("deploy",), "run fdeploy export"),
        ("dev/local/endpoint.json", ("status",), "run fdeploy deploy"),
        ("dev/local/deployments.jsonl", ("versions",), "remove that line"),
    ],
)
@pytest.mark.parametrize("content", [b'{"a": 1}\n', b"[" * 50_000, b"\xff", b'{"a": 1, "a": 2}'])
def test_a_damaged_record_is_named_with_a_hint(
    stage: Stage, name: str, command: tuple[str, ...], way_out: str, content: bytes
) -> None:
    path = stage.home / name
    path.write_bytes(content)
    ran = stage(*command)
    assert ran.status in (4, 7), ran.err
    assert str(path) in ran.error["message"] or str(path.parent) in ran.error["message"]
    assert way_out in ran.error["hint"]


def test_an_unrecorded_target_is_not_guessed(stage: Stage) -> None:
    """A teardown of the wrong target would find nothing and report success."""
    (stage.dev / "deploy.json").write_text("{")
    named = run_open(stage, "teardown")
    assert named.status == 4
    assert "--target local or --target aws" in named.error["hint"]
    assert run_open(stage, "teardown", "--target", "local").status == 0


def run_open(stage: Stage, *arguments: str) -> Ran:
    """Run a command in the same workspace, with settings that name no target."""
    kept = (stage.folder / "fdeploy.toml").read_text()
    (stage.folder / "fdeploy.toml").write_text("")
    try:
        return stage(*arguments)
    finally:
        (stage.folder / "fdeploy.toml").write_text(kept)


@pytest.mark.parametrize(
    "content",
    [b"a = " + b"[" * 100_000, b"a = " + b"9" * 10_000, b"\xff", b"a = {", b"#" * (2 << 20)],
)
def test_an_invalid_project_file(stage: Stage, content: bytes) -> None:
    path = stage.folder / "fdeploy.toml"
    kept = path.read_bytes()
    path.write_bytes(content)
    try:
        ran = stage("status")
    finally:
        path.write_bytes(kept)
    assert ran.status in (3, 4), ran.err
    assert "fdeploy.toml" in ran.error["message"]
