"""What fdeploy itself asks to check a stage is neither counted nor shown; what others ask is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest

from fastai_deploy.targets.local.gateway.config import PROBE, PROBE_ID
from tests.conftest import result_of
from tests.local.stage import Stage, stage_that_was_up


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_that_was_up(tmp_path_factory.mktemp("probes")) as stage:
        stage.restore()
        stage.ok("up")
        yield stage


def lines(stage: Stage, *flags: str) -> list[str]:
    return [result_of(line)["message"] for line in stage.ok("logs", *flags).out.splitlines()]


def test_a_stage_that_nobody_has_asked(up: Stage) -> None:
    assert up.ok("status").result["last_hour"]["invocations"] == 0
    assert [line for line in lines(up, "--api") if '"method"' in line] == []
    log = (up.local / "gateway.log").read_text()
    assert f'"request_id":"{PROBE_ID}' in log


def test_a_user_is_counted_and_cannot_hide(up: Stage) -> None:
    api = up.ok("create-api").result
    key = Path(api["key_file"]).read_text()
    before = up.ok("status").result["last_hour"]["invocations"]
    for headers in ({}, {PROBE: "no key of this API"}, {PROBE: ""}):
        asked = Request(  # noqa: S310 - the stage's own URL
            api["url"],
            b'{"text": "a text"}',
            {"content-type": "application/json", "x-api-key": key, **headers},
        )
        with urlopen(asked, timeout=60) as answer:  # noqa: S310
            assert answer.status == 200
    assert up.ok("status").result["last_hour"]["invocations"] == before + 3
    assert len([line for line in lines(up, "--api") if '"method"' in line]) == before + 3


def test_following_ends_with_the_server(up: Stage) -> None:
    for server in psutil.process_iter(["cmdline"]):
        words = " ".join(server.info["cmdline"] or ())
        if str(up.local) in words and "targets.local.gateway" in words:
            server.kill()
            server.wait(30)
    assert up.ok("logs", "--api", "--follow").status == 0


def test_a_server_that_has_ended_by_itself_is_stopped(up: Stage) -> None:
    before = up.ok("status").result
    assert before["endpoint_status"] == "running"
    for server in psutil.process_iter(["cmdline"]):
        if str(up.local) in " ".join(server.info["cmdline"] or ()):
            server.kill()
            server.wait(30)
    found = up.ok("status").result
    assert (found["endpoint_status"], found["version"]) == ("stopped", before["version"])
    assert "fdeploy up" in found["reason"]
    proof = up.ok("teardown").result
    assert proof["left"] == []
    assert [Path(path).name for path in proof["workspace"]] == ["bundle", "model.tar.gz"]
