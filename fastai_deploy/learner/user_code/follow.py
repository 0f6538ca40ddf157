"""Follow the learner's code from a text to its answer, step by step.

    text -> ids (follow_text) -> scores (follow_model, find_callbacks) -> answer (follow_loss)

``follow_rest`` checks other code that may still change an answer. Each step returns what is known
and lists the rest as ``Unproven``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from fastai_deploy.learner.examine.imports import is_users_own
from fastai_deploy.learner.examine.modules import Module, Root
from fastai_deploy.learner.examine.unproven import Part, Unproven
from fastai_deploy.learner.reading.graph import Call, Global, attributes, class_name, class_of
from fastai_deploy.learner.text.tokenizer import Tokenizer
from fastai_deploy.learner.user_code.bytecode import Version
from fastai_deploy.learner.user_code.callback_code import CallbackSemantics
from fastai_deploy.learner.user_code.interpreter import NotUnderstood, settled
from fastai_deploy.learner.user_code.loss_code import Activation, LossSemantics
from fastai_deploy.learner.user_code.model_code import Run
from fastai_deploy.learner.user_code.objects import Objects, is_dispatched
from fastai_deploy.learner.user_code.text_code import (
    Encoded,
    Stages,
    TextSemantics,
    batch_transforms,
    data_objects,
    target_transforms,
    text_transforms,
)
from fastai_deploy.learner.user_code.values import Term, Unknown, Value, bare

MOST_UNPROVEN = 100  # pieces of code listed
_OTHER_VALUE = "it returns something else"
# Methods of a learner; a user's function stored in place of one would change the answer.
_METHODS = frozenset(
    {"predict", "get_preds", "one_batch", "_split", "_do_one_batch", "_do_epoch_validate",
     "all_batches", "validate", "_with_events", "__call__", "_call_one", "pred", "added_cbs"}
)  # fmt: skip
# Bases of a loss that give it no activation, or one that leaves scores unchanged.
_NO_ACTIVATION = frozenset(
    {"BaseLoss", "Module", "_Loss", "_WeightedLoss", "CrossEntropyLoss", "BCEWithLogitsLoss",
     "NLLLoss"}
)  # fmt: skip


@dataclass(frozen=True)
class Followed:
    """What the code of a learner shows about one step; None for what is not understood.

    ``run`` is how the transformer is called, ``answers`` is what the model does with its output,
    and ``encoded`` is how a text becomes ids.
    """

    run: Run | None = None
    answers: Value | None = None
    encoded: Encoded | None = None
    unproven: tuple[Unproven, ...] = ()


def follow_text(root: Root, objects: Objects, tokenizer: Tokenizer) -> Followed:
    """How a text passed to ``predict`` becomes ids, in a learner of fastai 2."""

    def follow(version: Version) -> Value:
        semantics = TextSemantics(objects, version, tokenizer.node, tokenizer.max_length)
        return _through(semantics, text_transforms(root.data), Term("text", text="text"))

    subject = "the transforms of its data"
    try:
        value = settled(objects.versions, follow)
    except NotUnderstood as error:
        return Followed(unproven=(_unproven(subject, error, "text"),))
    if isinstance(value, Term) and value.role == "ids" and isinstance(value.data, Encoded):
        if value.data.batched:
            return Followed(
                unproven=(Unproven(subject, "they turn one text into a batch", part="text"),)
            )
        return Followed(encoded=value.data)
    unknown = Unproven(subject, "they do not turn a text into ids", value.text, part="text")
    return Followed(unproven=(unknown,))


def follow_model(
    model: object, wrapper: Global | None, transformer: CallbackSemantics, objects: Objects
) -> Followed:
    """How ids become scores. ``transformer`` follows the code around the transformer.

    ``model`` is the learner's; ``wrapper`` is its class, unless it is itself the transformer.
    """
    subject = f"the forward() of {wrapper}" if wrapper else "the model"
    try:
        value = settled(objects.versions, lambda version: transformer.scores(model, version))
    except NotUnderstood as error:
        return Followed(unproven=(_unproven(subject, error, "model"),))
    run = value.data if isinstance(value, Term) and value.role in ("scores", "output") else None
    if not isinstance(run, Run):
        reason = value.reason if isinstance(value, Unknown) else _OTHER_VALUE
        unknown = Unproven(subject, reason, bare(f"return {value.text}"), part="model")
        return Followed(unproven=(unknown,))
    assumed = tuple(
        Unproven(
            subject,
            f"it uses {name}, which is not in the file; it is assumed to be the padding id",
            part="model",
        )
        for name in sorted(transformer.assumed)
    )
    return Followed(run=run, answers=value, unproven=assumed)


@dataclass(frozen=True)
class OwnLoss:
    """A loss with user code: its name, its class, and the activation that the code applies.

    ``activation`` is None if the code defines none, or none that is understood. In the first case
    the loss has the activation of ``inherits``, the library class that it derives from, if any.
    """

    name: str
    cls: str
    activation: Activation | None
    inherits: Global | None
    unproven: tuple[Unproven, ...]


def follow_loss(loss: object, objects: Objects) -> OwnLoss | None:
    """What the user's code in a loss of fastai 2 does; None for a loss without such code."""
    if objects.function(loss) is not None:
        function = objects.function(loss)
        name = function.code.name if function is not None else "loss"
        return OwnLoss(name, name, "none", None, ())
    cls = class_of(loss)
    methods = {name: _method(loss, name, objects) for name in ("activation", "decodes")}
    users = is_users_own(cls)
    if cls is None or (not users and not any(methods.values())):
        return None
    lineage = objects.lineage(objects.class_of(loss))
    if users and objects.body(lineage[0] if lineage else None) is None:
        return None
    bases = [class_name(each) for each in lineage if objects.body(each) is None]
    inherits = next((each for each in bases if each is not None and each.name != "object"), None)
    activation: Activation | None = None
    unproven: list[Unproven] = []
    for name, method in methods.items():
        if method is None:
            continue
        try:
            found = settled(objects.versions, partial(_follow_method, loss, objects, name, method))
        except NotUnderstood as error:
            part: Part = "answer" if name == "activation" else "label"
            unproven.append(_unproven(f"the {name}() of the loss {cls}", error, part))
            continue
        activation = found if name == "activation" else activation
    if not users:
        inherits = cls
    nothing = activation is None and methods["activation"] is None
    plain = inherits is None or inherits.name in _NO_ACTIVATION
    if nothing and plain:
        activation = "none"
    return OwnLoss(cls.name, str(cls), activation, inherits, tuple(unproven))


