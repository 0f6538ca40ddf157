"""Work out what a call in a pickle does, through functions that call their arguments.

``functools.partial`` leads to the function that it wraps, ``getattr`` to the class whose method it
takes, ``copyreg._reconstructor`` to the class that it creates, the rebuilding functions of torch
and pandas to what they rebuild, and cloudpickle's helpers to the code that they create. A function
defined in the file is the user's own. *Running* one during loading is a danger, because no learner
needs that.

Nothing is called, and the nesting of calls is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fastai_deploy.learner.examine.imports import (
    CALLED,
    FOLLOWED,
    HELD,
    KINDS,
    MAIN,
    NEVER_MODULES,
    STANDARD,
    Kind,
    Rule,
    is_called,
    is_class,
    is_made,
    is_method,
    kind_of,
    leads_out,
    name_set,
)
from fastai_deploy.learner.reading.graph import (
    MAKE_CLASS,
    Call,
    Global,
    Mapping,
    Sequence,
    class_name,
    class_of,
    data,
)
from fastai_deploy.learner.reading.pickle_reader import Pickled, read_pickle
from fastai_deploy.learner.reading.sources import BytesSource, Stream

MAX_STEPS = 30  # partials of partials; real learners have two
SPACY_PICKLE = 4  # the argument of unpickle_vocab that is itself a pickle
GETATTR = Global("builtins", "getattr")
PARTIALS = frozenset({"functools.partial", "functools.partialmethod"})
_GETTERS = frozenset({"itemgetter", "attrgetter", "methodcaller"})
_OR = frozenset({Global("operator", "or_"), Global("_operator", "or_")})
_PLAIN_BASES = frozenset(
    {"object", "dict", "list", "set", "frozenset", "tuple", "str", "int", "float"}
)
_TYPE_MODULES = frozenset({"typing", "collections", "collections.abc", "builtins", "types"})
# Of cloudpickle: what creates the user's code or classes, and what sets attributes on them.
_CLASSES_BY_VALUE = MAKE_CLASS | {"_make_skeleton_enum"}
BY_VALUE = _CLASSES_BY_VALUE | {"_make_function", "_make_skel_func"}
SETTERS = frozenset({"_function_setstate", "_class_setstate", "_fill_function"})
_CLASS_MAKERS = frozenset({"abc.ABCMeta", "enum.EnumMeta", "enum.EnumType"})
# Classes in the module ``types`` that hold their arguments and run nothing.
_TYPES_BY_NAME = name_set(
    """
    CodeType MethodType MappingProxyType SimpleNamespace GenericAlias UnionType NoneType
    EllipsisType NotImplementedType CellType
    """
)
# Modules that do something when imported, and modules that a learner's code often needs.
_SIDE_EFFECTS = name_set("antigravity this test idlelib lib2to3 turtledemo")
_MODULES = name_set(
    """
    torch torch.nn torch.nn.functional torch.nn.init numpy pandas transformers fastai fastai.text
    fastai.text.all fastai.basics fastai.learner fastcore fastcore.all fastcore.basics regex spacy
    tokenizers sklearn sklearn.metrics scipy scipy.special
    """
)


@dataclass(frozen=True)
class Found:
    """One thing that loading would do, in words that follow "would".

    ``name`` is the name to allow for it; empty if it cannot be allowed.
    """

    kind: Kind
    what: str
    name: str = ""


HARMLESS = Found("harmless", "call nothing")


def is_helper(func: Global) -> bool:
    """Whether a function belongs to cloudpickle."""
    return func.module.split(".")[0] == "cloudpickle"


def _worst(found: Iterable[Found]) -> Found:
    return min(found, key=lambda one: KINDS.index(one.kind), default=HARMLESS)


def apply(
    func: object,
    args: tuple[object, ...],
    kwargs: object = None,
    *,
    new: bool = False,
    step: int = 0,
) -> Found:
    """What calling ``func`` with ``args`` does."""
    if step > MAX_STEPS:
        return Found("dangerous", "call something through more layers than any learner has")
    if isinstance(func, Global):
        rule = FOLLOWED.get(str(func))
        if rule is not None:
            return _RULES[rule](_Made(func, args, kwargs, step + 1))
        if is_helper(func):
            return _cloudpickle(func, args, step + 1)
        return of_name(func, new=new)
    if isinstance(func, Call):
        return _of_result(func, args, kwargs, new=new, step=step + 1)
    return Found("dangerous", "call something that is neither a class nor a function")


def of_name(func: Global, *, new: bool) -> Found:
    """The call of a named function that does only what its own code says."""
    kind, what = kind_of(func), f"{'make' if new else 'call'} {func}"
    if kind == "user":
        return Found("user", what, "" if func.module.split(".")[0] in MAIN else str(func))
    if kind == "dangerous":
        return Found("dangerous", what)
    if is_made(func) if new else is_called(func):
        return Found("harmless", what, str(func))
    if func.module.split(".")[0] in STANDARD and (not is_class(func) or str(func) in _CLASS_MAKERS):
        return Found("dangerous", what)
    return Found("unknown", what, str(func))


def _of_result(
    made: Call, args: tuple[object, ...], kwargs: object, *, new: bool, step: int
) -> Found:
    """The call of something that another call created."""
    match made:
        case Call(func=Global(name=name)) if is_by_value(made) and name in _CLASSES_BY_VALUE:
            return Found("user", f"make {class_name(made) or 'an enum'}, which the file defines")
        case Call() if is_by_value(made):
            return Found("dangerous", "run code that is stored in the file")
        case Call(func=Global(name="_builtin_type"), args=(str(name),)):
            return _of_builtin_type(name, args)
        case Call(func=Global() as func) if str(func) in PARTIALS:
            wrapped, before, more = unwrap(made)
            return apply(wrapped, (*before, *args), more or kwargs, new=new, step=step)
        case Call(func=Global() as func, args=(owner, str(name), *_)) if func == GETATTR:
            return _of_method(owner, name)
        case _:
            getter = isinstance(made.func, Global) and made.func.name in _GETTERS
            return Found(
                "dangerous",
                f"call what {made.func} makes" if getter else "call the result of another call",
            )


def is_by_value(made: object) -> bool:
    """Whether a call creates a class or a function whose code is in the file."""
    return (
        isinstance(made, Call)
        and isinstance(made.func, Global)
        and is_helper(made.func)
        and made.func.name in BY_VALUE
    )


def _of_builtin_type(name: str, args: tuple[object, ...]) -> Found:
    if name == "CodeType":
        return Found("user", "make code that is stored in the file")
    if name == "MethodType":
        return kept(args[0]) if args else HARMLESS
    if name in _TYPES_BY_NAME:
        return Found("harmless", f"make a {name}", f"types.{name}")
    return Found("dangerous", f"call types.{name}")


def _of_method(owner: object, name: str) -> Found:
    """The call of a method that ``getattr(owner, name)`` returned."""
    cls = _class_behind(owner)
    if cls is None or leads_out(name) or kind_of(cls) == "dangerous":
        return Found("dangerous", f"call a method of {cls or 'a value that it holds'}")
    full = f"{cls}.{name}"
    if full in _CALLED_METHODS:
        return Found("harmless", f"call {full}", full)
    if cls.module.split(".")[0] in MAIN or _is_of_file(owner):
        return Found("user", f"call {full}")
    if cls.module.split(".")[0] in STANDARD:
        return Found("dangerous", f"call a method of {cls}")
    return Found("unknown", f"call {full}", full)


_CALLED_METHODS = frozenset(
    f"{module}.{name}" for module, names in CALLED.items() for name in names if "." in name
)


def _class_behind(owner: object) -> Global | None:
    """The class or function that an object comes from."""
    if isinstance(owner, Global):
        return owner
    return (class_of(owner) or class_name(owner)) if isinstance(owner, Call) else None


def unwrap(partial: Call) -> tuple[object, tuple[object, ...], object]:
    """The function in a ``functools.partial``, its arguments and its keywords.

    State that pickle sets afterwards counts, because it replaces everything in the ``partial``.
    """
    for state in reversed(partial.states):
        if isinstance(state, tuple) and len(state) >= 3:  # noqa: PLR2004 - function, arguments, keywords
            args = state[1] if isinstance(state[1], tuple) else ()
            more = state[2] if isinstance(state[2], Mapping) and state[2].pairs else None
            return state[0], args, more
    return (partial.args[0], partial.args[1:], partial.kwargs) if partial.args else (None, (), None)


@dataclass(frozen=True)
class _Made:
    """The call of a function that has a rule."""

    func: Global
    args: tuple[object, ...]
    kwargs: object
    step: int

    def at(self, index: int) -> object:
        """An argument, or None."""
        return self.args[index] if index < len(self.args) else None

    @property
    def fine(self) -> Found:
        """The finding, if what it calls is harmless."""
        return Found("harmless", f"call {self.func}", str(self.func))


def _getattr(made: _Made) -> Found:
    owner, name = made.at(0), made.at(1)
    if not isinstance(name, str):
        return Found("dangerous", "access an attribute whose name is computed during loading")
    cls = _class_behind(owner)
    whole = isinstance(owner, Call) and imports_module(owner)
    if whole or cls is None or leads_out(name):
        where = "a module" if whole else cls or "a value that it holds"
        return Found("dangerous", f"take {name} out of {where}")
    what, full = f"take {name} out of {cls}", f"{cls}.{name}"
    if cls.module.split(".")[0] in MAIN or _is_of_file(owner):
        return Found("user", what)
    known = is_method(str(cls), name) or full in _CALLED_METHODS
    return Found("harmless" if known else "unknown", what, full)


def _is_of_file(owner: object) -> bool:
    """Whether an object's class, or a class, is defined in the file."""
    return isinstance(owner, Call) and (is_by_value(owner) or is_by_value(owner.func))


