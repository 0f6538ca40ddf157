"""Choose the forms in which a model may be served: those that pass the gate, the fastest first.

int8            if it passes, the only one: its integer arithmetic is the same on every processor
int8-weights    in OpenVINO
bf16            in OpenVINO, or in ONNX Runtime on Arm
fp32            always, and the reference

Which of several forms is fastest depends on the processor, so the server chooses among them. The
gate asks each golden alone, and all of them in batches as a busy server would form them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from fastai_deploy.errors import ParityError, UnsupportedLearner
from fastai_deploy.learner.rebuild.answers import (
    Session,
    activated,
    batch_scores,
    probabilities,
    session_scores,
)
from fastai_deploy.learner.rebuild.onnx_export import Graph, open_graph
from fastai_deploy.learner.rebuild.onnx_file import remove_onnx
from fastai_deploy.learner.rebuild.quantize import quantize, quantize_weights
from fastai_deploy.learner.rebuild.rebuilt import Rebuilt
from fastai_deploy.parity.compare import Accuracy, Gate, accuracy_change, labels_of, less_accurate
from fastai_deploy.parity.goldens import Golden, near_ties
from fastai_deploy.parity.report import Comparison, Tried
from fastai_deploy.progress import Reporter, Step, Warned
from fastai_deploy.runtime.backends import can_gain, in_openvino
from fastai_deploy.runtime.bundle import BF16, FP32, INT8, INT8_WEIGHTS, Form
from fastai_deploy.runtime.choice import seconds_per_text
from fastai_deploy.runtime.contract import Encoded
from fastai_deploy.runtime.hardware import Hardware
from fastai_deploy.runtime.parity import REDUCED, ParityReport, Rules, answer, compare
from fastai_deploy.runtime.predictor import feed

WORTHWHILE = 10_000_000
"""Parameters. A smaller model answers a short text in float32 within a few milliseconds, about as
much as the rest of a request takes."""
ENOUGH = 100
"""Texts of the user's own that int8 needs: fewer cannot show what it does to one text in fifty."""
_ALONE = 256  # goldens that are also asked one by one, near ties first
_BUDGET = 0.3  # seconds for measuring a form
_INT8_FORMS = (INT8, INT8_WEIGHTS)


@dataclass(frozen=True)
class Served:
    """The forms that may be served, the fastest first; the last one runs anywhere.

    ``difference`` is the largest |Δprobability| of the first one against the goldens.
    """

    graph: Graph
    forms: tuple[Form, ...]
    tolerance: float
    difference: float
    rules: Rules = REDUCED


@dataclass(frozen=True)
class _Verdict:
    """The gate's answer about a form: ``broken`` are the rules that it breaks.

    ``alone`` and ``together`` compare its answers to single texts and to batches; ``answers`` are
    those in batches. ``speed`` is in texts a second, ``gain`` that of float32's.
    """

    alone: ParityReport
    together: ParityReport
    accuracy: Accuracy
    answers: list[tuple[float, ...]]
    speed: float
    gain: float
    broken: tuple[str, ...]

    @property
    def difference(self) -> float:
        """The largest |Δprobability|."""
        return max(self.alone.max_difference, self.together.max_difference)


