"""The Lambda zip: reproducible bytes, the right files, and runnable from the zip alone."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.packaging.lambda_zip import HANDLER, build_lambda_package
from tests.gateway.aws_events import REQUEST_ID, rest
from tests.gateway.fakes import Response

CALL = """
import importlib, json, sys
archive, handler, events = sys.argv[1:]
sys.path.insert(0, archive)
module, _, name = handler.rpartition(".")
answer = getattr(importlib.import_module(module), name)
responses = [answer(event, None) for event in json.loads(events)]
assert not [name for name in sys.modules if name.startswith("fastai_deploy")]
print(json.dumps([responses, sorted(sys.modules)]))
"""


def test_the_same_sources_give_the_same_bytes() -> None:
    assert build_lambda_package() == build_lambda_package()


def test_members_are_sorted_plain_and_dated_alike() -> None:
    with zipfile.ZipFile(io.BytesIO(build_lambda_package())) as archive:
        infos = archive.infolist()
    names = [info.filename for info in infos]
    assert names == sorted(names)
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.external_attr >> 16 for info in infos} == {0o100644}
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    assert {"fdeploy_runtime/__init__.py", "fdeploy_runtime/contract.py"} < set(names)
    assert "fdeploy_runtime/gateway/__init__.py" in names
    assert "fdeploy_runtime/predictor.py" not in names


def test_the_sources_keep_to_the_syntax_of_python_3_8() -> None:
    with zipfile.ZipFile(io.BytesIO(build_lambda_package())) as archive:
        for name in archive.namelist():
            ast.parse(archive.read(name), name, feature_version=(3, 8))


def call(tmp_path: Path, environ: dict[str, str], *events: Any) -> tuple[list[Response], str, Any]:
    """The handler's answers in a fresh interpreter, its log, and the modules that it loaded."""
    archive = tmp_path / "lambda.zip"
    archive.write_bytes(build_lambda_package())
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CALL, str(archive), HANDLER, json.dumps(events)],
        env={**kept, **environ},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *log, last = done.stdout.splitlines()
    responses, modules = json.loads(last)
    return [Response(response) for response in responses], "\n".join(log), modules


LAMBDA = {
    "AWS_LAMBDA_FUNCTION_NAME": "demo",
    "AWS_REGION": "eu-central-1",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "none",
}


def test_it_runs_from_the_zip(tmp_path: Path) -> None:
    environ = {**LAMBDA, "FDEPLOY_ENDPOINT": "demo-dev"}
    health = rest(None, method="GET", path="/health")
    responses, log, modules = call(tmp_path, environ, health, rest("not JSON"), "garbage")
    assert [response.status for response in responses] == [200, 400, 404]
    assert len(log.splitlines()) == 3
    assert "botocore.client" in modules
    assert "boto3" not in modules  # botocore is enough, and 30 ms quicker


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        (LAMBDA, "FDEPLOY_ENDPOINT"),
        ({**LAMBDA, "FDEPLOY_ENDPOINT": "e", "FDEPLOY_TIMEOUT_MS": "soon"}, "soon"),
        ({"FDEPLOY_ENDPOINT": "e", "AWS_CONFIG_FILE": os.devnull}, "region"),
    ],
)
def test_a_wrong_setting_is_answered_and_logged(
    tmp_path: Path, environ: dict[str, str], reason: str
) -> None:
    (first, second), log, _ = call(tmp_path, environ, rest(), None)
    assert (first.status, first.code) == (500, "internal")
    assert second.status == 500
    assert reason not in first.text
    assert all(reason in line for line in log.splitlines())
    assert json.loads(log.splitlines()[0])["request_id"] == REQUEST_ID
    assert first.headers["x-request-id"] == REQUEST_ID