def imports_module(made: Call) -> bool:
    """Whether a call returns a whole module."""
    return isinstance(made.func, Global) and made.func.name in (
        "subimport", "dynamic_subimport", "import_module", "__import__",
    )  # fmt: skip


def _partial(made: _Made) -> Found:
    return _worst((kept(made.at(0)), made.fine))


def kept(func: object) -> Found:
    """A function that is stored, and will be called when the learner is used."""
    if isinstance(func, Global):
        kind = kind_of(func)
        if kind == "dangerous" or (str(func) in FOLLOWED and str(func) not in MAY_BE_WRAPPED):
            return Found("dangerous", f"store {func} and call it later")
        name = "" if func.module.split(".")[0] in MAIN else str(func)
        return Found(kind, f"store {func} and call it later", name)
    if isinstance(func, Call):
        return HARMLESS  # checked where it is created
    return Found("dangerous", "store something that is not a function and call it later")


def _reduce(made: _Made) -> Found:
    """How Python pickles the type ``A | B``: as ``reduce(or_, (A, B))``."""
    if made.at(0) in _OR if isinstance(made.at(0), Global) else False:
        return made.fine
    return Found("dangerous", f"call {made.func}")


def _make_type(made: _Made) -> Found:
    return made.fine if len(made.args) == 1 else Found("dangerous", "make a class")


