"""Folders that are damaged, hostile or something else, through the real command."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastai_deploy.learner.pretrained.folder import MOST_JSON
from tests.conftest import Fdeploy
from tests.learner.made import MADE
from tests.pretrained.folders import save

WEIGHTS = "model.safetensors"


def change(folder: Path, name: str = "config.json", **values: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    path = folder / name
    held = json.loads(path.read_bytes()) | values
    kept = {key: value for key, value in held.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


# Ways out that only learners have.
FOR_LEARNERS = ("--runtime learner", "--trust-pickle", "--tokenizer", "learn.export", "the learner")


def refused(fdeploy: Fdeploy, code: str, message: str) -> dict[str, Any]:
    """The error of an export, which leaves nothing behind."""
    error = fdeploy("export", "my-model", "--json").error
    assert (error["code"], message in error["message"]) == (code, True), error
    assert error["hint"]
    assert not [each for each in FOR_LEARNERS if each in error["hint"] + error["message"]], error
    assert not list(fdeploy.folder.glob(".fdeploy/*/bundle/*"))
    return error


def with_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the header of a safetensors file."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    change(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[8 + size :])


# The weights.


@pytest.mark.parametrize("part", [0, 4, 100, -1])
def test_truncated_weights(fdeploy: Fdeploy, model: Path, part: int) -> None:
    data = (model / WEIGHTS).read_bytes()
    (model / WEIGHTS).write_bytes(data[:part])
    refused(fdeploy, "learner-truncated", "model.safetensors is damaged or incomplete")


def test_too_many_bytes(fdeploy: Fdeploy, model: Path) -> None:
    with (model / WEIGHTS).open("ab") as file:
        file.write(b"more")
    refused(fdeploy, "learner-truncated", "but the file holds")


def test_a_header_bomb(fdeploy: Fdeploy, model: Path) -> None:
    size = 17 << 20
    with (model / WEIGHTS).open("wb") as file:
        file.write(struct.pack("<Q", size))
        file.truncate(8 + size)
    refused(fdeploy, "learner-too-complex", "its header has 17,825,792 bytes")
    (model / WEIGHTS).write_bytes(struct.pack("<Q", 2**63))
    refused(fdeploy, "learner-truncated", "the file ends before")
    header = b'{"a":' + b"{" * 70_000
    (model / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header)
    refused(fdeploy, "learner-too-complex", "more than 65,536 tensors")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"shape": [-1]}, "the shape of"),
        ({"shape": [1 << 60, 1 << 60]}, "the shape of"),
        ({"shape": ["3"]}, "the shape of"),
        ({"shape": 3}, "has the wrong form"),
        ({"data_offsets": [0, 1 << 50]}, "bytes, which are not there"),
        ({"data_offsets": [8, 4]}, "bytes, which are not there"),
        ({"dtype": 7}, "has the wrong form"),
    ],
)
def test_a_wrong_header(fdeploy: Fdeploy, model: Path, entry: dict[str, Any], message: str) -> None:
    with_header(model / WEIGHTS, lambda header: header["classifier.bias"].update(entry))
    refused(fdeploy, "learner-truncated", message)


def test_overlapping_weights(fdeploy: Fdeploy, model: Path) -> None:
    def overlap(header: dict[str, Any]) -> None:
        begin = header["classifier.bias"]["data_offsets"][0]
        size = 4 * header["pre_classifier.bias"]["shape"][0]
        header["pre_classifier.bias"]["data_offsets"] = [begin, begin + size]

    with_header(model / WEIGHTS, overlap)
    refused(fdeploy, "learner-truncated", "overlap or leave a gap")


def test_numbers_of_another_type(fdeploy: Fdeploy, model: Path) -> None:
    with_header(model / WEIGHTS, lambda header: header["classifier.bias"].update(dtype="F8_E4M3"))
    refused(fdeploy, "unsupported-learner", "'F8_E4M3'")


def test_missing_and_unexpected_weights(fdeploy: Fdeploy, model: Path) -> None:
    weights = load_file(model / WEIGHTS)
    save_file({**weights, "more.weight": torch.zeros(2)}, model / WEIGHTS, {"format": "pt"})
    refused(fdeploy, "unsupported-learner", "more.weight is not in the model")
    del weights["classifier.weight"]
    save_file(weights, model / WEIGHTS, {"format": "pt"})
    refused(fdeploy, "unsupported-learner", "classifier.weight is missing")


def test_weights_of_another_size(fdeploy: Fdeploy, model: Path) -> None:
    change(model, id2label={"0": "a", "1": "b"})
    error = refused(fdeploy, "unsupported-learner", "classifier.bias is 3 in the file, but")
    assert "save_pretrained" in error["hint"]


def test_a_weight_that_is_no_number(fdeploy: Fdeploy, model: Path) -> None:
    weights = load_file(model / WEIGHTS)
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, model / WEIGHTS, {"format": "pt"})
    refused(fdeploy, "unsupported-learner", "contains NaN or infinite numbers")


def test_an_index_that_leads_elsewhere(fdeploy: Fdeploy, model: Path) -> None:
    (model / WEIGHTS).rename(model / "shard-1.safetensors")
    names = load_file(model / "shard-1.safetensors").keys()

    def index(**more: Any) -> None:
        held = {"weight_map": dict.fromkeys(names, "shard-1.safetensors") | more}
        (model / f"{WEIGHTS}.index.json").write_text(json.dumps(held), encoding="utf-8")

    for place in ("../secret.safetensors", "/etc/secret.safetensors", "..\\x.safetensors"):
        index(**{"classifier.bias": place})
        refused(fdeploy, "dangerous-learner", "names a file outside the folder")
    index(**{"classifier.bias": "shard-2.safetensors"})
    refused(fdeploy, "file-missing", "shard-2.safetensors")
    index(**{"classifier.bias": 7})
    refused(fdeploy, "learner-truncated", "names no .safetensors file")
    index(**{"more.bias": "shard-1.safetensors"})
    refused(fdeploy, "learner-truncated", "more.bias is in shard-1.safetensors, but it is in no")
    (model / f"{WEIGHTS}.index.json").write_text('{"weight_map": {}}', encoding="utf-8")
    refused(fdeploy, "learner-truncated", "lists 0 files")


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "tokenizer.json"])
def test_a_link_out_of_the_folder(fdeploy: Fdeploy, model: Path, name: str, tmp_path: Path) -> None:
    (model / name).rename(tmp_path / "elsewhere")
    (model / name).symlink_to(tmp_path / "elsewhere")
    refused(fdeploy, "dangerous-learner", f"{name} is a link to {tmp_path / 'elsewhere'}")


def test_a_git_lfs_pointer(fdeploy: Fdeploy, model: Path) -> None:
    (model / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    error = refused(fdeploy, "learner-truncated", "is a Git LFS pointer")
    assert "lfs pull" in error["hint"]


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import pathlib; pathlib.Path('pwned').touch()",)


def pickled(model: Path, value: object) -> None:
    (model / WEIGHTS).unlink()
    torch.save(value, model / "pytorch_model.bin")


def test_a_pickle_that_would_run_code(fdeploy: Fdeploy, model: Path) -> None:
    pickled(model, OrderedDict({"classifier.weight": torch.zeros(3, 3), "x": Hostile()}))
    error = refused(fdeploy, "dangerous-learner", "would")
    assert "ran nothing" in error["message"]
    assert not list(fdeploy.folder.rglob("pwned"))


def test_a_pickle_without_weights(fdeploy: Fdeploy, model: Path) -> None:
    pickled(model, {"epoch": 3})
    refused(fdeploy, "unsupported-learner", "is not a tensor, so this is no state_dict")
    (model / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    refused(fdeploy, "unsupported-learner", "holds no weights by name")
    (model / "pytorch_model.bin").write_bytes(b"no pickle")
    assert fdeploy("export", "my-model", "--json").error["exit_code"] == 5


# The configuration.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "config.json is damaged: not JSON"),
        ("{", "config.json is damaged: not JSON"),
        ("[]", "expected an object"),
        ('{"architectures": "Bert"}', "architectures: expected a list of strings"),
        ('{"architectures": [3]}', "architectures: expected a list of strings"),
        ('{"model_type": "bert", "model_type": "x"}', "duplicate key"),
        ("[" * 100_000, "nested too deeply"),
        ('{"id2label": [], "model_type": "bert"}', "id2label: expected an object"),
        ('{"num_labels": "3", "model_type": "bert"}', "num_labels: expected a non-negative"),
        ('{"problem_type": 3, "model_type": "bert"}', "problem_type: expected a string"),
    ],
)
def test_a_damaged_configuration(fdeploy: Fdeploy, model: Path, text: str, message: str) -> None:
    (model / "config.json").write_text(text, encoding="utf-8")
    refused(fdeploy, "file", message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architectures": ["DistilBertForMaskedLM"]}, "architectures DistilBertForMaskedLM, not"),
        ({"architectures": []}, "architectures none"),
        ({"architectures": ["A", "B"]}, "architectures A, B"),
        ({"architectures": ["os; rm -rfForSequenceClassification"]}, "not a text classifier"),
        ({"architectures": ["NoneForSequenceClassification"]}, "has no class"),
        ({"id2label": {"0": "a", "2": "b", "3": "c"}}, "0 to 2, without gaps"),
        ({"id2label": {"0": "a", "00": "b", "1": "c"}}, "without gaps and duplicates"),
        ({"id2label": {"0": "a", "x": "b", "1": "c"}}, "without gaps and duplicates"),
        ({"id2label": {"0": "a", "1": "a", "2": "c"}}, "two labels are both called 'a'"),
        ({"id2label": {"0": ["a"], "1": "b", "2": "c"}}, "a label is neither text nor a number"),
        ({"id2label": {}}, "the list of labels is empty"),
        ({"num_labels": 5}, "num_labels is 5, but id2label has 3 labels"),
        ({"num_labels": 10**9, "id2label": None}, "more than 100,000"),
        ({"num_labels": 1, "id2label": None}, "it has one output, which transformers trains as"),
        ({"problem_type": "regression"}, "it predicts numbers (regression)"),
        ({"quantization_config": {"quant_method": "gptq"}}, "its weights are quantized"),
        ({"transformers_weights": "/etc/passwd"}, "its weights are elsewhere"),
        ({"dim": 10**9}, "config"),
        ({"n_layers": 10**9}, "n_layers = 1,000,000,000"),
        ({"dim": "wide"}, "config"),
        ({"activation": "os.system"}, "cannot build DistilBertForSequenceClassification"),
    ],
)
def test_an_unusable_configuration(
    fdeploy: Fdeploy, model: Path, values: dict[str, Any], message: str
) -> None:
    change(model, **values)
    refused(fdeploy, "unsupported-learner", message)


@pytest.mark.parametrize(
    ("missing", "advice"),
    [
        ((), """"pad_token_id": 1, the id of the tokenizer's padding token '<pad>'"""),
        (("pad",), """"pad_token_id": 2, the id of the tokenizer's end token '</s>'"""),
        (("pad", "eos"), '"pad_token_id": N'),
    ],
)
def test_a_model_that_reads_the_last_token_and_knows_no_padding(
    fdeploy: Fdeploy, missing: tuple[str, ...], advice: str
) -> None:
    model = save("gpt2", fdeploy.folder / "my-model", pad_token_id=None)
    gone = {f"{role}_token": None for role in missing}
    change(model, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", **gone)
    error = refused(fdeploy, "unsupported-learner", "config.json has no pad_token_id")
    assert error["hint"].endswith(advice)
    if not missing:
        change(model, pad_token_id=1)
        assert "pad_token_id" not in fdeploy.ok("export", "my-model").stderr


def test_an_architecture_that_onnx_cannot_hold(fdeploy: Fdeploy) -> None:
    save("funnel", fdeploy.folder / "my-model")
    error = refused(
        fdeploy,
        "unsupported-learner",
        "FunnelForSequenceClassification cannot be exported to ONNX: the graph fails on texts of "
        "other lengths",
    )
    assert "otherwise fine-tune one that it lists" in error["hint"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"auto_map": {"AutoModel": "modeling.Mine"}}),
        ("config.json", {"trust_remote_code": True}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tokenization.Mine", None]}}),
    ],
)
def test_code_of_its_own(fdeploy: Fdeploy, model: Path, name: str, values: dict[str, Any]) -> None:
    (model / "modeling.py").write_text("open('pwned', 'w')", encoding="utf-8")
    change(model, name, **values)
    refused(fdeploy, "dangerous-learner", f"import code that {name} names in {next(iter(values))}")
    assert "verdict    refused" in fdeploy("inspect", "my-model").stdout
    assert not list(fdeploy.folder.rglob("pwned"))


