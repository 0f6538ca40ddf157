"""Fuzz the reader with mutated learners and pickles: it may raise nothing but LearnerError.

Run ``make fuzz``, or ``python -m tests.learner.fuzz --executions 1000000 --seed 1``; the same seed
gives the same inputs. The rules: no exception other than LearnerError, at most a second for an
input of at most a megabyte, and no more memory than twice the input plus ``SPARE``. An input that
breaks a rule is saved and named.
"""

from __future__ import annotations

import argparse
import json
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
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from fastai_deploy.cli.escaping import visible
from fastai_deploy.cli.reports import anatomy_lines
from fastai_deploy.errors import LearnerError, LearnerTruncated
from fastai_deploy.learner.examine.anatomy import examine, summary
from fastai_deploy.learner.examine.load_safety import load_effects
from fastai_deploy.learner.reading.formats import open_archive, read_archive
from fastai_deploy.learner.reading.graph import Call, Mapping, Sequence, walk
from fastai_deploy.learner.reading.sources import BytesSource
from fastai_deploy.learner.text.tokenizer_json import tokenizer_json
from tests.learner.assemble import assemble
from tests.learner.mutations import (
    LARGEST_PICKLE,
    Pickle,
    in_a_zip,
    mutate_bytes,
    mutate_opcodes,
    take_apart,
)

LEARNERS = Path(__file__).parent.parent / "learners"
TINY = ("added_tokens_bpe", "multi_label", "regression", "wrapper_bare", "xlnet")
SLOW = 1.0  # seconds for an input of at most a megabyte
SPARE = 192 << 20  # bytes: three times the limit of ``limits_of`` for the graph of a small file
ADDRESS_SPACE = 3 << 30
LEARNER = 500  # opcodes; a pickle with more counts as a learner's
LONG, KEPT = 60, 20  # entries of a dict or elements of a list in a shrunk learner
# Parts of every module that no test needs: hooks, and the second of two equal layers.
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


def run(data: bytes) -> str:
    """Read and examine one input; return the name of its error, or the verdict.

    Exceptions other than LearnerError propagate.
    """
    try:
        archive = read_archive(BytesSource(data))
        load_effects(archive.pickled)
        anatomy = examine(archive, len(data))
        json.dumps(summary("learner.pkl", anatomy))
        "\n".join(map(visible, anatomy_lines(summary("learner.pkl", anatomy)))).encode("utf-8")
        if anatomy.tokenizer is not None:
            tokenizer_json(anatomy.tokenizer, prefix_space=True, python_37=True)
    except LearnerError as error:
        return type(error).__name__
    for tensor in list(anatomy.weights.values())[:4]:
        with suppress(LearnerTruncated):
            tensor.read()
    return anatomy.verdict.kind


def corpus() -> list[bytes]:
    """Real learners, the pickles inside them, and small pickles of every protocol."""
    files = [path.read_bytes() for path in _learners()]
    found = list(files)
    for data in files:
        if data.startswith(b"PK"):
            with zipfile.ZipFile(BytesIO(data)) as archive:
                name = next(each for each in archive.namelist() if each.endswith("data.pkl"))
                found.append(archive.read(name))
                found.append(_small_zip(archive, name))
    return found + shrunk_learners() + small_pickles()


def _learners() -> list[Path]:
    tiny = (LEARNERS / "v2" / "tiny" / f"{name}.pkl" for name in TINY)
    return sorted((*LEARNERS.glob("v?/*.pkl"), *tiny))


def shrunk_learners() -> list[bytes]:
    """The real learners with long values shortened: quick to read, and still learners."""
    found: list[bytes] = []
    for path in _learners():
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


@dataclass(frozen=True)
class Inputs:
    """The inputs to mutate: whole files, by size, and pickles split into opcodes."""

    small: Many[bytes]
    middle: Many[bytes]
    large: Many[bytes]
    pickles: Many[Pickle]
    learners: Many[Pickle]


def inputs(files: Many[bytes]) -> Inputs:
    """The corpus, sorted."""
    cut = [take_apart(data) for data in files if len(data) < LARGEST_PICKLE]
    pickles = [pickle for pickle in cut if pickle is not None]
    return Inputs(
        small=[data for data in files if len(data) < 8_192],
        middle=[data for data in files if 8_192 <= len(data) < 60_000],
        large=[data for data in files if len(data) >= 60_000],
        pickles=pickles,
        learners=[pickle for pickle in pickles if len(pickle.opcodes) > LEARNER],
    )


def mutated(rng: random.Random, found: Inputs) -> bytes:
    """A mutated input; whole learners are slow to read, so they are much rarer than small ones."""
    if rng.random() < 0.5:
        pickled = mutate_opcodes(rng, rng.choice((found.pickles, found.learners)), found.pickles)
        return in_a_zip(rng, pickled) if rng.random() < 0.25 else pickled
    files = rng.choices((found.small, found.middle, found.large), (40, 58, 2))[0]
    data = bytearray(rng.choice(files))
    mutate_bytes(rng, data, files)
    return bytes(data)


def fuzz(executions: int, seed: int, told: Callable[[str], None]) -> Counter[str]:
    """Run mutated inputs and count the outcomes. Raises an error if one breaks a rule."""
    rng = random.Random(seed)  # noqa: S311 - the same inputs for the same seed
    sys.setrecursionlimit(20_000)  # for the assembler; the reader does not recurse
    found = inputs(corpus())
    sys.setrecursionlimit(1_000)
    outcomes: Counter[str] = Counter()
    began = time.monotonic()
    for count in range(1, executions + 1):
        data = mutated(rng, found)
        before, started = _peak(), time.process_time()
        try:
            outcomes[run(data)] += 1
        except BaseException:
            _keep(f"fuzz-{seed}-{count}.bin", data)
            raise
        took, grew = time.process_time() - started, _peak() - before
        if took > SLOW * max(1, len(data) >> 20):
            outcomes["SLOW"] += 1
            _keep(f"slow-{seed}-{count}.bin", data)
            told(f"slow: {took:.1f} s, {len(data)} bytes, number {count}")
        if grew > 2 * len(data) + SPARE:
            outcomes["LARGE"] += 1
            _keep(f"large-{seed}-{count}.bin", data)
            told(f"large: {grew:,} bytes for {len(data):,}, number {count}")
        if count % 50_000 == 0:
            told(f"{count:,} executions, {time.monotonic() - began:.0f} s, {dict(outcomes)}")
    return outcomes


def _peak() -> int:
    """This process's peak memory in bytes, as Linux counts it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _keep(name: str, data: bytes) -> None:
    Path(name).write_bytes(data)


def tell(line: str) -> None:
    """Print a line and flush it, also if the output goes to a file."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """The command line; exits with 1 if an input took too much time or memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    began = time.monotonic()
    outcomes = fuzz(arguments.executions, arguments.seed, tell)
    took = time.monotonic() - began
    tell(f"{arguments.executions:,} executions, {took:.0f} s: {dict(outcomes)}")
    sys.exit(1 if outcomes["SLOW"] or outcomes["LARGE"] else 0)


if __name__ == "__main__":
    main()