def _method(loss: object, name: str, objects: Objects) -> object:
    own = attributes(loss).get(name)
    if own is not None:
        return own
    defined = objects.defined(loss, name)
    return defined[1] if defined is not None else None


def _follow_method(
    loss: object, objects: Objects, name: str, method: object, version: Version
) -> Activation | None:
    semantics = LossSemantics(objects, version)
    if name == "activation":
        return semantics.activation(loss, method)
    semantics.check_decodes(loss, method)
    return None


def follow_batch(root: Root, objects: Objects) -> tuple[Unproven, ...]:
    """What the user's transforms do to the ids of a text, in a learner without a tokenizer."""
    ids = Term("ids", Encoded(None), text="ids")
    subject = "a transform of its batches"
    try:
        found = settled(objects.versions, lambda version: _batched(root, objects, version, ids))
    except NotUnderstood as error:
        return (_unproven(subject, error, "text"),)
    if found == ids:
        return ()
    return (Unproven(subject, "it changes the ids of a text", bare(found.text), part="text"),)


def _batched(root: Root, objects: Objects, version: Version, ids: Value) -> Value:
    semantics = TextSemantics(objects, version, None, None)
    return _through(semantics, batch_transforms(root.data), ids)


def _through(semantics: TextSemantics, stages: Stages, value: Value) -> Value:
    """The value after each of the transforms in turn."""
    for stage, transforms in stages:
        for transform in transforms:
            before, given = value, value
            if stage == "before_batch":  # a batch of one, whose samples do not change
                given = Term("samples", text="samples")
            try:
                value = semantics.apply_transform(transform, given)
            except NotUnderstood as error:
                raise NotUnderstood(error.reason, error.code, _subject(transform)) from error
            if isinstance(value, Unknown):
                raise NotUnderstood(value.reason, f"return {value.text}", _subject(transform))
            value = before if value == given else value
    return value


