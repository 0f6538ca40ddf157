"""Mistakes of a user, through the real command: a clear error, and nothing is lost."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import resource
import socket
import subprocess
import sys
import zipfile
from typing import Any

import pytest

from fastai_deploy import __version__
from tests.conftest import Fdeploy
from tests.flow.conftest import Exports
from tests.flow.learners import CONVERTIBLE, LEARNERS, bring
from tests.flow.test_flow import call

TOUCH = "import pathlib; pathlib.Path('pwned').touch()"


class Hostile:
    """Unpickling this runs a program."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (TOUCH,)


def test_no_such_file(fdeploy: Fdeploy) -> None:
    error = fdeploy("export", "nowhere.pkl", "--json").error
    assert (error["code"], error["exit_code"]) == ("file-missing", 4)
    assert "nowhere.pkl" in error["message"]


def test_no_learner_named(fdeploy: Fdeploy) -> None:
    for name in ("mine.pkl", "yours.pkl"):
        (fdeploy.folder / name).write_bytes(b"")
    error = fdeploy("export", "--json").error
    assert error["exit_code"] == 2
    assert error["hint"].startswith("run fdeploy export --json mine.pkl, or set learner")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"x" * 100, b"\x00" * 1000, os.urandom(5000)]
)
def test_not_a_pickle(fdeploy: Fdeploy, content: bytes) -> None:
    (fdeploy.folder / "learner.pkl").write_bytes(content)
    outcome = fdeploy("export", "learner.pkl", "--json")
    assert outcome.status == 5
    assert outcome.error["code"] in {"not-a-pickle", "learner-truncated"}


@pytest.mark.parametrize("name", CONVERTIBLE)
@pytest.mark.parametrize("part", [0.02, 0.5, 0.999])
def test_half_a_learner(fdeploy: Fdeploy, name: str, part: float) -> None:
    data = (LEARNERS / f"{name}.pkl").read_bytes()
    (fdeploy.folder / "learner.pkl").write_bytes(data[: int(len(data) * part)])
    outcome = fdeploy("export", "learner.pkl", "--json")
    assert outcome.error["code"] in {"not-a-pickle", "learner-truncated"}, outcome.stderr


def test_a_folder_in_place_of_a_file(fdeploy: Fdeploy) -> None:
    (fdeploy.folder / "learner.pkl").mkdir()
    error = fdeploy("export", "learner.pkl", "--json").error
    assert (error["code"], error["exit_code"]) == ("not-a-learner", 5)
    assert "it is empty" in error["message"]


def test_a_pickle_that_is_not_a_learner(fdeploy: Fdeploy) -> None:
    (fdeploy.folder / "learner.pkl").write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    assert fdeploy("export", "learner.pkl", "--json").error["code"] == "not-a-learner"


def test_a_checkpoint_that_is_not_a_learner(fdeploy: Fdeploy) -> None:
    code = "import torch; torch.save({'layer.weight': torch.zeros(2, 2)}, 'learner.pkl')"
    subprocess.run([sys.executable, "-c", code], cwd=fdeploy.folder, check=True)
    error = fdeploy("export", "learner.pkl", "--json").error
    assert error["code"] == "not-a-learner"
    assert "learn.export()" in error["message"] + error["hint"]


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_is_refused_and_not_run(fdeploy: Fdeploy, protocol: int) -> None:
    data = pickle.dumps({"model": Hostile()}, protocol)
    (fdeploy.folder / "learner.pkl").write_bytes(data)
    error = fdeploy("export", "learner.pkl", "--json").error
    assert error["code"] == "dangerous-learner"
    assert "exec" in error["message"]
    assert not (fdeploy.folder / "pwned").exists()
    # The pickle is really harmful: load_learner would have done this.
    subprocess.run(
        [sys.executable, "-c", "import pickle; pickle.load(open('learner.pkl', 'rb'))"],
        cwd=fdeploy.folder,
        check=True,
    )
    assert (fdeploy.folder / "pwned").exists()


def test_a_hostile_pickle_in_a_zip(fdeploy: Fdeploy) -> None:
    with zipfile.ZipFile(fdeploy.folder / "learner.pkl", "w") as archive:
        archive.writestr("learner/data.pkl", pickle.dumps({"model": Hostile()}))
        archive.writestr("learner/version", "3\n")
    assert fdeploy("export", "learner.pkl", "--json").error["code"] == "dangerous-learner"
    assert not (fdeploy.folder / "pwned").exists()


