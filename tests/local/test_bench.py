"""``fdeploy bench`` on a stage of this machine: real servers, few requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.local.stage import Stage, stage_that_was_up


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_that_was_up(tmp_path_factory.mktemp("bench")) as stage:
        stage.restore()
        stage.ok("up", str(stage.folder / "first"))
        yield stage


SHORT = ("--seconds", "0.5", "--clients", "1,2")


def test_a_closed_loop_and_its_report(serving: Stage) -> None:
    ran = serving.ok("bench", *SHORT)
    found = ran.result
    assert [level["clients"] for level in found["levels"]] == [1, 2]
    for level in found["levels"]:
        assert level["errors"] == {}
        assert 0 < level["p50_ms"] <= level["p90_ms"] <= level["p95_ms"] <= level["p99_ms"]
        assert sum(bucket["requests"] for bucket in level["distribution"]) == level["requests"]
        assert 0 < level["cpu"] < 2
    assert found["advice"]["clients"] in (1, 2)
    assert found["advice"]["commands"] == []  # of AWS's instances
    assert found["cost_per_million"] is None
    assert json.loads(Path(found["data"]).read_bytes())["levels"] == found["levels"]
    page = Path(found["page"]).read_text("utf-8")
    assert page.count("<svg") == 4  # throughput, latency, and a distribution for each level
    assert "http-equiv" in page
    assert "<script" not in page
    assert "src=" not in page
    done = [json.loads(line) for line in ran.err.splitlines()]
    assert [e["level"] for e in done if e["event"] == "load_measured"] == ["1 client", "2 clients"]


def test_the_model_alone(serving: Stage) -> None:
    found = serving.ok("bench", "--on", "bundle", *SHORT).result
    assert "in this process" in found["where"]
    assert found["levels"][0]["cpu"] is None  # the model ran in it, too
    assert found["levels"][0]["throughput"] > 0


def test_an_open_loop_with_texts_of_a_file(serving: Stage, tmp_path: Path) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_text("text\ngood film\nbad film\n\n")
    found = serving.ok("bench", "--rate", "20", "--requests", "5", "--texts", str(texts)).result
    (level,) = found["levels"]
    assert (level["kind"], level["rate"], level["requests"]) == ("open", 20, 5)
    assert (found["texts"], found["source"]) == (2, str(texts))
    assert found["advice"]["clients"] is None  # an open loop has no knee


def test_the_throttle_of_the_api_is_counted_and_named(serving: Stage) -> None:
    # SMALL_BURST allows 20 requests at once and 5 a second.
    found = serving.ok("bench", "--on", "api", "--clients", "4", "--requests", "60").result
    assert found["levels"][0]["errors"]["429"] > 0
    assert any("5 requests a second" in note and "api.rate" in note
               for note in found["advice"]["notes"])  # fmt: skip


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--clients", "0"), 2, "numbers from 1 to 256"),
        (("--clients", "two"), 2, "numbers from 1 to 256"),
        (("--clients", ","), 2, "numbers from 1 to 256"),
        (("--seconds", "0"), 2, "--seconds"),
        (("--rate", "-1"), 2, "--rate"),
        (("--requests", "0"), 2, "--requests"),
        (("--on", "moon"), 2, "moon"),
        (("--texts", "nowhere.csv"), 4, "nowhere.csv does not exist"),
    ],
)
def test_wrong_options_are_explained(
    serving: Stage, options: tuple[str, ...], status: int, said: str
) -> None:
    ran = serving("bench", *options)
    assert ran.status == status
    assert said in ran.error["message"]


def test_a_file_without_texts(serving: Stage, tmp_path: Path) -> None:
    for name, content in (("empty.csv", "text\n"), ("blank.jsonl", '"  "\n')):
        path = tmp_path / name
        path.write_text(content)
        ran = serving("bench", "--texts", str(path))
        assert ran.status == 4
        assert "no text" in ran.error["message"]


def test_without_an_endpoint(tmp_path: Path, serving: Stage) -> None:
    (tmp_path / "fdeploy.toml").write_text('[project]\ntarget = "local"\n')
    ran = Stage(tmp_path, tmp_path)("bench")
    assert ran.error["code"] == "record-missing"
    assert "fdeploy up" in ran.error["hint"]
    assert serving.dev.exists()


def _bench(stage: Stage, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fastai_deploy", "bench", "--json", *options],
        cwd=stage.folder,
        env={**os.environ, "PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _first_level(process: subprocess.Popen[str]) -> None:
    """Wait until a level was measured."""
    assert process.stderr is not None
    for line in process.stderr:
        if '"load_measured"' in line:
            return
    raise AssertionError(process.communicate())


def test_ctrl_c_keeps_what_was_measured(serving: Stage) -> None:
    with _bench(serving, "--seconds", "0.5", "--clients", ",".join(map(str, range(1, 200)))) as run:
        _first_level(run)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate()
    assert run.returncode == 130, err
    found = json.loads(out)["result"]
    assert found["interrupted"]
    assert found["levels"][0]["requests"] > 0
    assert json.loads(Path(found["data"]).read_bytes())["interrupted"]
    assert "interrupted" in err


def test_a_server_that_dies_keeps_what_was_measured(serving: Stage) -> None:
    with _bench(serving, "--seconds", "0.5", "--clients", ",".join(map(str, range(1, 200)))) as run:
        _first_level(run)
        state = json.loads((serving.local / "endpoint.json").read_bytes())
        psutil.Process(state["pid"]).kill()
        out, err = run.communicate()
    assert run.returncode == 10, err
    error = json.loads(err.splitlines()[-1])
    assert "stopped answering" in error["message"]
    assert "fdeploy logs" in error["hint"]
    found = json.loads(out)["result"]
    assert found["levels"][0]["errors"] == {}
    assert found["ended"]
    # Afterwards the preflight says it, before any load.
    again = serving("bench", *SHORT)
    assert again.status == 10
