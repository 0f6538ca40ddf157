"""Rebuilding and publishing a learner by the family that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastai_deploy.bundle import LearnerSpec, Manifest
from fastai_deploy.goldens import Case
from fastai_deploy.learner.anatomy import Anatomy
from fastai_deploy.learner.definitions import Definitions
from fastai_deploy.learner.rebuilding import publish, publish_ulmfit
from fastai_deploy.learner.rebuilding.onnx_export import Graph
from fastai_deploy.learner.rebuilding.rebuilt import Rebuilt, rebuild_learner
from fastai_deploy.learner.rebuilding.ulmfit import RebuiltUlmfit, rebuild_ulmfit

AnyRebuilt = Rebuilt | RebuiltUlmfit


def rebuild(anatomy: Anatomy, cases: Sequence[Case], definitions: Definitions | None) -> AnyRebuilt:
    """Rebuild a convertible learner.

    ``cases`` with the learner's own answers settle what the file does not show; ``definitions``
    are the user's own classes, where they were handed in.
    Raises UnsupportedLearner, LearnerTruncated or ExtraMissing.
    """
    if anatomy.ulmfit is not None:
        return rebuild_ulmfit(anatomy, cases)
    return rebuild_learner(anatomy, cases, definitions)


def write_model(folder: Path, rebuilt: AnyRebuilt) -> None:
    """Write weights, configuration and text pipeline. Raises FileError or LearnerTruncated."""
    if isinstance(rebuilt, RebuiltUlmfit):
        publish_ulmfit.write_ulmfit(folder, rebuilt)
    else:
        publish.write_model(folder, rebuilt)


def manifest(
    rebuilt: AnyRebuilt,
    graph: Graph,
    *,
    name: str,
    tolerance: float,
    origin: LearnerSpec,
    proven: bool,
) -> Manifest:
    """The manifest of the bundle; ``proven``: the learner's own answers were reproduced."""
    if isinstance(rebuilt, RebuiltUlmfit):
        return publish_ulmfit.ulmfit_manifest(
            rebuilt, graph, name=name, tolerance=tolerance, origin=origin, proven=proven
        )
    return publish.manifest(
        rebuilt, graph, name=name, tolerance=tolerance, origin=origin, proven=proven
    )