def _attrgetter(made: _Made) -> Found:
    names = [name for name in made.args if isinstance(name, str)]
    parts = [part for name in names for part in name.split(".")]
    if len(names) < len(made.args) or any(leads_out(part) for part in parts):
        return Found("dangerous", f"call {made.func} with {', '.join(parts[:3]) or 'a value'}")
    return made.fine


def _methodcaller(made: _Made) -> Found:
    name = made.at(0)
    if not isinstance(name, str) or leads_out(name):
        return Found("dangerous", f"call {made.func}")
    return Found("unknown", f"call {made.func} with {name}", str(made.func))


def _getitem(made: _Made) -> Found:
    """``list[int]`` and its like."""
    owner = made.at(0)
    if isinstance(owner, Global) and (owner.module in _TYPE_MODULES or is_class(owner)):
        return _worst((made.fine, kept(owner)))
    return Found("dangerous", f"call {made.func} on a value that is not a type")


def _defaultdict(made: _Made) -> Found:
    factory = made.at(0)
    if factory is None:
        return made.fine
    return _worst((apply(factory, (), step=made.step), made.fine))


def _new_class(made: _Made) -> Found:
    """``copyreg``: the class is the first argument."""
    rest = made.args[1:] if made.func.name == "__newobj__" else ()
    found = apply(made.at(0), rest, new=True, step=made.step)
    if made.func.name == "_reconstructor":
        base = made.at(1)
        plain = isinstance(base, Global) and base.module == "builtins"
        if not (plain and isinstance(base, Global) and base.name in _PLAIN_BASES):
            return _worst((found, apply(base, (), new=True, step=made.step)))
    return found


def _first_is_class(made: _Made) -> Found:
    """NumPy and pandas: the first argument is the class of the rebuilt object."""
    classes = [made.at(0)]
    if made.func.name == "_mareconstruct":
        classes.append(made.at(1))
    found = [apply(cls, (), new=True, step=made.step) for cls in classes]
    return _worst((*found, made.fine))


def _rebuild_from_type(made: _Made) -> Found:
    """torch: ``func(*args)`` is converted to a class."""
    args = made.at(2)
    if not isinstance(args, tuple):
        return Found("dangerous", f"call {made.func} with arguments that are made during loading")
    return _worst(
        (
            apply(made.at(0), args, step=made.step),
            apply(made.at(1), (), new=True, step=made.step),
            made.fine,
        )
    )


def _optimized_module(made: _Made) -> Found:
    """``torch.compile``: the second argument is called with the module's own ``__call__``."""
    context = made.at(1)
    func = context.func if isinstance(context, Call) else None
    if len(made.args) < 2 or (isinstance(func, Global) and _is_context(func)):  # noqa: PLR2004
        return made.fine
    return Found("dangerous", f"call {made.func} with a context that is not torch's")