def test_a_custom_head_is_refused_with_a_hint(fdeploy: Fdeploy) -> None:
    bring("v1/roberta_customhead_fastai1052_t211", fdeploy.folder)
    error = fdeploy("export", "learner.pkl", "--json").error
    assert error["code"] == "unsupported-learner"
    assert error["hint"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("g.txt", b"", "no text"),
        ("g.txt", b"\xff\xfe\n", "UTF-8"),
        ("g.jsonl", b"{\n", "line 1"),
        ("g.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "line 2"),
        ("g.jsonl", b'{"text": "a", "probabilities": {"no such label": 1}}\n', "line 1"),
        ("g.jsonl", b'{"text": "a", "probabilities": [0.5]}\n', "line 1"),
        ("g.csv", b"label,words\na,b\n", "text"),
        ("g.parquet", b"PAR1", "parquet"),
    ],
)
def test_golden_texts_that_cannot_be_used(
    fdeploy: Fdeploy, name: str, content: bytes, message: str
) -> None:
    bring(CONVERTIBLE[1], fdeploy.folder)
    (fdeploy.folder / name).write_bytes(content)
    outcome = fdeploy("export", "learner.pkl", "--golden", name, "--json")
    assert outcome.error["code"] == "golden", outcome.stderr
    assert message in outcome.error["message"]


def obey_permissions() -> None:
    """Make file permissions apply to root, too, in the process to be started.

    PR_CAPBSET_DROP (24) of CAP_DAC_OVERRIDE (1), see capabilities(7); others obey them anyway.
    """
    if os.geteuid() == 0:
        assert ctypes.CDLL(None).prctl(24, 1, 0, 0, 0) == 0


def test_no_permission_to_write(fdeploy: Fdeploy) -> None:
    bring(CONVERTIBLE[1], fdeploy.folder)
    fdeploy.folder.chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fastai_deploy", "export", "learner.pkl", "--json"],
            cwd=fdeploy.folder,
            capture_output=True,
            check=False,
            preexec_fn=obey_permissions,
        )
    finally:
        fdeploy.folder.chmod(0o755)
    error = json.loads(done.stderr.splitlines()[-1])
    assert error["code"] == "file-denied"
    assert str(fdeploy.folder) in error["message"]


def test_the_workspace_cannot_be_made(fdeploy: Fdeploy) -> None:
    bring(CONVERTIBLE[1], fdeploy.folder)
    (fdeploy.folder / ".fdeploy").write_text("a file in the way", encoding="utf-8")
    error = fdeploy("export", "learner.pkl", "--json").error
    assert error["exit_code"] == 4
    assert ".fdeploy" in error["message"]


def test_a_full_disk_while_packaging(fdeploy: Fdeploy, exports: Exports) -> None:
    exports.bring(CONVERTIBLE[1], fdeploy.folder)
    done = subprocess.run(
        [sys.executable, "-m", "fastai_deploy", "package", "--json"],
        cwd=fdeploy.folder,
        capture_output=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    error = json.loads(done.stderr.splitlines()[-1])
    assert error["code"] == "disk-full"
    assert not list((fdeploy.folder / ".fdeploy/dev").glob("*model.tar.gz*"))
    assert fdeploy("upload", "--json").error["hint"] == "run fdeploy package"
    fdeploy.ok("package")


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("package", "export learner.pkl"),
        ("upload", "export learner.pkl && fdeploy package"),
        ("deploy", "up learner.pkl"),
        ("create-api", "up learner.pkl"),
        ("invoke", "up learner.pkl"),
        ("key", "up learner.pkl"),
    ],
)
def test_a_stage_before_its_turn_names_every_command(
    fdeploy: Fdeploy, command: str, needed: str
) -> None:
    arguments = [command, "a text"] if command == "invoke" else [command]
    outcome = fdeploy(*arguments, "--json")
    assert outcome.status == 7
    assert outcome.error["hint"] == f"run fdeploy {needed}"


