"""The OpenAPI document: valid, current, and saying the same as the code that validates."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from fastai_deploy.api_docs.openapi import SAMPLE, ApiDescription, describe_api, document, encoded
from fastai_deploy.runtime import contract
from fastai_deploy.runtime.contract import ERRORS, REQUEST, Model, Prediction, Request, RequestError
from fastai_deploy.settings import load_settings

ROOT = Path(__file__).parents[2]
FACES = (
    SAMPLE,
    ApiDescription("demo", "/v1/classify", "iam", 1_000),
    ApiDescription("demo", "/classify", "jwt", 1_000, own_words=False, issuer="https://id.example"),
    ApiDescription("demo", "/classify", "none", 1_000, labels=("a", "b", "c"), several=True),
)


@pytest.mark.parametrize("described_api", FACES, ids=lambda described_api: described_api.auth)
def test_it_is_a_valid_document(described_api: ApiDescription) -> None:
    described = document(described_api)
    OpenAPIV31SpecValidator(described).validate()
    assert set(described["paths"]) >= {described_api.route, "/health", "/openapi.json"}
    assert ("/" in described["paths"]) is described_api.page
    security = described["paths"][described_api.route]["post"]["security"]
    assert bool(security) is (described_api.auth != "none")


def test_a_broken_document_is_noticed() -> None:
    broken = document(SAMPLE)
    broken["paths"]["/classify"]["post"]["responses"] = {"999": {}}
    assert not OpenAPIV31SpecValidator(broken).is_valid()


def test_the_copy_in_the_docs_is_current() -> None:
    assert (ROOT / "docs/openapi.json").read_bytes() == encoded(SAMPLE), "make schema"


def schema(name: str, described_api: ApiDescription = SAMPLE) -> Any:
    """A validator of one of the document's schemas."""
    described = document(described_api)
    return jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
    )


# The keys and values that matter, and any other JSON.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from((1.0, 3.0, -0.0, 1e16, 0.5))
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
REQUESTS = st.dictionaries(st.sampled_from(("text", "texts", "top_k", "topk", "")), VALUES)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(REQUESTS | VALUES)
def test_the_schema_takes_what_the_contract_takes(value: Any) -> None:
    try:
        (request,) = contract.parse(json.dumps(value).encode(), "application/json")
    except RequestError as error:
        taken, refused = False, (error.status, error.code)
    else:
        # A bad item of a list gets an error in its place.
        taken = not any(isinstance(item, RequestError) for item in request.items)
        refused = (422, "invalid_request")
    assert refused == (422, "invalid_request")
    assert jsonschema.Draft202012Validator(REQUEST).is_valid(value) is taken


@pytest.mark.parametrize("described_api", [SAMPLE, FACES[3]], ids=["single", "several"])
def test_answers_are_as_described(described_api: ApiDescription) -> None:
    model = Model("demo", "3f2a9c01b7de", 0.5 if described_api.several else None)
    share = 1 / len(described_api.labels)
    prediction = Prediction([(label, share) for label in described_api.labels], truncated=False)
    for top_k in (None, 1):
        answer = contract.answer(prediction, top_k, model)
        schema("Answer", described_api).validate(answer)
        assert not schema("Answer", described_api).is_valid({**answer, "more": 1})
        assert not schema("Answer", described_api).is_valid(
            {**answer, "probabilities": {"other": 0.5}}
        )
    unproven = contract.answer(prediction, None, replace(model, unproven=True))
    assert unproven["model"] == {"name": "demo", "version": "3f2a9c01b7de", "unproven": True}
    schema("Answer", described_api).validate(unproven)
    several = Request((RequestError(422, "invalid_request", "m", "h"), "a"), single=False)
    schema("Answers", described_api).validate(contract.render([prediction], several, model))


def test_errors_are_those_of_the_contract() -> None:
    page = (ROOT / "docs/contract.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3}) \| ([^|]+) \|", page, re.MULTILINE)
    described = {int(status): tuple(re.findall(r"`(\w+)`", codes)) for status, codes in rows}
    assert described == {
        status: tuple(code for code, _ in codes) for status, codes in ERRORS.items()
    }


def test_no_other_error_is_answered() -> None:
    for path in (ROOT / "fastai_deploy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "RequestError":
                match node.args:
                    case [ast.Constant(status), ast.Constant(code), *_]:
                        assert code in dict(ERRORS[int(str(status))]), path


def test_a_project_without_a_bundle_has_a_document_without_labels(tmp_path: Path) -> None:
    settings = load_settings(folder=tmp_path, environ={"FDEPLOY_PROJECT_NAME": "demo"})
    described_api = describe_api(settings, tmp_path / "bundle", target="local")
    assert described_api.labels == ()
    assert document(described_api)["components"]["schemas"]["Label"] == {"type": "string"}