def test_a_model_of_another_kind_than_it_says(fdeploy: Fdeploy, model: Path) -> None:
    change(model, architectures=["BertForSequenceClassification"])
    assert fdeploy("export", "my-model", "--json").error["exit_code"] == 5


# The tokenizer.


def test_no_tokenizer(fdeploy: Fdeploy, model: Path) -> None:
    (model / "tokenizer.json").unlink()
    error = refused(fdeploy, "unsupported-learner", "the folder has no tokenizer")
    assert "tokenizer.save_pretrained" in error["hint"]


@pytest.mark.parametrize("text", ["", "{}", '{"model": []}', "[1]"])
def test_a_damaged_tokenizer(fdeploy: Fdeploy, model: Path, text: str) -> None:
    (model / "tokenizer.json").write_text(text, encoding="utf-8")
    refused(fdeploy, "file", "tokenizer.json")


def test_a_tokenizer_that_cannot_be_built(fdeploy: Fdeploy, model: Path) -> None:
    (model / "tokenizer.json").write_text('{"model": {"type": "Bogus"}}', encoding="utf-8")
    error = refused(fdeploy, "unsupported-learner", "transformers' own pipeline cannot be made")
    assert "pipeline(" in error["hint"]


def test_a_tokenizer_of_more_tokens_than_the_model(fdeploy: Fdeploy, model: Path) -> None:
    weights = load_file(model / WEIGHTS)
    name = "distilbert.embeddings.word_embeddings.weight"
    weights[name] = weights[name][:100].clone()
    save_file(weights, model / WEIGHTS, {"format": "pt"})
    change(model, vocab_size=100)
    refused(fdeploy, "unsupported-learner", "tokens, but the model knows 100")