def test_the_hint_of_a_fresh_folder_names_the_whole_way(fdeploy: Fdeploy) -> None:
    (fdeploy.folder / "fdeploy.toml").write_text("[stages.prod]\n")
    (fdeploy.folder / "sentiment.pkl").touch()
    asked = fdeploy("deploy", "--instance", "ml.p2.xlarge", "--stage", "prod", "--json")
    assert asked.status == 7
    assert asked.error["hint"] == (
        "run fdeploy up sentiment.pkl --stage prod --instance ml.p2.xlarge "
        "--region eu-central-1 (or another region)"
    )
    fdeploy.environ["FDEPLOY_STAGE"] = "prod"
    asked = fdeploy("create-api", "--json")
    assert asked.error["hint"] == "run fdeploy up sentiment.pkl --stage prod"


def test_a_missing_region_repeats_the_command(fdeploy: Fdeploy) -> None:
    asked = fdeploy("status", "--target", "aws", "--json")
    assert asked.error["hint"].startswith(
        "run fdeploy status --target aws --json --region eu-central-1 (or another region)"
    )


def test_a_learner_that_changed_since(fdeploy: Fdeploy, exports: Exports) -> None:
    exports.bring(CONVERTIBLE[1], fdeploy.folder)
    (fdeploy.folder / "learner.pkl").touch()
    fdeploy.ok("package")
    bring(CONVERTIBLE[0], fdeploy.folder)
    outcome = fdeploy("upload", "--json")
    assert outcome.status == 7
    assert outcome.error["code"] == "record-stale"
    assert outcome.error["hint"] == "run fdeploy export && fdeploy package"


def test_a_stage_that_does_not_exist(fdeploy: Fdeploy) -> None:
    outcome = fdeploy("teardown", "--stage", "prod", "--json")
    assert outcome.status == 3
    assert "[stages.prod]" in outcome.error["hint"]


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["export", "--nonsense"], ["invoke"], ["invoke", "a", "--top-k", "0"]],
)
def test_a_wrong_command_line(fdeploy: Fdeploy, arguments: list[str]) -> None:
    outcome = fdeploy(*arguments)
    assert outcome.status == 2
    assert "Traceback" not in outcome.stderr
    assert "--help" in outcome.stderr


def test_the_version_is_that_of_the_package(fdeploy: Fdeploy) -> None:
    assert fdeploy.ok("--version").stdout == f"fdeploy {__version__}\n"
    assert "--version" in fdeploy.ok("--help").stdout


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, exports: Exports) -> Any:
    command = Fdeploy(tmp_path_factory.mktemp("served"))
    exports.bring(CONVERTIBLE[1], command.folder)
    command.ok("up", "learner.pkl", "--golden", "golden.jsonl")
    yield command
    command("teardown")


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_text(served: Fdeploy, text: str) -> None:
    outcome = served("invoke", text, "--json")
    assert outcome.status == 2
    assert "empty" in outcome.error["message"]


@pytest.mark.parametrize("through", [[], ["--api"]])
def test_a_megabyte_of_text(served: Fdeploy, through: list[str]) -> None:
    text = "the movie was brilliant " * 41_600
    answer = served.ok("invoke", "-", "--json", *through, stdin=text).json
    assert answer["truncated"] is True


def test_more_than_the_api_takes(served: Fdeploy) -> None:
    outcome = served("invoke", "-", "--api", "--json", stdin="a" * 1_100_000)
    assert outcome.status == 10
    assert "413" in outcome.error["message"]


def test_text_that_is_not_utf8(served: Fdeploy) -> None:
    outcome = served("invoke", "-", "--json", stdin=b"\xff\xfe\xfa")
    assert outcome.status == 2
    assert "UTF-8" in outcome.error["message"]


@pytest.mark.parametrize("key", ["", "wrong", "x" * 5000])
def test_a_wrong_key(served: Fdeploy, key: str) -> None:
    api = json.loads((served.folder / ".fdeploy/dev/create-api.json").read_bytes())
    status, answer = call(api["url"], key, {"text": "a"})
    assert status == 403
    assert isinstance(answer, dict)
    assert answer["error"]["code"] == "forbidden"


def test_a_port_that_is_taken(served: Fdeploy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        outcome = served("create-api", "--port", str(port), "--json")
    assert outcome.status == 9
    assert outcome.error["code"] == "port-taken"
    served.ok("invoke", "a text", "--api")