def follow_rest(
    root: Root, modules: Sequence[Module], objects: Objects, path: str
) -> tuple[Unproven, ...]:
    """What else may change an answer: the learner's class, its targets, code added to modules.

    ``path`` is the path of the transformer.
    """
    if root.major == 1:
        return ()
    return tuple(islice(_rest(root, modules, objects, path), MOST_UNPROVEN))


def _rest(root: Root, modules: Sequence[Module], objects: Objects, path: str) -> Iterator[Unproven]:
    if is_users_own(root.cls):
        yield Unproven(
            f"the learner class {root.cls}", "it may compute answers differently", part="answer"
        )
    for name in sorted(_METHODS & attributes(root.node).keys()):
        if objects.function(attributes(root.node)[name]) is not None:
            yield Unproven(f"the learner's {name}", "it is user code", part="answer")
    yield from _in_data(root, objects)
    for transform in target_transforms(root.data):
        yield from _decodes(transform, objects)
    prefix = f"{path}." if path else ""
    for module in modules:
        if module.path == path or module.path.startswith(prefix):
            for name, value in module.attributes.items():
                if _is_users(value, objects):
                    yield Unproven(
                        f"the module {module.path or 'of the model'}",
                        f"its attribute {name} is user code", part="model",
                    )  # fmt: skip


def _in_data(root: Root, objects: Objects) -> Iterator[Unproven]:
    """The user's code in fastai's own data objects, which make the batches."""
    for node in data_objects(root.data):
        cls = class_of(node)
        if is_users_own(cls):
            yield Unproven(f"the class {cls}", "it may change how batches are made", part="text")
        for name, value in attributes(node).items():
            if objects.function(value) is not None:
                subject = f"the {name} of its {cls.name if cls else 'data'}"
                yield Unproven(subject, "it is user code", part="text")


def _is_users(value: object, objects: Objects) -> bool:
    """Whether a value in a library's module would run the user's code."""
    if not isinstance(value, Call):
        return isinstance(value, Global) and is_users_own(value)
    if objects.function(value) is not None:
        return True
    match value:
        case Call(func=Call(func=Global(name="_builtin_type"), args=("MethodType",)), args=args):
            return _is_users(args[0], objects) if args else False
        case Call(func=Global("builtins", "getattr"), args=(owner, *_)):
            return _is_users(owner, objects)
        case Call(func=Global("functools", "partial")):
            return any(_is_users(each, objects) for each in value.args)
    cls = class_of(value)
    return is_users_own(cls)


def _decodes(transform: object, objects: Objects) -> Iterator[Unproven]:
    cls = class_of(transform)
    own = attributes(transform)
    users = is_users_own(cls)
    decodes = own.get("decodes")
    given = decodes is not None and not (is_dispatched(decodes) and not objects.signatures(decodes))
    if given or (users and objects.defined(transform, "decodes") is not None):
        yield Unproven(
            f"the decodes() of {cls}", "it may change the label of an answer", part="label"
        )
    elif users and objects.body(objects.class_of(transform)) is None:
        yield Unproven(
            f"the transform {cls}",
            "its code is not in the file; it is assumed to change no label",
            part="answer",
        )


def _subject(transform: object) -> str:
    cls = class_of(transform)
    named = attributes(transform).get("_name")
    if isinstance(named, str) and cls is not None and not is_users_own(cls):
        return f"the transform {named}"
    return f"the encodes() of {cls}" if cls is not None else "a transform"


def _unproven(subject: str, error: NotUnderstood, part: Part) -> Unproven:
    return Unproven(error.subject or subject, error.reason, bare(error.code), part=part)