def test_texts_cut_at_the_start(fdeploy: Fdeploy, model: Path) -> None:
    change(model, "tokenizer_config.json", truncation_side="left")
    error = refused(fdeploy, "unsupported-learner", "it cuts long texts at the start")
    assert '"truncation_side": "right" in tokenizer_config.json' in error["hint"]
    change(model, "tokenizer_config.json", truncation_side="right", split_special_tokens=True)
    error = refused(fdeploy, "unsupported-learner", "it splits special tokens")
    assert '"split_special_tokens": false in tokenizer_config.json' in error["hint"]


@pytest.mark.parametrize("limit", ["64", 64.0, True, [64]])
def test_a_limit_that_is_not_a_whole_number(fdeploy: Fdeploy, model: Path, limit: object) -> None:
    change(model, "tokenizer_config.json", model_max_length=limit)
    error = refused(fdeploy, "unsupported-learner", f"model_max_length {limit!r}, not a whole")
    assert '"model_max_length": 512' in error["hint"]


def test_a_limit_that_means_none(fdeploy: Fdeploy, model: Path) -> None:
    change(model, "tokenizer_config.json", model_max_length=1e30)
    assert "convertible" in fdeploy.ok("inspect", "my-model").stdout


def test_a_class_without_a_name(fdeploy: Fdeploy, model: Path) -> None:
    change(model, architectures=None)
    error = refused(fdeploy, "unsupported-learner", "config.json says architectures none")
    assert "from_pretrained(DIR).save_pretrained(DIR)" in error["hint"]


