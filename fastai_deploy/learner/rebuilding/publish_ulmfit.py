"""Writing a rebuilt ULMFiT learner into the folder of a bundle."""

from __future__ import annotations

from pathlib import Path

from fastai_deploy.bundle import LearnerSpec, Manifest, Provenance, TextSpec
from fastai_deploy.files import write
from fastai_deploy.learner.awd_lstm import weights_of
from fastai_deploy.learner.rebuilding.precision import Served
from fastai_deploy.learner.rebuilding.publish import (
    assemble,
    converter,
    general_residues,
    model_spec,
    render_json,
)
from fastai_deploy.learner.rebuilding.safetensors_file import write_safetensors
from fastai_deploy.learner.rebuilding.ulmfit import RebuiltUlmfit
from fastai_deploy.learner.ulmfit import facts
from fastai_deploy.runtime.bundle import KIND_WORDS, WORDS
from fastai_deploy.runtime.splitting import LONGEST_WORD

_ARCHITECTURE = "AWD_LSTM"


def write_ulmfit(folder: Path, rebuilt: RebuiltUlmfit) -> None:
    """Write weights, configuration and words. Raises FileError or LearnerTruncated."""
    configuration = {"architectures": [_ARCHITECTURE], **facts(rebuilt.ulmfit)}
    write(folder / "config.json", render_json(configuration))
    write(folder / WORDS, render_json(dict(rebuilt.document)))
    weights = weights_of(rebuilt.anatomy.weights)
    write_safetensors(folder / "model.safetensors", weights)


def ulmfit_manifest(
    rebuilt: RebuiltUlmfit,
    served: Served,
    *,
    name: str,
    origin: LearnerSpec,
    proven: bool,
) -> Manifest:
    """The manifest of the bundle; ``proven``: the learner's own answers were reproduced."""
    spacy = {"spacy": rebuilt.spacy} if rebuilt.spacy else {}
    text = TextSpec(
        kind=KIND_WORDS,
        steps=(),
        max_length=rebuilt.max_length,
        padding="mask",
        pad_token_id=rebuilt.ulmfit.model.pad_id or 0,
    )
    return assemble(
        rebuilt.anatomy,
        served,
        name=name,
        text=text,
        model=model_spec(served, _ARCHITECTURE, rebuilt.classifier),
        residues=_residues(rebuilt, proven=proven),
        provenance=Provenance(origin, {**converter(), **spacy}),
    )


def _residues(rebuilt: RebuiltUlmfit, *, proven: bool) -> tuple[str, ...]:
    """Where the answers may differ from the learner's own."""
    model, words = rebuilt.ulmfit.model, rebuilt.text
    found = general_residues(rebuilt.anatomy)
    if rebuilt.spacy:
        found.append(
            f"words with signs in them: the learner asks the spaCy beside it, whose version is not "
            f"in the file; here they are split as spaCy {rebuilt.spacy} does, and versions differ "
            "on a few texts in a thousand"
        )
    pooled = f", and the last {model.max_len:,} of them weigh most" if model.max_len else ""
    found.append(
        f"a text of more than {rebuilt.max_length:,} tokens: the learner reads all of it{pooled}; "
        f"here the last {rebuilt.max_length:,} are read, and the answer says that it was truncated"
    )
    if words.splitter == "spaCy":
        found.append(f"a word of more than {LONGEST_WORD:,} characters is not split")
    if model.pad_id is not None:
        found.append(
            "a text that spells out xxpad: fastai fails on some such texts; here they are answered"
        )
    if not proven:
        found.extend(words.assumptions)
    return tuple(found)
