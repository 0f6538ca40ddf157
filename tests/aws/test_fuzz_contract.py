"""Schemathesis against the double: the template's API, tested by the document that it serves."""

from __future__ import annotations

import io
import zipfile

import pytest

from fastai_deploy.packaging.lambda_zip import HANDLER
from tests.aws.fuzz_contract import fuzz, serve
from tests.aws.stage import Open, Stage
from tests.packaged import Model

ANSWER = {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": "{}"}


@pytest.fixture(scope="module")
def stage(opened: Open, model: Model) -> Stage:
    return opened(model, "")


@pytest.fixture(scope="module")
def url(stage: Stage) -> str:
    return serve(stage)


def test_the_api_answers_as_documented(stage: Stage, url: str) -> None:
    done = fuzz(stage, url, examples=20, seed=1)
    assert done.returncode == 0, done.stdout
    assert "No issues found" in done.stdout
    assert "3 selected / 3 total" in done.stdout, "all but the document itself"


def test_an_undocumented_answer_is_found(stage: Stage, url: str) -> None:
    """Another Lambda function answers, with an empty body."""
    module, _, name = HANDLER.rpartition(".")
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as package:
        path = f"{module.replace('.', '/')}.py"
        package.writestr(path, f"def {name}(event, context):\n    return {ANSWER!r}\n")
    document = stage.folder / "openapi.json"
    document.write_text(stage.run.ok("openapi").stdout, encoding="utf-8")
    stage.client("lambda").update_function_code(
        FunctionName="demo-dev-api", ZipFile=code.getvalue()
    )
    done = fuzz(stage, url, examples=1, seed=1, phases="examples", document=document)
    assert done.returncode == 1, done.stdout
    assert "Response violates schema" in done.stdout
