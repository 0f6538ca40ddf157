"""What loading a learner would do: every name it would import and every call it would make.

``pickle_calls.py`` works out what a call does, ``imports.py`` which names are harmless and which
are dangerous. Pickles within the pickle are included: every spaCy vocabulary contains one.

Nothing here is loaded or called. Nothing recurses over the graph, whose shape the file decides.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fastai_deploy.errors import DangerousLearner, LearnerTooComplex
from fastai_deploy.learner.examine.imports import (
    FOLLOWED,
    KINDS,
    Imported,
    Kind,
    kind_of,
    sort_names,
)
from fastai_deploy.learner.examine.pickle_calls import (
    BY_VALUE,
    GETATTR,
    MAY_BE_WRAPPED,
    PARTIALS,
    SETTERS,
    Found,
    apply,
    imports_module,
    inner_pickle,
    is_by_value,
    is_helper,
    kept,
    of_name,
    unwrap,
)
from fastai_deploy.learner.reading.graph import Call, Global, Mapping, Sequence, attributes
from fastai_deploy.learner.reading.pickle_reader import Pickled

MOST = 50  # dangers that are listed; one is enough to refuse a file
MAX_PICKLES = 30  # pickles within pickles; real learners have two
_UNSAFE_KEYS = frozenset({"__setstate__", "__class__", "__code__", "__globals__", "__reduce_ex__"})
# Methods that appending or setting items would call, which an instance could override.
_OWN_METHODS = frozenset({"append", "extend", "add"})
SPACY_VOCABULARY = Global("spacy.vocab", "unpickle_vocab")
_MOST_PLACES = 300_000  # parts of the learner that are searched for the source of a danger
_LONGEST_PLACE = 200  # characters
# Singletons: setting an attribute on one of them changes the running program.
_SHARED = frozenset(
    {"builtins.getattr", "logging.getLogger", "pytz._UTC", "pytz._p", "builtins.type"}
)
# Functions that call their arguments; where one is only stored, the arguments cannot be known.
_CALLERS = (
    frozenset(FOLLOWED) - MAY_BE_WRAPPED - {"builtins.type", "spacy.tokenizer.Tokenizer"}
) | {"builtins.map", "builtins.filter", "itertools.accumulate", "itertools.starmap"}


@dataclass(frozen=True)
class Called:
    """One kind of call, and how often loading would make it."""

    what: str
    kind: Kind
    name: str
    count: int


@dataclass(frozen=True, eq=False, repr=False)
class LoadEffects:
    """Everything that loading a file would import and call.

    ``dangers`` are in words that follow "would"; ``culprit`` says where in the learner the first
    one is, if it can be located. ``unknown`` are the names that somebody would have to vouch for.
    """

    imports: tuple[Imported, ...]
    calls: tuple[Called, ...]
    dangers: tuple[str, ...]
    culprit: str
    unknown: tuple[str, ...]


def load_effects(pickled: Pickled) -> LoadEffects:
    """What loading a pickle would do.

    Raises LearnerTooComplex, LearnerTruncated or UnsupportedLearner for a pickle within it that
    cannot be read.
    """
    counts: Counter[Global] = Counter()
    found: Counter[Found] = Counter()
    culprits: dict[Found, object] = {}
    for each in _pickles(pickled):
        counts.update(each.globals)
        for name in each.globals:
            if kind_of(name) == "dangerous":
                culprits.setdefault(Found("dangerous", f"import {name}"), name)
        for one, node in _done(each):
            found[one] += 1
            culprits.setdefault(one, node)
    imports = sort_names(counts)
    dangers = [one for one in culprits if one.kind == "dangerous"]
    needed = {each.name for each in imports if each.kind in ("unknown", "user") and not each.own}
    needed |= {one.name for one in found if one.kind == "unknown" and one.name}
    return LoadEffects(
        imports=imports,
        calls=tuple(
            Called(one.what, one.kind, one.name, count)
            for one, count in sorted(
                found.items(), key=lambda item: (KINDS.index(item[0].kind), item[0].what)
            )
        ),
        dangers=tuple(one.what for one in dangers[:MOST]),
        culprit=place(pickled.root, culprits[dangers[0]]) if dangers else "",
        unknown=tuple(sorted(needed)),
    )


def refuse_danger(pickled: Pickled) -> None:
    """Raise DangerousLearner, naming what loading the file would do. Nothing has been run."""
    for danger in load_effects(pickled).dangers:
        raise DangerousLearner(
            f"loading this file would {danger}; fdeploy only read the file and ran nothing",
            hint="do not load this file; find out where it comes from",
        )


def _pickles(pickled: Pickled) -> Iterator[Pickled]:
    """A pickle, and the pickles within it that loading would also read."""
    waiting = [pickled]
    for _ in range(MAX_PICKLES):
        if not waiting:
            return
        each = waiting.pop()
        yield each
        vocabularies = (call for call in each.calls if call.func == SPACY_VOCABULARY)
        waiting.extend(held for call in vocabularies if (held := inner_pickle(call)) is not None)
    raise LearnerTooComplex(
        "the file has more nested pickles than any learner",
        hint="the file is damaged or malicious; export the learner again",
    )


def _done(pickled: Pickled) -> Iterator[tuple[Found, object]]:
    """What loading one pickle would do other than import, with the call or name behind it."""
    plain: dict[tuple[Global, bool], Found] = {}
    for call in pickled.calls:
        func = call.func
        if isinstance(func, Global) and str(func) not in FOLLOWED and not is_helper(func):
            key = (func, call.new)
            if key not in plain:
                plain[key] = of_name(func, new=call.new)
            yield plain[key], call
        else:
            yield apply(call.func, call.args, call.kwargs, new=call.new), call
        for one in _set_afterwards(call):
            yield one, call
    for name in pickled.patched:
        yield Found("dangerous", f"set attributes on {name}"), name
    yield from _held(pickled)


def _set_afterwards(call: Call) -> Iterator[Found]:
    """What setting the state or the items of an object would do in addition."""
    keys = [key for key in _state_keys(call) if isinstance(key, str)]
    unsafe = _UNSAFE_KEYS.intersection(keys)
    if unsafe:
        yield Found("dangerous", f"override {min(unsafe)} on an object")
    if call.items and _OWN_METHODS.intersection(keys):
        yield Found("dangerous", "call a method that the file put on an object")
    if not (call.states or call.items or call.pairs):
        return
    func = call.func
    if isinstance(func, Global):
        if str(func) in _SHARED or imports_module(call) or is_by_value(call):
            yield Found("dangerous", f"modify the result of {func}")
        elif str(func) in PARTIALS:
            yield kept(unwrap(call)[0])
            if not all(isinstance(state, tuple) for state in call.states):
                yield Found("dangerous", f"give {func} a function that is made during loading")
    elif isinstance(func, Call) and func.func == GETATTR:
        yield Found("dangerous", "modify the result of a method")


def _state_keys(call: Call) -> Iterator[object]:
    for state in call.states:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, Mapping):
                yield from (key for key, _ in part.pairs)


def _held(pickled: Pickled) -> Iterator[tuple[Found, object]]:
    """Functions that call their arguments, stored in the learner instead of called.

    Names that a user's function refers to are part of its code, and left out.
    """
    seen = {
        id(each)
        for call in pickled.calls
        if isinstance(call.func, Global) and call.func.name in SETTERS | BY_VALUE
        for argument in call.args
        for each in _layers(argument)
    }
    waiting: list[object] = [pickled.root, *pickled.calls]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        for part in _parts(value):
            if isinstance(part, Global):
                if str(part) in _CALLERS:
                    yield Found("unknown", f"store {part} and call it later", str(part)), part
            elif isinstance(part, (Call, Mapping, Sequence, tuple)):
                waiting.append(part)


def _parts(value: object) -> Iterable[object]:
    """The parts of a value, without what it calls and arguments that are checked anyway."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, Sequence):
        return value.items
    if not isinstance(value, (Call, Mapping)):
        return ()
    pairs = (part for pair in value.pairs for part in pair)
    if isinstance(value, Mapping):
        return pairs
    func = value.func
    followed = isinstance(func, Global) and (str(func) in FOLLOWED or is_helper(func))
    return (*(() if followed else value.args), *value.items, *value.states, *pairs)


