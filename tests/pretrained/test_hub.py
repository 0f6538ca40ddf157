"""Models of the Hugging Face Hub, from a server of its API on this machine."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Fdeploy
from tests.learner.made import LEARNERS
from tests.pretrained.folders import save
from tests.pretrained.hub_server import Hub, serving

# huggingface_hub reads HF_ENDPOINT and HF_HOME when it is imported.
pytestmark = pytest.mark.fresh_interpreter

LEARNER = LEARNERS / "v2" / "tiny" / "distilbert.pkl"
SECRET = "hf_abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as found:
        yield found


@pytest.fixture
def fdeploy(fdeploy: Fdeploy, hub: Hub, tmp_path: Path) -> Fdeploy:
    """The command, for which the server is the Hub."""
    fdeploy.environ |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hub"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    return fdeploy


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small model."""
    folder = save("distilbert", tmp_path_factory.mktemp("hub") / "model")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def record(fdeploy: Fdeploy) -> dict[str, Any]:
    """The record of the exported bundle."""
    [path] = fdeploy.folder.glob(".fdeploy/*/records/bundle.json")
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_a_model_is_exported_at_its_commit(
    fdeploy: Fdeploy, hub: Hub, model: dict[str, bytes]
) -> None:
    extra = {"README.md": b"# hello", "flax_model.msgpack": b"x", "pytorch_model.bin": b"x",
             "onnx/model.onnx": b"x", "code.py": b"raise SystemExit"}  # fmt: skip
    commit = hub.add("someone/reviews", model | extra)
    outcome = fdeploy.ok("export", "hf:someone/reviews")
    assert f"someone/reviews at commit {commit[:12]}: 4 files" in outcome.stderr
    read = {path.rpartition("/")[2] for path in hub.requests if "/resolve/" in path}
    assert read == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    [manifest] = fdeploy.folder.glob(".fdeploy/*/bundle/manifest.json")
    held = json.loads(manifest.read_bytes())
    assert held["name"] == "reviews"
    assert held["provenance"]["learner"]["hub"] == f"someone/reviews@{commit}"

    # Another commit is another model; the old one is still in the cache, and asked for by name.
    hub.add("someone/reviews", model | {"config.json": model["config.json"] + b"\n"})
    before = len(hub.requests)
    again = fdeploy.ok("export")
    assert "unchanged" in again.stderr
    assert not [path for path in hub.requests[before:] if "/resolve/" in path]
    assert commit in json.dumps(fdeploy.ok("export", "--json").json)


def test_the_cache_serves_when_the_hub_does_not(
    fdeploy: Fdeploy, hub: Hub, model: dict[str, bytes]
) -> None:
    hub.add("someone/reviews", model)
    fdeploy.ok("inspect", "hf:someone/reviews")
    hub.failing = 503
    outcome = fdeploy.ok("inspect", "hf:someone/reviews")
    assert "the Hub cannot be reached: using someone/reviews@" in outcome.stderr
    fdeploy.environ["HF_HUB_OFFLINE"] = "1"
    assert (
        "DistilBertForSequenceClassification" in fdeploy.ok("inspect", "hf:someone/reviews").stdout
    )


def test_a_learner_of_push_to_hub_fastai(fdeploy: Fdeploy, hub: Hub) -> None:
    project = b'[build-system]\nrequires = ["fastai"]\n'
    commit = hub.add(
        "someone/learner",
        {"model.pkl": LEARNER.read_bytes(), "pyproject.toml": project, "README.md": b"hi"},
    )
    outcome = fdeploy.ok("inspect", f"hf:someone/learner@{commit}")
    assert "of fastai 2" in outcome.stdout
    assert "verdict    convertible" in outcome.stdout


def test_a_revision(fdeploy: Fdeploy, hub: Hub, model: dict[str, bytes]) -> None:
    hub.add("someone/reviews", {"config.json": b"{}"})
    hub.repositories["someone/reviews"].commit(model, ref="v1.0")
    assert "verdict    convertible" in fdeploy.ok("inspect", "hf:someone/reviews@v1.0").stdout


