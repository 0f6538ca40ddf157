"""``fdeploy batch``, and ``fdeploy invoke FILE --output TABLE``, as the user's commands."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastai_deploy.records import Bundle, Source
from fastai_deploy.workspace import Workspace
from tests.conftest import Fdeploy
from tests.packaged import SMALL_BURST, Model, bring, write_model
from tests.runtime.bundles import LABELS, WORDS

ROWS = 4_000


@dataclass(frozen=True)
class Project:
    """A project folder in which ``export`` has run, and its input."""

    folder: Path
    model: Model
    fdeploy: Fdeploy

    @property
    def texts(self) -> list[str]:
        return [row["text"] for row in rows(self.folder / "in.csv")]

    def check(self, name: str, count: int = ROWS) -> None:
        """Every row once, in order, with the model's own answer."""
        made = rows(self.folder / name)
        assert [row["id"] for row in made] == [str(number) for number in range(count)]
        assert [row["text"] for row in made] == self.texts[:count]
        assert not any(row["error"] for row in made)
        for row in made[:: count // 40]:
            for label, expected in self.model.bundle.expected(row["text"]).items():
                assert abs(float(row[f"probability_{label}"]) - expected) < 1e-4


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("project")
    model = write_model(tmp_path_factory.mktemp("models"), "tiny", layers=60, hidden=256)
    bring(model, folder)
    (folder / "fdeploy.toml").write_text(SMALL_BURST)
    workspace = Workspace(folder, "dev")
    workspace.save(
        Bundle(
            path=str(workspace.bundle),
            version=hashlib.sha256((workspace.bundle / "manifest.json").read_bytes()).hexdigest(),
            name="tiny",
            task="single-label",
            labels=LABELS,
            proven=0,
            max_difference=0.0,
            source=Source(str(folder / "tiny.pkl"), "0" * 64, 1, 0),
            golden=None,
            made_from="a test",
        )
    )
    random.seed(3)
    with (folder / "in.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        for number in range(ROWS):
            writer.writerow([number, " ".join(random.choices(WORDS, k=random.randint(1, 30)))])  # noqa: S311
    made = Project(folder, model, Fdeploy(folder))
    yield made
    made.fdeploy("teardown", "--target", "local")


def test_a_table_through_the_command(project: Project) -> None:
    done = project.fdeploy.ok("batch", "in.csv", "out.csv", "--json")
    project.check("out.csv")
    found = done.json
    assert (found["rows"], found["failed"], found["continued"]) == (ROWS, 0, 0)
    assert sum(found["labels"].values()) == ROWS
    assert found["by"] == "this machine"
    assert sorted(path.name for path in project.folder.iterdir()) == sorted(
        [".fdeploy", "fdeploy.toml", "in.csv", "out.csv"]
    )
    refused = project.fdeploy("batch", "in.csv", "out.csv", "--instances", "2", "--json")
    assert (refused.status, refused.error["hint"]) == (2, "add --transform, or leave it out")
    again = project.fdeploy("batch", "in.csv", "out.csv", "--json")
    assert (again.status, again.error["message"]) == (2, "out.csv exists already")
    shown = project.fdeploy.ok("batch", "in.csv", "out.csv", "--overwrite", "--limit", "40")
    assert "rows     40: 40 answered by this machine" in shown.stdout
    project.check("out.csv", 40)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_continues(project: Project, number: signal.Signals) -> None:
    name = f"ended-{number.name}.csv"
    command = [sys.executable, "-m", "fastai_deploy", "batch", "in.csv", name, "--json"]
    with subprocess.Popen(
        command,
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as in a terminal: Ctrl-C reaches the whole group
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "advanced" and 0 < event["done"] < event["total"]:
                break
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.stderr.read()
        status = process.wait()
    assert status in (-number, 130)
    assert not (project.folder / name).exists()
    found = project.fdeploy.ok("batch", "in.csv", name, "--json").json
    assert 0 < found["continued"] < ROWS
    project.check(name)
    assert not (project.folder / f"{name}.partial").exists()


def test_rows_that_fail_end_with_a_code_and_stay_in_the_output(project: Project) -> None:
    (project.folder / "some.jsonl").write_text('{"text": "good"}\n{"text": null}\n"bad"\n')
    done = project.fdeploy("batch", "some.jsonl", "some.csv", "--json")
    assert done.status == 10
    assert "1 of 3 rows failed: row 2 (invalid_request)" in done.error["message"]
    assert [bool(row["error"]) for row in rows(project.folder / "some.csv")] == [False, True, False]


def test_the_model_must_be_there(project: Project, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\ngood\n")
    done = Fdeploy(tmp_path)("batch", "in.csv", "out.csv", "--json")
    assert (done.status, done.error["code"]) == (7, "record-missing")
    graph = project.folder / ".fdeploy/dev/bundle/model.onnx"
    data = graph.read_bytes()
    graph.write_bytes(data[:-1])
    try:
        done = project.fdeploy("batch", "in.csv", "never.csv", "--json")
    finally:
        graph.write_bytes(data)
    assert (done.status, done.error["code"]) == (9, "server-died")
    assert not (project.folder / "never.csv").exists()


def test_the_endpoint_answers_the_same_table(project: Project) -> None:
    for command in ("package", "upload", "deploy"):
        project.fdeploy.ok(command)
    shown = project.fdeploy.ok("invoke", "in.csv", "--output", "asked.csv")
    assert f"rows     {ROWS:,}: {ROWS:,} answered by the endpoint" in shown.stdout
    project.check("asked.csv")
    project.fdeploy.ok("batch", "in.csv", "out.csv", "--overwrite")
    for one, other in zip(
        rows(project.folder / "asked.csv"), rows(project.folder / "out.csv"), strict=True
    ):
        assert one["label"] == other["label"]
    refused = project.fdeploy("invoke", "a text", "--output", "asked.parquet", "--json")
    assert (refused.status, refused.error["code"]) == (2, "usage")
    refused = project.fdeploy("invoke", "in.csv", "--output", "a.jsonl", "--overwrite", "--json")
    assert "--overwrite is for a table" in refused.error["message"]
