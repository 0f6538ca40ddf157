"""Every way to import a name, combined with every way to call it and every place to hide it.

The tricks are those that pickle scanners test for: discarded results, unused memo entries, a
damaged tail, pickles within pickles, archives within archives. Each payload would create a folder;
none does.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from contextlib import suppress
from io import BytesIO
from itertools import product
from pathlib import Path

import pytest

from fastai_deploy.errors import DangerousLearner, LearnerError, LearnerTruncated
from fastai_deploy.learner.examine.anatomy import examine
from fastai_deploy.learner.examine.load_safety import refuse_danger
from fastai_deploy.learner.reading.formats import read_archive
from fastai_deploy.learner.reading.sources import BytesSource
from tests.learner.assemble import torch_zip
from tests.learner.payloads import CALLED, NAMED, PLACES, text


def check(data: bytes) -> None:
    """Read a whole file, as an export does before it decides whether to trust it."""
    archive = read_archive(BytesSource(data))
    refuse_danger(archive.pickled)
    examine(archive, len(data))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(("named", "called"), [*product(NAMED, CALLED)])
def test_no_way_to_call_is_taken(named: str, called: str, protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    call = CALLED[called](NAMED[named], text(str(mark)))
    for hide in PLACES.values():
        body = hide(call)
        pickled = (b"\x80" + bytes([protocol]) if protocol > 1 else b"") + body
        for data in (pickled, torch_zip(pickled, {})):
            with pytest.raises(DangerousLearner):
                check(data)
    assert not mark.exists()


@pytest.mark.parametrize("called", CALLED)
@pytest.mark.parametrize("rest", [b"", b"\xff", b"X\xff\xff\xff\xff", b"h\x63", b"\x97"], ids=repr)
def test_damage_after_a_payload_runs_nothing(called: str, rest: bytes, tmp_path: Path) -> None:
    """Python runs a payload before the damage, because it unpickles until it reaches the damage."""
    mark = tmp_path / "mark"
    data = b"\x80\x04" + CALLED[called](NAMED["GLOBAL"], text(str(mark))) + rest
    with pytest.raises(LearnerError):
        check(data)
    assert not mark.exists()


def test_inst_is_seen(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for protocol in (b"", b"\x80\x02", b"\x80\x04"):
        with pytest.raises(DangerousLearner):
            check(protocol + b"(" + text(str(mark)) + b"ios\nmkdir\n.")
    assert not mark.exists()


@pytest.mark.parametrize("number", [b"\x82\x01", b"\x83\x01\x01", b"\x84\x01\x01\x01\x7f"])
def test_extensions_are_not_looked_up(number: bytes) -> None:
    with pytest.raises(DangerousLearner):
        check(b"\x80\x02" + number + b")R.")


@pytest.mark.parametrize("code", [b"\x97", b"\x98", b"N\x98", b"\x97\x98"], ids=repr)
def test_buffers_outside_the_file_are_refused(code: bytes) -> None:
    with pytest.raises(LearnerError):
        check(b"\x80\x05" + code + b".")


LENGTHS = [
    code + struct.pack(layout, number)
    for code, layout in ((b"\x8d", "<Q"), (b"\x8e", "<Q"), (b"\x96", "<Q"), (b"\x95", "<Q"),
                         (b"X", "<I"), (b"B", "<I"), (b"T", "<I"), (b"\x8b", "<I"))
    for number in (2**31 - 1, 2**32 - 1, 2**56, 2**63, 2**64 - 1)
    if number < 1 << 8 * struct.calcsize(layout)
]  # fmt: skip


@pytest.mark.parametrize("claim", LENGTHS, ids=repr)
def test_a_length_that_the_file_does_not_have_is_refused(claim: bytes) -> None:
    with pytest.raises(LearnerTruncated):
        check(b"\x80\x05" + claim + b"abc.")


# Values that contain themselves, by way of the memo.
RECURSIVE: dict[str, bytes] = {
    "a list": b"]q\x00h\x00a.",
    "a dict": b"}q\x00" + text("x") + b"h\x00s.",
    "a dict as its own key": b"}q\x00h\x00Ns.",
    "a tuple through a list": b"]q\x00h\x00\x85a.",
    "an object": b"c__main__\nThing\n)\x81q\x00}" + text("x") + b"h\x00sb.",
    "a state of itself": b"c__main__\nThing\n)\x81q\x00h\x00b.",
    "a class of itself": b"c__main__\nThing\n)\x81q\x00h\x00)\x81q\x01b.",
    "a set": b"\x8fq\x00(h\x00\x90.",
    "a learner": b"}q\x00(" + text("model") + b"h\x00" + text("data") + b"h\x00" + text("cls")
                 + b"h\x00u.",
    "a module": b"ctorch.nn\nLinear\n)\x81q\x00}(" + text("_modules") + b"}" + text("a")
                + b"h\x00s" + text("_parameters") + b"}ub.",
}  # fmt: skip


@pytest.mark.parametrize("what", RECURSIVE)
def test_recursive_values_are_read_or_refused(what: str) -> None:
    with pytest.raises(LearnerError):
        check(b"\x80\x04" + RECURSIVE[what])


DEEP = 100_000
NESTED: dict[str, bytes] = {
    "lists": b"]" * DEEP + b"a" * (DEEP - 1) + b".",
    "tuples": b"N" + b"\x85" * DEEP + b".",
    "marks": b"(" * DEEP + b"t" * DEEP + b".",
    "dicts": b"}K\x01" * DEEP + b"N" + b"s" * DEEP + b".",
    "calls": b"cm\nf\n" * 1 + b")R" + b"\x85cm\nf\n\x85" * 1_000 + b".",
    "objects": b"cm\nT\n)\x81" * 10_000 + b"b" * 9_999 + b".",
}


@pytest.mark.parametrize("what", NESTED)
def test_depth_is_refused_or_read_without_recursion(what: str) -> None:
    with pytest.raises(LearnerError):
        check(b"\x80\x04" + NESTED[what])


PERSISTENT: dict[str, bytes] = {
    "a text": b"Pos.mkdir\n.",
    "a storage that calls": b"(" + text("storage") + NAMED["GLOBAL"] + text("0") + text("cpu")
                            + b"K\x01tQ.",
    "a storage with a path for a key": b"(" + text("storage") + b"ctorch\nFloatStorage\n"
                                       + text("../../etc/passwd") + text("cpu") + b"K\x01tQ.",
    "a negative count": b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0")
                        + text("cpu") + b"J\xff\xff\xff\xfftQ.",
    "an id within an id": b"(" + text("storage") + b"NQ" + text("0") + text("cpu") + b"K\x01tQ.",
    "a source that is a call": b"(" + text("module") + NAMED["GLOBAL"] + text("f") + text("x")
                               + b"tQ.",
    "itself": b"]q\x00h\x00aQ.",
}  # fmt: skip


@pytest.mark.parametrize("what", PERSISTENT)
def test_persistent_ids_lead_nowhere(what: str) -> None:
    for data in (b"\x80\x02" + PERSISTENT[what], torch_zip(b"\x80\x02" + PERSISTENT[what], {})):
        with pytest.raises(LearnerError):
            check(data)


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


PAYLOAD = b"\x80\x02" + CALLED["REDUCE"](NAMED["GLOBAL"], text("/nowhere/mark")) + b"."


def _renamed(name: bytes) -> bytes:
    """An archive with a member whose name no pickler would write."""
    return torch_zip(b"\x80\x02N.", {}).replace(b"archive/version", name)


ARCHIVES: dict[str, bytes] = {
    "a zip within": _zip({"a/data.pkl": torch_zip(PAYLOAD, {})}),
    "a pickle beside": _zip({"a/data.pkl": b"\x80\x02N.", "a/code/x.pkl": PAYLOAD}),
    "two pickles": _zip({"a/data.pkl": b"\x80\x02N.", "b/data.pkl": PAYLOAD}),
    "a deflated bomb within": _zip({"a/data.pkl": _zip({"x": b"\0" * (9 << 20)},
                                                       zipfile.ZIP_DEFLATED)}),
    "in front of a zip": PAYLOAD + torch_zip(b"\x80\x02N.", {}),
    "behind a pickle": b"\x80\x02N." + PAYLOAD,
    "in a storage": torch_zip(b"\x80\x02N.", {"0": PAYLOAD}),
    "a name with a NUL": _renamed(b"archive/v\0rsion"),
    "an absolute name": _renamed(b"/rchive/version"),
    "a name that climbs": _renamed(b"../hive/version"),
    "a Windows name": _renamed(b"C:chive/version"),
}  # fmt: skip


@pytest.mark.parametrize("what", ARCHIVES)
def test_archives_hide_nothing(what: str) -> None:
    with pytest.raises(LearnerError):
        check(ARCHIVES[what])


@pytest.mark.parametrize("flag", [0x1, 0x8, 0x20, 0x40, 0x800, 0x2000])
def test_flags_of_an_archive_hide_nothing(flag: int) -> None:
    """A flag that one reader honours and another ignores has hidden payloads from scanners."""
    data = bytearray(torch_zip(PAYLOAD, {}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = data.find(magic)
        while position >= 0:
            data[position + offset : position + offset + 2] = struct.pack("<H", flag)
            position = data.find(magic, position + 1)
    with pytest.raises(LearnerError):
        check(bytes(data))


def test_the_table_would_run_if_it_were_loaded(tmp_path: Path) -> None:
    """The payloads are real: Python itself runs them."""
    for index, called in enumerate(("REDUCE", "OBJ", "BUILD")):
        mark = tmp_path / str(index)
        with suppress(Exception):
            pickle.loads(CALLED[called](NAMED["GLOBAL"], text(str(mark))) + b".")  # noqa: S301
        assert mark.is_dir()
