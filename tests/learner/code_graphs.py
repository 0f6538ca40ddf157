"""Pickle graphs of functions, as cloudpickle writes them, to test the bytecode interpreter."""

from __future__ import annotations

import types
from collections.abc import Mapping as AnyMapping
from typing import Any

from fastai_deploy.learner.reading.graph import Call, Global, Mapping, Sequence

PICKLE = "cloudpickle.cloudpickle"
CODE_TYPE = Call(Global(PICKLE, "_builtin_type"), ("CodeType",))
MODULE = Global("torch.nn.modules.module", "Module")
TORCH = Call(Global(PICKLE, "subimport"), ("torch",))
FUNCTIONAL = Call(Global(PICKLE, "subimport"), ("torch.nn.functional",))
# The global names in the snippets of learners' code.
GLOBALS: dict[str, object] = {
    "torch": TORCH,
    "F": FUNCTIONAL,
    "nn": Call(Global(PICKLE, "subimport"), ("torch.nn",)),
    "TensorBase": Global("fastai.torch_core", "TensorBase"),
    "TensorText": Global("fastai.text.data", "TensorText"),
    "tensor": Global("fastai.torch_core", "tensor"),
}


def mapping(values: AnyMapping[str, object]) -> Mapping:
    return Mapping(list(values.items()))


def recorded(fields: AnyMapping[str, Any]) -> Call:
    """A code object from ``tests/learners/bytecode``."""
    order = ("argcount", "posonlyargcount", "kwonlyargcount", "nlocals", "stacksize", "flags")
    numbers = tuple(fields[name] for name in order)
    constants = tuple(_constant(each) for each in fields["consts"])
    names = tuple(tuple(fields[name]) for name in ("names", "varnames"))
    tail: tuple[object, ...] = (fields["firstlineno"], bytes.fromhex(fields.get("linetable", "")))
    if "exceptiontable" in fields:
        tail = (fields["qualname"], *tail, bytes.fromhex(fields["exceptiontable"]))
    cells = (tuple(fields["freevars"]), tuple(fields["cellvars"]))
    return Call(
        CODE_TYPE,
        (*numbers, bytes.fromhex(fields["code"]), constants, *names, fields["filename"],
         fields["name"], *tail, *cells),
    )  # fmt: skip


def _constant(value: Any) -> object:
    if not isinstance(value, list):
        return value
    kind, held = value
    if kind == "code":
        return recorded(held)
    if kind in ("tuple", "frozenset"):
        return tuple(_constant(each) for each in held)
    return ... if kind == "ellipsis" else bytes.fromhex(held) if kind == "bytes" else held


def compiled(code: types.CodeType) -> Call:
    """A code object of the Python that runs the test."""
    constants = tuple(compiled(c) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    tail: tuple[object, ...] = (code.co_firstlineno, b"")
    if hasattr(code, "co_exceptiontable"):
        tail = (code.co_qualname, *tail, code.co_exceptiontable)
    return Call(
        CODE_TYPE,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_nlocals,
         code.co_stacksize, code.co_flags, code.co_code, constants, code.co_names,
         code.co_varnames, "<stdin>", code.co_name, *tail, code.co_freevars, code.co_cellvars),
    )  # fmt: skip


class Graph:
    """Collects the calls of a pickle while functions, classes and objects are added."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def function(self, code: Call, found: AnyMapping[str, object] | None = None) -> Call:
        """A function stored by value; ``found`` are its globals."""
        made = Call(Global(PICKLE, "_make_function"), (code, mapping({}), None, None, None))
        slots = mapping({"__globals__": mapping(GLOBALS | dict(found or {}))})
        self.calls += [made, Call(Global(PICKLE, "_function_setstate"), (made, (None, slots)))]
        return made

    def source(self, text: str, found: AnyMapping[str, object] | None = None) -> Call:
        """The first function in some source."""
        module = compile(text, "<stdin>", "exec")
        code = next(each for each in module.co_consts if isinstance(each, types.CodeType))
        return self.function(compiled(code), found)

    def cls(self, name: str, body: AnyMapping[str, object], *bases: object) -> Call:
        """A class of ``__main__`` stored by value."""
        made = Call(
            Global(PICKLE, "_make_skeleton_class"),
            (Global("builtins", "type"), name, bases or (MODULE,),
             mapping({"__module__": "__main__"})),
        )  # fmt: skip
        self.calls.append(
            Call(Global(PICKLE, "_class_setstate"), (made, (mapping(body), mapping({}))))
        )
        return made

    def instance(self, cls: object, **own: object) -> Call:
        """An object with attributes."""
        node = Call(cls, (), new=True)
        node.states.append(mapping(own))
        self.calls.append(node)
        return node

    def module(self, cls: object, children: AnyMapping[str, object], **own: object) -> Call:
        """A torch module with modules in it."""
        tables = {"_modules": mapping(children), "_parameters": mapping({})}
        return self.instance(cls, **tables, _buffers=mapping({}), **own)

    def transformer(self) -> Call:
        """A transformer whose padding id is 1."""
        config = self.instance(Global("transformers.models.bert", "BertConfig"), pad_token_id=1)
        return self.module(
            Global("transformers.models.bert", "BertForSequenceClassification"), {}, config=config
        )


def listed(*items: object) -> Sequence:
    """A list."""
    return Sequence("list", list(items))
