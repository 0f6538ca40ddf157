"""What every piece of a learner's code may use: Python's own plain functions, and what they mean.

``BaseSemantics`` knows constants, attributes of objects in the pickle, and functions that change
nothing. What a model, a tokenizer or a callback may do beyond that is in the modules beside it.
"""

from __future__ import annotations

import builtins
from typing import Final

from fastai_deploy.learner.code.interpreter import NotUnderstood
from fastai_deploy.learner.code.objects import Objects
from fastai_deploy.learner.code.values import (
    COUNTED,
    NONE,
    Const,
    Context,
    Function,
    Held,
    Items,
    Library,
    Method,
    Slice,
    Term,
    Unknown,
    Value,
    const,
)
from fastai_deploy.learner.globals import kind_of
from fastai_deploy.learner.reading.values import Call, Global, Mapping, Sequence
from fastai_deploy.learner.reading.views import attributes, class_name, class_of
from fastai_deploy.learner.words import words

# What these names are in a file that stores a class as source, without what is around it.
_CUSTOMARY: Final = {
    "torch": "torch", "nn": "torch.nn", "F": "torch.nn.functional", "np": "numpy",
    "Tensor": "torch.Tensor",
}  # fmt: skip
MAX_NUMBER: Final = 1 << 40
_NUMBERS: Final = (int, float, bool)
# Without effect on anything but the screen, a log or the clock; what they answer is not known.
PURE: Final = words(
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
# Of a tensor; they make a new value, and leave the tensor as it is.
PURE_METHODS: Final = words(
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
# Of the same, as functions: of ``torch`` and ``torch.nn.functional``.
PURE_FUNCTIONS: Final = words(
    """
    softmax log_softmax sigmoid logsigmoid tanh relu gelu clamp abs exp log sqrt sum mean std var
    max min argmax argmin topk sort norm normalize stack cat concat flip roll where mul add sub div
    pow neg matmul mm squeeze unsqueeze reshape flatten transpose permute ones zeros full ones_like
    zeros_like full_like rand randn rand_like randn_like arange tensor as_tensor eq ne gt lt ge le
    logical_not logical_and logical_or isnan any all dropout linear layer_norm one_hot cosine_similarity
    not_equal nan_to_num clone numel masked_fill tril triu
    """
)
_TORCH: Final = ("torch", "torch.nn.functional", "torch.special")
CONTEXTS: Final = words(
    "torch.no_grad torch.inference_mode torch.autograd.grad_mode.no_grad torch.enable_grad "
    "torch.autograd.grad_mode.inference_mode torch.autograd.profiler.record_function "
    "contextlib.nullcontext torch.autograd.grad_mode.enable_grad"
)
_LOGGERS: Final = words("debug info warning error exception log critical")
_TEXT_METHODS: Final = words("startswith endswith isdigit isalpha isspace count find index")


class BaseSemantics:
    """The values that any code of a learner may use."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self._volatile: dict[int, frozenset[str]] = {}

    def value(self, held: object) -> Value:
        """What a value of the pickle stands for."""
        if isinstance(held, Global):
            return Library(f"{held.module}.{held.name}", text=held.name)
        if isinstance(held, tuple):
            if any(isinstance(each, (Call, Global, Mapping, Sequence)) for each in held):
                return Items("tuple", tuple(self.value(each) for each in held))
            return const(held)
        if not isinstance(held, Call):
            return Held(held) if isinstance(held, (Mapping, Sequence)) else const(held)
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
            if self.objects.several(held):
                raise NotUnderstood("it has several signatures", function.text)
            return function
        return Held(held, text=str(class_of(held) or "an object"))

    def _bound(self, method: object, owner: Value) -> Value:
        function = self.objects.function(method, owner)
        if function is not None:
            return function
        match method:
            case Call(func=Global("builtins", "getattr"), args=(_, str(name), *_)):
                return Method(owner, name)
        return Unknown("it binds a method")

    def builtin(self, name: str) -> Value:
        """One of Python's own names, or one that the file does not hold."""
        if hasattr(builtins, name):
            return Library(f"builtins.{name}", text=name)
        if name in _CUSTOMARY:
            return Library(_CUSTOMARY[name], text=name)
        return Unknown(f"the value of {name} is not in the file", text=name)

    def attribute(self, owner: Value, name: str) -> Value:
        """An attribute of an object in the pickle, of a library, or a method of a value."""
        if isinstance(owner, Library):
            return Library(f"{owner.name}.{name}")
        if isinstance(owner, Held):
            return self.held_attribute(owner, name)
        if name in ("shape", "device", "dtype", "ndim", "is_cuda", "requires_grad", "names"):
            return Unknown("it asks for a property of a tensor")
        if name in ("data", "mT") and isinstance(owner, Term):
            return owner if name == "data" else Unknown("it transposes a tensor")
        return Method(owner, name)

    def held_attribute(self, owner: Held, name: str) -> Value:
        """An attribute of an object in the pickle: stored, its own, or of its class."""
        own = attributes(owner.node)
        if name == "training" and name not in own:
            return const(value=False)
        if name in self.volatile(owner.node):
            number = type(own.get(name, 0)) in _NUMBERS
            return Unknown(COUNTED if number else "it reads what an earlier answer left")
        defined = self.objects.defined(owner.node, name)
        if defined is not None and name not in own:
            return self._defined(owner, defined[1])
        if name in own:
            return self.value(own[name])
        return Method(owner, name)

    def _defined(self, owner: Held, value: object) -> Value:
        function = self.objects.function(value, owner)
        if function is not None:
            if self.objects.several(value):
                raise NotUnderstood("it has several signatures", function.text)
            return function
        match value:
            case Call(func=Global("builtins", "property"), args=(getter, *_)):
                raise NotUnderstood("it uses a property of its class", _named(getter))
            case Call(func=Global("builtins", "staticmethod"), args=(inner, *_)):
                return self.value(inner)
        return self.value(value)

    def store(self, owner: Value, name: str, value: Value) -> None:
        """Keep what the code notes in an attribute of its own object, where nothing reads it."""
        raise NotUnderstood("it changes an attribute", f"{owner.text}.{name} = {value.text}")

    def store_item(self, owner: Value, key: Value, value: Value) -> None:
        """Changing a part of a value is not followed."""
        raise NotUnderstood(
            "it changes a part of a value", f"{owner.text}[{key.text}] = {value.text}"
        )

    def volatile(self, node: object) -> frozenset[str]:
        """The attributes that an object's own methods set: each answer may leave another value."""
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
        """A call that changes nothing. Raises NotUnderstood for every other."""
        if isinstance(func, Library):
            found = self.library_call(func.name, args, keywords)
            if found is not None:
                return found
            raise NotUnderstood(self._why(func.name))
        if isinstance(func, Method):
            found = self.method_call(func, args, keywords)
            if found is not None:
                return found
            raise NotUnderstood(f"it calls {func.name}(), which is not known to leave all as it is")
        if isinstance(func, Held):
            return self.held_call(func, args, keywords)
        raise NotUnderstood("it calls something that is not known")

    def _why(self, name: str) -> str:
        module, _, last = name.rpartition(".")
        if kind_of(Global(module, last)) == "user":
            return f"it calls {last}(), whose code is not in the file"
        return f"it calls {name}(), which is not known to leave all as it is"

    def library_call(
        self, name: str, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        """A call of a library's function that is known; None for another."""
        if name in ("builtins.isinstance", "builtins.hasattr", "builtins.getattr"):
            return self._inquiry(name, args)
        if name in CONTEXTS:
            return Context()
        if name in ("builtins.tuple", "builtins.list") and len(args) == 1:
            if isinstance(args[0], Items) and args[0].kind in ("tuple", "list"):
                return Items("tuple" if name == "builtins.tuple" else "list", args[0].items)
        module, _, last = name.rpartition(".")
        if name in PURE or (module in _TORCH and last in PURE_FUNCTIONS):
            if any(key == "out" or key == "inplace" for key in keywords):
                raise NotUnderstood("it changes a value in place")
            return Unknown(f"it calls {last}()")
        return None

    def _inquiry(self, name: str, args: tuple[Value, ...]) -> Value | None:
        match name, args:
            case "builtins.isinstance", (value, kind):
                known = self.is_instance(value, kind)
                return Unknown("it asks for a type") if known is None else const(known)
            case "builtins.getattr", (owner, Const(value=str(attribute)), *default):
                return self._getattr(owner, attribute, default)
            case "builtins.hasattr", _:
                return Unknown("it asks for an attribute")
        return None

    def _getattr(self, owner: Value, name: str, default: list[Value]) -> Value | None:
        if isinstance(owner, Unknown):
            return owner
        found = self.attribute(owner, name)
        return None if default and isinstance(found, Method) else found

    def is_instance(self, value: Value, kind: Value) -> bool | None:
        """Whether a value is of a class; None where that is not known."""
        if isinstance(value, Const) and isinstance(kind, Library):
            return kind.name == f"builtins.{value.kind.__name__}"
        return None

    def method_call(
        self, method: Method, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        """A call of a method that is known to change nothing; None for another."""
        owner, name = method.owner, method.name
        if isinstance(owner, Held):
            cls = class_of(owner.node)
            logger = class_name(getattr(owner.node, "func", None)) == Global("logging", "getLogger")
            if name in _LOGGERS and (logger or (cls is not None and cls.module == "logging")):
                return NONE
            return None
        if isinstance(owner, Unknown) and name in _LOGGERS and "getLogger" in owner.reason:
            return NONE
        if isinstance(owner, Const) and isinstance(owner.value, str) and name in _TEXT_METHODS:
            return Unknown(f"it calls {name}()")
        if isinstance(owner, (Term, Unknown)) and name in PURE_METHODS:
            if "inplace" in keywords:
                raise NotUnderstood("it changes a value in place")
            return Unknown(f"it calls {name}()")
        if name == "requires_grad_":
            return owner
        return None

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
        raise NotUnderstood(f"it calls {func.text}, which is not known")

    def binary(self, operator: str, left: Value, right: Value) -> Value:
        """Arithmetic and comparisons of plain numbers and texts; of all else, not known."""
        if isinstance(left, Const) and isinstance(right, Const):
            found = _arithmetic(operator, left.value, right.value)
            if found is not None:
                return const(found)
        return Unknown(f"it applies {operator}")

    def unary(self, operator: str, value: Value) -> Value:
        """The sign of a plain number; of all else, not known."""
        if isinstance(value, Const) and isinstance(value.value, _NUMBERS) and operator == "-":
            return const(-value.value)
        return Unknown(f"it applies {operator}")

    def subscript(self, owner: Value, key: Value) -> Value:
        """An item of a container that the code built; of all else, not known."""
        if isinstance(owner, Items) and isinstance(key, Const):
            if owner.kind == "dict":
                return _entry(owner, key)
            if type(key.value) is int and -len(owner.items) <= key.value < len(owner.items):
                found = owner.items[key.value]
                if isinstance(found, Value):
                    return found
        if isinstance(key, Slice):
            return Unknown("it takes a slice")
        return Unknown(f"it takes [{key.text}]")

    def unpack(self, value: Value, count: int) -> tuple[Value, ...]:
        """The first items of a container that the code built; of all else, not known."""
        if isinstance(value, Items) and value.kind != "dict" and len(value.items) >= count:
            return tuple(each for each in value.items[:count] if isinstance(each, Value))
        return tuple(Unknown("it unpacks a value", text=f"{value.text}[{i}]") for i in range(count))

    def truth(self, value: Value) -> bool | None:
        """Whether it counts as true; None where that is not known."""
        if isinstance(value, Const):
            return bool(value.value)
        if isinstance(value, Items):
            return bool(value.items)
        return True if isinstance(value, (Library, Function)) else None


def _entries(mapping: object) -> list[tuple[str, object]]:
    pairs = mapping.pairs if isinstance(mapping, Mapping) else []
    return [(key, value) for key, value in pairs if isinstance(key, str)]


def _entry(owner: Items, key: Const) -> Value:
    for pair in reversed(owner.items):
        match pair:
            case (Const(value=name), Value() as value) if name == key.value:
                return value
    return Unknown(f"it takes [{key.text}]")


def _named(getter: object) -> str:
    match getter:
        case Call(args=(Call(args=args), *_)):
            return next((each for each in args if isinstance(each, str)), "")
    return ""


def _arithmetic(operator: str, left: object, right: object) -> object:
    if operator in ("==", "!="):
        return (left == right) == (operator == "==")
    if isinstance(left, str) and isinstance(right, str) and operator == "+":
        return left + right if len(left) + len(right) < 1_000 else None  # noqa: PLR2004
    if not (isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS)):
        return None
    if max(abs(left), abs(right)) > MAX_NUMBER:
        return None
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case ">=":
            return left >= right
    return None
