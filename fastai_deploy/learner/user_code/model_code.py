"""From a text's ids to its scores: the modules around a transformer, and their ``forward()``.

    ids -> (mask) -> transformer -> output -> scores

Understood: calls of the transformer with an attention mask of a known form and all-zero token
types, and anything that leaves ids and scores unchanged, such as a cast to the same or a higher
precision, ``contiguous()``, and dropout in evaluation mode. Not understood: operators, slices, and
other paths through the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from fastai_deploy.learner.examine.imports import name_set
from fastai_deploy.learner.examine.modules import TRANSPARENT, children_of, is_module
from fastai_deploy.learner.reading.graph import Call, Global, attributes, class_of, named_entries
from fastai_deploy.learner.user_code.bytecode import Version
from fastai_deploy.learner.user_code.interpreter import Interpreter, NotUnderstood
from fastai_deploy.learner.user_code.objects import PLAIN_DUNDERS, Objects
from fastai_deploy.learner.user_code.semantics import BaseSemantics
from fastai_deploy.learner.user_code.values import (
    NONE,
    PROPERTY,
    Const,
    Function,
    Held,
    Items,
    Library,
    Method,
    Term,
    Unknown,
    Value,
    called,
    const,
    is_none,
    taken,
)

# Methods that leave any tensor unchanged; for ``.to()`` and ``.type()`` it depends on arguments.
_SAME: Final = name_set(
    "contiguous clone detach as_subclass cpu cuda requires_grad_ pin_memory positive alias"
)
_WIDER: Final = name_set("float double")
_WHOLE: Final = name_set("long int")
# Casts of a mask that make no difference to the transformer.
_MASK_CASTS: Final = name_set("long int float bool double byte half bfloat16 short type_as")
_FLOATS: Final = name_set("torch.float torch.float32 torch.double torch.float64")
_WHOLES: Final = name_set("torch.long torch.int64 torch.int torch.int32")
_ANY_DTYPE: Final = (
    _FLOATS | _WHOLES | name_set("torch.bool torch.half torch.float16 torch.bfloat16")
)
# Functions that turn their argument into a tensor, or return it.
_COPIES: Final = name_set(
    """
    torch.as_tensor torch.tensor torch.clone torch.Tensor fastai.torch_core.TensorBase
    fastai.torch_core.tensor fastai.torch_core.to_device fastai.torch_core.to_detach
    fastai.torch_core.to_cpu fastai.torch_core.cast torch.atleast_2d torch._tensor.Tensor
    """
)
_IDENTITY_MODULES: Final = name_set(
    """
    Identity Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout StableDropout
    """
)
NOT_IN_FILE: Final = (
    "its code is not in the file; it is assumed to return the transformer's scores unchanged"
)
_DROPOUTS: Final = name_set(
    "torch.nn.functional.dropout torch.dropout torch.nn.functional.alpha_dropout"
)
# Methods of a module that torch or fastai call in addition to ``forward()``.
_CALLED_BY_TORCH: Final = name_set(
    "train eval _call_impl _wrapped_call_impl apply to register_forward_hook"
)
# Methods of a module, already in evaluation mode, that leave it unchanged.
_INQUIRIES: Final = name_set("parameters named_parameters modules children buffers state_dict eval")
_CONTAINER = "torch.nn.modules.container"
_OUTPUT_FLAGS: Final = name_set("return_dict output_attentions output_hidden_states use_cache")
# The models whose second argument is the attention mask, by ``model_type``.
MASK_SECOND: Final = name_set(
    """
    albert bart bert big-bird camembert canine convbert deberta deberta-v2 distilbert electra ernie
    esm flaubert fnet funnel ibert layoutlm led longformer luke mbart megatron-bert mobilebert
    modernbert mpnet mra nezha nystromformer openai-gpt opt perceiver plbart qdqbert rembert
    roberta roberta-prelayernorm roc_bert roformer squeezebert t5 umt5 mt5 mvp xlm xlm-roberta
    xlm-roberta-xl xlnet xmod yoso data2vec-text llama mistral gemma qwen2 phi
    """
)
# The models for which all-zero token types are the same as none.
_ZEROS_BY_DEFAULT: Final = name_set(
    """
    albert bert big_bird big-bird camembert convbert deberta deberta-v2 electra ernie layoutlm
    megatron-bert mobilebert nezha rembert roberta roberta-prelayernorm roformer squeezebert
    xlm-roberta xlm-roberta-xl
    """
)
# The results of comparing ids with the padding id.
_COMPARISONS: Final = {"!=": "mask", "==": "pads"}


@dataclass(frozen=True)
class Run:
    """How the transformer was called: its attention mask, as in ``Forward``.

    ``pad`` is the padding id that the ids are compared with; None is the tokenizer's own.
    """

    mask: Literal["from-ids", "none"]
    pad: int | None = None


class ModelSemantics(BaseSemantics):
    """What the code around a transformer may do.

    ``transformer`` and ``tokenizer`` are their nodes in the pickle. ``model_type`` is the name of
    the architecture in transformers. ``outputs`` is the number of scores, or None if the file does
    not say. ``assumed`` collects the names whose values are not in the file.
    """

    def __init__(
        self,
        objects: Objects,
        transformer: object,
        model_type: str,
        tokenizer: object,
        outputs: int | None,
    ) -> None:
        super().__init__(objects)
        self._interpreter: Interpreter | None = None
        self._transformer = transformer
        self._model_type = model_type
        self._tokenizer = tokenizer
        self._outputs = outputs
        self.assumed: set[str] = set()

    def scores(self, model: object, version: Version) -> Value:
        """What the learner's model returns for the ids of a text.

        Raises NotUnderstood and InvalidBytecode.
        """
        self._interpreter = self.interpreter(version)
        return self.apply_module(model, (Term("ids", text="ids"),))

    def apply_module(
        self, module: object, args: tuple[Value, ...], keywords: dict[str, Value] | None = None
    ) -> Value:
        """What a module returns. Raises NotUnderstood and InvalidBytecode."""
        keywords = keywords or {}
        if module is self._transformer:
            return self._run(args, keywords)
        cls = class_of(module)
        name = str(cls or "a module")
        children = children_of(module)
        if cls in TRANSPARENT and len(children) == 1:
            return self.apply_module(next(iter(children.values())), args, keywords)
        if cls == Global(_CONTAINER, "Sequential"):
            return self._in_order(children, args, keywords)
        if cls is not None and self.objects.defined(module, "forward") is None:
            return self._library_module(cls, args, keywords)
        return self._own_forward(module, name, args, keywords)

    def _in_order(
        self, children: dict[str, object], args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value:
        for child in children.values():
            args, keywords = (self.apply_module(child, args, keywords),), {}
        if len(args) != 1:
            raise NotUnderstood("it contains an empty Sequential")
        return args[0]

    def _library_module(
        self, cls: Global, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value:
        identity = cls.module.startswith("torch.nn.modules.") and cls.name in _IDENTITY_MODULES
        if identity and len(args) == 1 and not keywords:
            return args[0]
        known = cls.module.split(".")[0] in ("torch", "transformers", "fastai")
        if not known:
            raise NotUnderstood(NOT_IN_FILE, subject=f"the forward() of {cls}")
        shown = args[0].text if args else ""
        return Unknown(f"it applies {cls.name} to a value", text=f"{cls.name}({shown})")

    def _own_forward(
        self, module: object, name: str, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value:
        self._check_class(module)
        if "forward" in attributes(module):
            raise NotUnderstood(f"it stores a forward() on an instance of {name}")
        defined = self.objects.defined(module, "forward")
        function = self.method_of(Held(module, text="self"), defined[1]) if defined else None
        if not isinstance(function, Function):
            raise NotUnderstood(NOT_IN_FILE, subject=f"the forward() of {name}")
        if self._interpreter is None:
            raise NotUnderstood(f"it calls {name} outside the model")
        return self._interpreter.call(function, args, keywords)

    def _check_class(self, module: object) -> None:
        """Raise NotUnderstood if calling an object may differ from calling other modules."""
        for cls in self.objects.lineage(self.objects.class_of(module)):
            for name in self.objects.body(cls) or ():
                special = name.startswith("__") and name.endswith("__")
                if (special and name not in PLAIN_DUNDERS) or name in _CALLED_BY_TORCH:
                    raise NotUnderstood(f"its class defines {name}")

    def _run(self, args: tuple[Value, ...], keywords: dict[str, Value]) -> Value:
        """What the transformer returns."""
        given = dict(zip(("input_ids", "attention_mask"), args, strict=False))
        if len(args) > 2 and not all(is_none(each) for each in args[2:]):  # noqa: PLR2004
            raise NotUnderstood("it passes more than ids and a mask to the transformer")
        if len(args) > 1 and self._model_type not in MASK_SECOND:
            raise NotUnderstood("it passes a second argument that may not be an attention mask")
        for name, value in keywords.items():
            if name in given:
                raise NotUnderstood(f"it passes {name} twice")
            given[name] = value
        ids = given.pop("input_ids", None)
        if ids != Term("ids"):
            raise NotUnderstood("it passes something other than the text's ids to the transformer")
        run = self._mask(given.pop("attention_mask", NONE))
        for name, value in given.items():
            plain = isinstance(value, Const) and (
                value.value is None or (name in _OUTPUT_FLAGS and isinstance(value.value, bool))
            )
            zeros = name == "token_type_ids" and value == Term("zeros")
            if not plain and not (zeros and self._model_type in _ZEROS_BY_DEFAULT):
                raise NotUnderstood(f"it passes {name} to the transformer")
        return Term("output", run)

    def _mask(self, mask: Value) -> Run:
        match mask:
            case Const(value=None) | Term(role="ones"):
                return Run("none")
            case Term(role="mask", data=pad) if pad is None or isinstance(pad, int):
                return Run("from-ids", pad)
        raise NotUnderstood("it passes an attention mask of unknown form")

    # What values mean

    def held_attribute(self, owner: Held, name: str) -> Value:
        """As for any object; also a module's children, and the tokenizer's padding id."""
        if owner.node is self._tokenizer and name == "pad_token_id":
            return Term("pad")
        own = attributes(owner.node)
        if is_module(owner.node) and name == "training":
            return const(value=False)
        found = children_of(owner.node).get(name)
        if found is not None and name not in own:
            defined = self.objects.defined(owner.node, name)
            return self.method_of(owner, defined[1]) if defined else Held(found)
        for table in ("_modules", "_parameters", "_buffers"):
            held = named_entries(own.get(table))
            if name in held and name not in own:
                return NONE if held[name] is None else Unknown("it uses a weight")
        return super().held_attribute(owner, name)

    def builtin(self, name: str) -> Value:
        """As for any code; a padding id not in the file is assumed to be the tokenizer's."""
        found = super().builtin(name)
        if isinstance(found, Unknown) and "pad" in name.lower():
            self.assumed.add(name)
            return Term("pad", text=name)
        return found

    def attribute(self, owner: Value, name: str) -> Value:
        """As for any value; also the scores of a transformer's output."""
        if isinstance(owner, Term) and owner.role == "output":
            other = Unknown(f"it reads .{name} of the transformer's output")
            return Term("scores", owner.data) if name == "logits" else other
        if isinstance(owner, Term) and owner.role == "ids" and name == "shape":
            return Term("shape")
        return super().attribute(owner, name)

    def subscript(self, owner: Value, key: Value) -> Value:
        """The first part of a transformer's output holds the scores."""
        if isinstance(owner, Term) and owner.role == "output":
            if isinstance(key, Const) and key.value in (0, "logits") and key.kind is not bool:
                return Term("scores", owner.data)
            return taken(key)
        return super().subscript(owner, key)

    def unpack(self, value: Value, count: int) -> tuple[Value, ...]:
        """The first part of a transformer's output holds the scores."""
        found = super().unpack(value, count)
        if isinstance(value, Term) and value.role == "output" and found:
            return (Term("scores", value.data), *found[1:])
        return found

    def store(self, owner: Value, name: str, value: Value, *, own: bool) -> None:
        """A module may set its own attributes freely, except those that torch uses."""
        if own and isinstance(owner, Held) and name in self.volatile(owner.node):
            held = attributes(owner.node)
            tables = (named_entries(held.get(e)) for e in ("_modules", "_parameters", "_buffers"))
            used = name in ("forward", "training") or any(name in table for table in tables)
            if not used and not name.startswith("_"):
                return
        super().store(owner, name, value, own=own)

    def held_call(self, func: Held, args: tuple[Value, ...], keywords: dict[str, Value]) -> Value:
        """A module is applied; anything else is handled as in the base class."""
        if is_module(func.node):
            return self.apply_module(func.node, args, keywords)
        return super().held_call(func, args, keywords)

    def binary(self, operator: str, left: Value, right: Value) -> Value:
        """Comparing ids with the padding id gives an attention mask."""
        found = _mask_from(operator, left, right)
        return super().binary(operator, left, right) if found is None else found

    def unary(self, operator: str, value: Value) -> Value:
        """The inverse of a padding mask is an attention mask."""
        if operator == "~" and isinstance(value, Term) and value.role == "pads":
            return Term("mask", value.data)
        if operator == "+" and isinstance(value, Term):
            return value
        return super().unary(operator, value)

    def method_call(
        self, method: Method, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        """Methods that leave ids, masks and scores unchanged, and those that create masks."""
        owner, name = method.owner, method.name
        if isinstance(owner, Held) and name in ("forward", "__call__") and (is_module(owner.node)):
            return self.apply_module(owner.node, args, keywords)
        if isinstance(owner, Term):
            found = self._term_call(owner, name, args, keywords)
            if found is not None:
                return found
        if isinstance(owner, Held) and is_module(owner.node):
            if name in _INQUIRIES:
                return called(name)
            raise NotUnderstood(f"it takes another path through the model: {name}()")
        return super().method_call(method, args, keywords)

    def _term_call(
        self, owner: Term, name: str, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        if name in _SAME and "out" not in keywords:
            return owner
        made = self._from_ids(name, args, keywords) if owner.role == "ids" else None
        if made is None and owner.role == "pads" and name in ("logical_not", "bitwise_not"):
            made = Term("mask", owner.data)
        if made is not None:
            return made
        return owner if self._leaves(owner.role, name, args, keywords) else None

    def _leaves(
        self, role: str, name: str, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> bool:
        """Whether a method leaves a tensor with this role unchanged."""
        if name in ("to", "type"):
            return _keeps(role, (*args, *keywords.values()))
        if role == "ids":
            return name in _WHOLE
        if role != "scores":
            return role in ("mask", "pads", "ones", "zeros") and name in _MASK_CASTS
        if name in ("view", "reshape"):
            return self._same_shape(args)
        if name == "squeeze":
            last = len(args) == 1 and isinstance(args[0], Const) and args[0].value in (-1, 1)
            return last and self._outputs != 1
        return name in _WIDER

    def _from_ids(
        self, name: str, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        if name == "size" and not args:
            return Term("shape")
        if name in ("ne", "not_equal", "eq", "gt") and len(args) == 1 and not keywords:
            operator = {"eq": "==", "gt": ">"}.get(name, "!=")
            return self.binary(operator, Term("ids"), args[0])
        shape = len(args) == 1 and args[0] in (Term("shape"), Items("tuple", ()))
        if name == "new_ones" and shape:
            return Term("ones")
        return Term("zeros") if name == "new_zeros" and shape else None

    def _same_shape(self, args: tuple[Value, ...]) -> bool:
        """Whether ``view(-1, labels)`` leaves scores of shape (batch, labels) unchanged."""
        if len(args) == 1 and isinstance(args[0], Items):
            args = args[0].items
        numbers = [each.value for each in args if isinstance(each, Const)]
        return self._outputs is not None and numbers == [-1, self._outputs]

    def library_call(
        self, name: str, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        """Functions that leave a tensor unchanged, and those that create masks."""
        first = args[0] if args else keywords.get("input")
        if isinstance(first, Term):
            found = self._term_function(name, first, args, keywords)
            if found is not None:
                return found
        return super().library_call(name, args, keywords)

    def _term_function(
        self, name: str, first: Term, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        if name in _COPIES:
            rest = (*args[1:], *keywords.values())
            return first if not rest or _keeps(first.role, rest) else None
        if name in _DROPOUTS:
            return first if _evaluates(args, keywords) else None
        return self._mask_made(name, first, args)

    def _mask_made(self, name: str, first: Term, args: tuple[Value, ...]) -> Value | None:
        last = name.rpartition(".")[2]
        if name in ("torch.ones_like", "torch.zeros_like") and first.role in ("ids", "mask"):
            return Term(last.removesuffix("_like"))
        if name in ("torch.ones", "torch.zeros") and first == Term("shape") and len(args) == 1:
            return Term(last)
        if name in ("torch.ne", "torch.not_equal", "torch.eq", "torch.gt") and first.role == "ids":
            return self._from_ids(last, args[1:], {})
        if name == "torch.logical_not" and first.role == "pads":
            return Term("mask", first.data)
        if name == "torch.where" and len(args) == 3:  # noqa: PLR2004 - condition, then, else
            numbers = [each.value for each in args[1:] if isinstance(each, Const)]
            if (first.role, numbers) in (("mask", [1, 0]), ("pads", [0, 1])):
                return Term("mask", first.data)
        return None

    def is_instance(self, value: Value, kind: Value) -> bool | None:
        """A transformer's output is not a tensor, and a tensor is not a tuple."""
        names = _kinds(kind)
        if isinstance(value, Term) and names:
            if value.role == "output" and all(name.endswith("Tensor") for name in names):
                return False
            if value.role != "output" and names <= {"builtins.tuple", "builtins.list",
                                                    "builtins.dict"}:  # fmt: skip
                return False
            if value.role != "output" and names & {"torch.Tensor", "torch._tensor.Tensor"}:
                return True
        return super().is_instance(value, kind)


def _keeps(role: str, given: tuple[Value, ...]) -> bool:
    """Whether a cast keeps every value: to a device, or to a type that is not narrower."""
    return bool(given) and all(_keeps_all(role, each) for each in given)


def _keeps_all(role: str, target: Value) -> bool:
    number = role in ("scores", "ids")
    match target:
        case Library(name=name):
            kept = name in {"scores": _FLOATS, "ids": _WHOLES}.get(role, _ANY_DTYPE)
        case Const(value=str(text)):
            kept = text.split(":")[0] in ("cpu", "cuda", "mps")
        case Const(value=bool()):
            kept = True  # non_blocking, copy
        case Unknown() if target.reason == PROPERTY:
            device, dtype = target.text.endswith(".device"), target.text.endswith(".dtype")
            kept = device or (dtype and not number)
        case Unknown() if target == called("type"):
            kept = role != "scores"  # ids.type(), to which a mask is cast
        case Held(node=Call(func=Global("torch", "device"))):
            kept = True
        case _:
            kept = target in (called("device"), called("default_device"))
    return kept


def _kinds(kind: Value) -> set[str]:
    if isinstance(kind, Library):
        return {kind.name}
    if isinstance(kind, Items):
        return {each.name if isinstance(each, Library) else "" for each in kind.items}
    return set()


def _mask_from(operator: str, left: Value, right: Value) -> Value | None:
    """A mask, or zeros, that an operator computes from ids or a mask; None for anything else."""
    for one, other in ((left, right), (right, left)):
        pad = _pad(other) if one == Term("ids") else None
        if pad is not None and operator in _COMPARISONS:
            return Term(_COMPARISONS[operator], pad[0])
    match operator, left, right:
        case ">", Term(role="ids"), Const(value=0, kind=kind) if kind is int:
            return Term("mask", 0)
        case "-", Const(value=1 | 1.0), Term(role="pads", data=compared):
            return Term("mask", compared)
        case "*", Term(role="ids"), Const(value=0):
            return Term("zeros")
        case ("*", Term(role="mask" | "pads") as same, Const(value=1 | 1.0, kind=kind)) | (
            "*",
            Const(value=1 | 1.0, kind=kind),
            Term(role="mask" | "pads") as same,
        ) if kind is not bool:
            return same
    return None


def _pad(value: Value) -> tuple[int | None] | None:
    """The padding id that ids are compared with; ``(None,)`` is the tokenizer's own."""
    if value == Term("pad"):
        return (None,)
    if isinstance(value, Const) and value.kind is int and isinstance(value.value, int):
        return (value.value,)
    return None


def _evaluates(args: tuple[Value, ...], keywords: dict[str, Value]) -> bool:
    """Whether dropout is called for evaluation, where it does nothing."""
    training = keywords.get("training") or (args[2] if len(args) > 2 else None)  # noqa: PLR2004
    inplace = keywords.get("inplace") or (args[3] if len(args) > 3 else None)  # noqa: PLR2004
    off = isinstance(training, Const) and training.value is False
    return off and (inplace is None or (isinstance(inplace, Const) and inplace.value is False))
