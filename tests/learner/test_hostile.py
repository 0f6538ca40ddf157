"""Malicious pickles: each is rejected, and none of it is run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import torch

from fastai_deploy.errors import (
    DangerousLearner,
    LearnerError,
    LearnerTooComplex,
    LearnerTruncated,
    NotALearner,
)
from fastai_deploy.learner.convert import convert
from fastai_deploy.learner.examine.anatomy import examine
from fastai_deploy.learner.examine.load_safety import load_effects
from fastai_deploy.learner.reading.formats import LOAD_FROM_BYTES, open_archive, read_archive
from fastai_deploy.learner.reading.graph import Call, Global, Mapping
from fastai_deploy.learner.reading.sources import BytesSource
from fastai_deploy.progress import silent
from tests.learner.assemble import assemble, listing, new, torch_zip
from tests.learner.files import CONVERTIBLE, learner
from tests.learner.payloads import FUNCTIONS, NAMES, PATHS, PYTHON_2


class Payload:
    """An object that creates a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_payload_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    mark, file = tmp_path / "mark", tmp_path / "learner.pkl"
    file.write_bytes(pickle.dumps({"model": Payload(mark)}, protocol))
    with pytest.raises(DangerousLearner, match="system"):
        convert(file, tmp_path / "bundle", golden=None, tolerance=1e-4, name="x", report=silent)
    assert not mark.exists()
    assert list(tmp_path.iterdir()) == [file]

    # Loaded as fastai loads it, the same file does create it.
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.load(open({str(file)!r}, 'rb'))"],
                   check=True)  # fmt: skip
    assert mark.exists()


def hostile(func: Global, *args: object) -> bytes:
    return assemble(Call(func, args))


OS_SYSTEM = Global("os", "system")


@pytest.mark.parametrize("name", NAMES)
def test_a_dangerous_name_is_refused(name: str) -> None:
    module, _, attribute = name.partition(" ")
    with pytest.raises(DangerousLearner, match=attribute):
        examine(read_archive(BytesSource(hostile(Global(module, attribute), "x"))), 0)


@pytest.mark.parametrize("name", PYTHON_2)
def test_a_dangerous_name_of_python_2_is_refused(name: str) -> None:
    module, _, attribute = name.partition(" ")
    pickled = f"c{module}\n{attribute}\n(Vx\ntR.".encode()
    with pytest.raises(DangerousLearner):
        examine(read_archive(BytesSource(pickled)), 0)