def choose(
    rebuilt: Rebuilt,
    reference: Served,
    goldens: Sequence[Golden],
    *,
    gate: Gate,
    own: int,
    hardware: Hardware,
    found: Comparison,
    report: Reporter,
    worthwhile: int = WORTHWHILE,
) -> Served:
    """The forms that pass the gate, with float32 as the last unless int8 passes.

    ``own`` is the number of texts that are the user's own. ``auto`` tries forms with fewer bits
    from ``worthwhile`` parameters. Raises ParityError or UnsupportedLearner if a form is demanded
    and does not pass.
    """
    if gate.quantize == "none":
        # Half precision on a GPU, which no form here stands for, must then be as exact.
        exact = Rules(margin=0.0, mean=reference.tolerance, p99=reference.tolerance)
        return replace(reference, rules=exact)
    reference = replace(reference, rules=gate.rules)
    parameters = sum(each.numel() for each in rebuilt.classifier.parameters())
    if gate.quantize == "auto" and parameters < worthwhile:
        return reference
    trial = _Trial(
        rebuilt, reference, goldens, gate=gate, found=found, report=report, hardware=hardware
    )
    doubt = _doubt(rebuilt, goldens, own) if gate.quantize == "auto" else ""
    wanted = [each for each in (INT8, INT8_WEIGHTS, BF16) if gate.quantize in (each, "auto")]
    allowed: list[Form] = []
    for precision in wanted:
        if doubt and precision in _INT8_FORMS:
            continue
        form = trial.form(precision)
        if form is not None:
            allowed.append(form)
            if precision == INT8:
                break  # as fast as any on every processor, and it needs no other beside it
    else:
        allowed += reference.forms
    if doubt:
        report(
            Warned(
                f"int8 was not tried, because {doubt}",
                "it is up to three times as fast: add --golden texts.txt with at least "
                f"{ENOUGH} texts as your users send them, one on each line; labels are not needed",
            )
        )
    first = allowed[0].difference
    return replace(
        reference,
        forms=tuple(allowed),
        difference=reference.difference if first is None else first,
    )


def _doubt(rebuilt: Rebuilt, goldens: Sequence[Golden], own: int) -> str:
    """Why the goldens cannot show what int8 does to the answers; empty if they can."""
    if own < ENOUGH:
        count = "none" if own == 0 else f"only {own}"
        return f"{count} of the goldens are texts of your own and that takes {ENOUGH}"
    threshold = rebuilt.anatomy.threshold
    found = {answer(each.probabilities, threshold) for each in goldens}
    if len(found) == 1 and len(rebuilt.anatomy.labels.names) > 1:
        return "the learner gives every golden the same label"
    return ""


