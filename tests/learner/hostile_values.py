"""Valid learners with one hostile value: the result of each, with its time and memory.

``python -m tests.learner.hostile_values`` builds each from a tiny learner of the tests, runs
``fdeploy export`` on it, and prints the table of docs/fuzzing.md. It exits with 1 if one does not
end with exit code 5. None of the values is code: the harm is in their size, or in what a library
does with them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.reading.graph import (
    Call,
    Global,
    Mapping,
    Sequence,
    attributes,
    class_of,
    data,
    entries,
    walk,
)
from fastai_deploy.learner.reading.tensors import Storage
from tests.learner.assemble import assemble, torch_zip

LEARNERS = Path(__file__).parent.parent / "learners"
BERT, ALBERT, DISTILBERT, XLNET, T5, MODERNBERT, ROBERTA = (
    f"v2/tiny/{name}"
    for name in ("bert", "albert", "distilbert", "xlnet", "t5", "modernbert", "roberta")
)
ULMFIT = "v2/v2_awdlstm_f2812"
HANGS = r"^(?:(?:\w|[a-z])+)+$(?<=\x01)"  # backtracks forever on any word
EXIT = 5  # a LearnerError

# After fork and exec, a process inherits the peak memory of its parent, and the parent may be a
# large test process. So a small process starts the command and measures it.
MEASURE = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
print(json.dumps([process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""

Change = Callable[[object], None]


@dataclass(frozen=True)
class Hostile:
    """A learner with one changed value; ``kind`` is the part of the learner that it belongs to."""

    kind: str
    base: str
    change: Change


@dataclass(frozen=True)
class Ran:
    """The result of one run of the command.

    ``seconds`` is wall time, ``processor`` the CPU seconds of the command and its processes;
    ``memory`` is the largest peak of one of them, in bytes.
    """

    status: int
    seconds: float
    processor: float
    memory: int
    code: str
    message: str


def write_hostile(hostile: Hostile, file: Path) -> Path:
    """Write the learner."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)  # for the assembler
    try:
        with open_archive(LEARNERS / f"{hostile.base}.pkl") as (_, archive):
            root = archive.pickled.root
            hostile.change(root)
            storages = {
                value.key: value.data.read(0, value.data.size)
                for value in walk(root)
                if isinstance(value, Storage) and value.data is not None
            }
            file.write_bytes(torch_zip(assemble(root), storages))
    finally:
        sys.setrecursionlimit(before)
    return file


def _objects(root: object, suffix: str) -> Iterator[Call]:
    for value in walk(root):
        cls = class_of(value)
        if isinstance(value, Call) and cls is not None:
            yield from [value] if cls.name.endswith(suffix) and value.states else []


def _set(node: Call, name: str, to: object) -> None:
    state = node.states[-1]
    assert isinstance(state, Mapping)
    state.pairs[:] = [pair for pair in state.pairs if pair[0] != name] + [(name, to)]


def _config(name: str, to: object) -> Change:
    def change(root: object) -> None:
        for config in list(_objects(root, "Config")):
            _set(config, name, to)

    return change


def _of(cls: str, name: str, to: object) -> Change:
    def change(root: object) -> None:
        for node in list(_objects(root, cls)):
            _set(node, name, to)

    return change


def _labels(*names: object) -> Change:
    listed = Sequence("list", list(names))

    def change(root: object) -> None:
        for node in list(_objects(root, "Categorize")):
            _set(node, "vocab", listed)

    return change


def _numpy_text(text: str) -> Call:
    """A text as NumPy pickles it; repeated references to one object are stored once."""
    dtype = Call(Global("numpy", "dtype"), (f"U{len(text)}", False, True))
    raw = Call(Global("_codecs", "encode"), (text.encode("utf-32-le").decode("latin-1"), "latin1"))
    return Call(Global("numpy.core.multiarray", "scalar"), (dtype, raw))


def _tokenizer(edit: Callable[[dict[str, Any]], object]) -> Change:
    """Edit the ``tokenizer.json`` in a learner; a text from ``edit`` replaces it."""

    def change(root: object) -> None:
        for value in walk(root):
            if class_of(value) == Global("tokenizers", "Tokenizer"):
                assert isinstance(value, Call)
                held = data(value.states[-1])
                assert held is not None
                made = json.loads(held)
                edited = edit(made)
                text = edited if isinstance(edited, str) else json.dumps(made)
                value.states[:] = [text.encode()]

    return change


