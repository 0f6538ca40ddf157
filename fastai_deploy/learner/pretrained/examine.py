"""The anatomy of a folder that ``save_pretrained`` wrote, found without running anything in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastai_deploy.errors import (
    FileError,
    LearnerError,
    LearnerTooComplex,
    LearnerTruncated,
    UnsupportedLearner,
)
from fastai_deploy.json_reader import BadJson, Reader, parse
from fastai_deploy.learner.examine.anatomy import Anatomy, ModuleSize, summary
from fastai_deploy.learner.examine.architecture import HEAD, Transformer
from fastai_deploy.learner.examine.labels import (
    MOST_LABELS,
    Labels,
    Loss,
    Targets,
    checked_labels,
)
from fastai_deploy.learner.examine.load_safety import LoadEffects, load_effects
from fastai_deploy.learner.examine.unproven import OTHER_ARCHITECTURE, RUNTIME, Forward
from fastai_deploy.learner.examine.verdict import Verdict
from fastai_deploy.learner.pretrained.folder import (
    CONFIG,
    TOKENIZER_CONFIG,
    VOCABULARIES,
    WRITE_AGAIN,
    Opened,
    opened_folder,
    weight_map,
)
from fastai_deploy.learner.reading.formats import read_archive
from fastai_deploy.learner.reading.graph import Call, Global, named_entries
from fastai_deploy.learner.reading.safetensors_file import SUFFIX, check_index, read_safetensors
from fastai_deploy.learner.reading.sources import DOWNLOAD_AGAIN
from fastai_deploy.learner.reading.tensors import Tensor, tensor
from fastai_deploy.learner.text.rules import USUAL_LENGTH
from fastai_deploy.learner.text.tokenizer import (
    MOST_VALUES,
    NO_LIMIT,
    ROLES,
    Kind,
    SpecialToken,
    Tokenizer,
    fast_vocabulary,
)
from fastai_deploy.learner.text.tokenizer_json import HAND_IN, OWN_TOKENIZER
from fastai_deploy.learner.text.user_tokenizer import MODELS, SERIALIZED

THRESHOLD = 0.5  # of a label; the pipeline of transformers gives probabilities only
_NO_EFFECTS = LoadEffects((), (), (), "", ())
# Settings that make transformers import code from the folder, or from another repository.
_CODE = ("auto_map", "trust_remote_code", "custom_pipelines", "custom_generate")
_QUANTIZED = "quantization_config"
_WEIGHTS_ELSEWHERE = ("transformers_weights", "base_model_name_or_path")
_IDENTIFIER = re.compile(r"[A-Za-z]\w*")
_DEFAULT_LABELS = 2  # of a configuration that names none, as in transformers
_KINDS: tuple[tuple[str, Kind], ...] = (
    (SERIALIZED, "fast"),
    ("vocab.txt", "WordPiece"),
    ("merges.txt", "byte-level BPE"),
    *((name, "SentencePiece") for name in MODELS),
    *((name, "unknown") for name in VOCABULARIES),
)
_MULTI_LABEL = '"problem_type": "multi_label_classification"'
_SAVE_TOKENIZER = "tokenizer.save_pretrained(DIR), in the folder of the model"
_NO_OTHER_WAY = (
    "docs/learners.md lists the architectures that convert; if the folder was edited or copied, "
    "write it again with save_pretrained()"
)
# What to do with a folder, by the hint for a learner.
_INSTEAD = {
    **dict.fromkeys((RUNTIME, OWN_TOKENIZER, HAND_IN, DOWNLOAD_AGAIN), _NO_OTHER_WAY),
    OTHER_ARCHITECTURE: "if docs/huggingface.md lists the architecture as proven, update torch and "
    "transformers; otherwise fine-tune one that it lists: fdeploy has no other way to serve a "
    "folder",
}
_NAME_CLASS = (
    "if it is one, have transformers name its class there: "
    "AutoModelForSequenceClassification.from_pretrained(DIR).save_pretrained(DIR)"
)
_USE_CLASSIFIER = (
    "use a model for text classification (AutoModelForSequenceClassification), trained on labels"
)


@contextmanager
def folder_hints() -> Iterator[None]:
    """Replace hints that are about learners, which code that serves both gives."""
    try:
        yield
    except LearnerError as error:
        if error.hint not in _INSTEAD:
            raise
        raise type(error)(error.message, hint=_INSTEAD[error.hint]) from error


def inspect_folder(folder: Path) -> dict[str, Any]:
    """Describe a folder, as ``inspect`` describes a learner. Raises LearnerError or FileError."""
    with folder_hints(), opened_folder(folder) as opened:
        return summary(folder.resolve().name, examine_folder(opened))


def examine_folder(opened: Opened) -> Anatomy:
    """Take a folder apart. What makes it unusable as a model is in ``verdict``.

    Raises LearnerTruncated, LearnerTooComplex, DangerousLearner or UnsupportedLearner for files
    that cannot be read, and FileError for JSON of the wrong form.
    """
    config = _object(opened, CONFIG)
    tokens = _object(opened, TOKENIZER_CONFIG) if TOKENIZER_CONFIG in opened.sources else None
    code = tuple(_code(config, tokens))
    weights, effects = _weights(opened)
    architecture = _architecture(config)
    labels, loss = _labels(config), _loss(config)
    parameters = sum(each.count for each in weights.values())
    size = sum(each.size for each in weights.values())
    version = config.value.get("transformers_version")
    return Anatomy(
        format="folder",
        size=opened.size,
        fastai=None,
        libraries={"transformers": version} if isinstance(version, str) else {},
        python=None,
        learner_class="",
        family="transformers",
        modules=(ModuleSize("", architecture or "?", parameters, size),),
        parameters=parameters,
        weights_size=size,
        weights=weights,
        tree=(),
        transformer=Transformer(
            path="",
            cls=Global("transformers", architecture),
            model_type=str(config.value.get("model_type") or ""),
            config=dict(config.value),
            outputs=len(labels.names) or None,
            head=(),
            forward=Forward("none"),  # the tokenizer's own mask, as in the pipeline
            problem="",
        ),
        ulmfit=None,
        tokenizer=_tokenizer(opened, tokens),
        text=None,  # until transformers' own pipeline was asked
        labels=labels,
        loss=loss,
        task="multi-label" if labels.targets == "several" else "single-label",
        threshold=THRESHOLD if labels.targets == "several" else None,
        callbacks=(),
        imports=effects.imports,
        calls=effects.calls,
        dangers=(*code, *effects.dangers),
        unknown=effects.unknown,
        sources=(),
        handed=None,
        verdict=_verdict(
            opened, config, tokens, labels, architecture, dangers=(*code, *effects.dangers)
        ),
    )


def _object(opened: Opened, name: str) -> Reader:
    where = str(opened.path / name)
    try:
        return Reader(parse(opened.read(name)), where, WRITE_AGAIN)
    except BadJson as error:
        raise FileError(f"{where} is damaged: {error}", hint=WRITE_AGAIN) from None


def _code(config: Reader, tokenizer: Reader | None) -> Iterator[str]:
    """What loading would run, in words that follow "would"."""
    for found in (config, tokenizer):
        for name in _CODE if found is not None else ():
            if found is not None and found.value.get(name):
                file = Path(found.where).name
                yield f"import code that {file} names in {name}: {str(found.value[name])[:200]}"


def _weights(opened: Opened) -> tuple[dict[str, Tensor], LoadEffects]:
    """The weights by name, and what loading their files would do besides."""
    found: dict[str, Tensor] = {}
    places: dict[str, str] = {}
    effects = _NO_EFFECTS
    for file in opened.listing.weights:
        if file.endswith(SUFFIX):
            held = read_safetensors(opened.sources[file], str(opened.path / file))
        else:
            held, effects = _pickled(opened, file, effects)
        twice = sorted(held.keys() & found.keys())
        if twice:
            raise LearnerTruncated(
                f"{twice[0][:80]} is in {places[twice[0]]} and in {file}", hint=WRITE_AGAIN
            )
        found.update(held)
        places.update(dict.fromkeys(held, file))
    if opened.listing.index:
        check_index(weight_map(opened.path, opened.listing.index), places)
    return found, effects


def _pickled(
    opened: Opened, file: str, before: LoadEffects
) -> tuple[dict[str, Tensor], LoadEffects]:
    """The tensors of a pickled state_dict, which is only read."""
    archive = read_archive(opened.sources[file])
    effects = load_effects(archive.pickled)
    found: dict[str, Tensor] = {}
    for name, value in named_entries(archive.pickled.root).items():
        made = tensor(value, archive.nested)
        if made is not None:
            found[name] = made
        elif not effects.dangers and name != "_metadata":
            raise UnsupportedLearner(
                f"{opened.path / file}: {name[:80]!a} is not a tensor, so this is no state_dict",
                hint=WRITE_AGAIN,
            )
    if not found and not effects.dangers:
        raise UnsupportedLearner(
            f"{opened.path / file} holds no weights by name (a state_dict)", hint=WRITE_AGAIN
        )
    return found, LoadEffects(
        (*before.imports, *effects.imports),
        (*before.calls, *effects.calls),
        (*before.dangers, *effects.dangers),
        "",
        (*before.unknown, *effects.unknown),
    )


def _architecture(config: Reader) -> str:
    """The name of the model's class; empty if there is none, or more than one."""
    names = config.texts("architectures") if config.has("architectures") else ()
    return names[0] if len(names) == 1 and _IDENTIFIER.fullmatch(names[0]) else ""


