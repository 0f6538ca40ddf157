"""A learner served from its original pickle: only with permission, and once it has answered."""

from __future__ import annotations

import json
import pickle
import shlex
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from fastai_deploy import files
from fastai_deploy.bundle import read_bundle, seal
from fastai_deploy.interpreters import running
from fastai_deploy.packaging.lock_files import parse
from tests.conftest import Fdeploy
from tests.learner_runtime.test_environment import write_wheel

EXPORT = ("export", "words.pkl", "--runtime", "learner", "--definitions", "model_def.py",
          "--requirements", "requirements.txt")  # fmt: skip
TRUSTED = (*EXPORT, "--trust-pickle")
TEXTS = ("a good and fun film", "dull", "good bad", "nothing that it knows")


def goldens(project: Fdeploy, *lines: dict[str, Any]) -> str:
    path = project.folder / "golden.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path.name


def test_it_becomes_an_api_on_this_machine(project: Fdeploy) -> None:
    golden = goldens(project, *({"text": text} for text in TEXTS))
    exported = project.ok(*TRUSTED, "--golden", golden, "--python", running(), "--json")
    bundle = exported.json
    assert bundle["runtime"] == "learner"
    assert bundle["labels"] == ["neg", "pos"]
    assert bundle["proven"] == len(TEXTS)
    manifest, _ = read_bundle(Path(bundle["path"]))
    assert manifest.runtime is not None
    assert manifest.runtime.names == (
        "Bag", "DataLoaders", "Learner",
    )  # fmt: skip
    assert set(manifest.files) == {"goldens.json", "learner.pkl", "model_def.py",
                                   "requirements.txt"}  # fmt: skip
    assert "its code runs now" in exported.stderr

    project.ok("up")  # unchanged: nothing is loaded, and no permission is needed
    assert project.ok("invoke", "such a lovely thing", "--json").json["label"] == "pos"

    def ask(number: int) -> Any:
        text = "good" if number % 2 else "bad"
        return project.ok("invoke", text, "--json").json["label"], ("pos" if number % 2 else "neg")

    with ThreadPoolExecutor(4) as threads:
        assert all(found == wanted for found, wanted in threads.map(ask, range(8)))
    error = project("invoke", "crash", "--json").error
    assert "failed on this text" in error["message"]
    assert "no such word" not in error["message"]
    assert project.ok("teardown").stdout.endswith("none left\n")


def test_its_container_installs_from_a_lock_with_hashes(project: Fdeploy, tmp_path: Path) -> None:
    project.ok(*TRUSTED)
    shop = tmp_path / "shop"
    shop.mkdir()
    wheel = write_wheel(shop, "torch", version("torch").partition("+")[0], "")
    pip = {"NO_INDEX": "1", "FIND_LINKS": str(shop), "CONFIG_FILE": "/dev/null"}
    project.environ |= {f"PIP_{name}": value for name, value in pip.items()}
    packed = ("package", "--region", "eu-central-1", "--instance", "ml.m5.large", "--json")
    path = project.ok(*packed).json["path"]
    with tarfile.open(path) as artifact:
        listed = artifact.extractfile("code/requirements.txt")
        assert listed is not None
        (pin,) = parse(listed.read().decode())
    assert pin.name == "torch"
    assert pin.hashes == {files.sha256(wheel)}
    wheel.unlink()
    Path(path).unlink()
    error = project(*packed).error
    assert error["code"] == "runtime-unproven"
    assert "pip cannot install the requirements" in error["message"]


def test_without_permission_nothing_runs(project: Fdeploy) -> None:
    error = project(*EXPORT, "--json").error
    assert error["code"] == "untrusted-learner"
    assert "loading runs whatever code it contains" in error["message"]
    assert "--trust-pickle" in error["hint"]
    assert not (project.folder / ".fdeploy/dev/bundle").exists()


@pytest.mark.parametrize("leave", ["variable", "setting"])
def test_leave_may_be_a_variable_or_a_setting(project: Fdeploy, leave: str) -> None:
    if leave == "setting":
        (project.folder / "fdeploy.toml").write_text("[model]\ntrust_pickle = true\n")
    environ = {"FDEPLOY_MODEL_TRUST_PICKLE": "true"} if leave == "variable" else {}
    Fdeploy(project.folder, environ).ok(*EXPORT)