def test_a_tokenizer_in_python_only(fdeploy: Fdeploy, model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "vocab.json").write_text('{"a": 0}', encoding="utf-8")
    change(model, "tokenizer_config.json", tokenizer_class="CanineTokenizer")
    error = refused(fdeploy, "unsupported-learner", "only a version of it in Python")
    assert "use_fast=True" in error["hint"]


# The folder.


def test_an_empty_folder(fdeploy: Fdeploy) -> None:
    (fdeploy.folder / "my-model").mkdir()
    refused(fdeploy, "not-a-learner", "it is empty")


def test_a_folder_of_other_files(fdeploy: Fdeploy) -> None:
    (fdeploy.folder / "my-model").mkdir()
    (fdeploy.folder / "my-model" / "notes.txt").write_text("hello", encoding="utf-8")
    refused(fdeploy, "not-a-learner", "its files are notes.txt")


def test_no_such_folder(fdeploy: Fdeploy) -> None:
    refused(fdeploy, "file-missing", "my-model")


def test_checkpoints_of_a_trainer(fdeploy: Fdeploy, model: Path) -> None:
    outer = fdeploy.folder / "outer"
    outer.mkdir()
    model.rename(outer / "checkpoint-500")
    outer.rename(model)
    error = refused(fdeploy, "not-a-learner", "holds no model itself, but its folders do")
    assert "my-model/checkpoint-500" in error["hint"]


