"""Names fit the limits of their services, and different resources have different names."""

from __future__ import annotations

import re

import pytest

from fastai_deploy import naming
from fastai_deploy.settings.sections import NAME_PATTERN

PROJECT, STAGE, SHA256 = "p" * 30, "s" * 16, "0" * 64
# "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}": EndpointName, EndpointConfigName and ModelName.
SAGEMAKER = r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"


@pytest.mark.parametrize(
    ("name", "limit", "pattern"),
    [
        *(
            (naming.endpoint_name(PROJECT, STAGE, kind), 63, SAGEMAKER)
            for kind in ("real-time", "serverless", "async")
        ),
        (naming.versioned_name(PROJECT, STAGE, SHA256), 63, SAGEMAKER),
        (naming.endpoint_stack(PROJECT, STAGE), 128, r"[a-zA-Z][-a-zA-Z0-9]*"),
        (naming.api_stack(PROJECT, STAGE), 128, r"[a-zA-Z][-a-zA-Z0-9]*"),
        (naming.batch_stack(PROJECT, STAGE), 128, r"[a-zA-Z][-a-zA-Z0-9]*"),
        (naming.transform_job(PROJECT, STAGE, "0a1b2c3d", 1), 63, SAGEMAKER),
        (naming.batch_prefix(PROJECT, STAGE), 900, r"[a-zA-Z0-9!_.*'()/-]+"),
        (naming.ttl_stack(PROJECT, STAGE), 64, r"[0-9a-zA-Z-_.]+"),
        (naming.function_name(PROJECT, STAGE), 64, r"[a-zA-Z0-9-_]+"),
        (naming.role_path(PROJECT, STAGE), 512 - 13, r"/[!-~]+/"),
        (naming.alarm_name(PROJECT, STAGE, "0123456789ab-latency"), 255, r".+"),
        (naming.endpoint_log_group(PROJECT + STAGE), 512, r"[.\-_/#A-Za-z0-9]+"),
        (naming.access_log_group(PROJECT, STAGE), 512, r"[.\-_/#A-Za-z0-9]+"),
        (naming.artifact_key(PROJECT, SHA256), 1_024, r"[a-zA-Z0-9!_.*'()/-]+"),
        (naming.async_prefix(PROJECT, STAGE), 900, r"[a-zA-Z0-9!_.*'()/-]+"),
    ],
)
def test_the_longest_names_fit(name: str, limit: int, pattern: str) -> None:
    assert len(name) <= limit
    assert re.fullmatch(pattern, name)


def test_the_longest_project_name_is_the_longest_that_settings_allow() -> None:
    assert re.match(NAME_PATTERN, PROJECT)
    assert not re.match(NAME_PATTERN, PROJECT + "p")


def test_names_within_a_stage_are_unique() -> None:
    stacks = {
        naming.endpoint_stack("a", "b"),
        naming.api_stack("a", "b"),
        naming.ttl_stack("a", "b"),
        naming.batch_stack("a", "b"),
    }
    kinds = {naming.endpoint_name("a", "b", kind) for kind in ("real-time", "serverless", "async")}
    assert (len(stacks), len(kinds)) == (4, 3)


def test_no_stage_is_named_as_a_folder_of_the_project() -> None:
    """A stage may be called models, and its data must not be the project's artifacts."""
    for stage in ("models", "lambda"):
        own = naming.stage_folder("demo", stage)
        assert not naming.artifact_key("demo", SHA256).startswith(own)
        assert not naming.code_key("demo", SHA256).startswith(own)
        assert naming.captured_prefix("demo", stage).startswith(own)
        assert naming.async_prefix("demo", stage).startswith(own)