def test_the_token_is_used_and_not_recorded(
    fdeploy: Fdeploy, hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add("someone/private", model, gated=True)
    error = fdeploy("export", "hf:someone/private", "--json").error
    assert (error["code"], error["exit_code"]) == ("hub", 5)
    assert "is gated" in error["message"]
    assert f"{hub.url}/someone/private" in error["hint"]
    fdeploy.environ["HF_TOKEN"] = "hf_wrong"
    assert "is gated" in fdeploy("export", "hf:someone/private", "--json").error["message"]
    hub.tokens.add(SECRET)
    fdeploy.environ["HF_TOKEN"] = SECRET
    outcome = fdeploy.ok("export", "hf:someone/private", "--json")
    assert SECRET in hub.seen
    assert SECRET not in outcome.stdout + outcome.stderr
    kept = [
        path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size < 1 << 24
    ]
    assert len(kept) > 10
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("files", "code", "message"),
    [
        ({"model.Q4_K_M.gguf": b"GGUF"}, "unsupported-learner", "only as GGUF"),
        ({"config.json": b"{}", "tf_model.h5": b"x"}, "unsupported-learner", "only as TensorFlow"),
        (
            {"config.json": b"{}", "flax_model.msgpack": b"x"},
            "unsupported-learner",
            "only as Flax",
        ),
        ({"adapter_model.safetensors": b"x"}, "unsupported-learner", "an adapter"),
        (
            {"config.json": b"{}", "adapter_config.json": b"{}", "model.safetensors": b"x"},
            "unsupported-learner",
            "weights and an adapter",
        ),
        ({"README.md": b"# nothing"}, "not-a-learner", "its files are README.md"),
        ({}, "not-a-learner", "its files are none"),
    ],
)
def test_nothing_to_read(
    fdeploy: Fdeploy, hub: Hub, files: dict[str, bytes], code: str, message: str
) -> None:
    hub.add("someone/other", files)
    error = fdeploy("export", "hf:someone/other", "--json").error
    assert error["code"] == code
    assert message in error["message"]
    assert not [path for path in hub.requests if "/resolve/" in path]


def test_what_the_hub_does_not_have(fdeploy: Fdeploy, hub: Hub, model: dict[str, bytes]) -> None:
    hub.add("someone/reviews", model)
    error = fdeploy("export", "hf:someone/else", "--json").error
    assert error["code"] == "hub"
    assert "there is no model someone/else" in error["message"]
    error = fdeploy("export", "hf:someone/reviews@v9", "--json").error
    assert error["message"] == "someone/reviews has no revision v9"
    hub.failing = 500
    error = fdeploy("export", "hf:someone/reviews", "--json").error
    assert error["message"] == "the Hub answers someone/reviews with status 500"


def test_no_hub(fdeploy: Fdeploy) -> None:
    with socket.socket() as held:  # bound, but nobody listens
        held.bind(("127.0.0.1", 0))
        fdeploy.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{held.getsockname()[1]}"
        error = fdeploy("export", "hf:someone/reviews", "--json").error
    assert error["code"] == "hub"
    assert "cannot be reached, and hf:someone/reviews is not in the cache" in error["message"]
    fdeploy.environ["HF_HUB_OFFLINE"] = "1"
    error = fdeploy("export", "hf:someone/reviews", "--json").error
    assert "HF_HUB_OFFLINE" in error["message"]


@pytest.mark.parametrize("name", ["hf:", "hf:a/b/c", "hf:a b", "hf:a/b@", "hf:../../etc"])
def test_no_repository(fdeploy: Fdeploy, name: str) -> None:
    error = fdeploy("export", name, "--json").error
    assert error["exit_code"] in (2, 5)
    assert "owner/name" in error["hint"] or "check the name" in error["hint"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_no_place_for_the_cache(
    fdeploy: Fdeploy, hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add("someone/reviews", model)
    (tmp_path / "hub").mkdir(mode=0o500)
    assert fdeploy("export", "hf:someone/reviews", "--json").error["exit_code"] in (4, 5)