def test_several_learners(fdeploy: Fdeploy, model: Path) -> None:
    (model / "model.pkl").write_bytes(b"x")
    error = refused(fdeploy, "usage", "holds two models: model.pkl, and the one of config.json")
    assert error["exit_code"] == 2
    (model / "config.json").unlink()
    (model / "other.pkl").write_bytes(b"x")
    error = refused(fdeploy, "usage", "holds 2 learners: model.pkl, other.pkl")
    assert "my-model/model.pkl" in error["hint"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.gguf", "only as GGUF"),
        ("tf_model.h5", "only as TensorFlow"),
        ("flax_model.msgpack", "only as Flax"),
        ("adapter_model.safetensors", "only as an adapter (PEFT, LoRA)"),
        ("notes.txt", "has no weights: neither model.safetensors nor pytorch_model.bin"),
    ],
)
def test_other_formats(fdeploy: Fdeploy, model: Path, name: str, message: str) -> None:
    (model / WEIGHTS).rename(model / name)
    refused(fdeploy, "unsupported-learner", message)


def test_an_adapter_alone(fdeploy: Fdeploy) -> None:
    """As PEFT saves it: without the configuration of the model that it belongs to."""
    folder = fdeploy.folder / "my-model"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    error = refused(fdeploy, "unsupported-learner", "only as an adapter (PEFT, LoRA)")
    assert "merge_and_unload()" in error["hint"]


def test_an_adapter_beside_the_weights(fdeploy: Fdeploy, model: Path) -> None:
    (model / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    error = refused(fdeploy, "unsupported-learner", "weights and an adapter (PEFT, LoRA) beside")
    assert "merge_and_unload()" in error["hint"]


def test_options_for_learners(fdeploy: Fdeploy, model: Path) -> None:
    for more in (["--runtime", "learner"], ["--tokenizer", "my-model"], ["--definitions", "x.py"]):
        (fdeploy.folder / "x.py").touch()
        error = fdeploy("export", model.name, *more, "--json").error
        assert (error["code"], error["exit_code"]) == ("usage", 2), error
        assert f"leave out {more[0]}" in error["hint"]


def test_a_folder_that_cannot_be_read(fdeploy: Fdeploy, model: Path) -> None:
    os.mkfifo(model / "vocab.txt")  # never opened for reading: nobody writes into it
    error = fdeploy("export", "my-model", "--json").error
    assert error["exit_code"] == 4
    (model / "vocab.txt").unlink()
    with (model / "special_tokens_map.json").open("wb") as file:
        file.truncate(MOST_JSON + 1)
    assert fdeploy("export", "my-model", "--json").error["exit_code"] == 4


# The learner of push_to_hub_fastai.


def test_a_learner_in_a_folder(fdeploy: Fdeploy) -> None:
    folder = fdeploy.folder / "my-model"
    folder.mkdir()
    (folder / "model.pkl").write_bytes((MADE / "distilbert.pkl").read_bytes())
    (folder / "pyproject.toml").write_text("[build-system]\n", encoding="utf-8")
    (folder / "config.json").write_text('{"purpose": "reviews"}', encoding="utf-8")
    assert "of fastai 2" in fdeploy.ok("inspect", "my-model").stdout
