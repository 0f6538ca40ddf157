"""AWS calls and seconds of each command, on the AWS double: ``python -m benchmarks.aws_flow``.

The double creates an endpoint in about a second; AWS takes minutes. The calls are those that
fdeploy makes on AWS, except for how often it polls the events while AWS works.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.aws.world import World
from tests.aws_double.process import running_double
from tests.packaged import Model, write_model


def main() -> None:
    with tempfile.TemporaryDirectory() as name, running_double() as double:
        folder = Path(name)
        first = write_model(folder, "first")
        second = write_model(folder, "second", layers=3)
        warm_up = World(double, folder)
        deploy(warm_up, first)
        warm_up.target().teardown(artifacts=True)
        world = World(double, folder)
        print(f"{'':<24} {'calls':>6} {'seconds':>8}")
        measured(world, "first deploy", lambda: deploy(world, first))
        measured(world, "first create-api", lambda: create_api(world, first))
        measured(world, "unchanged deploy", lambda: deploy(world, first))
        measured(world, "unchanged create-api", lambda: create_api(world, first))
        measured(world, "update", lambda: deploy(world, second))
        measured(world, "teardown", lambda: world.target().teardown(artifacts=True))
        print(f"left in the account: {len(world.everything())}")


def deploy(world: World, model: Model) -> Any:
    target = world.target()
    return target.deploy(target.upload(model.artifact), model.verify)


def create_api(world: World, model: Model) -> Any:
    return world.target().create_api(deploy(world, model), model.verify)


def measured(world: World, name: str, run: Callable[[], Any]) -> None:
    world.double.do_wrong(world.account)
    began = time.perf_counter()
    run()
    seconds = time.perf_counter() - began
    print(f"{name:<24} {len(world.double.calls(world.account)):>6} {seconds:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
