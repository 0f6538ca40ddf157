"""An autoscaled endpoint keeps its instances through an update; its type changes in two steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.aws.templates.render import api_template, endpoint_template
from fastai_deploy.aws.templates.template import Template
from fastai_deploy.aws.templates.update import ROUTES, first_step, keeping_capacity
from tests.aws_templates.linting import findings
from tests.aws_templates.scenarios import api_of, endpoint_of, section, settings_of

Json = Any
BEFORE = Path(__file__).parents[1] / "aws/before"
KEEP = "RetainAllVariantProperties"
HEADER = {"AWSTemplateFormatVersion": "2010-09-09"}
SCALED = "max_instances = 4\n"


def template(toml: str, **options: str) -> Template:
    return endpoint_template(endpoint_of(settings_of(section("endpoint", toml)), **options))


def api(toml: str) -> Template:
    return api_template(api_of(settings_of(section("api", toml))))


def resources(found: Template) -> Json:
    return found.evaluated()["Resources"]


def keeps(found: Template) -> bool:
    return resources(found)["Endpoint"]["Properties"].get(KEEP) is True


def test_a_new_endpoint_has_nothing_to_keep() -> None:
    wanted = template(SCALED)
    assert keeping_capacity(wanted, None) == wanted
    assert not keeps(wanted)


def test_an_update_keeps_the_instances_and_changes_nothing_else() -> None:
    live, wanted = template(SCALED), template(f"{SCALED}download_timeout = 900\n")
    updated = keeping_capacity(wanted, live)
    assert keeps(updated)
    assert findings(updated.with_defaults()) == []
    changed = resources(updated)
    del changed["Endpoint"]["Properties"][KEEP]
    assert changed == resources(wanted)


def test_an_unchanged_endpoint_stays_unchanged() -> None:
    live = template(SCALED)
    assert keeping_capacity(template(SCALED), live) == live
    updated = keeping_capacity(template(f"{SCALED}download_timeout = 900\n"), live)
    again = keeping_capacity(template(f"{SCALED}download_timeout = 900\n"), updated)
    assert again == updated


@pytest.mark.parametrize(
    ("before", "after"),
    [("", "download_timeout = 900\n"), (SCALED, 'kind = "serverless"\n')],
)
def test_what_does_not_scale_keeps_nothing(before: str, after: str) -> None:
    wanted = template(after)
    assert keeping_capacity(wanted, template(before)) == wanted


def test_another_instance_type_needs_a_step_without_autoscaling() -> None:
    live = template(SCALED)
    step = first_step(template(f'{SCALED}instance = "ml.c5.large"\n'), live)
    assert step is not None
    kinds = {resource["Type"] for resource in resources(step.template).values()}
    assert not [kind for kind in kinds if "AutoScaling" in kind]
    assert resources(step.template)["Endpoint"] == resources(live)["Endpoint"]
    assert findings(step.template.evaluated() | HEADER) == []


def test_the_step_takes_the_wake_up_along() -> None:
    toml = 'kind = "async"\nscale_to_zero = true\nmax_instances = 2\n'
    step = first_step(template(f'{toml}instance = "ml.c5.large"\n'), template(toml))
    assert step is not None
    assert "WakeUpAlarm" not in resources(step.template)
    assert findings(step.template.evaluated() | HEADER) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (SCALED, SCALED),
        (SCALED, f"{SCALED}download_timeout = 900\n"),
        ("", 'instance = "ml.c5.large"\n'),
        (SCALED, 'kind = "serverless"\n'),
    ],
)
def test_one_step_is_enough_otherwise(before: str, after: str) -> None:
    assert first_step(template(after), template(before)) is None
    assert first_step(template(after), None) is None


# What an earlier version deployed


def of_before(name: str) -> Json:
    """The resources of a template of ``tests/aws/before``."""
    return json.loads((BEFORE / f"{name}.json").read_text(encoding="utf-8"))["Resources"]


@pytest.mark.parametrize("name", ["endpoint", "api-rest", "api-http"])
def test_what_an_earlier_version_made_keeps_its_names(name: str) -> None:
    """Also names that end in a hash, so an unchanged stage gets no new model.

    Its endpoint moves, blue/green, to a configuration that routes requests by load.
    """
    toml = 'type = "http"\nauth = "iam"\n' if name == "api-http" else ""
    # Its artifact has no model server of its own.
    now = template("", backend_url="") if name == "endpoint" else api(toml)
    before, after = of_before(name), resources(now)
    for logical_id in before.keys() & after.keys():
        old, new = before[logical_id], after[logical_id]
        assert old["Type"] == new["Type"]
        names = {key for key in old["Properties"] if key.endswith("Name") or key == "Path"}
        assert names or old["Type"].endswith(("Permission", "Key", "Mapping")), logical_id
        moved = {"EndpointConfigName"}
        if logical_id in ("NewErrorsAlarm", "NewLatencyAlarm"):
            moved.add("AlarmName")
        for key in names - {"ApiName"} - moved:
            assert old["Properties"][key] == new["Properties"][key], (logical_id, key)
    gone = {before[logical_id]["Type"] for logical_id in before.keys() - after.keys()}
    assert gone <= {*ROUTES, "AWS::ApiGateway::Deployment"}


@pytest.mark.parametrize("kind", ["rest", "http"])
def test_an_api_of_routes_lets_go_of_them_first(kind: str) -> None:
    live = Template((BEFORE / f"api-{kind}.json").read_text(encoding="utf-8"))
    wanted = api("" if kind == "rest" else 'type = "http"\nauth = "iam"\n')
    step = first_step(wanted, live)
    assert step is not None
    after = resources(step.template)
    for logical_id, resource in resources(live).items():
        if resource["Type"] in ROUTES:
            policies = ("DeletionPolicy", "UpdateReplacePolicy")
            assert [after[logical_id][policy] for policy in policies] == ["Retain", "Retain"]
            assert after[logical_id]["Properties"] == resource["Properties"]
        else:
            assert after[logical_id] == resource
    assert findings(step.template.text) == []
    assert first_step(wanted, step.template) is None
    assert first_step(wanted, wanted) is None


@pytest.mark.parametrize("kind", ["rest", "http"])
def test_to_put_the_routes_back_the_document_is_emptied_first(kind: str) -> None:
    before = Template((BEFORE / f"api-{kind}.json").read_text(encoding="utf-8"))
    live = api("" if kind == "rest" else 'type = "http"\nauth = "iam"\n')
    step = first_step(before, live)
    assert step is not None
    assert resources(step.template)["Api"]["Properties"]["Body"]["paths"] == {}
    assert findings(step.template.evaluated() | HEADER) == []
    assert first_step(before, step.template) is None