@pytest.mark.parametrize(("module", "name"), PATHS)
def test_a_name_that_leads_elsewhere_is_refused(module: str, name: str) -> None:
    pickled = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode()
    pickled += b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    with pytest.raises(DangerousLearner):
        examine(read_archive(BytesSource(pickled)), 0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_call_that_no_learner_makes_is_refused(name: str) -> None:
    archive = read_archive(BytesSource(assemble(Call(FUNCTIONS[name], ("x",)))))
    assert load_effects(archive.pickled).dangers, name


@pytest.mark.parametrize(
    "name",
    ["html unescape", "re sub", "json loads", "os.path join", "posixpath join", "math log",
     "builtins len", "builtins print", "string punctuation", "unicodedata normalize"],
)  # fmt: skip
def test_a_name_that_labelling_code_uses_may_be_named(name: str) -> None:
    module, _, attribute = name.partition(" ")
    archive = read_archive(BytesSource(assemble(listing(Global(module, attribute)))))
    assert not load_effects(archive.pickled).dangers


def test_attributes_set_on_a_class_are_refused() -> None:
    pickled = b"\x80\x02cfastai.learner\nLearner\n}X\x01\x00\x00\x00xNsb."
    with pytest.raises(DangerousLearner, match="set attributes"):
        examine(read_archive(BytesSource(pickled)), 0)


@pytest.mark.parametrize("code", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"])
def test_extensions_are_refused(code: bytes) -> None:
    with pytest.raises(DangerousLearner, match="extension"):
        read_archive(BytesSource(b"\x80\x02" + code + b"."))


@pytest.mark.parametrize(
    "pickled",
    [b"(ios\nsystem\n.", b"(cos\nsystem\no.", b"cos\nsystem\n)\x81.", b"cos\nsystem\n)}\x92.",
     b"cos\nsystem\n)R0N.", b"\x80\x04\x8c\x02os\x8c\x06system\x93)R."],
    ids=["INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "POP", "STACK_GLOBAL"],
)  # fmt: skip
def test_every_way_to_call_is_seen(pickled: bytes) -> None:
    archive = read_archive(BytesSource(pickled))
    assert "import os.system" in load_effects(archive.pickled).dangers


def test_a_payload_within_a_real_learner_is_refused(tmp_path: Path, deep_recursion: None) -> None:
    del deep_recursion
    with open_archive(learner(CONVERTIBLE[0])) as (_, archive):
        root = archive.pickled.root
        assert isinstance(root, Mapping)
        mark = tmp_path / "mark"
        root.pairs.append(("metrics", listing(Call(OS_SYSTEM, (f"touch {mark}",)))))
        file = tmp_path / "learner.pkl"
        file.write_bytes(assemble(root))
    with open_archive(file) as (source, archive):
        anatomy = examine(archive, source.size)
    assert anatomy.verdict.kind == "refused"
    assert anatomy.imports[0].kind == "dangerous"
    assert "os.system" in anatomy.verdict.reason
    with pytest.raises(DangerousLearner, match="ran nothing"):
        convert(file, tmp_path / "out", golden=None, tolerance=1e-4, name="x", report=silent)
    assert not mark.exists()


def test_a_pickle_within_a_tensor_is_refused() -> None:
    inner = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    inner += hostile(OS_SYSTEM, "ls") + pickle.dumps([], 2)
    outer = hostile(Global("torch.storage", "_load_from_bytes"), inner)
    with pytest.raises(DangerousLearner, match=r"os\.system"):
        read_archive(BytesSource(outer))


def test_a_zip_that_inflates_without_end_is_refused() -> None:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"N" * 70_000_000)
    with pytest.raises(LearnerTooComplex, match="inflates"):
        read_archive(BytesSource(buffer.getvalue()))


def test_a_zip_of_members_upon_each_other_is_refused() -> None:
    data = bytearray(torch_zip(b"\x80\x02N.", {str(n): b"x" * 1000 for n in range(50)}))
    first = data.find(b"PK\x01\x02", data.find(b"PK\x01\x02") + 1)
    header = data[first + 42 : first + 46]
    position = data.find(b"PK\x01\x02", first + 1)
    while position > 0:
        data[position + 20 : position + 28] = (900_000).to_bytes(4, "little") * 2
        data[position + 42 : position + 46] = header
        position = data.find(b"PK\x01\x02", position + 1)
    with pytest.raises(LearnerTruncated):
        read_archive(BytesSource(bytes(data)))


@pytest.mark.parametrize(
    "name",
    ["../data.pkl", "/a/data.pkl", "a//data.pkl", "a\\data.pkl", "a/./data.pkl", "C:/data.pkl"],
)
def test_a_zip_with_an_unsafe_name_is_refused(name: str) -> None:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("b/data.pkl", b"\x80\x02N.")
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        archive.writestr(info, b"")
    with pytest.raises(LearnerTruncated, match="unsafe name"):
        read_archive(BytesSource(buffer.getvalue()))


def test_a_configuration_that_holds_itself_is_refused(deep_recursion: None) -> None:
    del deep_recursion
    root = new("fastai.learner", "Learner", {"dls": None, "loss_func": None})
    config: dict[str, object] = {"vocab_size": 1}
    state = Mapping(list(config.items()))
    state.pairs.append(("self", state))
    made = new("transformers", "BertConfig")
    made.states.append(state)
    module = new("transformers", "BertForSequenceClassification",
                 {"_modules": Mapping([]), "_parameters": Mapping([]), "config": made})  # fmt: skip
    root.states.append(Mapping([("model", module)]))
    with pytest.raises(LearnerTooComplex):
        examine(read_archive(BytesSource(assemble(root))), 0)


def test_modules_within_themselves_are_refused() -> None:
    modules = Mapping([])
    module = new("torch.nn", "Sequential", {"_modules": modules, "_parameters": Mapping([])})
    modules.pairs.extend([("a", module), ("b", module)])
    root = new("fastai.learner", "Learner", {"dls": None, "model": module})
    with pytest.raises(LearnerTooComplex):
        examine(read_archive(BytesSource(assemble(root))), 0)


def test_a_tensor_that_repeats_its_numbers_is_refused() -> None:
    storage = ("storage", Global("torch", "FloatStorage"), "0", "cpu", 1)
    pickled = bytearray(b"\x80\x02")
    pickled += assemble((storage,))[2:-1].replace(b"t", b"t", 1)
    tensor = Call(Global("torch._utils", "_rebuild_tensor_v2"),
                  ("S", 0, (1 << 40,), (0,), False, Mapping([])))  # fmt: skip
    parameters = Mapping([("weight", tensor)])
    module = new("torch.nn", "Linear", {"_modules": Mapping([]), "_parameters": parameters})
    root = new("fastai.learner", "Learner", {"dls": None, "model": module})
    data = assemble(root)
    named = b"X\x01\x00\x00\x00S"
    persistent = assemble(storage)[2:-1] + b"Q"
    data = torch_zip(data.replace(named, persistent), {"0": b"\x00" * 4})
    with pytest.raises(LearnerTruncated, match="outside"):
        examine(read_archive(BytesSource(data)), len(data))


def test_every_learner_error_has_a_hint() -> None:
    with pytest.raises(NotALearner) as caught:
        examine(read_archive(BytesSource(pickle.dumps([1, 2]))), 0)
    assert isinstance(caught.value, LearnerError)
    assert "learn.export()" in caught.value.hint


BIG = 10_000
NOTHING = Mapping([])


def _module(modules: Mapping = NOTHING, parameters: Mapping = NOTHING, **more: object) -> Call:
    state = {"_modules": modules, "_parameters": parameters, **more}
    return new("torch.nn", "Linear", state)


def _learner(model: Call, **more: object) -> Call:
    return new("fastai.learner", "Learner", {"dls": None, "model": model, **more})


def _states() -> Call:
    state = Mapping([(f"a{index}", None) for index in range(BIG)])
    tokenizers = [new("transformers", "RobertaTokenizer") for _ in range(300)]
    for each in tokenizers:
        each.states.extend([state] * 300)
    return _learner(_module(), extra=listing(*tokenizers))


def _buffers() -> Call:
    names = listing(*(f"n{index}" for index in range(BIG)))
    children = [(str(n), _module(_non_persistent_buffers_set=names)) for n in range(1_000)]
    return _learner(_module(Mapping(list(children))))


def _names() -> Call:
    model = _module()
    for _ in range(40):
        model = _module(Mapping([("x" * 300, model)]))
    return _learner(model)


def _parameters() -> Call:
    tensor = Call(Global("torch._utils", "_rebuild_tensor_v2"), ("S", 0, (), (), False, None))
    inner = _module(parameters=Mapping([(f"p{index}", tensor) for index in range(150)]))
    return _learner(_module(Mapping([(str(index), inner) for index in range(2_000)])))


SHARING = {"states": _states, "buffers": _buffers, "names": _names, "parameters": _parameters}


@pytest.mark.parametrize("what", SHARING)
def test_a_small_file_cannot_make_much_work_by_sharing(what: str) -> None:
    data = assemble(SHARING[what]())
    storage = ("storage", Global("torch", "FloatStorage"), "0", "cpu", 1)
    data = data.replace(b"X\x01\x00\x00\x00S", assemble(storage)[2:-1] + b"Q")
    with pytest.raises(LearnerTooComplex):
        examine(read_archive(BytesSource(torch_zip(data, {"0": b"\x00" * 4}))), 0)


def deflated(pickled: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


@pytest.mark.parametrize("step", [b"N0", b"(t0", b"c_\n_\n0", b")0"])
def test_a_small_file_of_many_steps_is_not_followed(step: bytes) -> None:
    bomb = deflated(b"\x80\x02" + step * 6_000_000 + b"N.")
    assert len(bomb) < 64 << 10
    with pytest.raises(LearnerTooComplex, match=r"steps, more than any learner|inflates to"):
        read_archive(BytesSource(bomb))


def test_the_bytes_of_one_tensor_are_not_read_for_thousands() -> None:
    one = read_archive(BytesSource(pickle.dumps(torch.zeros(2), 2)))
    args = next(call.args for call in one.pickled.calls if call.func == LOAD_FROM_BYTES)
    few = listing(*(Call(LOAD_FROM_BYTES, args) for _ in range(3)))
    assert len(read_archive(BytesSource(assemble(few))).nested) == 3
    many = listing(*(Call(LOAD_FROM_BYTES, args) for _ in range(3_000)))
    with pytest.raises(LearnerTooComplex, match="more bytes than the file"):
        read_archive(BytesSource(assemble(many)))