UNKNOWN = ("ipaddress.IPv4Address", "statistics.NormalDist")
ALLOWED = tuple(word for name in UNKNOWN for word in ("--allow-import", name))


@pytest.mark.parametrize("given", [(), ("--trust-pickle",), ("--trust-pickle", *ALLOWED[:2])])
def test_unknown_names_are_refused_once_with_the_command_that_allows_them(
    odd: Fdeploy, given: tuple[str, ...]
) -> None:
    refused = odd(*EXPORT, *given, "--json").error
    assert refused["code"] == "untrusted-learner"
    assert "statistics.NormalDist" in refused["message"]
    assert ("ipaddress.IPv4Address" in refused["message"]) is (len(given) < 2)
    command = shlex.split(refused["hint"].partition(": ")[2])
    assert command == ["fdeploy", *EXPORT, *given, "--json",
                       *(word for word in ("--trust-pickle",) if word not in given),
                       *(ALLOWED if len(given) < 2 else ALLOWED[2:])]  # fmt: skip
    assert not (odd.folder / ".fdeploy/dev/bundle").exists()
    assert odd.ok(*command[1:]).json["runtime"] == "learner"


def test_unknown_names_are_allowed_by_a_setting(odd: Fdeploy) -> None:
    names = json.dumps(UNKNOWN)
    (odd.folder / "fdeploy.toml").write_text(f"[model]\nallow_imports = {names}\n")
    odd.ok(*TRUSTED)


def test_conversion_needs_no_permission_for_unknown_names(odd: Fdeploy) -> None:
    error = odd("export", "words.pkl", "--json").error
    assert "allow-import" not in error["hint"]
    assert error["code"] == "unsupported-learner"  # its model is of no known library


@pytest.mark.parametrize("where", ["--allow-import", "fdeploy.toml:2"])
def test_a_dangerous_name_is_not_allowed(project: Fdeploy, where: str) -> None:
    flags = ("--allow-import", "os.system") if where == "--allow-import" else ()
    if not flags:
        toml = '[model]\nallow_imports = ["statistics.NormalDist", "torch.hub.load"]\n'
        (project.folder / "fdeploy.toml").write_text(toml)
    error = project(*TRUSTED, *flags, "--json").error
    assert error["code"] == "settings"
    assert error["message"].startswith(f"{where}: ")
    assert "never allowed" in error["message"]


def test_a_bundle_with_unknown_names_needs_the_same_leave(odd: Fdeploy) -> None:
    odd.ok(*TRUSTED, *ALLOWED)
    (odd.folder / ".fdeploy/dev/bundle").rename(odd.folder / "made")
    error = odd("export", "made", "--trust-pickle", "--json").error
    assert error["code"] == "untrusted-learner"
    assert " ".join(ALLOWED) in error["hint"]
    odd.ok("export", "made", "--trust-pickle", *ALLOWED)


def test_a_bundle_with_a_dangerous_pickle_is_refused(project: Fdeploy) -> None:
    """Regardless of who made the bundle and what its manifest says."""
    project.ok(*TRUSTED)
    made = project.folder / "made"
    (project.folder / ".fdeploy/dev/bundle").rename(made)
    _plant(made, project.folder / "pwned")
    error = project("export", "made", "--trust-pickle", "--json").error
    assert error["code"] == "dangerous-learner"
    assert not (project.folder / "pwned").exists()


def _plant(bundle: Path, mark: Path) -> None:
    """Put a payload into a bundle's pickle, and seal the bundle again."""

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, (f"open({str(mark)!r}, 'w')",)

    manifest, _ = read_bundle(bundle)
    (bundle / "learner.pkl").write_bytes(pickle.dumps({"model": Hostile()}))
    seal(bundle, manifest)


def test_a_dangerous_pickle_is_refused_with_every_leave(project: Fdeploy) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, (f"open({str(project.folder / 'pwned')!r}, 'w')",)

    (project.folder / "words.pkl").write_bytes(pickle.dumps({"model": Hostile()}))
    assert project(*TRUSTED, "--json").error["code"] == "dangerous-learner"
    assert not (project.folder / "pwned").exists()


