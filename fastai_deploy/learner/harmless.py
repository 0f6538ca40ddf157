"""Names that are known to do no harm when a learner is loaded, each by module and name.

A name gets into ``harmless.txt`` because real learners hold it and its source was read, never
because of the library that it is in: ``dataclasses`` has ``_create_fn``, which compiles the text
that it is given. The file has a table for each thing that a pickle does with a name:

    called   it is called
    made     the class is made as pickle makes objects: ``cls.__new__(cls)``, then its state is set
    held     it is put somewhere, and nothing happens until the learner is used

Libraries have thousands of classes of models and layers. Those are told by a pattern, ``FAMILIES``,
which wants a module of models *and* a name in CamelCase, and allows making and holding alone. That
is safe because making calls no constructor: ``__new__`` of these classes is Python's own, and their
``__setstate__``, where they have one, fills in attributes or opens a vocabulary by its path. A
function in the same module, or a call of such a class, is unknown unless a table lists it.

Functions that call what they are given (``functools.partial``, torch's ``_rebuild_from_type_v2``)
are in ``FOLLOWED``: a call of one is as harmless as what it calls (``following.py``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

Table = dict[str, frozenset[str]]


def read_tables(text: str) -> dict[str, Table]:
    """The tables of a file such as ``harmless.txt``, by their titles."""
    tables: dict[str, Table] = {}
    table: Table = {}
    modules: list[str] = []
    named = False  # whether names were read since the modules
    for line in text.splitlines():
        if line.startswith("["):
            table = tables.setdefault(line.strip("[]"), {})
        elif line.startswith("    "):
            named = True
            for module in modules:
                table[module] = table.get(module, frozenset()).union(line.split())
        elif line and not line.startswith("#"):
            modules = [*([] if named else modules), *line.split()]
            named = False
    return tables


_TABLES = read_tables(Path(__file__).with_name("harmless.txt").read_text(encoding="utf-8"))
_LANGUAGES = """
    af am ar az bg bn bo ca cs da de dsb el en es et eu fa fi fo fr ga gd grc gu he hi hr hsb ht hu
    hy id is it ja kmr kn ko ky la lb lg lij lt lv mk ml mr ms nb ne nl nn pl pt ro ru sa si sk sl
    sq sr sv ta te th ti tl tn tr tt uk ur vi xx yo zh
"""
_LEX_ATTRS = {
    f"spacy.lang.{code}.lex_attrs": frozenset({"like_num"}) for code in _LANGUAGES.split()
}
_CHUNKS = {
    f"spacy.lang.{code}.syntax_iterators": frozenset({"noun_chunks"}) for code in _LANGUAGES.split()
}
CALLED: Table = {**_TABLES["called"], **_LEX_ATTRS}
MADE: Table = _TABLES["made"]
HELD: Table = {**_TABLES["held"], **_CHUNKS}

_CAMEL = r"_?[A-Z][A-Za-z0-9]*"
_MODULES = (
    # Not transformers.models.auto, whose classes are factories, nor those that start programs.
    r"transformers\.models\.(?!auto\.|bert_japanese\.|rag\.)(deprecated\.)?[a-z0-9_]+\."
    r"(modeling|configuration|tokenization)_[a-z0-9_]+|"
    r"transformers\.(modeling|configuration|tokenization)_(?!auto\b)[a-z0-9_]+|"
    r"pytorch_transformers\.(modeling|configuration|tokenization)_(?!auto\b)[a-z0-9_]+|"
    r"pytorch_pretrained_bert\.(modeling|tokenization)(_[a-z0-9_]+)?|"
    r"transformers\.(activations|pytorch_utils)|"
    r"torch\.nn\.modules\.[a-z][a-z0-9]*|"
    r"spacy\.lang\.[a-z]{2,3}"
)
FAMILIES = re.compile(rf"({_MODULES})\.{_CAMEL}", re.ASCII)

Rule = Literal[
    "attribute", "partial", "reduce", "type", "attrgetter", "methodcaller", "item", "factory",
    "new class", "rebuilt class", "rebuilt tensor", "compiled", "spaCy tokenizer",
    "spaCy vocabulary", "first argument",
]  # fmt: skip
_ROWS: tuple[tuple[Rule, str], ...] = (
    ("attribute", "builtins.getattr"),
    ("partial", "functools.partial functools.partialmethod"),
    ("reduce", "functools.reduce"),
    ("type", "builtins.type"),
    ("attrgetter", "operator.attrgetter _operator.attrgetter"),
    ("methodcaller", "operator.methodcaller _operator.methodcaller"),
    ("item", "operator.getitem _operator.getitem"),
    ("factory", "collections.defaultdict"),
    ("new class", "copyreg._reconstructor copyreg.__newobj__ copyreg.__newobj_ex__"),
    (
        "rebuilt class",
        """
        fastai.torch_core._fa_rebuild_qtensor fastai.torch_core._fa_rebuild_tensor
        numpy._core.multiarray._reconstruct numpy.core.multiarray._reconstruct
        numpy.ma.core._mareconstruct pandas.core.indexes.base._new_Index
        pandas.core.indexes.datetimes._new_DatetimeIndex
        pandas.core.indexes.interval._new_IntervalIndex
        pandas.core.indexes.period._new_PeriodIndex
        pandas.core.indexes.timedeltas._new_TimedeltaIndex
        torch._utils._rebuild_wrapper_subclass
        """,
    ),
    (
        "rebuilt tensor",
        """
        fastai.torch_core._rebuild_from_type torch.tensor._rebuild_from_type
        torch._tensor._rebuild_from_type torch._tensor._rebuild_from_type_v2
        """,
    ),
    ("compiled", "torch._dynamo.eval_frame.OptimizedModule"),
    ("spaCy tokenizer", "spacy.tokenizer.Tokenizer"),
    ("spaCy vocabulary", "spacy.vocab.unpickle_vocab"),
    ("first argument", "spacy.util._get_attr_unless_lookup"),
)
FOLLOWED: dict[str, Rule] = {name: rule for rule, names in _ROWS for name in names.split()}


def is_method(owner: str, name: str) -> bool:
    """Whether a method of a class (``module.name``) is known to be held by real learners."""
    language = re.fullmatch(r"spacy\.lang\.[a-z]{2,3}\.[A-Z][A-Za-z]*", owner, re.ASCII)
    return name in _TABLES["methods"].get("spacy.language.Language" if language else owner, ())
