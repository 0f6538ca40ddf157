from __future__ import annotations

import gzip
import io
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastai_deploy.packaging.artifact import StoredGzip


def packed(pieces: list[bytes]) -> bytes:
    raw = io.BytesIO()
    stream = StoredGzip(raw)
    for piece in pieces:
        stream.write(piece)
    stream.close()
    return raw.getvalue()


@given(st.lists(st.binary(max_size=200_000), max_size=5))
def test_any_reader_reads_it_and_the_cuts_do_not_matter(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert gzip.decompress(packed(pieces)) == whole
    assert packed(pieces) == packed([whole])


@pytest.mark.parametrize("size", [0, 1, 65_534, 65_535, 65_536, 131_070, 131_071])
def test_the_edges_of_a_block(size: int) -> None:
    data = bytes(index % 251 for index in range(size))
    assert gzip.decompress(packed([data])) == data


def test_the_bytes_are_fixed() -> None:
    # Written down once, and read back by gzip: every machine, Python and zlib must make the same.
    assert packed(
        [b"hi"]
    ).hex() == "1f8b08000000000000ff01 0200fdff 6869 ac2a93d8 02000000".replace(" ", "")


def test_the_gzip_command_reads_it() -> None:
    done = subprocess.run(["gzip", "-dc"], input=packed([b"hi"]), capture_output=True, check=True)
    assert done.stdout == b"hi"
