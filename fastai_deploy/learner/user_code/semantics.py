"""What any code in a learner may do: read constants and attributes, and call pure functions.

The modules for models, transforms, callbacks and losses add what their code may do in addition:
model_code.py, text_code.py, callback_code.py and loss_code.py.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from operator import add, ge, gt, le, lt, mul, sub
from typing import Final

from fastai_deploy.learner.examine.imports import kind_of, name_set
from fastai_deploy.learner.reading.graph import (
    Call,
    Global,
    Mapping,
    Sequence,
    attributes,
    class_name,
    class_of,
)
from fastai_deploy.learner.user_code.bytecode import Version
from fastai_deploy.learner.user_code.interpreter import Interpreter, NotUnderstood
from fastai_deploy.learner.user_code.objects import Objects
from fastai_deploy.learner.user_code.paths import follow_function
from fastai_deploy.learner.user_code.values import (
    COUNTED,
    MAX_TEXT,
    MAX_WEIGHT,
    NONE,
    PROPERTY,
    REMEMBERED,
    Const,
    Context,
    Function,
    Held,
    Items,
    Library,
    Method,
    Pairs,
    Term,
    Unknown,
    Value,
    applied,
    argument_text,
    called,
    const,
    index_text,
    items_of,
    taken,
    weight_of,
)

# The usual meaning of these names: torch before 1.6 stored a class's source without imports.
_CUSTOMARY: Final = {
    "torch": "torch", "nn": "torch.nn", "F": "torch.nn.functional", "np": "numpy",
    "Tensor": "torch.Tensor",
}  # fmt: skip
MAX_NUMBER: Final = 1 << 40  # larger numbers are not computed
_MAX_STRING: Final = 1_000  # characters
_NUMBERS: Final = (int, float, bool)
_PLAIN: Final = (*_NUMBERS, str, type(None))
_OPERATORS: Final[dict[str, Callable[[float, float], float]]] = {
    "+": add, "-": sub, "*": mul,
    "<": lt, "<=": le, ">": gt, ">=": ge,
}  # fmt: skip
# Functions that affect only the screen or a log; their results are not known.
PURE: Final = name_set(
    """
    builtins.print builtins.len builtins.repr builtins.str builtins.int builtins.float
    builtins.bool builtins.type builtins.id builtins.abs builtins.min builtins.max builtins.round
    builtins.sum builtins.format builtins.range builtins.hasattr builtins.isinstance
    builtins.issubclass builtins.callable builtins.ascii builtins.AssertionError
    builtins.ValueError builtins.TypeError builtins.RuntimeError builtins.KeyError
    builtins.NotImplementedError builtins.Exception builtins.next builtins.iter
    time.time time.perf_counter time.monotonic time.process_time warnings.warn
    logging.debug logging.info logging.warning logging.error logging.log logging.getLogger
    torch.is_tensor torch.is_grad_enabled torch.cuda.is_available torch.cuda.synchronize
    torch.is_floating_point torch.numel torch.get_default_dtype
    fastai.torch_core.default_device torch.device
    """
)
# Methods of a tensor that create a new value, or a view, and do not change the tensor.
PURE_METHODS: Final = name_set(
    """
    size dim ndimension numel sum mean std var max min argmax argmin norm item tolist any all
    abs exp log sqrt softmax log_softmax sigmoid tanh relu clamp round floor topk sort argsort
    cumsum prod unsqueeze squeeze view reshape permute transpose t flip expand repeat unbind split
    chunk flatten mul add sub div pow neg matmul mm eq ne gt lt ge le isnan isinf is_contiguous
    get_device element_size stride half bfloat16 short char bool byte int long float double type to
    cpu cuda numpy clone detach contiguous masked_fill where index_select gather unique median
    type_as new_ones new_zeros new_full new_tensor as_subclass logical_not logical_and roll diff
    narrow select take nonzero count_nonzero
    """
)
# The same as functions of ``torch`` and ``torch.nn.functional``.
PURE_FUNCTIONS: Final = name_set(
    """
    softmax log_softmax sigmoid logsigmoid tanh relu gelu clamp abs exp log sqrt sum mean std var
    max min argmax argmin topk sort norm normalize stack cat concat flip roll where mul add sub div
    pow neg matmul mm squeeze unsqueeze reshape flatten transpose permute ones zeros full ones_like
    zeros_like full_like rand randn rand_like randn_like arange tensor as_tensor eq ne gt lt ge le
    logical_not logical_and logical_or isnan any all dropout linear layer_norm one_hot
    cosine_similarity not_equal nan_to_num clone numel masked_fill tril triu
    """
)
_TORCH: Final = ("torch", "torch.nn.functional", "torch.special")
CONTEXTS: Final = name_set(
    "torch.no_grad torch.inference_mode torch.autograd.grad_mode.no_grad torch.enable_grad "
    "torch.autograd.grad_mode.inference_mode torch.autograd.profiler.record_function "
    "contextlib.nullcontext torch.autograd.grad_mode.enable_grad"
)
_MAY_CHANGE: Final = "which may have an unknown effect"
_LOGGERS: Final = name_set("debug info warning error exception log critical")
_IN_PLACE: Final = ("out", "inplace")
# Number of positional arguments before ``inplace`` and ``out`` in torch.nn.functional.
_MOST_POSITIONAL: Final = {"relu": 1, "dropout": 3, "normalize": 4}
_STRING_METHODS: Final = name_set("startswith endswith isdigit isalpha isspace count find index")


class BaseSemantics:
    """What any code in a learner may do. ``objects`` looks up the user's classes and functions."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self._volatile: dict[int, frozenset[str]] = {}

    def interpreter(self, version: Version) -> Interpreter:
        """An interpreter with these semantics, within the learner's budget."""
        return Interpreter(self, version, follow_function, self.objects.budget)

    def value(self, held: object) -> Value:
        """The value of an object in the pickle."""
        if isinstance(held, Global):
            return Library(f"{held.module}.{held.name}", text=held.name)
        if isinstance(held, tuple):
            return self._tuple(held)
        if isinstance(held, Call):
            return self._made(held)
        return Held(held) if isinstance(held, (Mapping, Sequence)) else const(held)

    def _made(self, held: Call) -> Value:
        match held:
            case Call(func=Global(name="subimport"), args=(str(module), *_)):
                return Library(module, text=module)
            case Call(func=Global("builtins", "getattr"), args=(owner, str(name), *_)):
                return self.attribute(self.value(owner), name)
            case Call(
                func=Call(func=Global(name="_builtin_type"), args=("MethodType",)),
                args=(method, owner),
            ):
                return self._bound(method, self.value(owner))
        function = self.objects.function(held)
        if function is not None:
            return self._of_one_signature(held, function)
        return Held(held, text=str(class_of(held) or "an object"))

    def _tuple(self, held: tuple[object, ...]) -> Value:
        """A tuple of plain constants is a constant; nested tuples are not known."""
        if len(held) > MAX_WEIGHT or not any(
            isinstance(each, (Call, Global, Mapping, Sequence)) for each in held
        ):
            return const(held)
        within = Unknown("it reads a nested tuple")
        return items_of("tuple", [within if isinstance(e, tuple) else self.value(e) for e in held])

    def _bound(self, method: object, owner: Value) -> Value:
        function = self.objects.function(method, owner)
        if function is not None:
            return function
        match method:
            case Call(func=Global("builtins", "getattr"), args=(_, str(name), *_)):
                return Method(owner, name)
        return Unknown("it binds a method")

    def builtin(self, name: str) -> Value:
        """A Python builtin, or a name that the file does not hold."""
        if hasattr(builtins, name):
            return Library(f"builtins.{name}", text=name)
        if name in _CUSTOMARY:
            return Library(_CUSTOMARY[name], text=name)
        return Unknown(f"it uses {name}, which is not in the file", text=name)

    def attribute(self, owner: Value, name: str) -> Value:
        """An attribute of an object in the pickle or of a library, or a method of a value."""
        if isinstance(owner, Library):
            if len(owner.name) > MAX_TEXT:
                return Unknown("it reads an attribute of a library")
            return Library(f"{owner.name}.{name}")
        if isinstance(owner, Held):
            return self.held_attribute(owner, name)
        if name in ("shape", "device", "dtype", "ndim", "is_cuda", "requires_grad", "names"):
            return Unknown(PROPERTY)
        if name in ("data", "mT") and isinstance(owner, Term):
            return owner if name == "data" else Unknown("it transposes a tensor")
        return Method(owner, name, weight=weight_of([owner]))

    def held_attribute(self, owner: Held, name: str) -> Value:
        """An attribute of an object in the pickle: stored on it, or defined by its class."""
        own = attributes(owner.node)
        if name == "training" and name not in own:
            return const(value=False)
        if name in self.volatile(owner.node):
            number = type(own.get(name, 0)) in _NUMBERS
            return Unknown(COUNTED if number else REMEMBERED)
        defined = self.objects.defined(owner.node, name)
        if defined is not None and name not in own:
            return self.method_of(owner, defined[1])
        if name in own:
            return self.value(own[name])
        return Method(owner, name)

    def _of_one_signature(self, value: object, function: Function) -> Function:
        if self.objects.several(value):
            raise NotUnderstood("it calls a function with several signatures", function.text)
        return function

    def method_of(self, owner: Held, value: object) -> Value:
        """A class's attribute, seen on an instance: a method is bound to ``owner``."""
        function = self.objects.function(value, owner)
        if function is not None:
            return self._of_one_signature(value, function)
        match value:
            case Call(func=Global("builtins", "property"), args=(getter, *_)):
                raise NotUnderstood("it uses a property of its class", _named(getter))
            case Call(func=Global("builtins", "staticmethod"), args=(inner, *_)):
                return self.value(inner)
        return self.value(value)

    def store(self, owner: Value, name: str, value: Value, *, own: bool) -> None:  # noqa: ARG002
        """Not allowed; subclasses whose code may set its own attributes allow that."""
        shown = f"{owner.text}.{name} = {argument_text(value)}"
        raise NotUnderstood("it changes an attribute", shown)

    def store_item(self, owner: Value, key: Value, value: Value) -> None:
        """Not allowed, because changes to part of a value are not tracked."""
        shown = f"{owner.text}[{index_text(key)}] = {argument_text(value)}"
        raise NotUnderstood("it changes part of a value", shown)

    def volatile(self, node: object) -> frozenset[str]:
        """The attributes that an object's methods set, which may differ from answer to answer."""
        cls = self.objects.class_of(node)
        if id(cls) not in self._volatile:
            found: set[str] = set()
            for each in self.objects.lineage(cls):
                for name, value in (self.objects.body(each) or {}).items():
                    if name != "__init__":
                        found |= self.objects.stored_names(value)
            self._volatile[id(cls)] = frozenset(found)
        return self._volatile[id(cls)]

    def call(self, func: Value, args: tuple[Value, ...], keywords: dict[str, Value]) -> Value:
        """A call without effects. Raises NotUnderstood for any other."""
        if isinstance(func, Library):
            found = self.library_call(func.name, args, keywords)
            if found is not None:
                return found
            raise NotUnderstood(self._why(func.name))
        if isinstance(func, Method):
            found = self.method_call(func, args, keywords)
            if found is not None:
                return found
            raise NotUnderstood(f"it calls {func.name}(), {_MAY_CHANGE}")
        if isinstance(func, Held):
            return self.held_call(func, args, keywords)
        raise NotUnderstood("it calls something unknown")

    def _why(self, name: str) -> str:
        module, _, last = name.rpartition(".")
        if kind_of(Global(module, last)) == "user":
            return f"it calls {last}(), whose code is not in the file"
        return f"it calls {name}(), {_MAY_CHANGE}"

    def library_call(
        self, name: str, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        """A call of a known library function; None for any other."""
        if name in ("builtins.isinstance", "builtins.hasattr", "builtins.getattr"):
            return self._inquiry(name, args)
        if name in CONTEXTS:
            return Context()
        match name, args:
            case "builtins.tuple", (Items(kind="tuple" | "list", items=items),):
                return items_of("tuple", items)
            case "builtins.list", (Items(kind="tuple" | "list", items=items),):
                return items_of("list", items)
        module, _, last = name.rpartition(".")
        if name in PURE or (module in _TORCH and last in PURE_FUNCTIONS):
            if len(args) > _MOST_POSITIONAL.get(last, len(args)):
                raise NotUnderstood("it changes a value in place")
            _check_harmless(last, args, keywords)
            return called(last)
        return None

    def _inquiry(self, name: str, args: tuple[Value, ...]) -> Value | None:
        match name, args:
            case "builtins.isinstance", (value, kind):
                known = self.is_instance(value, kind)
                return Unknown("it tests a type") if known is None else const(known)
            case "builtins.getattr", (owner, Const(value=str(attribute)), *default):
                return self._getattr(owner, attribute, default)
            case "builtins.hasattr", _:
                return Unknown("it tests for an attribute")
        return None

    def _getattr(self, owner: Value, name: str, default: list[Value]) -> Value | None:
        if isinstance(owner, Unknown):
            return owner
        found = self.attribute(owner, name)
        return None if default and isinstance(found, Method) else found

    def is_instance(self, value: Value, kind: Value) -> bool | None:
        """Whether a value is an instance of a class; None if that is not known."""
        if isinstance(value, Const) and isinstance(kind, Library):
            return kind.name == f"builtins.{value.kind.__name__}"
        return None

    def method_call(
        self, method: Method, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        """A call of a method known to change nothing; None for any other."""
        owner, name = method.owner, method.name
        if name in _LOGGERS and _is_logger(owner):
            return NONE
        string = isinstance(owner, Const) and owner.kind is str and name in _STRING_METHODS
        if string or (isinstance(owner, (Term, Unknown)) and name in PURE_METHODS):
            _check_harmless(name, args, keywords)
            return called(name)
        return owner if name == "requires_grad_" and not isinstance(owner, Held) else None

    def held_call(self, func: Held, args: tuple[Value, ...], keywords: dict[str, Value]) -> Value:
        """A call of an object in the pickle: a partial, or an object with ``__call__``."""
        node = func.node
        match node:
            case Call(func=Global("functools", "partial"), states=[(function, given, named, *_)]):
                bound = (
                    tuple(self.value(each) for each in given) if isinstance(given, tuple) else ()
                )
                extra = {key: self.value(value) for key, value in _entries(named)}
                inner = self.value(function)
                return self.call(inner, (*bound, *args), {**extra, **keywords})
        raise NotUnderstood(f"it calls {func.text}, which fdeploy does not know")

    def binary(self, operator: str, left: Value, right: Value) -> Value:
        """Arithmetic and comparisons of plain numbers and strings; anything else is unknown."""
        if isinstance(left, Const) and isinstance(right, Const):
            found = _arithmetic(operator, left.value, right.value)
            if found is not None:
                return const(found)
        return applied(operator)

    def unary(self, operator: str, value: Value) -> Value:
        """The sign of a plain number; anything else is unknown."""
        if isinstance(value, Const) and isinstance(value.value, _NUMBERS) and operator == "-":
            return const(-value.value)
        return applied(operator)

    def subscript(self, owner: Value, key: Value) -> Value:
        """An item of a container that the code built; anything else is unknown."""
        if isinstance(owner, Pairs) and isinstance(key, Const):
            return _entry(owner, key)
        if isinstance(owner, Items) and owner.kind != "set" and isinstance(key, Const):
            index, count = key.value, len(owner.items)
            if isinstance(index, int) and key.kind is int and -count <= index < count:
                return owner.items[index]
        return taken(key)

    def unpack(self, value: Value, count: int) -> tuple[Value, ...]:
        """The first items of a container that the code built; anything else is unknown."""
        if isinstance(value, Items) and value.kind != "set" and len(value.items) >= count:
            return value.items[:count]
        return tuple(Unknown("it unpacks a value", text=f"{value.text}[{i}]") for i in range(count))

    def truth(self, value: Value) -> bool | None:
        """Whether it is true; None if that is not known."""
        if isinstance(value, Const):
            return bool(value.value)
        if isinstance(value, Items):
            return bool(value.items)
        if isinstance(value, Pairs):
            return bool(value.pairs)
        return True if isinstance(value, (Library, Function)) else None


def _check_harmless(name: str, args: tuple[Value, ...], keywords: dict[str, Value]) -> None:
    """Raise NotUnderstood for arguments that make a harmless function do something else."""
    if not keywords.keys().isdisjoint(_IN_PLACE):
        raise NotUnderstood("it changes a value in place")
    if any(isinstance(each, (Function, Method)) for each in (*args, *keywords.values())):
        raise NotUnderstood(f"it passes its own function to {name}()")


def _is_logger(value: Value) -> bool:
    """Whether it is a logger, from the pickle or from ``getLogger``."""
    if not isinstance(value, Held):
        return value == called("getLogger")
    cls = class_of(value.node)
    made = class_name(getattr(value.node, "func", None)) == Global("logging", "getLogger")
    return made or (cls is not None and cls.module == "logging")


def _entries(mapping: object) -> list[tuple[str, object]]:
    pairs = mapping.pairs if isinstance(mapping, Mapping) else []
    return [(key, value) for key, value in pairs if isinstance(key, str)]


def _entry(owner: Pairs, key: Const) -> Value:
    """An entry of a dict whose keys are strings."""
    named = all(isinstance(each, Const) and each.kind is str for each, _ in owner.pairs)
    for each, value in reversed(owner.pairs) if named else ():
        if each == key:
            return value
    return taken(key)


def _named(getter: object) -> str:
    match getter:
        case Call(args=(Call(args=args), *_)):
            return next((each for each in args if isinstance(each, str)), "")
    return ""


def _arithmetic(operator: str, left: object, right: object) -> object:
    """The result of an operator on plain constants; None if it is not computed."""
    if isinstance(left, str) and isinstance(right, str) and operator == "+":
        return left + right if len(left) + len(right) < _MAX_STRING else None
    plain = isinstance(left, _PLAIN) and isinstance(right, _PLAIN)
    if operator in ("==", "!="):
        return (left == right) == (operator == "==") if plain else None
    if not (isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS)):
        return None
    operate = _OPERATORS.get(operator)
    if operate is None or max(abs(left), abs(right)) > MAX_NUMBER:
        return None
    return operate(left, right)
