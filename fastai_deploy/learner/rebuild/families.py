"""Rebuild a learner and write its model, depending on its family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastai_deploy.bundle import LearnerSpec, Manifest
from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.definitions import Definitions
from fastai_deploy.learner.examine.anatomy import Anatomy
from fastai_deploy.learner.rebuild import precision, write_bundle
from fastai_deploy.learner.rebuild.precision import Served
from fastai_deploy.learner.rebuild.pretrained import rebuild_pretrained
from fastai_deploy.learner.rebuild.rebuilt import Rebuilt, rebuild_learner
from fastai_deploy.learner.rebuild.ulmfit import RebuiltUlmfit, rebuild_ulmfit
from fastai_deploy.parity.compare import Gate
from fastai_deploy.parity.goldens import Case, Golden
from fastai_deploy.parity.report import Comparison
from fastai_deploy.progress import Reporter
from fastai_deploy.runtime import hardware

AnyRebuilt = Rebuilt | RebuiltUlmfit


def rebuild(anatomy: Anatomy, cases: Sequence[Case], definitions: Definitions | None) -> AnyRebuilt:
    """Rebuild a convertible learner.

    ``cases`` with the learner's own answers decide what the file does not show; ``definitions``
    are the user's classes, if supplied.
    Raises UnsupportedLearner, LearnerTruncated or ExtraMissing.
    """
    if anatomy.pretrained:
        return rebuild_pretrained(anatomy)
    if anatomy.ulmfit is not None:
        return rebuild_ulmfit(anatomy, cases)
    return rebuild_learner(anatomy, cases, definitions)


def choose(
    rebuilt: AnyRebuilt,
    reference: Served,
    goldens: Sequence[Golden],
    *,
    gate: Gate,
    own: int,
    found: Comparison,
    report: Reporter,
) -> Served:
    """The forms to serve; ``own`` is the number of goldens that are the user's own texts.

    Raises ParityError or UnsupportedLearner if a form is demanded and not possible.
    """
    if isinstance(rebuilt, Rebuilt):
        return precision.choose(
            rebuilt,
            reference,
            goldens,
            gate=gate,
            own=own,
            hardware=hardware.detect(),
            found=found,
            report=report,
        )
    if gate.quantize not in ("auto", "none"):
        raise UnsupportedLearner(
            "an AWD-LSTM (ULMFiT) is served in float32 only",
            hint=f'leave out --quantize {gate.quantize}, or set quantize = "auto" in [model]',
        )
    return reference


def write_model(folder: Path, rebuilt: AnyRebuilt) -> None:
    """Write weights, configuration and text pipeline. Raises FileError or LearnerTruncated."""
    if isinstance(rebuilt, RebuiltUlmfit):
        write_bundle.write_ulmfit(folder, rebuilt)
    else:
        write_bundle.write_model(folder, rebuilt)


def manifest(
    rebuilt: AnyRebuilt,
    served: Served,
    *,
    name: str,
    origin: LearnerSpec,
    proven: bool,
) -> Manifest:
    """The bundle's manifest; ``proven``: the learner's own answers were reproduced."""
    if isinstance(rebuilt, RebuiltUlmfit):
        return write_bundle.ulmfit_manifest(
            rebuilt, served, name=name, origin=origin, proven=proven
        )
    return write_bundle.manifest(rebuilt, served, name=name, origin=origin, proven=proven)
