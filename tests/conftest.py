from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests import warm

ROOT = str(Path(__file__).parent.parent)
LEARNERS = Path(__file__).parent / "learners"

# Folders and files of tests that start servers, convert models, use the AWS double or take seconds
# to import. Their tests get the marker `slow`, including those of new files in such a folder.
SLOW = (
    *("aws", "aws_templates", "benchmarks", "docs", "evaluation", "flow", "gateway"),
    *("ci_examples", "learner", "learner_runtime", "local", "page", "pretrained", "runtime"),
    "telemetry",
    *(
        "test_format_1.py",
        "test_inspect.py",
        "test_limited_process.py",
        "test_project_folder.py",
        "test_settings.py",
    ),
    "test_wheels.py",
)

# The models are tiny: beside the other workers, a second thread of torch would mostly wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without Python's bytecode cache, each of the hundreds of processes that the tests start would
# compile the package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts the tests in the background lets them ignore Ctrl-C, and every process that
# they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def is_slow(path: Path) -> bool:
    return path.relative_to(Path(__file__).parent).parts[:1] in {(name,) for name in SLOW}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import slow tests when none is wanted: ``make test-fast``."""
    wanted: str = config.option.markexpr
    return True if wanted == "not slow" and is_slow(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_slow(item.path):
            item.add_marker("slow")


@functools.cache
def _results() -> dict[str, Draft202012Validator]:
    """Validators of what each command prints with --json, from the schema that fdeploy ships."""
    schema = json.loads(Path(ROOT, "fastai_deploy/cli/results.schema.json").read_text("utf-8"))
    return {
        one["properties"]["command"]["const"]: Draft202012Validator(
            {**one, "$defs": schema["$defs"]}
        )
        for one in schema["oneOf"]
    }


def result_of(line: str) -> Any:
    """The result in a line of --json, which has the shape that the schema promises."""
    envelope = json.loads(line)
    _results()[envelope["command"]].validate(envelope)
    return envelope["result"]


@dataclass(frozen=True)
class Outcome:
    """The result of one run of the command."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The result in the envelope that --json prints."""
        return result_of(self.stdout)

    @property
    def error(self) -> dict[str, Any]:
        """The error event of a run with --json."""
        event: dict[str, Any] = json.loads(self.stderr.splitlines()[-1])
        assert event["event"] == "error"
        return event


@dataclass
class Fdeploy:
    """The real command, run in a folder as a user does.

    It starts with its libraries already imported (``tests/warm.py``), or as ``python -m
    fastai_deploy`` in a fresh interpreter.
    """

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    fresh: bool = not warm.AVAILABLE

    def __call__(self, *arguments: str, stdin: str | bytes = b"", timeout: float = 240) -> Outcome:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        environ = {**os.environ, **self.environ}
        # PYTHONPATH is read when an interpreter starts. The forked ones have ROOT already.
        if not self.fresh and self.environ.get("PYTHONPATH", ROOT) == ROOT:
            status, out, err = warm.run(
                arguments, folder=self.folder, environ=environ, stdin=given, timeout=timeout
            )
            return Outcome(status, out.decode(), err.decode())
        done = subprocess.run(
            [sys.executable, "-m", "fastai_deploy", *arguments],
            cwd=self.folder,
            env=environ,
            input=given,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    def ok(self, *arguments: str, stdin: str | bytes = b"") -> Outcome:
        outcome = self(*arguments, stdin=stdin)
        assert outcome.status == 0, outcome.stderr
        return outcome


@pytest.fixture
def fdeploy(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fdeploy]:
    """The command in an empty project folder; tears down what it started.

    The marker ``fresh_interpreter`` starts each command as a user's shell does.
    """
    folder = tmp_path / "project"
    folder.mkdir()
    command = Fdeploy(folder)
    if request.node.get_closest_marker("fresh_interpreter"):
        command.fresh = True
    yield command
    if (folder / ".fdeploy").exists():  # without it nothing was started
        command("teardown", "--target", "local")


@pytest.fixture
def deep_recursion() -> Iterator[None]:
    """Room for the test's own assembler, which recurses; the reader does not."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(before)


@pytest.fixture
def free_port() -> Iterator[int]:
    """A free port, reserved for a server that asks for it explicitly."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
