"""No telemetry: all stages for one learner, in their own network namespace and a fresh home.

The namespace needs Linux and the permission to create one; elsewhere only the files are checked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from fastai_deploy.environments import clean_environment
from fastai_deploy.runtime.telemetry import SWITCHES
from tests.flow.learners import CONVERTIBLE, bring
from tests.learner_runtime.conftest import SOURCE as BAG_OF_WORDS

RECORDER = Path(__file__).parent / "recorder.py"
NAMESPACE = ("unshare", "--user", "--map-root-user", "--net", "--mount")
FLOW = """\
fdeploy() { "$PYTHON" -m fastai_deploy "$@"; }
trap 'fdeploy teardown' EXIT
set -e
fdeploy export "$@"
fdeploy package
fdeploy upload
fdeploy deploy
fdeploy invoke "the plot is thin but I loved it"
fdeploy create-api
fdeploy invoke --api "the plot is thin but I loved it"
"""
PROBE = """\
import contextlib, socket
with contextlib.suppress(OSError):
    socket.getaddrinfo("collector.example", 443)
for address in ("192.0.2.1", "2001:db8::1", "127.0.0.1"):
    with contextlib.suppress(OSError):
        socket.create_connection((address, 443))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.sendto(b"x", ("198.51.100.1", 8125))
"""


@dataclass(frozen=True)
class Recorded:
    """What a command did: ``attempts`` is None where no namespace could be made."""

    attempts: list[str] | None
    files: list[str]


def record(folder: Path, *command: str) -> Recorded:
    """Run a command in an empty home and, where the kernel allows it, in a network of its own.

    Variables of CI are left out: some libraries report nothing where they see one.
    """
    home, project, report = folder / "home", folder / "project", folder / "report.json"
    for each in (home, folder / "tmp"):
        each.mkdir()
    project.mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(folder / "tmp"),
        "PYTHON": sys.executable,
        "LANG": "C.UTF-8",
    }
    isolated = (*NAMESPACE, sys.executable, str(RECORDER), str(report)) if can_isolate() else ()
    done = subprocess.run(
        [*isolated, *command],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    attempts = json.loads(report.read_bytes()) if isolated else None
    return Recorded(attempts, sorted(str(p.relative_to(home)) for p in home.rglob("*")))


def can_isolate() -> bool:
    """Whether this kernel lets this user make a network namespace."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


def nothing_was_tried(recorded: Recorded) -> None:
    assert recorded.files == []
    if recorded.attempts is None:
        pytest.skip("no network namespace can be made here: only the files were looked at")
    assert recorded.attempts == []


@pytest.mark.skipif(not can_isolate(), reason="no network namespace can be made here")
def test_the_recorder_sees_every_attempt(tmp_path: Path) -> None:
    assert record(tmp_path, sys.executable, "-c", PROBE).attempts == [
        "dns collector.example",
        "tcp 192.0.2.1:443",
        "tcp 2001:db8::1:443",
        "udp 198.51.100.1:8125",
    ]


def test_a_converted_learner_sends_no_telemetry(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    learner, golden = bring(CONVERTIBLE[2], tmp_path / "project")
    nothing_was_tried(record(tmp_path, "sh", "-c", FLOW, "sh", learner, "--golden", golden))


def test_a_learner_served_from_its_pickle_sends_no_telemetry(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    definitions = shutil.copyfile(BAG_OF_WORDS, project / "model_def.py")
    subprocess.run([sys.executable, str(definitions), "words.pkl"], check=True, cwd=project)
    torch = version("torch").partition("+")[0]
    (project / "requirements.txt").write_text(f"torch=={torch}\n", encoding="utf-8")
    options = ("--runtime", "learner", "--trust-pickle", "--definitions", "model_def.py")
    command = ("sh", "-c", FLOW, "sh", "words.pkl", *options, "--requirements", "requirements.txt")
    nothing_was_tried(record(tmp_path, *command))


def test_the_users_own_choice_does_not_turn_it_on(tmp_path: Path) -> None:
    chosen = dict.fromkeys(SWITCHES, "on")
    code = "import json, os, fastai_deploy; print(json.dumps(dict(os.environ)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **chosen},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout).items() >= SWITCHES.items()


def test_servers_are_started_with_the_switches() -> None:
    assert clean_environment().items() >= SWITCHES.items()
