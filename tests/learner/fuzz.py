"""Fuzzing the reader: mutated learners and pickles, of which only a LearnerError may come.

Run ``python -m tests.learner.fuzz --executions 1000000 --seed 1``; the same seed gives the same
inputs. An input that breaks the rule is written beside the working directory and named. Memory is
bounded with ``RLIMIT_AS``, and an input that takes longer than a second for each megabyte is told.
"""

from __future__ import annotations

import argparse
import pickle
import random
import resource
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as Many
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from fastai_deploy.errors import LearnerError, LearnerTruncated
from fastai_deploy.learner.anatomy import examine
from fastai_deploy.learner.globals import dangers, sort_globals
from fastai_deploy.learner.reading.archive import open_archive, read_archive
from fastai_deploy.learner.reading.opcodes import OPCODES
from fastai_deploy.learner.reading.sources import BytesSource
from fastai_deploy.learner.reading.state import Limits
from fastai_deploy.learner.reading.values import Call, Mapping, Sequence
from fastai_deploy.learner.reading.views import walk
from fastai_deploy.learner.text.serialized import tokenizer_json
from tests.learner.assemble import assemble

LEARNERS = Path(__file__).parent.parent / "learners"
SLOW = 1.0  # seconds for an input of at most a megabyte
# Fuzzing looks for wrong turns, not for the real limits, which would only make it slow.
LIMITS = Limits(steps=200_000, memory=32 << 20)
ADDRESS_SPACE = 3 << 30
LONG, KEPT = 60, 20  # entries of a dict or elements of a list in a shrunk learner
# What every module has and no test needs: hooks, and the second of two layers that are alike.
NOISE = {
    "_backward_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_state_dict_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_load_state_dict_post_hooks",
    "__doc__",
    "1",
}
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**56, 2**63)

Mutation = Callable[[random.Random, bytearray, Many[bytes]], None]


def run(data: bytes) -> str:
    """Read, examine and sort one input; the name of the error that came of it, or the verdict.

    Anything but a LearnerError goes through.
    """
    try:
        archive = read_archive(BytesSource(data), LIMITS)
        sort_globals(archive.pickled)
        list(dangers(archive.pickled))
        anatomy = examine(archive, len(data))
        if anatomy.tokenizer is not None:
            tokenizer_json(anatomy.tokenizer, prefix_space=True, python_37=True)
    except LearnerError as error:
        return type(error).__name__
    for tensor in list(anatomy.weights.values())[:4]:
        with suppress(LearnerTruncated):
            tensor.read()
    return anatomy.verdict.kind


def corpus() -> list[bytes]:
    """Real learners, the pickles within them, and small pickles of every protocol."""
    files = [path.read_bytes() for path in sorted(LEARNERS.rglob("*.pkl"))]
    found = list(files)
    for data in files:
        if data.startswith(b"PK"):
            with zipfile.ZipFile(BytesIO(data)) as archive:
                name = next(each for each in archive.namelist() if each.endswith("data.pkl"))
                found.append(archive.read(name))
                found.append(_small_zip(archive, name))
    return found + shrunk_learners() + small_pickles()


def shrunk_learners() -> list[bytes]:
    """The real learners with all that is long cut short: quick to read, and still learners."""
    found: list[bytes] = []
    for path in sorted(LEARNERS.rglob("*.pkl")):
        with open_archive(path) as (_, archive):
            for node in walk(archive.pickled.root):
                if isinstance(node, (Call, Sequence)) and len(node.items) > LONG:
                    del node.items[KEPT:]
                if isinstance(node, (Call, Mapping)):
                    node.pairs[:] = [pair for pair in node.pairs if not _is_noise(pair[0])]
                    del node.pairs[KEPT if len(node.pairs) > LONG else LONG :]
            found.append(assemble(archive.pickled.root))
    return found


def _is_noise(key: object) -> bool:
    return isinstance(key, str) and key in NOISE


def small_pickles() -> list[bytes]:
    """Values of every kind, in every protocol."""
    nested: list[object] = []
    nested.append(nested)
    values: list[object] = [
        None, True, 0, -1, 2**31, 2**200, 1.5, "text", "\u00e9\U0001f600", b"bytes",
        bytearray(b"x"), (), (1,), (1, 2, 3, 4), [1, [2, [3]]], {"a": {"b": None}}, {1, 2},
        frozenset({3}), nested, Path("a", "b"), Counter("aab"), range(3), complex(1, 2),
        zipfile.ZipInfo, ValueError("x"), {"model": None, "data": {}, "cls": None},
        tuple(range(700)),
    ]  # fmt: skip
    return [
        pickle.dumps(value, protocol)
        for value in values
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]


def _small_zip(archive: zipfile.ZipFile, name: str) -> bytes:
    """The structure of an archive with only the beginning of its pickle: quick to read."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as small:
        small.writestr(name, archive.read(name)[:400] + b".")
        small.writestr(name.replace("data.pkl", "version"), b"3\n")
    return buffer.getvalue()


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


MUTATIONS: tuple[Mutation, ...] = (
    _flip, _flip, _set, _set, _number, _insert, _delete, _repeat, _splice, _cut,
)  # fmt: skip


def mutated(rng: random.Random, corpus: Many[bytes]) -> bytes:
    """A mutated input; whole learners, which take long to read, far less often than small ones."""
    low, high = rng.choices(((0, 8_192), (8_192, 60_000), (60_000, 1 << 30)), (40, 56, 4))[0]
    data = bytearray(rng.choice([each for each in corpus if low <= len(each) < high]))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if data:
            rng.choice(MUTATIONS)(rng, data, corpus)
    return bytes(data)


def fuzz(executions: int, seed: int, told: Callable[[str], None] = print) -> Counter[str]:
    """Run mutated inputs; the count of each outcome. Raises what breaks the rule."""
    rng = random.Random(seed)  # noqa: S311 - the same inputs for the same seed
    sys.setrecursionlimit(20_000)  # for the assembler; the reader recurses on nothing
    inputs = corpus()
    sys.setrecursionlimit(1_000)
    outcomes: Counter[str] = Counter()
    began = time.monotonic()
    for count in range(1, executions + 1):
        data = mutated(rng, inputs)
        started = time.process_time()
        try:
            outcomes[run(data)] += 1
        except BaseException:
            Path(f"fuzz-{seed}-{count}.bin").write_bytes(data)
            raise
        if time.process_time() - started > SLOW:
            Path(f"slow-{seed}-{count}.bin").write_bytes(data)
            told(f"slow: {time.process_time() - started:.1f} s, {len(data)} bytes, number {count}")
        if count % 50_000 == 0:
            told(f"{count:,} executions, {time.monotonic() - began:.0f} s, {dict(outcomes)}")
    return outcomes


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    outcomes = fuzz(arguments.executions, arguments.seed)
    sys.stdout.write(f"{arguments.executions:,} executions: {dict(outcomes)}\n")


if __name__ == "__main__":
    main()