def test_a_file_of_definitions_is_asked_for(project: Fdeploy) -> None:
    found = [each for each in TRUSTED if each not in ("--definitions", "model_def.py")]
    error = project(*found, "--json").error
    assert error["code"] == "usage"
    assert "Bag, DataLoaders" in error["message"]
    assert "--definitions model_def.py" in error["hint"]


BAD: dict[str, tuple[str, str, str]] = {
    "a class is missing": ("class Bag", "class Sack", "does not define Bag"),
    "it fails on import": ("import torch", "import torch_of_old", "model_def.py fails on import"),
    "it cannot be loaded": ("torch.load(path", "torch.loaf(path", "has no attribute 'loaf'"),
    "a text fails": ("no such word", "no such word", "fails on text 2: ValueError: no such word"),
    "no learner": ("def predict", "def foretell", "has no predict()"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_fails_in_the_fresh_process_is_shown(project: Fdeploy, name: str) -> None:
    old, new, message = BAD[name]
    path = project.folder / "model_def.py"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    golden = goldens(project, {"text": "good"}, {"text": "crash" if "text" in name else "bad"})
    error = project(*TRUSTED, "--golden", golden, "--json").error
    assert error["code"] == "runtime-unproven"
    assert message in error["message"]
    assert not (project.folder / ".fdeploy/dev/bundle").exists()


def test_answers_that_are_no_probabilities(project: Fdeploy) -> None:
    path = project.folder / "model_def.py"
    source = path.read_text(encoding="utf-8").replace(".softmax(-1)", "")
    path.write_text(source, encoding="utf-8")
    error = project(*TRUSTED, "--json").error
    assert "not probabilities of its 2 labels" in error["message"]


def test_other_answers_than_the_users_fail_the_gate(project: Fdeploy) -> None:
    golden = goldens(project, {"text": "good", "probabilities": [0.5, 0.5], "label": "pos"})
    error = project(*TRUSTED, "--golden", golden, "--json").error
    assert error["code"] == "parity"
    assert "the learner in a fresh process answers 1 of 1 texts differently" in error["message"]
    assert "bundle-parity.html" in error["hint"]
    parity = json.loads((project.folder / ".fdeploy/dev/bundle-parity.json").read_bytes())
    assert parity["accuracy"] == {
        "learner": {"texts": 1, "accuracy": 0.0}, "process": {"texts": 1, "accuracy": 1.0},
    }  # fmt: skip


def test_versions_must_be_stated_where_they_are_not_known(project: Fdeploy) -> None:
    found = [each for each in TRUSTED if each not in ("--requirements", "requirements.txt")]
    error = project(*found, "--json").error
    assert error["code"] == "usage"
    assert "--requirements requirements.txt" in error["hint"]
    assert "pip freeze" in error["hint"]


def test_a_python_that_is_not_there(project: Fdeploy) -> None:
    error = project(*TRUSTED, "--python", "3.99", "--json").error
    assert error["code"] == "runtime-unproven"
    assert "Python 3.99, which was not found" in error["message"]
    assert "pyenv install 3.99" in error["hint"]


def test_one_text_at_a_time(project: Fdeploy) -> None:
    """Eight concurrent clients; the learner would fail on two texts at once."""
    golden = goldens(project, *({"text": text} for text in TEXTS))
    project.ok(*TRUSTED, "--golden", golden)
    endpoint = project.ok("up", "--json").json
    assert endpoint["url"]
    state = json.loads((project.folder / ".fdeploy/dev/local/endpoint.json").read_bytes())
    ready = threading.Barrier(8)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: post_many(state["port"], ready), range(8)))
    assert all(answer["label"] == "pos" for each in answers for answer in each)


def post_many(port: int, ready: threading.Barrier) -> list[dict[str, Any]]:
    request = Request(
        f"http://127.0.0.1:{port}/invocations",
        data=json.dumps({"texts": ["good fun"] * 20}).encode(),
        headers={"content-type": "application/json"},
    )
    ready.wait(60)
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - the server of this test
        found: list[dict[str, Any]] = json.loads(answer.read())
    return found
