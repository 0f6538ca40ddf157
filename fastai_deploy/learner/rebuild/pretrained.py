"""Rebuild the model of a folder that ``save_pretrained`` wrote.

transformers itself maps the names in the file to those of the model: they differ between its
versions, tied weights are stored once, and experts one by one. Nothing may be missing, left over
or of another shape.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from transformers.utils import logging as library_logging

from fastai_deploy.errors import LearnerError, UnsupportedLearner
from fastai_deploy.learner.examine.anatomy import Anatomy
from fastai_deploy.learner.examine.architecture import Transformer, check_numbers
from fastai_deploy.learner.rebuild.answers import Encoder
from fastai_deploy.learner.rebuild.onnx_export import FAILURES, masks_padding
from fastai_deploy.learner.rebuild.rebuilt import Rebuilt, check_vocabulary, pad_of
from fastai_deploy.learner.rebuild.sketch import check_shared, check_total, sketched
from fastai_deploy.learner.rebuild.transformer import (
    COMPUTED,
    Classifier,
    by,
    is_spare,
    library_class,
    read_finite,
    traceable,
)
from fastai_deploy.learner.text.rules import longest
from fastai_deploy.learner.text.tokenizer import Tokenizer, fast_vocabulary
from fastai_deploy.learner.text.tokenizer_json import Json

SAVE_AGAIN = (
    "load the folder with AutoModelForSequenceClassification.from_pretrained(DIR), correct what it "
    "warns about, and write it again with save_pretrained(DIR)"
)
_BATCH = (2, 3)  # texts, tokens
_ROLES = {"pad": "padding token", "eos": "end token"}
# Settings that would change how a model is called or stored, and that the pipeline ignores.
_NOT_OURS = ("return_dict", "output_attentions", "output_hidden_states", "torchscript", "dtype",
             "torch_dtype")  # fmt: skip


def check_model(anatomy: Anatomy) -> None:
    """Build the model once, so that nothing else is asked about one that does not fit.

    Raises UnsupportedLearner, LearnerTruncated or ExtraMissing.
    """
    if anatomy.transformer is not None:
        _model(anatomy, anatomy.transformer)


def rebuild_pretrained(anatomy: Anatomy) -> Rebuilt:
    """The model on the CPU, in float32, in evaluation mode, with the pipeline's tokenizer.

    Raises UnsupportedLearner, LearnerTruncated or ExtraMissing.
    """
    transformer, tokenizer, text = anatomy.transformer, anatomy.tokenizer, anatomy.text
    if transformer is None or tokenizer is None or text is None:
        raise UnsupportedLearner("the folder has no model with a tokenizer", hint=SAVE_AGAIN)
    model = _model(anatomy, transformer)
    limit = longest(text.max_length, model.config, model)
    serialized = anatomy.tokenizer_json()
    encoder = Encoder(serialized, text.steps, limit)
    check_vocabulary(encoder, model)
    pad = pad_of(tokenizer, serialized, model.config)
    classifier = Classifier(
        model, mask_pad=None, first_position=None, token_types=text.token_types
    ).eval()
    _check_padding(classifier, model, tokenizer, serialized)
    return Rebuilt(
        anatomy=anatomy,
        transformer=transformer,
        text=text,
        serialized=serialized,
        encoder=encoder,
        classifier=classifier,
        max_length=limit,
        pad_token_id=pad,
        masks_padding=masks_padding(classifier, vocabulary=encoder.vocabulary, pad=pad),
        mask_known=True,
    )


def _check_padding(
    classifier: Classifier,
    model: transformers.PreTrainedModel,
    tokenizer: Tokenizer,
    serialized: Json,
) -> None:
    """Raise UnsupportedLearner if a model answers no batch because it does not know its padding.

    GPT-2 and others that read a text's answer at its last token look for that token.
    """
    if getattr(model.config.get_text_config(), "pad_token_id", None) is not None:
        return
    try:
        with torch.no_grad():
            classifier(*classifier.arguments(*(torch.ones(_BATCH, dtype=torch.int64),) * 2))
    except ValueError as error:
        ids, special = fast_vocabulary(serialized), tokenizer.special
        known = [(role, special[role].text) for role in ("pad", "eos") if role in special]
        role, text = next(((role, text) for role, text in known if text in ids), ("", ""))
        example = f"{ids[text]}, the id of the tokenizer's {_ROLES[role]} {text!r}" if role else "N"
        raise UnsupportedLearner(
            f"config.json has no pad_token_id, without which {classifier.name} finds the end of a "
            "text only if it is alone",
            hint=f"set pad_token_id in config.json to the id that padded texts in training: "
            f'"pad_token_id": {example}',
        ) from error
    except FAILURES:  # for another reason, such as the length, which the export judges
        return


def _settled(name: str, anatomy: Anatomy, held: Mapping[str, Any]) -> tuple[Any, Any]:
    """The model's class and configuration, after checking their size against the weights."""
    model_class = library_class(name)
    check_shared(anatomy.weights)
    try:
        config = model_class.config_class.from_dict(
            {key: copy.deepcopy(value) for key, value in held.items() if key not in _NOT_OURS}
        )
        known = set(model_class.config_class().to_dict()) - set(
            transformers.PreTrainedConfig().to_dict()
        )
        shaping = {key: value for key, value in config.to_dict().items() if key in known}
        check_numbers(shaping, anatomy.weights, every=True)
        traceable(model_class, config)
        sketch = sketched(lambda: model_class(copy.deepcopy(config)), shaping, anatomy.weights)
        check_total(sketch, anatomy.weights)
    except LearnerError:
        raise
    except Exception as error:  # any error of a class on a configuration from a file
        raise UnsupportedLearner(
            f"transformers {transformers.__version__} cannot build {name} from config.json: "
            f"{' '.join(str(error).split())[:500]}",
            hint=SAVE_AGAIN,
        ) from error
    return model_class, config