def _model(**values: Any) -> Change:
    return _tokenizer(lambda made: made["model"].update(values))


def _replacing(*patterns: tuple[str, str]) -> Change:
    steps = [
        {"type": "Replace", "pattern": {"Regex": old}, "content": new} for old, new in patterns
    ]
    return _tokenizer(
        lambda made: made.update(normalizer={"type": "Sequence", "normalizers": steps})
    )


def _pattern(place: int, pattern: str, flags: int = 32) -> Change:
    """Replace a pattern of the spaCy tokenizer: 0 prefix, 1 suffix, 2 infix."""

    def change(root: object) -> None:
        for value in walk(root):
            if class_of(value) == Global("spacy.tokenizer", "Tokenizer"):
                assert isinstance(value, Call)
                method = value.args[2 + place]
                assert isinstance(method, Call)
                compiled = Call(Global("re", "_compile"), (pattern, flags))
                method.args = (compiled, method.args[1])

    return change


def _special(text: str, *parts: str) -> Change:
    """Add a special case to the spaCy tokenizer."""

    def change(root: object) -> None:
        for value in walk(root):
            if class_of(value) == Global("spacy.tokenizer", "Tokenizer"):
                assert isinstance(value, Call)
                split = Sequence("list", [Mapping([(65, part)]) for part in parts])
                entries(value.args[1]).append((text, split))

    return change


def _shared_weights(root: object) -> None:
    """Add a thousand layers that all use the same bytes of the file."""
    for node in walk(root):
        layers = attributes(node).get("_modules")
        names = [key for key, _ in entries(layers)]
        if names == ["0", "1"] and isinstance(layers, (Call, Mapping)):
            first = layers.pairs[0][1]
            layers.pairs.extend((str(number), first) for number in range(2, 1_000))
    _config("num_hidden_layers", 1_000)(root)


def _sinusoidal(root: object) -> None:
    """Positions that the model's class computes one number at a time."""
    for name, value in (
        ("sinusoidal_pos_embds", True),
        ("dim", 1_024),
        ("max_position_embeddings", 4_096),
    ):
        _config(name, value)(root)


def _nested_numbers(depth: int) -> object:
    value: object = 10**9
    for _ in range(depth):
        value = Mapping([("num_hidden_layers", value), ("inner", 10**9)])
    return value


