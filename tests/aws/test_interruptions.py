"""Ctrl-C and lost connections: AWS continues, the message says so, and a second run resumes."""

from __future__ import annotations

import pytest

from fastai_deploy.errors import AwsUnreachable
from fastai_deploy.progress import Event, Happened
from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.packaged import Model


def test_ctrl_c_while_aws_works(world: World, model: Model) -> None:
    target = world.target()
    stored = target.upload(model.artifact)

    def interrupt(event: Event) -> None:
        world.events.append(event)
        if "IN_PROGRESS          SageMaker::Model" in getattr(event, "message", ""):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.target(interrupt).deploy(stored, model.verify)
    assert "AWS continues the operation" in world.said
    assert world.target().deploy(stored, model.verify).version == model.artifact.version


def test_a_connection_lost_while_aws_works(world: World, model: Model) -> None:
    target = world.target()
    stored = target.upload(model.artifact)
    fault = Fault("reset", service="cloudformation", operation="DescribeStackEvents")
    world.double.do_wrong(world.account, fault)
    with pytest.raises(AwsUnreachable):
        target.deploy(stored, model.verify)
    world.double.do_wrong(world.account)
    assert world.target().deploy(stored, model.verify).version == model.artifact.version


def test_an_event_reads_as_a_line() -> None:
    event = Happened(
        stack="demo-dev-endpoint",
        type="SageMaker::Endpoint",
        name="Endpoint",
        status="CREATE_FAILED",
        reason="no capacity",
        failed=True,
        ended=False,
    )
    assert event.message == "CREATE_FAILED               SageMaker::Endpoint Endpoint: no capacity"
