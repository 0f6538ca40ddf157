"""An autoscaled endpoint keeps its instances through an update; its type changes in two steps."""

from __future__ import annotations

from typing import Any

import pytest

from fastai_deploy.aws.templates.render import endpoint_template
from fastai_deploy.aws.templates.template import Template
from fastai_deploy.aws.templates.update import first_step, keeping_capacity
from tests.aws_templates.linting import findings
from tests.aws_templates.scenarios import endpoint_of, section, settings_of

Json = Any
KEEP = "RetainAllVariantProperties"
HEADER = {"AWSTemplateFormatVersion": "2010-09-09"}
SCALED = "max_instances = 4\n"


def template(toml: str) -> Template:
    return endpoint_template(endpoint_of(settings_of(section("endpoint", toml))))


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