VALUES: dict[str, Hostile] = {
    **{
        f"{name} = {value if len(str(value)) < 20 else 'a number of 90 digits'}"
        + (f" ({base.rpartition('/')[2]})" if base != BERT else ""): Hostile(
            "configuration", base, _config(name, value)
        )
        for base, name, value in (
            (BERT, "num_hidden_layers", 10_000_000),
            (BERT, "num_hidden_layers", 64),
            (BERT, "num_hidden_layers", -1),
            (BERT, "num_hidden_layers", 1e18),
            (BERT, "num_hidden_layers", "1000000"),
            (BERT, "hidden_size", 10**8),
            (BERT, "hidden_size", 10**90),
            (BERT, "hidden_size", 0),
            (BERT, "intermediate_size", 10**9),
            (BERT, "vocab_size", 10**10),
            (BERT, "vocab_size", 1_000_000),
            (BERT, "max_position_embeddings", 10**10),
            (BERT, "max_position_embeddings", 100_000),
            (BERT, "type_vocab_size", 10**9),
            (BERT, "num_attention_heads", 10**9),
            (BERT, "num_attention_heads", 0),
            (BERT, "layer_norm_eps", float("nan")),
            (BERT, "hidden_act", "\x1b[2J" * 200),
            (ALBERT, "num_hidden_layers", 1_000_000),
            (ALBERT, "num_hidden_groups", 1_000_000),
            (ALBERT, "embedding_size", 10**9),
            (DISTILBERT, "dim", 10**8),
            (DISTILBERT, "n_layers", 10**7),
            (XLNET, "d_inner", 10**9),
            (XLNET, "mem_len", 10**12),
            (T5, "num_decoder_layers", 10**7),
            (T5, "relative_attention_num_buckets", 10**9),
            (MODERNBERT, "max_position_embeddings", 10**9),
            (MODERNBERT, "local_attention", 10**12),
        )
    },
    "sinusoidal_pos_embds, 4,096 x 1,024 (distilbert)": Hostile(
        "configuration", DISTILBERT, _sinusoidal
    ),
    "rope_scaling of nested numbers (modernbert)": Hostile(
        "configuration", MODERNBERT, _config("rope_parameters", _nested_numbers(20))
    ),
    "id2label of a million entries": Hostile(
        "configuration", BERT, _config("id2label", Mapping([(n, "x") for n in range(1_000_000)]))
    ),
    "a thousand layers of the same bytes": Hostile("configuration", BERT, _shared_weights),
    "n_hid = 10**9 (ULMFiT)": Hostile("configuration", ULMFIT, _of("AWD_LSTM", "n_hid", 10**9)),
    "emb_sz = 10**9 (ULMFiT)": Hostile("configuration", ULMFIT, _of("AWD_LSTM", "emb_sz", 10**9)),
    "emb_sz = 10**90 (ULMFiT)": Hostile("configuration", ULMFIT, _of("AWD_LSTM", "emb_sz", 10**90)),
    "n_layers = 10**7 (ULMFiT)": Hostile(
        "configuration", ULMFIT, _of("AWD_LSTM", "n_layers", 10**7)
    ),
    "max_len = 10**12 (ULMFiT)": Hostile(
        "configuration", ULMFIT, _of("SentenceEncoder", "max_len", 10**12)
    ),
    "bptt = 10**12 (ULMFiT)": Hostile(
        "configuration", ULMFIT, _of("SentenceEncoder", "bptt", 10**12)
    ),
    "a label of 10 MB": Hostile("labels", BERT, _labels("x" * 10_000_000, "b", "c")),
    "a label of 257 characters": Hostile("labels", BERT, _labels("x" * 257, "b", "c")),
    "200,000 labels": Hostile("labels", BERT, _labels(*(str(n) for n in range(200_000)))),
    "100,000 labels that are one text of 2.5 million characters": Hostile(
        "labels", BERT, _labels(*[_numpy_text("x" * 2_500_000)] * 100_000)
    ),
    "a label that is a number of 700 digits": Hostile("labels", BERT, _labels(10**700, 1, 2)),
    "an unknown token outside the vocabulary": Hostile("tokenizer", BERT, _model(unk_token="[NO]")),
    "merges of tokens that do not exist": Hostile(
        "tokenizer", ROBERTA, _model(merges=[["zz", "yy"]])
    ),
    "a panic on one-letter merges": Hostile(
        "tokenizer",
        BERT,
        _tokenizer(
            lambda made: made.update(
                model={"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}
            )
        ),
    ),
    "text a billion times longer": Hostile(
        "tokenizer", BERT, _replacing(*[("[\\s\\S]", "a" * 10)] * 9)
    ),
    "text a thousand times longer": Hostile(
        "tokenizer", BERT, _replacing(*[("[\\s\\S]", "a" * 10)] * 3)
    ),
    "a pattern that backtracks": Hostile(
        "tokenizer", BERT, _replacing((r"(?:(?:\w|\s)+)+(?<=\x02)", ""))
    ),
    "a pattern that takes quadratic time": Hostile("tokenizer", BERT, _replacing((r"\s+\d", ""))),
    "a pattern nested 5,000 deep": Hostile(
        "tokenizer", BERT, _replacing(("(" * 5_000 + ")" * 5_000, ""))
    ),
    "a malformed pattern": Hostile("tokenizer", BERT, _replacing(("(", ""))),
    "a model of an unknown type": Hostile("tokenizer", BERT, _model(type="Nope")),
    "ids of 2**40": Hostile(
        "tokenizer", BERT, _model(vocab={"[UNK]": 2**40, "[CLS]": 2, "[SEP]": 3})
    ),
    "ids beyond the embedding": Hostile(
        "tokenizer", BERT, _tokenizer(lambda made: made["model"]["vocab"].update(extra=5_000_000))
    ),
    "a Unigram model without pieces": Hostile("tokenizer", XLNET, _model(vocab=[], unk_id=0)),
    "an unknown piece out of range": Hostile("tokenizer", XLNET, _model(unk_id=10**9)),
    "an invalid table of characters": Hostile(
        "tokenizer",
        XLNET,
        _tokenizer(
            lambda made: made.update(
                normalizer={"type": "Precompiled", "precompiled_charsmap": "/////w=="}
            )
        ),
    ),
    "max_input_chars_per_word = -1": Hostile(
        "tokenizer", BERT, _model(max_input_chars_per_word=-1)
    ),
    "100,000 special tokens around a text": Hostile(
        "tokenizer",
        BERT,
        _tokenizer(
            lambda made: made["post_processor"].update(
                single=made["post_processor"]["single"]
                + [{"SpecialToken": {"id": "[SEP]", "type_id": 0}}] * 100_000
            )
        ),
    ),
    "JSON nested 100,000 deep": Hostile(
        "tokenizer",
        BERT,
        _tokenizer(lambda _made: '{"model":' + "[" * 100_000 + "]" * 100_000 + "}"),
    ),
    "JSON of ten million empty lists": Hostile(
        "tokenizer",
        BERT,
        _tokenizer(lambda _made: '{"model":{"vocab":[' + "[]," * 10_000_000 + "[]]}}"),
    ),
    "a prefix rule that never ends": Hostile("word rules", ULMFIT, _pattern(0, HANGS)),
    "a suffix rule that never ends": Hostile("word rules", ULMFIT, _pattern(1, HANGS)),
    "an infix rule that never ends": Hostile(
        "word rules", ULMFIT, _pattern(2, r"(?:(?:[a-z])+)+\x02")
    ),
    "a rule nested 10,000 deep": Hostile(
        "word rules", ULMFIT, _pattern(0, "(?:" * 10_000 + "x" + ")" * 10_000)
    ),
    "a rule repeated 10**12 times": Hostile("word rules", ULMFIT, _pattern(0, "x{1000000000000}")),
    "a malformed rule": Hostile("word rules", ULMFIT, _pattern(0, "[")),
    "a rule that prints itself (re.DEBUG)": Hostile(
        "word rules", ULMFIT, _pattern(0, "x", 32 | 128)
    ),
    "a special case of a million parts": Hostile(
        "word rules", ULMFIT, _special("a", *["b"] * 1_000_000)
    ),
}


def export(file: Path, folder: Path) -> Ran:
    """Run the command on a learner, in ``folder``."""
    began = time.monotonic()
    command = [sys.executable, "-m", "fastai_deploy", "export", str(file), "--json"]
    with (folder / "said").open("wb") as said:
        found = subprocess.run(
            [sys.executable, "-c", MEASURE, *command],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=said,
            check=True,
        )
    status, processor, kilobytes = json.loads(found.stdout)
    seconds = time.monotonic() - began
    lines = (folder / "said").read_text(encoding="utf-8", errors="replace").splitlines()
    event = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return Ran(
        status,
        seconds,
        processor,
        kilobytes << 10,
        event.get("code", ""),
        event.get("message", ""),
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="a part of the names to run")
    wanted = parser.parse_args().only
    ran: dict[str, Ran] = {}
    print("| value | of | s of CPU | s | MB | answer |\n|---|---|---|---|---|---|", flush=True)  # noqa: T201
    for name, hostile in VALUES.items():
        if wanted not in name:
            continue
        with tempfile.TemporaryDirectory() as place:
            file = write_hostile(hostile, Path(place) / "learner.pkl")
            found = ran[name] = export(file, Path(place))
        told = f"{found.code}: {found.message[:140]}" if found.code else f"exit {found.status}"
        times = (f"{found.processor:.1f}", f"{found.seconds:.1f}")
        cells = (name, hostile.kind, *times, f"{found.memory >> 20}", told)
        print(f"| {' | '.join(cells)} |", flush=True)  # noqa: T201
    slowest = max(ran.values(), key=lambda each: each.processor)
    largest = max(ran.values(), key=lambda each: each.memory)
    print(  # noqa: T201
        f"\n{len(ran)} values; longest {slowest.processor:.1f} s of CPU ({slowest.seconds:.1f} s), "
        f"most {largest.memory >> 20} MB, "
        f"{sum(each.status != EXIT for each in ran.values())} without exit code {EXIT}"
    )
    sys.exit(any(each.status != EXIT for each in ran.values()))


if __name__ == "__main__":
    main()
