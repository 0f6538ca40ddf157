"""From a text to its token ids: the transforms applied to a text passed to ``predict``.

    text -> tokenizer(text, truncation=True, max_length=n) -> ids -> batch of one

Understood: a call of the tokenizer that adds its special tokens and cuts at the end, and anything
that passes on a text or ids unchanged. Not understood: changing the text first, slicing the ids, a
second text, and padding to a fixed length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from fastai_deploy.learner.examine.imports import is_users_own, name_set
from fastai_deploy.learner.reading.graph import (
    Call,
    Global,
    attribute,
    attributes,
    class_name,
    class_of,
    elements,
)
from fastai_deploy.learner.user_code.bytecode import Version
from fastai_deploy.learner.user_code.interpreter import NotUnderstood
from fastai_deploy.learner.user_code.objects import PLAIN_DUNDERS, Objects
from fastai_deploy.learner.user_code.semantics import BaseSemantics
from fastai_deploy.learner.user_code.values import (
    NONE,
    Const,
    Held,
    Items,
    Library,
    Method,
    Slice,
    Term,
    Unknown,
    Value,
    argument_text,
    called,
    const,
    is_none,
    taken,
)

# fastai transforms that leave a text and its ids unchanged.
PLAIN_TRANSFORMS: Final = name_set("ToTensor ColReader AttrGetter ItemGetter IntToFloatTensor")
_BASES: Final = name_set("Transform DisplayedTransform")
# Transforms that pad a batch, and leave a single text unchanged.
_COLLATING: Final = name_set(
    """
    fastai.text.data.pad_input fastai.text.data.pad_chunk fastai.text.data.pad_input_chunk
    fastai.text.data.Pad_Chunk fastai.text.data.Pad_Input
    """
)
# Functions that turn ids into a tensor or a list, or return them.
_COPIES: Final = name_set(
    """
    fastai.text.data.TensorText fastai.text.data.LMTensorText fastai.torch_core.tensor
    fastai.torch_core.TensorBase torch.tensor torch.LongTensor torch.as_tensor torch.from_numpy
    torch.Tensor torch._tensor.Tensor numpy.array numpy.asarray builtins.list builtins.tuple
    fastcore.foundation.L torch.IntTensor numpy.asanyarray
    """
)
_TEXTS: Final = name_set("builtins.str fastai.torch_core.TitledStr")
_WHOLES: Final = name_set(
    "torch.long torch.int64 torch.int torch.int32 numpy.int64 numpy.int32 builtins.int"
)
_SAME: Final = name_set(
    "contiguous clone detach as_subclass cpu cuda long int numpy tolist copy requires_grad_"
)
_FLAT: Final = name_set("squeeze flatten view reshape ravel")
_TRUNCATES: Final = (True, "longest_first", "only_first")
_CUTS: Final = "an unknown setting decides whether it cuts texts"
NOT_IN_FILE: Final = (
    "its code is not in the file; it is assumed to call the tokenizer with special tokens and to "
    "cut the text at the end"
)
_CALLS: Final = name_set("__call__ encode encode_plus _encode_plus")
# Arguments that never affect the ids of a text.
_NO_MATTER: Final = name_set(
    """
    return_tensors return_attention_mask return_token_type_ids return_special_tokens_mask
    return_length verbose return_offsets_mapping
    """
)
# Arguments that do not affect the ids at these values, which are the defaults.
_DEFAULTS: Final[dict[str, tuple[object, ...]]] = {
    "add_special_tokens": (True,),
    "padding": (False, None, "do_not_pad", True, "longest"),
    "pad_to_max_length": (False, None),
    "stride": (0,),
    "is_split_into_words": (False,),
    "return_overflowing_tokens": (False,),
    "text_pair": (None,),
    "pad_to_multiple_of": (None,),
    "padding_side": (None, "right"),
    "truncation_side": (None, "right"),
    "split_special_tokens": (False, None),
}


@dataclass(frozen=True)
class Encoded:
    """How a text became ids: the length it was cut to, including special tokens, or None.

    ``batched``: the ids are the first row of a batch of one, as ``return_tensors`` returns them.
    """

    limit: int | None
    batched: bool = False


class TextSemantics(BaseSemantics):
    """What the code before a model may do; ``tokenizer`` is its node in the pickle, if any.

    ``model_limit`` is the tokenizer's ``model_max_length``, or None if it has none.
    """

    def __init__(
        self, objects: Objects, version: Version, tokenizer: Call | None, model_limit: int | None
    ) -> None:
        super().__init__(objects)
        self._interpreter = self.interpreter(version)
        self._tokenizer = tokenizer
        self._model_limit = model_limit

    def apply_transform(self, transform: object, value: Value) -> Value:
        """What a transform does to a text or ids. Raises NotUnderstood and InvalidBytecode."""
        own = attributes(transform)
        cls = class_of(transform)
        if own.get("split_idx") not in (None, 1):
            return value  # it is active only in training
        if str(cls) in _COLLATING and value == Term("samples"):
            return value
        if is_users_own(cls):
            return self._own_transform(transform, value)
        if "encodes" in own:
            return self._encodes(own["encodes"], value, None)
        if cls is not None and cls.module.startswith("fastai.") and cls.name in PLAIN_TRANSFORMS:
            return value
        raise NotUnderstood("it does something unknown to a text")

    def _own_transform(self, transform: object, value: Value) -> Value:
        is_transform = self._check_class(transform)
        if "encodes" in attributes(transform):
            raise NotUnderstood("it stores its encodes() on the instance")
        call = self.objects.defined(transform, "__call__")
        encodes = self.objects.defined(transform, "encodes")
        owner = Held(transform, text="self")
        if call is not None and encodes is None:
            return self._encodes(call[1], value, owner)
        if call is not None or not is_transform:
            raise NotUnderstood("how it is called is not known")
        return value if encodes is None else self._encodes(encodes[1], value, owner)

    def _check_class(self, transform: object) -> bool:
        """Whether the class of a user's transform derives from fastai's.

        Raises NotUnderstood if calling it may differ from calling fastai's transforms.
        """
        lineage = self.objects.lineage(self.objects.class_of(transform))
        if not lineage or self.objects.body(lineage[0]) is None:
            raise NotUnderstood(NOT_IN_FILE)
        is_transform = False
        for each in lineage:
            base, body = class_name(each), self.objects.body(each)
            if body is not None:
                self._check_body(body)
            elif base is not None and base.name in _BASES:
                is_transform = True
            elif base is not None and str(base) != "builtins.object":
                raise NotUnderstood(f"it derives from {base}, which fdeploy does not know")
        return is_transform

    def _check_body(self, body: dict[str, object]) -> None:
        for name in body:
            special = name.startswith("__") and name.endswith("__")
            if special and name not in PLAIN_DUNDERS and name != "__call__":
                raise NotUnderstood(f"its class defines {name}")
        if body.get("split_idx") not in (None, 1):
            raise NotUnderstood("it may be active only in training")

    def _encodes(self, method: object, value: Value, owner: Value | None) -> Value:
        """What a method, or a function in its place, does to a text or ids."""
        if self.objects.several(method) and value == Term("text"):
            method = self.objects.for_texts(method)
        if self.objects.several(method):
            raise NotUnderstood("it has several encodes() for different types")
        function = self.objects.function(method, owner)
        if function is not None:
            return self._interpreter.call(function, (value,))
        inner = next(iter(self.objects.signatures(method)), method)
        if isinstance(inner, Call) and class_of(inner) is not None and inner.states:
            return self._own_transform(inner, value)
        found = self.value(inner)
        if isinstance(found, (Held, Library)):
            return self.call(found, (value,), {})
        raise NotUnderstood(NOT_IN_FILE)

    # The tokenizer

    def encode(self, method: str, args: tuple[Value, ...], keywords: dict[str, Value]) -> Value:
        """A call of the tokenizer on the text."""
        given = dict(keywords)
        text = args[0] if args else given.pop("text", given.pop("text_or_sequence", None))
        if len(args) > 1 and not all(is_none(each) for each in args[1:]):
            raise NotUnderstood("it gives the tokenizer a second text")
        for name, value in attributes(self._tokenizer).items():
            if self.objects.function(value) is not None:
                raise NotUnderstood(f"it calls a tokenizer with user code ({name})")
        if text != Term("text"):
            raise NotUnderstood("it gives the tokenizer something other than the text")
        truncation, length = given.pop("truncation", None), given.pop("max_length", NONE)
        batched = not is_none(given.get("return_tensors", NONE))
        for name, value in given.items():
            self._check_option(name, value)
        padded = "padding" in given or "pad_to_max_length" in given
        limit = self._limit(truncation, _length(length), padded=padded)
        if limit is not None and attributes(self._tokenizer).get("truncation_side") == "left":
            raise NotUnderstood("its tokenizer cuts texts at the beginning")
        if attributes(self._tokenizer).get("split_special_tokens") not in (None, False):
            raise NotUnderstood("its tokenizer splits special tokens that occur in a text")
        encoded = Encoded(limit, batched)
        return Term("ids" if method == "encode" else "encoding", encoded)

    def _check_option(self, name: str, value: Value) -> None:
        if name in _NO_MATTER and isinstance(value, Const):
            return
        if name in _DEFAULTS and isinstance(value, Const):
            allowed = _DEFAULTS[name]
            if any(type(value.value) is type(each) and value.value == each for each in allowed):
                return
        if name == "padding" and isinstance(value, Const):
            raise NotUnderstood("it pads every text to the full length")
        raise NotUnderstood(f"it calls the tokenizer with {name}={argument_text(value)}")

    def _limit(self, truncation: Value | None, length: int | None, *, padded: bool) -> int | None:
        """The length at which the tokenizer cuts, by the rules of transformers since version 3."""
        if truncation is None and length is not None and padded:
            raise NotUnderstood(_CUTS)
        if truncation is None:
            return length
        if not isinstance(truncation, Const):
            raise NotUnderstood(_CUTS)
        if truncation.value is None:
            return length
        if truncation.value in (False, "do_not_truncate"):
            return None
        if truncation.value not in _TRUNCATES:
            raise NotUnderstood(f"it cuts texts with truncation={truncation.text}")
        return self._model_limit if length is None else length

    # What values mean

    def held_attribute(self, owner: Held, name: str) -> Value:
        """As for any object; for the tokenizer, its methods and its ``model_max_length``."""
        if owner.node is self._tokenizer:
            if name == "model_max_length" and self._model_limit is not None:
                return const(self._model_limit)
            return Method(owner, name)
        return super().held_attribute(owner, name)

    def held_call(self, func: Held, args: tuple[Value, ...], keywords: dict[str, Value]) -> Value:
        """The tokenizer is called; anything else is handled as in the base class."""
        if func.node is self._tokenizer:
            return self.encode("__call__", args, keywords)
        if str(class_of(func.node)) in _COLLATING and args == (Term("samples"),):
            return args[0]
        return super().held_call(func, args, keywords)

    def attribute(self, owner: Value, name: str) -> Value:
        """As for any value; also ``.input_ids`` of an encoding."""
        if isinstance(owner, Term) and owner.role == "encoding":
            if name == "input_ids":
                return Term("ids", owner.data)
            if name not in ("get", "keys", "items", "to", "data"):
                return Unknown(f"it reads .{name} of what the tokenizer returns")
            return owner if name == "data" else Method(owner, name)
        return super().attribute(owner, name)

    def subscript(self, owner: Value, key: Value) -> Value:
        """``["input_ids"]`` of an encoding; ``[0]`` of ids in a batch; ``[:]``."""
        if isinstance(owner, Term) and owner.role == "encoding":
            if isinstance(key, Const) and key.value == "input_ids":
                return Term("ids", owner.data)
            return taken(key)
        if isinstance(owner, Term) and owner.role == "ids":
            encoded = owner.data
            first = isinstance(key, Const) and key.kind is int and key.value == 0
            if isinstance(encoded, Encoded) and encoded.batched and first:
                return Term("ids", replace(encoded, batched=False))
            if isinstance(key, Slice) and all(is_none(part) for part in key.parts):
                return owner
        return super().subscript(owner, key)

    def method_call(
        self, method: Method, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        """Methods of the tokenizer, and methods of ids that leave them unchanged."""
        owner, name = method.owner, method.name
        if isinstance(owner, Held) and owner.node is self._tokenizer:
            return self._tokenizer_call(name, args, keywords)
        if isinstance(owner, Term) and owner.role == "encoding" and name == "get":
            return self.subscript(owner, args[0]) if len(args) == 1 else None
        if isinstance(owner, Term) and owner.role == "ids":
            if name in _SAME:
                return owner
            if name in ("to", "type") and not keywords and len(args) == 1:
                same = isinstance(args[0], Library) and args[0].name in _WHOLES
                return owner if same else None
            if name in _FLAT:
                return self._flat(name, owner, args, keywords)
        return super().method_call(method, args, keywords)

    def _tokenizer_call(
        self, name: str, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value:
        if name in _CALLS:
            return self.encode(name, args, keywords)
        if name == "tokenize" and args == (Term("text"),) and not keywords:
            return Term("tokens")
        if name == "convert_tokens_to_ids" and args == (Term("tokens"),) and not keywords:
            return Term("bare ids")
        if name == "build_inputs_with_special_tokens" and args == (Term("bare ids"),):
            return Term("ids", Encoded(None))
        raise NotUnderstood(f"it calls the tokenizer's {name}() in an unknown way")

    def _flat(
        self, name: str, ids: Term, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        """Ids without their batch dimension."""
        given = [*args, *keywords.values()]
        numbers = [each.value for each in given if isinstance(each, Const)]
        allowed: dict[str, tuple[list[int], ...]] = {
            "squeeze": ([], [0]), "flatten": ([],), "ravel": ([],), "view": ([-1],),
            "reshape": ([-1],),
        }  # fmt: skip
        if len(numbers) != len(given) or numbers not in allowed[name]:
            return None
        if isinstance(ids.data, Encoded) and ids.data.batched:
            return Term("ids", replace(ids.data, batched=False))
        return ids

    def library_call(
        self, name: str, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        """Functions that pass on a text, ids or a batch unchanged."""
        first = args[0] if args else None
        if isinstance(first, Term):
            if name in _TEXTS and first.role == "text" and len(args) == 1:
                return first
            if name in _COPIES and first.role == "ids" and len(args) == 1:
                return first if self._whole(keywords) else None
            if name in _COLLATING and first.role == "samples":
                return first
            if first.role in ("text", "encoding", "ids") and name == "builtins.len":
                return called("len")
        return super().library_call(name, args, keywords)

    def _whole(self, keywords: dict[str, Value]) -> bool:
        for key, value in keywords.items():
            if key == "dtype" and isinstance(value, Library) and value.name in _WHOLES:
                continue
            if key == "device" or (key == "requires_grad" and value == const(value=False)):
                continue
            return False
        return True

    def is_instance(self, value: Value, kind: Value) -> bool | None:
        """A text is a ``str``, and no other type that such code tests for."""
        if value == Term("text"):
            kinds = kind.items if isinstance(kind, Items) else (kind,)
            names = {each.name if isinstance(each, Library) else "" for each in kinds}
            if "builtins.str" in names:
                return True
            return None if "" in names or "builtins.object" in names else False
        return super().is_instance(value, kind)


def _length(value: Value) -> int | None:
    """A ``max_length`` passed to the tokenizer, in tokens."""
    held = value.value if isinstance(value, Const) else value
    if held is None or (isinstance(held, int) and not isinstance(held, bool)):
        return held
    raise NotUnderstood("it cuts texts at an unknown length")


Stages = list[tuple[str, list[object]]]


def text_transforms(data: object) -> Stages:
    """The pipelines that a text passed to ``predict`` goes through, in order, by fastai's names.

    ``data`` are the ``DataLoaders`` of a learner of fastai 2, whose second loader ``predict`` uses.
    The first transforms read a row of the table: a text begins with the first transform whose input
    was text, by the types that fastai records. Raises NotUnderstood for data of another shape.
    """
    dataset = attribute(_loader(data), "dataset")
    lists = elements(attribute(dataset, "tls"))
    if not lists:
        raise NotUnderstood("they do not have the structure of fastai's DataBlock")
    if attribute(dataset, "n_inp") not in (None, 1):
        raise NotUnderstood("they turn a text into more than one input")
    own = attributes(lists[0])
    steps = elements(attribute(own.get("tfms"), "fs"))
    types = elements(own.get("types"))
    text = Global("builtins", "str")
    # What a transform takes of several types, such as fastai's Tokenizer, is a tuple of them.
    first = next(
        (i for i, each in enumerate(types) if each == text or text in elements(each)), None
    )
    if first is None:
        raise NotUnderstood("they do not accept a text, so learn.predict fails")
    return [("items", steps[first:]), *batch_transforms(data)]


def batch_transforms(data: object) -> Stages:
    """The pipelines that ids go through on their way to the model."""
    loader = _loader(data)
    names = ("after_item", "before_batch", "after_batch")
    return [(name, elements(attribute(loader, name, "fs"))) for name in names]


def target_transforms(data: object) -> list[object]:
    """The transforms of labels and of batches, which are undone to decode an answer."""
    lists = elements(attribute(_loader(data), "dataset", "tls"))
    of_labels = [step for each in lists[1:] for step in elements(attribute(each, "tfms", "fs"))]
    return [*of_labels, *(step for _, steps in batch_transforms(data) for step in steps)]


def data_objects(data: object) -> list[object]:
    """The fastai objects that hold a learner's data and turn it into batches."""
    loader = _loader(data)
    dataset = attribute(loader, "dataset")
    return [data, loader, dataset, *elements(attribute(dataset, "tls"))]


def _loader(data: object) -> object:
    loaders = elements(attribute(data, "loaders"))
    return loaders[1] if len(loaders) > 1 else (loaders[0] if loaders else None)
