"""Settings of one account of the double, changed through the double's control path."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Behaviour:
    """``quota``, ``used`` and ``price`` are by instance type (a price is dollars an hour, as text).

    ``serverless_price`` is in dollars a second by gigabytes of memory, ``function_price`` in
    dollars by Lambda's usage type.

    ``used``: so many of the quota's instances are in use already. ``missing_images``: tags that
    AWS's registries do not have. ``image_patch``: how often AWS has patched the images.

    ``concurrency``: how many functions run at once. ``missing_runtimes``: Lambda lacks them here.

    ``no_capacity``: no instance can be had. ``silent_update``: CloudFormation does not notice that
    an update of an endpoint has failed. ``seconds``: how long an endpoint takes at least.
    ``hold``: endpoints and transform jobs come no further until it is false again.
    ``transform_fails``: why a transform job fails after its first file.
    ``caller``: the ARN of who asks, the root user without one. ``enforces``: what the policies of
    the caller do not allow is refused. ``simulates_alone``: the policy simulator takes one action a
    time.
    ``clock``: how many seconds AWS's clock is ahead of this machine's.
    """

    quota: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    price: dict[str, str] = field(default_factory=dict)
    serverless_price: dict[str, str] = field(default_factory=dict)
    function_price: dict[str, str] = field(default_factory=dict)
    missing_images: list[str] = field(default_factory=list)
    image_patch: int = 0
    concurrency: int = 1_000
    missing_runtimes: list[str] = field(default_factory=list)
    no_capacity: bool = False
    silent_update: bool = False
    seconds: float = 0.0
    hold: bool = False
    transform_fails: str = ""
    caller: str = ""
    enforces: bool = False
    simulates_alone: bool = False
    clock: float = 0.0
