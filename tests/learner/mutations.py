"""Ways to damage a learner: in its bytes, its opcodes, and the directory of its zip.

Every mutation draws from the random generator it gets, so the same seed gives the same inputs.
"""

from __future__ import annotations

import pickletools
import random
import struct
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass

from tests.learner.assemble import torch_zip

OPCODES = b"".join(opcode.code.encode("latin-1") for opcode in pickletools.opcodes)
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**56, 2**63)
LARGEST_PICKLE = 60_000  # bytes; larger pickles are too slow to split into opcodes

Mutation = Callable[[random.Random, bytearray, Many[bytes]], None]


@dataclass(frozen=True)
class Pickle:
    """A pickle split into opcodes, each with its argument."""

    opcodes: tuple[bytes, ...]


def take_apart(data: bytes) -> Pickle | None:
    """The opcodes of a pickle; None if the data is not a pickle."""
    try:
        starts = [position or 0 for _, _, position in pickletools.genops(data)]
    except Exception:  # noqa: BLE001 - pickletools raises ValueError, struct.error, UnicodeError
        return None
    ends = [*starts[1:], starts[-1] + 1]
    if ends[-1] != len(data):
        return None
    return Pickle(tuple(data[a:b] for a, b in zip(starts, ends, strict=True)))


def _flip(rng: random.Random, data: bytearray, _corpus: Many[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, _corpus: Many[bytes]) -> None:
    data[rng.randrange(len(data))] = rng.choice((0, 255, 128, *OPCODES))


def _number(rng: random.Random, data: bytearray, _corpus: Many[bytes]) -> None:
    size = rng.choice((1, 2, 4, 8))
    at = rng.randrange(len(data))
    data[at : at + size] = (rng.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")


def _insert(rng: random.Random, data: bytearray, _corpus: Many[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = bytes(rng.choices((*OPCODES, *range(8)), k=rng.choice((1, 2, 8, 64))))


def _delete(rng: random.Random, data: bytearray, _corpus: Many[bytes]) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 8, 64))]


def _repeat(rng: random.Random, data: bytearray, _corpus: Many[bytes]) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.choice((1, 4, 32))] * rng.choice((1, 2, 200))


def _splice(rng: random.Random, data: bytearray, corpus: Many[bytes]) -> None:
    other = rng.choice(corpus)
    at, start = rng.randrange(len(data)), rng.randrange(len(other))
    data[at:at] = other[start : start + rng.choice((4, 16, 64, 512))]


def _cut(rng: random.Random, data: bytearray, _corpus: Many[bytes]) -> None:
    del data[rng.randrange(len(data)) :]