def _layers(value: object) -> Iterator[object]:
    """A value, the contents of a tuple or dict, and the dicts in those."""
    yield value
    inner = value if isinstance(value, tuple) else _values(value)
    for each in inner:
        yield each
        yield from _values(each)


def _values(value: object) -> Iterable[object]:
    return [item for _, item in value.pairs] if isinstance(value, Mapping) else ()


def place(root: object, culprit: object) -> str:
    """Where in a learner something is, such as ``learn.dls.table``; empty if it is not in it."""
    paths: dict[int, str] = {id(root): "learn"}
    waiting = deque([root])
    while waiting and len(paths) < _MOST_PLACES:
        value = waiting.popleft()
        path = paths[id(value)]
        for step, part in _steps(value):
            if part is culprit or (isinstance(part, Global) and part == culprit):
                return _readable(path + step)
            if isinstance(part, (Call, Mapping, Sequence, tuple)) and id(part) not in paths:
                paths[id(part)] = path + step if len(path) < _LONGEST_PLACE else path
                waiting.append(part)
    return ""


def _readable(path: str) -> str:
    shown = path if len(path) < _LONGEST_PLACE else path[:_LONGEST_PLACE] + "..."
    return shown if shown.isprintable() else ascii(shown)[1:-1]


def _steps(value: object) -> Iterator[tuple[str, object]]:
    """The parts of a value, each with the Python expression that reaches it."""
    if isinstance(value, Call):
        for name, part in attributes(value).items():
            yield f".{name}", part
        for part in (value.func, *value.args, *value.states):
            yield "", part
        yield from _steps(tuple(value.items))
    elif isinstance(value, (Sequence, tuple)):
        for index, part in enumerate(value.items if isinstance(value, Sequence) else value):
            yield f"[{index}]", part
    if isinstance(value, (Call, Mapping)):
        for key, part in value.pairs:
            yield f"[{key!r}]" if isinstance(key, (str, int)) else "", part
            yield "", key
