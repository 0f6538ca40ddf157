"""cfn-lint finds nothing in the golden templates, in any kind of region, and they stay within
CloudFormation's limits."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.aws_templates.golden import KEPT
from tests.aws_templates.linting import findings, schema
from tests.aws_templates.scenarios import Golden, goldens

TEMPLATES = [golden for golden in goldens() if "Resources" in golden.document]
# "CloudFormation quotas": a template that is sent as it is, resources, outputs.
MAX_BODY, MAX_RESOURCES, MAX_OUTPUTS = 51_200, 500, 200
MAX_DESCRIPTION, MAX_PARAMETERS = 1_024, 200
OWN_TAGS = {"fdeploy:project", "fdeploy:stage", "fdeploy:version"}


@pytest.mark.parametrize("golden", TEMPLATES, ids=lambda golden: golden.name)
def test_cfn_lint_finds_nothing(golden: Golden) -> None:
    assert findings(golden.document) == []


@pytest.mark.parametrize("name", KEPT)
def test_neither_in_what_is_printed(name: str) -> None:
    """With all parameters and conditions, which are in each of the files."""
    template = next(golden.template for golden in TEMPLATES if golden.name == name)
    assert template is not None
    assert findings(template.with_defaults()) == []


@pytest.mark.parametrize("region", ["us-east-1", "cn-north-1", "us-gov-west-1"])
@pytest.mark.parametrize("name", ["endpoint-real-time-cpu", "api-rest-key", "expiry"])
def test_neither_in_other_partitions(name: str, region: str) -> None:
    template = next(golden.document for golden in TEMPLATES if golden.name == name)
    assert findings(template, region) == []


def test_a_defect_is_found() -> None:
    template = copy.deepcopy(TEMPLATES[0].document)
    template["Resources"]["Endpoint"]["Properties"]["EndpointConfigNam"] = "x"
    template["Resources"]["LogGroup"]["Properties"]["RetentionInDays"] = 31
    assert len(findings(template)) == 2


@pytest.mark.parametrize("golden", TEMPLATES, ids=lambda golden: golden.name)
def test_the_limits_of_cloudformation_are_kept(golden: Golden) -> None:
    assert golden.template is not None
    assert len(golden.template.text.encode()) < MAX_BODY
    assert golden.template.text.isascii(), "CloudFormation stores a ? for anything else"
    assert len(golden.document["Resources"]) < MAX_RESOURCES
    assert len(golden.document["Outputs"]) < MAX_OUTPUTS
    assert len(golden.template.document()["Description"]) < MAX_DESCRIPTION
    assert len(golden.template.parameters) < MAX_PARAMETERS


def tags_of(properties: dict[str, Any]) -> set[str]:
    tags = properties.get("Tags", [])
    return set(tags) if isinstance(tags, dict) else {tag["Key"] for tag in tags}


@pytest.mark.parametrize("golden", TEMPLATES, ids=lambda golden: golden.name)
def test_everything_that_takes_tags_is_tagged(golden: Golden) -> None:
    for name, resource in golden.document["Resources"].items():
        tagging = schema(resource["Type"]).get("tagging", {})
        takes = tagging.get("taggable", "Tags" in schema(resource["Type"])["properties"])
        tagged = tags_of(resource["Properties"])
        assert takes == bool(tagged), f"{name} ({resource['Type']})"
        assert not takes or tagged >= OWN_TAGS, name