BYTES: tuple[Mutation, ...] = (
    _flip, _flip, _set, _set, _number, _insert, _delete, _repeat, _splice, _cut,
)  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytearray, corpus: Many[bytes]) -> None:
    """Damage ``data`` in one to eight places."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if data:
            rng.choice(BYTES)(rng, data, corpus)


# Opcodes that real learners do not have in such places.
CRAFTED: tuple[bytes, ...] = (
    b"(", b"0", b"1", b"2", b")", b"]", b"}", b"\x8f", b"N", b"t", b"l", b"d", b"R", b"\x81",
    b"\x92", b"o", b"b", b"Q", b"a", b"e", b"s", b"u", b"\x90", b"\x91", b"\x94", b"\x93", b".",
    b"\x85", b"\x86", b"\x87", b"\x97", b"\x98", b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\0\0\0",
    b"cos\nsystem\n", b"cbuiltins\ngetattr\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"cfastai.learner\nLearner\n", b"ios\nsystem\n", b"P0\n", b"I00\n", b"I01\n", b"L5L\n",
    b"F1e400\n", b"S'x'\n", b"Vx\n", b"h\0", b"h\xff", b"q\0", b"r\xff\xff\xff\xff", b"j\0\0\0\0",
    b"p0\n", b"g0\n", b"K\x01", b"M\xff\xff", b"J\xff\xff\xff\xff", b"G\x7f\xf0\0\0\0\0\0\0",
    b"\x8a\x01\x7f", b"\x8b\xff\xff\xff\x7f", b"\x80\x02", b"\x80\x05", b"\x95" + b"\xff" * 8,
    b"\x8c\x00", b"\x8e" + b"\xff" * 8, b"\x96" + b"\0" * 8, b"X\xff\xff\xff\x7f", b"C\x00",
)  # fmt: skip

Step = Callable[[random.Random, list[bytes], Many[Pickle]], None]


def _run(rng: random.Random, opcodes: list[bytes]) -> slice:
    """A range of one, a few or many opcodes."""
    start = rng.randrange(len(opcodes))
    return slice(start, start + rng.choice((1, 1, 1, 2, 5, 40)))


def _drop(rng: random.Random, opcodes: list[bytes], _others: Many[Pickle]) -> None:
    del opcodes[_run(rng, opcodes)]


def _double(rng: random.Random, opcodes: list[bytes], _others: Many[Pickle]) -> None:
    taken = _run(rng, opcodes)
    opcodes[taken.start : taken.start] = opcodes[taken] * rng.choice((1, 1, 2, 50))


def _move(rng: random.Random, opcodes: list[bytes], _others: Many[Pickle]) -> None:
    taken = _run(rng, opcodes)
    moved = opcodes[taken]
    del opcodes[taken]
    at = rng.randrange(len(opcodes) + 1)
    opcodes[at:at] = moved


def _exchange(rng: random.Random, opcodes: list[bytes], _others: Many[Pickle]) -> None:
    one, two = rng.randrange(len(opcodes)), rng.randrange(len(opcodes))
    opcodes[one], opcodes[two] = opcodes[two], opcodes[one]


def _craft(rng: random.Random, opcodes: list[bytes], _others: Many[Pickle]) -> None:
    at = rng.randrange(len(opcodes) + 1)
    opcodes[at:at] = rng.choices(CRAFTED, k=rng.choice((1, 1, 2, 4)))


def _transplant(rng: random.Random, opcodes: list[bytes], others: Many[Pickle]) -> None:
    other = list(rng.choice(others).opcodes)
    at = rng.randrange(len(opcodes) + 1)
    opcodes[at:at] = other[_run(rng, other)]


def _recode(rng: random.Random, opcodes: list[bytes], _others: Many[Pickle]) -> None:
    """Replace an opcode and keep its argument."""
    at = rng.randrange(len(opcodes))
    opcodes[at] = bytes([rng.choice(OPCODES)]) + opcodes[at][1:]


def _argument(rng: random.Random, opcodes: list[bytes], _others: Many[Pickle]) -> None:
    """Change an opcode's length or number, or a byte of its text."""
    long = [index for index in (rng.randrange(len(opcodes)) for _ in range(8))
            if len(opcodes[index]) > 1]  # fmt: skip
    if long:
        held = bytearray(opcodes[long[0]])
        at = rng.randrange(1, len(held))
        held[at] = rng.choice((0, 1, 255, held[at] ^ 1 << rng.randrange(8)))
        opcodes[long[0]] = bytes(held)


def _recall(rng: random.Random, opcodes: list[bytes], _others: Many[Pickle]) -> None:
    """Replace a value by another value of the pickle, perhaps by one that contains it."""
    number = rng.choice((rng.randrange(8), rng.randrange(400), rng.randrange(70_000)))
    at = rng.randrange(len(opcodes))
    opcodes[at] = b"j" + struct.pack("<I", number)


STEPS: tuple[Step, ...] = (
    _drop, _drop, _double, _move, _exchange, _craft, _craft, _transplant, _recode, _argument,
    _argument, _recall, _recall,
)  # fmt: skip


def mutate_opcodes(rng: random.Random, pickles: Many[Pickle], others: Many[Pickle]) -> bytes:
    """One of ``pickles`` with one to eight changes of whole opcodes, some taken from ``others``."""
    opcodes = list(rng.choice(pickles).opcodes)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        if opcodes:
            rng.choice(STEPS)(rng, opcodes, others)
    return b"".join(opcodes)


def in_a_zip(rng: random.Random, pickled: bytes) -> bytes:
    """A pickle in an archive with a few storages, perhaps with a damaged directory."""
    data = bytearray(
        torch_zip(pickled, {str(key): b"\0" * 64 for key in range(rng.choice((0, 4)))})
    )
    if rng.random() < 0.5:
        start = data.rfind(b"PK\x01\x02") if rng.random() < 0.5 else data.find(b"PK\x01\x02")
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(start, len(data))
            data[at] = rng.choice((0, 1, 255, data[at] ^ 1 << rng.randrange(8)))
    return bytes(data)
