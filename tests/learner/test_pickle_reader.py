"""The pickle reader agrees with Python's unpickler, and has the limits that pickletools lacks."""

from __future__ import annotations

import pickle
import pickletools
import sys
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastai_deploy.errors import LearnerError, LearnerTooComplex, LearnerTruncated
from fastai_deploy.learner.reading.graph import (
    Blob,
    Call,
    Global,
    Mapping,
    Sequence,
    attributes,
    class_of,
    data,
    elements,
    entries,
)
from fastai_deploy.learner.reading.pickle_reader import OPCODES, STOP, Limits, Pickled, read_pickle
from fastai_deploy.learner.reading.sources import BytesSource, Stream

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

atoms = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8") | st.sampled_from("\ud800\n\\'\"\x00"))
    | st.binary()
)
values = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner, inner, inner)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


def read(pickled: bytes, limits: Limits | None = None) -> Pickled:
    return read_pickle(Stream(BytesSource(pickled)), limits=limits)


def loaded(value: object) -> Any:
    """The Python value of a graph of plain data."""
    if isinstance(value, tuple):
        return tuple(loaded(item) for item in value)
    if isinstance(value, Mapping):
        return {loaded(key): loaded(item) for key, item in entries(value)}
    if isinstance(value, Sequence):
        made = [loaded(item) for item in value.items]
        return made if value.kind == "list" else set(made)
    if isinstance(value, (Call, Blob)):
        held = data(value)
        if held is not None:
            return held
        if class_of(value) == Global("builtins", "set"):
            return set(elements(value))
    return value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(value=values)
def test_plain_data_is_read_as_python_reads_it(protocol: int, value: object) -> None:
    assert loaded(read(pickle.dumps(value, protocol)).root) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sets_and_large_bytes(protocol: int) -> None:
    value = [{1, 2, 3}, b"x" * 100_000, "y" * 300_000, b""]
    assert loaded(read(pickle.dumps(value, protocol)).root) == value


def test_every_opcode_of_python_has_a_handler_or_ends_the_pickle() -> None:
    codes = {each.code.encode("latin-1") for each in pickletools.opcodes}
    assert codes - OPCODES.keys() == {STOP}


def test_shared_and_circular_values_keep_their_identity() -> None:
    shared: list[object] = []
    circle: list[object] = [shared, shared]
    circle.append(circle)
    root = read(pickle.dumps(circle, 4)).root
    assert isinstance(root, Sequence)
    assert root.items[0] is root.items[1]
    assert root.items[2] is root


class Thing:
    """An object with attributes, and state for slots."""

    def __init__(self) -> None:
        self.name, self.numbers = "a", (1, 2)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_object_is_its_class_and_its_attributes(protocol: int) -> None:
    root = read(pickle.dumps(Thing(), protocol)).root
    assert class_of(root) == Global(__name__, "Thing")
    assert attributes(root) == {"name": "a", "numbers": (1, 2)}


def test_names_of_python_2_are_given_their_present_ones() -> None:
    pickled = read(b"\x80\x02c__builtin__\nset\nccopy_reg\n_reconstructor\n\x86.")
    assert set(pickled.globals) == {Global("builtins", "set"), Global("copyreg", "_reconstructor")}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("modèle", "Schätzer"),
        ("\u6a21\u578b", "x"),
        (r"o\x73", "system"),
        ("a b", "c"),
        ("'a'", "b"),
    ],
)
@pytest.mark.parametrize("opcode", [b"c", b"(i"])
def test_a_name_is_its_two_lines_and_nothing_else(opcode: bytes, module: str, name: str) -> None:
    pickled = read(b"\x80\x04" + opcode + f"{module}\n{name}\n".encode() + b".")
    assert list(pickled.globals) == [Global(module, name)]


# Values stored in a row, with gaps, backwards, twice, and by MEMOIZE (None), which counts entries.
@given(st.lists(st.none() | st.integers(0, 12) | st.just(40), max_size=14))
@example([2, 1, None, 0, None])
@example([1, 0, 1, None])
def test_the_memo_is_that_of_python(indexes: list[int | None]) -> None:
    pickled, stored = b"\x80\x04(", set[int]()
    for number, index in enumerate(indexes):
        pickled += b"K" + bytes([number])
        pickled += b"\x94" if index is None else b"q" + bytes([index])
        stored.add(len(stored) if index is None else index)
    pickled += b"".join(b"h" + bytes([index]) for index in sorted(stored)) + b"t."
    assert read(pickled).root == pickle.loads(pickled)  # noqa: S301 - numbers in a tuple