def _tokenizer(opened: Opened, tokens: Reader | None) -> Tokenizer | None:
    """What the files say about the tokenizer, before transformers itself has built it."""
    present = opened.listing.tokenizer
    kind = next((kind for name, kind in _KINDS if name in present), None)
    if kind is None:
        return None
    stated: Mapping[str, Any] = tokens.value if tokens is not None else {}
    named, limit = stated.get("tokenizer_class"), stated.get("model_max_length")
    return Tokenizer(
        cls=Global("transformers", named if isinstance(named, str) else "unknown"),
        kind=kind,
        era="fast" if kind == "fast" else "4",
        node=Call(None, ()),
        attributes={},
        special=_special(stated),
        additional=(),
        vocabulary_size=_vocabulary_size(opened) if kind == "fast" else 0,
        max_length=limit if type(limit) is int and 0 < limit < NO_LIMIT else None,
        splitting=None,
    )


def _special(stated: Mapping[str, Any]) -> dict[str, SpecialToken]:
    found: dict[str, SpecialToken] = {}
    for role in ROLES:
        value = stated.get(f"{role}_token")
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str) and text:
            found[role] = SpecialToken(text)
    return found


def _vocabulary_size(opened: Opened) -> int:
    """The number of tokens in tokenizer.json. Raises LearnerTooComplex or FileError."""
    held = opened.read(SERIALIZED)
    where = str(opened.path / SERIALIZED)
    if sum(map(held.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise LearnerTooComplex(
            f"{where} has more values than any tokenizer",
            hint="the file is damaged or malicious; download the folder again",
        )
    try:
        made = parse(held, halves=True)
    except BadJson as error:
        raise FileError(f"{where} is damaged: {error}", hint=WRITE_AGAIN) from None
    if not isinstance(made, dict) or not isinstance(made.get("model"), dict):
        raise FileError(f"{where}: model: expected an object", hint=WRITE_AGAIN)
    return len(fast_vocabulary(made))


def _labels(config: Reader) -> Labels:
    """The labels of ``id2label``, which transformers fills with LABEL_0, LABEL_1, ..."""
    targets: Targets = "one"
    kind = config.text("problem_type") if config.has("problem_type") else ""
    if kind == "multi_label_classification":
        targets = "several"
    elif kind == "regression":
        return Labels("number", ())
    if not config.has("id2label"):
        count = config.whole("num_labels") if config.has("num_labels") else _DEFAULT_LABELS
        return checked_labels(targets, default_names(count))
    names = config.section("id2label").value
    numbers = {_number(key): value for key, value in names.items()}
    expected = range(len(names))
    if len(numbers) != len(names) or any(number not in numbers for number in expected):
        shown = ", ".join(str(key)[:20] for key in list(names)[:10])
        return Labels(
            targets,
            (),
            f"the numbers in id2label must be 0 to {len(names) - 1}, without gaps and duplicates, "
            f"but they are {shown}",
        )
    if config.has("num_labels") and config.whole("num_labels") != len(names):
        return Labels(
            targets,
            (),
            f"num_labels is {config.whole('num_labels')}, but id2label has {len(names)} labels",
        )
    return checked_labels(targets, [numbers[number] for number in expected])


def default_names(count: int) -> tuple[str, ...]:
    """The names that transformers gives to labels without any."""
    return tuple(f"LABEL_{number}" for number in range(min(count, MOST_LABELS + 1)))


def _number(key: str) -> int | None:
    return int(key) if key.isascii() and key.isdigit() and len(key) < 10 else None  # noqa: PLR2004


def _loss(config: Reader) -> Loss:
    """What the pipeline turns scores into probabilities with."""
    if config.value.get("problem_type") == "multi_label_classification":
        return Loss("BCEWithLogitsLoss", "sigmoid")
    return Loss("CrossEntropyLoss", "softmax")


def _verdict(
    opened: Opened,
    config: Reader,
    tokens: Reader | None,
    labels: Labels,
    architecture: str,
    *,
    dangers: tuple[str, ...],
) -> Verdict:
    """Whether the folder's model can be converted, by the first reason that applies."""
    if dangers:
        return Verdict(
            "refused",
            f"loading this folder would {dangers[0]}",
            "use a model whose architecture is part of transformers itself, or save this one as "
            "such",
        )
    found = next(_problems(opened, config, tokens, labels, architecture), None)
    return found or Verdict("convertible")


def _problems(
    opened: Opened, config: Reader, tokens: Reader | None, labels: Labels, architecture: str
) -> Iterator[Verdict]:
    """Why the folder's model cannot be converted, the most serious reason first."""
    held: Mapping[str, Any] = config.value
    where = opened.path / CONFIG
    if not architecture.endswith(HEAD):
        named = held.get("architectures")
        shown = ", ".join(map(str, named))[:200] if isinstance(named, list) and named else "none"
        yield Verdict(
            "refused",
            f"it is not a text classifier: {CONFIG} says architectures {shown}, not a ...{HEAD}",
            _USE_CLASSIFIER if named else _NAME_CLASS,
        )
    if held.get(_QUANTIZED):
        yield Verdict(
            "refused",
            "its weights are quantized, so the answers of the original model are not known",
            "use the model before it was quantized: fdeploy finds the forms with fewer bits itself",
        )
    for name in _WEIGHTS_ELSEWHERE:
        if held.get(name):
            reason = f"{CONFIG} says that its weights are elsewhere ({name})"
            yield Verdict("refused", reason, WRITE_AGAIN)
    if labels.targets == "number":
        yield Verdict("refused", "it predicts numbers (regression), not labels", _USE_CLASSIFIER)
    if labels.problem:
        yield Verdict("refused", labels.problem, f"correct {where}")
    if len(labels.names) == 1 and labels.targets != "several":
        yield Verdict(
            "refused",
            "it has one output, which transformers trains as regression: a number, not a label",
            f"if that number means yes or no, add {_MULTI_LABEL} to {where}: the label then "
            f"applies from {THRESHOLD:g}",
        )
    limit = tokens.value.get("model_max_length") if tokens is not None else None
    if not (limit is None or type(limit) is int or (type(limit) is float and limit >= NO_LIMIT)):
        yield Verdict(
            "refused",
            f"{TOKENIZER_CONFIG} says model_max_length {ascii(limit)[:80]}, not a whole number",
            f'write the number of tokens in {opened.path / TOKENIZER_CONFIG}: "model_max_length": '
            f"{USUAL_LENGTH}",
        )
    if not any(name in opened.listing.tokenizer for name in VOCABULARIES):
        yield Verdict(
            "refused",
            "the folder has no tokenizer",
            f"save the one that the model was trained with: {_SAVE_TOKENIZER}",
        )