def _model(anatomy: Anatomy, transformer: Transformer) -> transformers.PreTrainedModel:
    name = transformer.cls.name
    model_class, config = _settled(name, anatomy, transformer.config)
    weights = {key: read_finite(key, tensor) for key, tensor in anatomy.weights.items()}
    try:
        with _quiet():
            model, found = model_class.from_pretrained(
                None,
                config=config,
                state_dict=weights,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # to name them; they are refused below
                output_loading_info=True,
            )
    except Exception as error:  # of a converter of names, on weights from a file
        raise UnsupportedLearner(
            f"transformers {transformers.__version__} cannot load the weights into {name}: "
            f"{' '.join(str(error).split())[:500]}",
            hint=SAVE_AGAIN,
        ) from error
    _check_loaded(name, model, found)
    model.requires_grad_(requires_grad=False).train(mode=False)
    loaded: transformers.PreTrainedModel = model
    return loaded


def _check_loaded(name: str, model: transformers.PreTrainedModel, found: dict[str, Any]) -> None:
    """Raise UnsupportedLearner unless every weight has its place, and every place its weight."""
    places = model.state_dict().keys()
    missing = sorted(each for each in found["missing_keys"] if _stored(each))
    unknown = sorted(each for each in found["unexpected_keys"] if not is_spare(each, places))
    for key, theirs, ours in sorted(found["mismatched_keys"]):
        raise UnsupportedLearner(
            f"{key} is {by(tuple(theirs))} in the file, but config.json makes it {by(tuple(ours))}",
            hint=SAVE_AGAIN,
        )
    if missing or unknown or found["error_msgs"]:
        what = f"{missing[0]} is missing" if missing else f"{unknown[0]} is not in the model"
        raise UnsupportedLearner(
            f"the weights do not fit {name}: {what} ({len(missing)} missing, {len(unknown)} "
            "unexpected)",
            hint=SAVE_AGAIN,
        )


def _stored(name: str) -> bool:
    """Whether a weight has to be in a file; some versions compute these."""
    return name.rsplit(".", 1)[-1] not in COMPUTED


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the report and the progress bar of transformers, whose findings are checked."""
    library: Any = library_logging
    before, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(logging.CRITICAL)
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(before)
        if bars:
            library.enable_progress_bar()