class _Trial:
    """Makes forms, asks them the goldens, and reports what each gave."""

    def __init__(
        self,
        rebuilt: Rebuilt,
        reference: Served,
        goldens: Sequence[Golden],
        *,
        gate: Gate,
        found: Comparison,
        report: Reporter,
        hardware: Hardware,
    ) -> None:
        self._rebuilt = rebuilt
        self._graph = reference.graph
        self._goldens = goldens
        self._gate = gate
        self._found = found
        self._report = report
        self._hardware = hardware
        self._ids = [rebuilt.encoder(each.text) for each in goldens]
        self._reference: Session = open_graph(reference.graph.path)
        found.tried(Tried(FP32, "passes", gain=1.0))

    def form(self, precision: str) -> Form | None:
        """The form, if it passes or can only be proven elsewhere. Raises if it was demanded."""
        path = self._graph.path
        if precision in _INT8_FORMS:
            path = path.with_name(f"model.{precision}.onnx")
            self._report(Step(f"quantizing to {precision}"))
        try:
            if precision == INT8:
                quantize(self._graph.path, path)
            elif precision == INT8_WEIGHTS:
                quantize_weights(self._graph.path, path)
            if not self._computable(precision):
                return self._unproven(precision, path)
            difference = self._check(precision, path)
        except (ParityError, UnsupportedLearner) as error:
            if path != self._graph.path:
                remove_onnx(path)
            if self._gate.quantize == precision:
                raise
            self._report(Step(f"{precision} is not served: {error.message}"))
            return None
        return Form(precision, path.name, difference=difference)

    def _computable(self, precision: str) -> bool:
        """Whether this machine computes the form in the way in which one that gains by it does."""
        return precision == INT8 or can_gain(precision, self._hardware)

    def _unproven(self, precision: str, path: Path) -> Form:
        self._found.tried(Tried(precision, "to be proven"))
        self._report(
            Step(f"{precision} is to be proven where it is served: this processor lacks it")
        )
        return Form(precision, path.name, proven=False)

    def _check(self, precision: str, path: Path) -> float:
        """The form's largest |Δprobability|. Raises ParityError if it breaks a rule."""
        verdict = self._judged(self._opened(precision, path))
        report = verdict.together
        self._found.add(precision, verdict.answers)
        self._found.tried(
            Tried(
                precision,
                "fails" if verdict.broken else "passes",
                verdict.speed,
                verdict.gain,
                changed=report.changed,
                widest=report.widest,
                mean=report.mean,
                p99=report.p99,
                most=verdict.difference,
                interval=verdict.accuracy.interval if verdict.accuracy.texts else None,
                broken=verdict.broken,
            )
        )
        if verdict.broken:
            raise ParityError(
                f"the {precision} model does not pass the gate: {'; '.join(verdict.broken)}",
                hint='quantize = "none" in [model] skips the attempt; [model.gate] sets the limits',
            )
        changed = f"{report.changed} label{'' if report.changed == 1 else 's'} changed"
        ties = f" (margin at most {report.widest:.3f})" if report.changed else ""
        self._report(
            Step(
                f"{len(self._goldens)} goldens reproduced in {precision}: |Δprobability| "
                f"{report.mean:.1e} on average, {verdict.difference:.1e} at most, {changed}{ties}; "
                f"{verdict.gain:.1f} times as fast as float32 here"
            )
        )
        return verdict.difference

    def _opened(self, precision: str, path: Path) -> Session:
        if not in_openvino(precision, self._hardware.machine):
            session: Session = open_graph(path, bf16=precision == BF16)
            return session
        try:
            from fastai_deploy.runtime.openvino_session import (  # noqa: PLC0415
                compile_graph,
                reason,
            )
        except ImportError:
            raise UnsupportedLearner(
                f"{precision} needs OpenVINO, which is not installed",
                hint="run pip install 'fastai-deploy[convert]'",
            ) from None
        try:
            session = compile_graph(path, precision, self._hardware.cores, runs=1)
        except RuntimeError as error:
            raise UnsupportedLearner(
                f"OpenVINO cannot compile the graph: {reason(error)}",
                hint='set quantize to "none" in [model]',
            ) from None
        return session

    def _judged(self, session: Session) -> _Verdict:
        activation = self._rebuilt.anatomy.loss.activation
        threshold = self._rebuilt.anatomy.threshold
        places = near_ties(self._goldens, threshold)[:_ALONE]
        singly = probabilities(
            [self._ids[place] for place in places],
            session_scores(session, self._graph.inputs),
            activation,
        )
        batched = activated(
            batch_scores(
                session,
                self._graph.inputs,
                self._rebuilt.pad_token_id,
                self._ids,
                equal_length=not self._rebuilt.masks_padding,
            ),
            activation,
        )
        texts = [each.text for each in self._goldens]
        reference = [each.probabilities for each in self._goldens]
        alone = compare(
            [texts[place] for place in places],
            [reference[place] for place in places],
            singly,
            threshold=threshold,
        )
        together = compare(texts, reference, batched, threshold=threshold)
        names = self._rebuilt.anatomy.labels.names
        truths = [labels_of(each.expected, names) for each in self._goldens]
        accuracy = accuracy_change(truths, reference, batched, threshold)
        alone_broken = (f"one by one, {each}" for each in alone.broken(self._gate.rules))
        broken = (
            *(tuple(together.broken(self._gate.rules)) or alone_broken),
            *less_accurate(accuracy, self._gate.max_accuracy_drop),
        )
        reference_speed, speed = self._speeds(session)
        gain = speed / reference_speed
        return _Verdict(alone, together, accuracy, batched, speed, gain, broken)

    def _speeds(self, session: Session) -> tuple[float, float]:
        """Texts a second of float32 and of a form, measured in turns as the server does."""
        inputs, pad = self._graph.inputs, self._rebuilt.pad_token_id

        def running(session: Session) -> Callable[[Sequence[Encoded]], object]:
            return lambda texts: session.run(None, feed(inputs, [each.ids for each in texts], pad))

        seconds = seconds_per_text(
            {FP32: running(self._reference), "form": running(session)},
            Encoded(self._ids[0], truncated=False),
            self._rebuilt.max_length,
            perf_counter,
            budget=_BUDGET,
        )
        return 1 / seconds[FP32], 1 / seconds["form"]
