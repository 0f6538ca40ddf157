"""Serve a learner from its original pickle; loading the pickle runs its code."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Iterable, Iterator, List, Mapping, Optional, Sequence, Union

from .bundle import Bundle, ModelError
from .contract import Encoded, Outcome, Prediction, RequestError
from .request_queue import Limits

LEARNER = "learner.pkl"
_KEPT: List[ModuleType] = []  # former __main__ modules; their functions still look up names there
_SUM_SLACK = 1e-3

Ask = Callable[[str], List[float]]


def open_learner(folder: Path, runtime: Mapping[str, Any]) -> Ask:
    """Load the learner in ``folder``; returns a function from a text to its probabilities.

    ``runtime`` is that section of the manifest. Not thread-safe, because fastai's predict is not.
    Raises ModelError. Whatever code the pickle contains is run.
    """
    definitions = _definitions(folder, runtime)
    try:
        with patterns_from_text():
            learner = _load(folder / LEARNER, str(runtime.get("fastai")), definitions)
    except ModelError:
        raise
    except Exception as error:  # a pickle may raise anything
        raise ModelError(f"the learner cannot be loaded: {_told(error)}") from error
    if not callable(getattr(learner, "predict", None)):
        raise ModelError(f"the object in the pickle has no predict(): {type(learner).__name__}")
    activation = runtime.get("activation")

    def ask(text: str) -> List[float]:
        with _without_bar(learner):
            answer = learner.predict(text)
        return _activated([float(each) for each in answer[2]], activation)

    return ask


def check_probabilities(found: List[float], labels: int, *, several: bool) -> None:
    """Raise ModelError unless there is one probability for each label."""
    if len(found) != labels:
        raise ModelError(f"the learner returns {len(found)} numbers, but has {labels} labels")
    if not all(math.isfinite(each) and 0 <= each <= 1 for each in found):
        raise ModelError("the learner returns numbers that are not probabilities")
    if not several and abs(sum(found) - 1) > _SUM_SLACK:
        raise ModelError(f"the learner's probabilities sum to {sum(found):.4g}, not to 1")


@contextmanager
def patterns_from_text() -> Iterator[None]:
    """Recompile patterns of the ``regex`` package while they are unpickled in this context.

    A pickle holds their text and their compiled instructions. Another version of the package
    misreads those instructions, and then splits words elsewhere without an error. The tokenizers of
    GPT-2 and RoBERTa hold such a pattern.
    """
    try:
        regex: Any = importlib.import_module("regex")
        inner: Any = importlib.import_module("regex._regex")
    except ImportError:  # its parts had other names before 2019; no learner needs it
        yield
        return
    compiled = inner.compile

    def anew(pattern: Any, flags: int, *_instructions: Any) -> Any:
        inner.compile = compiled
        try:
            return regex.compile(pattern, flags)
        finally:
            inner.compile = anew

    inner.compile = anew
    try:
        yield
    finally:
        inner.compile = compiled


def _without_bar(learner: Any) -> Any:
    """A context without fastai 2's progress bar; fastai 1 has none in predict."""
    without = getattr(learner, "no_bar", None)
    return without() if callable(without) else nullcontext()


def _definitions(folder: Path, runtime: Mapping[str, Any]) -> Optional[ModuleType]:
    name = runtime.get("definitions")
    if not name:
        return None
    path = folder / str(name)
    module_name = path.stem
    spec = importlib.util.spec_from_file_location(module_name, str(path))
    if spec is None or spec.loader is None:
        raise ModelError(f"{name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        raise ModelError(f"{name} fails on import: {_told(error)}") from error
    missing = [each for each in runtime.get("names", ()) if not hasattr(module, each)]
    if missing:
        raise ModelError(f"{name} does not define {', '.join(missing)}, which the learner needs")
    for alias in ("__main__", "__mp_main__"):
        if alias in sys.modules:
            _KEPT.append(sys.modules[alias])
        sys.modules[alias] = module
    return module


def _load(path: Path, fastai: str, definitions: Optional[ModuleType]) -> Any:
    """Load with the definitions' own ``load_learner(path)``, or else with fastai's."""
    own: Any = getattr(definitions, "load_learner", None)
    if definitions is not None and getattr(own, "__module__", None) == definitions.__name__:
        return own(str(path))
    if fastai == "1":
        basic_train: Any = importlib.import_module("fastai.basic_train")
        importlib.import_module("fastai.text")
        return basic_train.load_learner(path.parent, path.name)
    importlib.import_module("fastai.text.all")
    learner: Any = importlib.import_module("fastai.learner")
    return learner.load_learner(path, cpu=True)


def _activated(scores: List[float], activation: Any) -> List[float]:
    """Probabilities, if the learner returns raw scores because fastai knows no activation."""
    if activation == "softmax":
        largest = max(scores)
        powers = [math.exp(each - largest) for each in scores]
        return [each / sum(powers) for each in powers]
    if activation == "sigmoid":
        return [0.5 * (1.0 + math.tanh(0.5 * each)) for each in scores]
    return scores


def _told(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}".rstrip(": ")


_CHARACTERS_PER_TOKEN = 6


@dataclass(frozen=True)
class Unread(Encoded):
    """A text that the learner itself will tokenize; ``ids`` only has its estimated length."""

    text: str = ""


class LearnerPredictor:
    """A learner that answers texts. Thread-safe: a lock admits one text at a time."""

    def __init__(self, bundle: Bundle, ask: Ask) -> None:
        self.bundle = bundle
        self.limits = Limits(tokens=1)  # the learner takes only one text per run
        self._ask = ask
        self._lock = threading.Lock()

    def encode(self, text: str) -> Union[Encoded, RequestError]:
        """The unchanged text, with an estimate of its length."""
        # The learner does not report that it cuts a text; the manifest's residues say so.
        return Unread(range(2 + len(text) // _CHARACTERS_PER_TOKEN), truncated=False, text=text)

    def run(self, texts: Sequence[Encoded]) -> List[Outcome]:
        """Answer texts one by one."""
        return [self._answer(text) for text in texts]

    def predict(self, texts: Sequence[str]) -> List[Outcome]:
        """Answer texts in order."""
        encoded = (self.encode(text) for text in texts)
        return [each if isinstance(each, RequestError) else self._answer(each) for each in encoded]

    def predict_encoded(
        self, texts: Sequence[Encoded], run_all: Callable[..., Iterable[List[Outcome]]] = map
    ) -> List[Outcome]:
        """Answer encoded texts one by one."""
        del run_all  # a learner answers one text at a time
        return self.run(texts)

    def _answer(self, encoded: Encoded) -> Outcome:
        text = encoded.text if isinstance(encoded, Unread) else ""
        labels = self.bundle.labels
        try:
            with self._lock:
                found = self._ask(text)
            check_probabilities(found, len(labels), several=self.bundle.threshold is not None)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  # anything, including panics in Rust
            failed = RequestError(
                500,
                "model_error",
                "the learner failed on this text",
                "try another text; the server's log says more",
            )
            failed.__cause__ = error
            return failed
        return Prediction(tuple(zip(labels, found)), truncated=False)  # noqa: B905