def _is_context(func: Global) -> bool:
    return func.module == "torch._dynamo.eval_frame" and is_called(func)


def _spacy_tokenizer(made: _Made) -> Found:
    """The functions that find prefixes and so on, which spaCy calls while it sets its rules."""
    functions = [each for each in made.args[2:] if each is not None]
    found = [_finder(each, made.step) for each in functions]
    return _worst((*found, made.fine))


def _finder(function: object, step: int) -> Found:
    """A regular expression's search, or another function that is called with a text."""
    match function:
        case bool():
            return HARMLESS
        case Call(func=Global() as func, args=(owner, str(name))) if func == GETATTR:
            cls = _class_behind(owner)
            if is_method(str(cls), name):
                return HARMLESS
            return _of_method(owner, name)
    return apply(function, ("",), step=step)


def _spacy_vocabulary(made: _Made) -> Found:
    """spaCy: a pickle within the pickle, with functions that every new word is passed to."""
    call = Call(made.func, made.args)
    inner = inner_pickle(call)
    if inner is None:
        return Found("dangerous", "read a pickle that is made during loading")
    getters = inner.root.pairs if isinstance(inner.root, Mapping) else []
    return _worst((*(apply(getter, ("",), step=made.step) for _, getter in getters), made.fine))


def _first_is_called(made: _Made) -> Found:
    if made.at(0) is None:
        return made.fine
    return _worst((apply(made.at(0), ("",), step=made.step), made.fine))


_RULES: dict[Rule, Callable[[_Made], Found]] = {
    "attribute": _getattr,
    "partial": _partial,
    "reduce": _reduce,
    "type": _make_type,
    "attrgetter": _attrgetter,
    "methodcaller": _methodcaller,
    "item": _getitem,
    "factory": _defaultdict,
    "new class": _new_class,
    "rebuilt class": _first_is_class,
    "rebuilt tensor": _rebuild_from_type,
    "compiled": _optimized_module,
    "spaCy tokenizer": _spacy_tokenizer,
    "spaCy vocabulary": _spacy_vocabulary,
    "first argument": _first_is_called,
}
# Those of them that a partial may wrap; for the others, the arguments cannot be known.
MAY_BE_WRAPPED = frozenset(
    {"spacy.util._get_attr_unless_lookup", "collections.defaultdict", "functools.partial"}
)


def _cloudpickle(func: Global, args: tuple[object, ...], step: int) -> Found:
    """A helper of cloudpickle, which creates classes and functions whose code is in the file."""
    name, first = func.name, args[0] if args else None
    if name in SETTERS and not is_by_value(first):
        return Found("dangerous", f"modify {_class_behind(first) or 'a value'}")
    if name in ("_make_skeleton_class", "_make_skeleton_enum"):
        made = Found("user", "make a class that the file defines")
        return _worst((*_metaclass(first, step), made))
    if name in BY_VALUE | SETTERS | {"dynamic_subimport"}:
        return Found("user", "make code that is stored in the file")
    if name == "subimport":
        return _module(first)
    types = not isinstance(first, str) or first not in _TYPES_BY_NAME
    if kind_of(func) != "harmless" or (name == "_builtin_type" and types):
        return Found("dangerous", f"call {func}")
    return Found("harmless", f"call {func}", str(func))


def _metaclass(cls: object, step: int) -> Iterator[Found]:
    """The calls that create a class: ``type``, another metaclass by name, or one in the file."""
    if isinstance(cls, Global):
        if cls == Global("builtins", "type"):
            return
        if not (cls.name in HELD.get(cls.module, ()) and is_class(cls)):
            yield apply(cls, (None, None, None), step=step)
    elif isinstance(cls, (tuple, Sequence)) or is_by_value(cls):
        return  # bases of an enum; a user-defined metaclass
    else:
        yield apply(cls, (None, None, None), step=step)


def _module(name: object) -> Found:
    """The import of a whole module, for a user's function that uses it.

    The import runs only the module's top-level code. What is taken from it is checked separately.
    """
    if not isinstance(name, str):
        return Found("dangerous", "import a module whose name is computed during loading")
    what, top = f"import the module {name}", name.split(".")[0]
    if top in _SIDE_EFFECTS:
        return Found("dangerous", what)
    if top in NEVER_MODULES:
        return Found("user", what)
    fine = top in STANDARD or name in _MODULES
    return Found("harmless" if fine else "unknown", what, name)


def inner_pickle(call: Call) -> Pickled | None:
    """The pickle in a spaCy vocabulary; None if it is not bytes stored in the file."""
    held = data(call.args[SPACY_PICKLE]) if len(call.args) > SPACY_PICKLE else None
    return None if held is None else read_pickle(Stream(BytesSource(held)))