def test_calls_whose_results_are_thrown_away_are_noted() -> None:
    pickled = read(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R0N.")
    assert pickled.root is None
    assert [str(call.func) for call in pickled.calls] == ["os.system"]


def test_the_position_after_the_pickle_is_returned() -> None:
    stream = Stream(BytesSource(pickle.dumps(1) + pickle.dumps(2)))
    first = read_pickle(stream)
    assert (first.root, first.end) == (1, stream.offset)
    assert read_pickle(stream).root == 2


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"\x80",
        b"\x80\x09N.",
        b"\xff",
        b".",
        b"(",
        b"0",
        b"t.",
        b"N\x85",
        b"]e.",
        b"NNs.",
        b"}(NNNu.",
        b"N(Na.",
        b"NNR.",
        b"cos\n",
        b"c\xff\nx\n.",
        b"h\x05.",
        b"g5\n.",
        b"Ix\n.",
        b"I" + b"9" * 400 + b"\n.",
        b"F1.x\n.",
        b"Sx\n.",
        b"S'\\x\n.",
        b"X\xff\xff\xff\xffab.",
        b"X\x01\x00\x00\x00\xff.",
        b"\x8d" + b"\x00" * 7 + b"\x01" + b"abc",
        b"\x8e" + (2**56).to_bytes(8, "little") + b"abc",
        b"\x8b\xff\xff\xff\x7f1.",
        b"\x8b\xff\xff\xff\xff1.",
        b"\x8a\xff" + b"1" * 10,
        b"\x95" + (2**56).to_bytes(8, "little") + b"N.",
        b"NN\x93.",
        b"N}b.",
        b"(o.",
        b"T\xff\xff\xff\xff.",
        b"\x8b" + (400).to_bytes(4, "little") + b"1" * 400 + b".",
        b"\x8e" + b"\xff" * 8 + b"abc",
        b"V" + b"x" * 1_100_000 + b"\n.",
        b"S'\\q'\n.",
        b"c" + b"m" * 1_100 + b"\nn\n.",
    ],
    ids=repr,
)
def test_a_damaged_pickle_is_an_error_of_its_own(pickled: bytes) -> None:
    with pytest.raises(LearnerTruncated):
        read(pickled)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_learner_error(junk: bytes) -> None:
    with suppress(LearnerError):
        read(junk)


@pytest.mark.parametrize("opcode", [b"X", b"B", b"T", b"\x8d", b"\x8e", b"\x96"])
def test_no_memory_is_taken_for_a_size_that_the_file_does_not_have(opcode: bytes) -> None:
    size = (100 << 20).to_bytes(8 if opcode >= b"\x80" else 4, "little")
    pickled = opcode + size + b"a" * 400_000
    tracemalloc.start()
    with pytest.raises(LearnerTruncated):
        read(pickled)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


class CountingSource:
    """Bytes in memory; counts how many are read."""

    def __init__(self, data: bytes) -> None:
        self.size, self.asked, self._source = len(data), 0, BytesSource(data)

    def read(self, offset: int, size: int) -> bytes:
        self.asked += size
        return self._source.read(offset, size)


def test_lines_are_read_once() -> None:
    source = CountingSource((b"V" + b"x" * 100 + b"\n0") * 20_000 + b"N.")
    read_pickle(Stream(source))
    assert source.asked == source.size


def test_a_memo_index_costs_nothing_for_its_size() -> None:
    pickled = b"\x80\x02]r" + (2**31).to_bytes(4, "little") + b"j" + (2**31).to_bytes(4, "little")
    assert read(pickled + b"\x86.").root is not None


def test_depth_does_not_matter() -> None:
    depth = 200_000
    root = read(b"(" * depth + b"t" * depth + b".").root
    assert isinstance(root, tuple)
    assert sys.getrecursionlimit() < depth
    lists = read(b"]" * depth + b"a" * (depth - 1) + b".").root
    assert isinstance(lists, Sequence)


def test_steps_are_bounded() -> None:
    with pytest.raises(LearnerTooComplex, match="steps"):
        read(b"N0" * 1_000 + b"N.", Limits(steps=100))


@pytest.mark.parametrize(
    "bomb",
    [b"]" * 100_000, b"}" * 100_000, b"N\x94" * 100_000, b"(" * 100_000, b"N" + b"2" * 300_000,
     b"X\x04\x00\x00\x00abcd" * 30_000, b"cm\nn\n" * 20_000],
    ids=lambda bomb: repr(bomb[:6]),
)  # fmt: skip
def test_memory_is_bounded(bomb: bytes) -> None:
    with pytest.raises(LearnerTooComplex, match="memory"):
        read(bomb + b".", Limits(memory=1 << 20))
