"""The memory of an instance, and whether a model fits into it."""

from __future__ import annotations

import pytest

from fastai_deploy.aws.capacity import (
    MIB,
    Instance,
    MemoryNeed,
    instance_memory,
    known_types,
    larger_instance,
    on_instance,
    on_serverless,
)
from fastai_deploy.errors import SettingsError

KNOWN = known_types()
GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("ml.c4.large", 3.75),
        ("ml.c4.8xlarge", 60),
        ("ml.t2.medium", 4),
        ("ml.m5.large", 8),
        ("ml.m4.10xlarge", 160),
        ("ml.c5.18xlarge", 144),
        ("ml.c6in.32xlarge", 256),
        ("ml.c7g.16xlarge", 128),
        ("ml.r7gd.medium", 8),
        ("ml.r8g.48xlarge", 1_536),
        ("ml.g4dn.xlarge", 16),
        ("ml.g6e.48xlarge", 1_536),
        ("ml.g7e.8xlarge", 256),
        ("ml.g7e.12xlarge", 512),
        ("ml.p2.xlarge", 61),
        ("ml.p5.4xlarge", 256),
    ],
)
def test_what_describe_instance_types_answers(name: str, gib: float) -> None:
    assert instance_memory(name) == gib * GIB


def test_every_type_that_can_serve_is_known() -> None:
    unknown = {Instance(name).family for name in KNOWN if instance_memory(name) is None}
    # These have no image and are refused earlier.
    assert unknown == {"dl1", "inf1", "inf2", "p6e-gb200", "trn1", "trn1n", "trn2"}


def test_the_estimate_is_above_what_was_measured() -> None:
    """Worker and front end, of a RoBERTa-base in int8 and float32; see the docstring."""
    for file, highest in ((120, 288), (475, 681), (87, 190)):
        need = MemoryNeed(file * MIB, "torchserve")
        assert (highest + 116) * MIB < need.needed < 2.5 * (highest + 116) * MIB


def test_small_models_fit_and_large_ones_do_not() -> None:
    def outcome(weights: int, name: str = "ml.m5.large") -> str:
        return on_instance(name, MemoryNeed(weights, "ray-serve"), KNOWN).check().outcome

    assert outcome(125 * MIB) == "passed"
    assert outcome(125 * MIB, "ml.c5.large") == "passed"
    assert outcome(2 * GIB, "ml.c5.large") == "warned"
    assert outcome(4 * GIB, "ml.c5.large") == "warned"
    assert outcome(4 * GIB + 1, "ml.c5.large") == "failed"
    assert outcome(125 * MIB, "ml.x9.large") == "passed"  # not known here


def test_the_next_larger_instance_is_named() -> None:
    estimate = on_instance("ml.c5.large", MemoryNeed(5 * GIB, "ray-serve"), KNOWN)
    assert estimate.check().hint == "choose --instance ml.c5.2xlarge"
    with pytest.raises(SettingsError, match=r"file has 5,120 MB\), and ml.c5.large has 4,096 MB"):
        estimate.require()
    assert larger_instance("ml.t2.medium", 40 * GIB, KNOWN) == "ml.m5.4xlarge"
    assert larger_instance("ml.c5.large", 700 * GIB, KNOWN) == "ml.r5.24xlarge"
    assert larger_instance("ml.c5.large", 9_000 * GIB, KNOWN) is None


def test_serverless_memory_is_counted_in_its_steps() -> None:
    need = MemoryNeed(125 * MIB, "ray-serve")
    assert on_serverless(3_072, need).check().outcome == "passed"
    tight = on_serverless(1_024, need).check()
    assert (tight.outcome, tight.hint) == (
        "warned",
        "choose memory = 2048 in [endpoint.serverless]",
    )
    never = on_serverless(6_144, MemoryNeed(7 * GIB, "ray-serve")).check()
    assert (never.outcome, never.hint) == ("failed", "choose an instance: kind real-time")


def test_a_learner_as_it_is_brings_more() -> None:
    converted, own = (MemoryNeed(GIB, "torchserve", learner) for learner in (False, True))
    assert own.needed - converted.needed == 400 * MIB
