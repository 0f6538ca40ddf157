"""The process that answers requests through pipes, and the model made of several of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.batch_invoke.local_model import LocalModel, Plan, open_model, plan
from fastai_deploy.errors import ServerDied
from fastai_deploy.progress import Event, Warned, silent
from tests.runtime.bundles import GOLDEN_TEXTS, LABELS, TinyBundle, panicking, write_bundle
from tests.runtime.bundles import PANIC as PANICS

ROOT = Path(__file__).parents[2]


@contextmanager
def worker(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "fastai_deploy.runtime.batch_worker"]
    command += ["--model-dir", str(folder), "--threads", "1", *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def ask(process: subprocess.Popen[bytes], body: str) -> Any:
    assert process.stdin is not None
    process.stdin.write(body.encode() + b"\n")
    process.stdin.flush()
    return line(process)


def check(bundle: TinyBundle, text: str, answer: dict[str, Any]) -> None:
    for label, expected in bundle.expected(text).items():
        assert abs(answer["probabilities"][label] - expected) < 1e-4
    assert "model" not in answer


def test_a_worker_answers_until_its_input_ends(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny")
    with worker(bundle.folder) as process:
        assert line(process) == {"way": "ONNX Runtime, fp32", "passed_over": []}
        answers = ask(process, json.dumps({"texts": GOLDEN_TEXTS}))
        for text, answer in zip(GOLDEN_TEXTS, answers, strict=True):
            check(bundle, text, answer)
        assert [answer["truncated"] for answer in answers] == [False] * 4 + [True, False]
        mixed = ask(process, '{"texts": ["a film", null, 5, "\\ud800"], "top_k": 1}')
        assert [each.get("error", {}).get("code") for each in mixed] == [
            None,
            *["invalid_request"] * 3,
        ]
        assert len(mixed[0]["probabilities"]) == 1
        os.kill(process.pid, signal.SIGINT)  # Ctrl-C, as every process of the terminal gets it
        refused = ask(process, '{"texts": []}')
        assert refused["error"]["code"] == "invalid_request"
        assert ask(process, "nonsense")["error"]["code"] == "invalid_json"
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_worker_whose_parent_is_gone_ends(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny")
    with worker(bundle.folder) as process:
        line(process)
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.close()
        process.stdin.write(b'{"texts": ["a"]}\n' * 3)
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_model_that_is_not_right_is_not_asked(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny")
    with worker(bundle.folder, "--way", "OpenVINO, bf16") as process:
        assert process.wait(60) == 3
        assert process.stderr is not None
        assert b"this machine cannot run the model with OpenVINO, bf16" in process.stderr.read()
    golden = {
        **bundle.golden("a film"),
        "probabilities": {LABELS[0]: 1.0, LABELS[1]: 0, LABELS[2]: 0},
    }
    bundle.write_goldens([golden])
    with pytest.raises(ServerDied, match="the model cannot be used: ") as caught:
        with opened(bundle.folder, 2):
            pass
    assert caught.value.hint == "run fdeploy export"


def opened(folder: Path, workers: int, **options: Any) -> LocalModel:
    return LocalModel(
        folder, Path(sys.executable), Plan(workers, 1), options.pop("report", silent), **options
    )


def test_several_workers_use_the_same_backend(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny")
    seen: list[Event] = []
    with opened(bundle.folder, 3, report=seen.append) as model:
        assert (model.way, model.at_once) == ("ONNX Runtime, fp32", 3)
        for _ in range(6):  # more than there are workers
            found = json.loads(model.ask(GOLDEN_TEXTS, None))
            check(bundle, GOLDEN_TEXTS[0], found[0])
        assert len(json.loads(model.ask(["a", None], 1))[0]["probabilities"]) == 1
    assert not [event for event in seen if isinstance(event, Warned)]


def test_a_text_on_which_the_tokenizer_fails_fails_alone(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny", tokenizer=panicking())
    with opened(bundle.folder, 1) as model:
        found = json.loads(model.ask(["a film", PANICS, "no"], None))
    assert [each.get("error", {}).get("code") for each in found] == [None, "model_error", None]
    check(bundle, "no", found[2])


def test_a_worker_that_is_killed_says_so(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny")
    with opened(bundle.folder, 1) as model:
        model.stop()
        with pytest.raises(ServerDied, match="ended by signal 9"):
            model.ask(["a"], None)


def test_open_model_takes_every_core(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny")
    model = open_model(bundle.folder, tmp_path / "environments", silent)
    with model:
        assert model.at_once >= 1
        check(bundle, "no", json.loads(model.ask(["no"], None))[0])


@pytest.mark.parametrize(
    ("cores", "memory", "per_worker", "expected"),
    [
        (8, None, 1, Plan(8, 1)),
        (8, 100, 10, Plan(7, 1)),
        (8, 100, 40, Plan(1, 8)),
        (8, 100, 20, Plan(3, 2)),
        (1, 10, 100, Plan(1, 1)),
    ],
)
def test_workers_fit_into_memory(
    cores: int, memory: int | None, per_worker: int, expected: Plan
) -> None:
    assert plan(cores, memory, per_worker) == expected
