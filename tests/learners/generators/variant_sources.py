"""The source of learner variants: a standard learner's code with one operation inserted into it.

A variant is what a user could have written in a notebook: classes and functions, and a few
expressions that say what the learner is made of. This module writes that source and says what the
inserted operation does; it imports nothing but the standard library and runs on Python 3.8, so that
``record_bytecode.py`` can compile the same source with every Python.

In a template ``$x`` is the expression so far, ``$ids`` the token ids, ``$mask`` the attention mask,
``$hf`` the attribute that holds the transformer, and ``$out`` the local name of its answer.
"""

import random
import textwrap

# What an inserted operation does to the answers: nothing, something to some texts at least, or that
# depends on the model and the texts.
HARMLESS, EFFECT, UNKNOWN = "harmless", "effect", "unknown"

UNWRAP = """\
if isinstance($ids, TensorBase):
    $ids = $ids.as_subclass(torch.Tensor)"""
NE_PAD = "($ids != self.pad_id).long()"

# The standard forms of a wrapper. None as mask: the transformer is called with the ids alone.
WRAPPERS = {
    "masked": {"mask": NE_PAD, "pick": "$x.logits"},
    "masked_config": {"mask": "($ids != self.$hf.config.pad_token_id).type($ids.type())",
                      "pick": "$x[0]"},
    "unmasked": {"mask": None, "pick": "$x.logits"},
    "unmasked_first": {"mask": None, "pick": "$x[0]"},
    "tuple": {"mask": NE_PAD, "more": ["return_dict=False"], "pick": "$x[0]"},
    "nested": {"mask": NE_PAD, "pick": "$x.logits", "nested": True},
}  # fmt: skip

# The standard forms of a transform, as the expression for the token ids of the text ``$text``.
TRANSFORMS = {
    "encode": "self.tokenizer.encode($text, truncation=True, max_length=self.max_len)",
    "call": 'self.tokenizer($text, truncation=True, max_length=self.max_len)["input_ids"]',
    "call_attribute": "self.tokenizer($text, truncation=True, max_length=self.max_len).input_ids",
}

LOSS = "CrossEntropyLossFlat()"

# (name, what it does, place, edits). The first word of a name says what it stands for.
OPERATIONS = []


def _add(place, effect, **named):
    for name, edits in named.items():
        OPERATIONS.append({"name": name, "effect": effect, "place": place, "edits": edits})


# The scores, once they are picked out of the transformer's answer.
_add(
    "scores", EFFECT,
    divide={"scores": "$x / 3.0"}, divide_by_integer={"scores": "$x / 2"},
    floor_divide={"scores": "$x // 1"}, multiply={"scores": "$x * 2.5"},
    multiply_left={"scores": "0.5 * $x"}, add={"scores": "$x + torch.arange(3.0)"},
    subtract={"scores": "$x - torch.tensor([1.0, 0.0, 0.0])"}, power={"scores": "$x ** 2"},
    remainder={"scores": "$x % 0.5"}, negate={"scores": "-$x"},
    matrix_product={"scores": "$x @ torch.eye(3).flip(0)"},
    permute_list={"scores": "$x[:, [2, 0, 1]]"},
    permute_slice={"scores": "$x[:, torch.tensor([1, 2, 0])]"},
    permute_ellipsis={"scores": "$x[..., [1, 0, 2]]"},
    flip={"scores": "$x.flip(-1)"}, flip_function={"scores": "torch.flip($x, [1])"},
    roll={"scores": "$x.roll(1, -1)"}, softmax={"scores": "$x.softmax(-1)"},
    softmax_function={"scores": "F.softmax($x, dim=-1)"},
    softmax_torch={"scores": "torch.softmax($x, 1)"}, tanh={"scores": "torch.tanh($x)"},
    sigmoid={"scores": "$x.sigmoid()"}, clamp={"scores": "$x.clamp(-0.1, 0.1)"},
    clamp_minimum={"scores": "torch.clamp($x, min=0.0)"}, relu={"scores": "F.relu($x)"},
    absolute={"scores": "abs($x)"}, absolute_method={"scores": "$x.abs()"},
    round_={"scores": "$x.round()"}, to_integers={"scores": "$x.long().float()"},
    exponential={"scores": "$x.exp()"}, layer_norm={"scores": "F.layer_norm($x, (3,))"},
    normalize={"scores": "F.normalize($x, dim=-1)"},
    less_the_mean={"scores": "$x - $x.mean() * torch.tensor([0.0, 1.0, 2.0])"},
    concatenated={"scores": "torch.cat([$x[:, 1:], $x[:, :1]], dim=1)"},
    stacked={"scores": "torch.stack([$x[:, 1], $x[:, 0], $x[:, 2]], dim=1)"},
    where={"scores": "torch.where($x > 0, $x, $x * 0.1)"},
    masked_fill={"scores": "$x.masked_fill($x < 0, 0.0)"},
    zeros={"scores": "torch.zeros_like($x)"}, ones={"scores": "$x.new_ones($x.shape)"},
    random_scores={"scores": "torch.manual_seed(0) and torch.rand($x.shape)"},
    einsum={"scores": 'torch.einsum("bi,ij->bj", $x, torch.eye(3).roll(1, 0))'},
    temperature={"init": ["self.temperature = 1.7"], "scores": "$x / self.temperature"},
    parameter={"init": ["self.scale = nn.Parameter(torch.tensor([2.0, 1.0, 0.5]))"],
               "scores": "$x * self.scale"},
    buffer={"init": ['self.register_buffer("shift", torch.tensor([0.0, 1.5, 0.0]))'],
            "scores": "$x + self.shift"},
    extra_layer={"init": ["self.out = nn.Linear(3, 3)"], "scores": "self.out($x)"},
    extra_norm={"init": ["self.norm = nn.LayerNorm(3)"], "scores": "self.norm($x)"},
    extra_softmax={"init": ["self.activation = nn.Softmax(dim=-1)"],
                   "scores": "self.activation($x)"},
    extra_sequential={"init": ["self.last = nn.Sequential(nn.Tanh(), nn.Dropout(0.1))"],
                      "scores": "self.last($x)"},
    module_list={"init": ["self.heads = nn.ModuleList([nn.Linear(3, 3)])"],
                 "scores": "self.heads[0]($x)"},
    training_dropout={"scores": "F.dropout($x, 0.5, training=True) * 0 + $x * 0.3"},
    scale_in_place={"init": ["self.scale = 3.0"], "last": ["$out *= self.scale"]},
    divide_in_place={"last": ["$out /= 2"]}, method_in_place={"last": ["$out.mul_(2.0)"]},
    fill_in_place={"last": ["$out.neg_()"]}, set_item={"last": ["$out[:, 0] = 0"]},
    set_item_added={"last": ["$out[:, 1] += 1.5"]},
    condition_scores={"last": ["if $out.max() > 0:", "    $out = $out * 0.5"]},
    condition_evaluation={"last": ["if not self.training:", "    $out = $out * 4"]},
    condition_flag={"init": ["self.flag = True"], "last": ["if self.flag:", "    $out = -$out"]},
    loop={"last": ["for _ in range(2):", "    $out = $out * 0.7"]},
    while_loop={"last": ["while $out.abs().max() > 0.2:", "    $out = $out / 2"]},
    try_except={"last": ["try:", "    $out = $out * 2.0", "except RuntimeError:", "    pass"]},
    finally_={"last": ["try:", "    pass", "finally:", "    $out = $out * 2.0"]},
    with_block={"last": ["with torch.no_grad():", "    $out = $out * 2.0"]},
    helper_method={"methods": ["def soften(self, scores):\n    return scores / 5"],
                   "scores": "self.soften($x)"},
    helper_function={"helpers": ["def soften(scores):\n    return scores / 5"],
                     "scores": "soften($x)"},
    helper_lambda={"helpers": ["soften = lambda scores: scores / 5"], "scores": "soften($x)"},
    lambda_within={"scores": "(lambda scores: scores * 3)($x)"},
    comprehension={"scores": "torch.stack([row.flip(-1) for row in $x])"},
    closure={"helpers": ["def scaled_by(factor):\n    def scaled(scores):\n"
                         "        return scores * factor\n    return scaled",
                         "scaled = scaled_by(0.25)"], "scores": "scaled($x)"},
    default_argument={"arguments": "factor=0.5", "scores": "$x * factor"},
    global_value={"helpers": ["FACTOR = 0.5"], "scores": "$x * FACTOR"},
    conditional_expression={"scores": "($x * 2 if not self.training else $x)"},
    walrus={"scores": "(halved := $x * 0.5)"},
    other_name={"last": ["result = $out", "$out = result * 2", "result = None"]},
    detour_tuple={"last": ["$out, _ = $out * 2, None"]},
    detour_list={"last": ["$out = [$out, $out * 2][1]"]},
    detour_dict={"last": ['$out = {"scores": $out * 2}["scores"]']},
    numpy_detour={"scores": "torch.tensor($x.numpy()[:, ::-1].copy())"},
    operator_module={"helpers": ["import operator"], "scores": "operator.mul($x, 2.0)"},
    getattr_call={"scores": 'getattr($x, "ne" + "g")()'},
    torch_function={"scores": "torch.mul($x, 3)"}, torch_add={"scores": "$x.add(torch.ones(3))"},
    topk={"scores": "torch.zeros_like($x).scatter_(1, $x.topk(1).indices, 1.0)"},
    one_hot={"scores": "F.one_hot($x.argmax(-1), 3).float()"},
    cut_scores={"scores": "F.pad($x[:, :2], (0, 1))"},
    cut_reverse={"scores": "$x[:, [0, 1, 1]]"},
)  # fmt: skip
_add(
    "scores", HARMLESS,
    to_float={"scores": "$x.float()"}, to_dtype={"scores": "$x.to(torch.float32)"},
    contiguous={"scores": "$x.contiguous()"}, clone={"scores": "$x.clone()"},
    detach={"scores": "$x.detach()"}, to_device={"scores": "$x.to($ids.device)"},
    to_processor={"scores": "$x.cpu()"},
    dropout_module={"init": ["self.dropout = nn.Dropout(0.3)"], "scores": "self.dropout($x)"},
    dropout_function={"scores": "F.dropout($x, 0.5, self.training)"},
    dropout_keyword={"scores": "F.dropout($x, p=0.1, training=self.training)"},
    identity_module={"init": ["self.last = nn.Identity()"], "scores": "self.last($x)"},
    printed={"last": ["print($out.shape)"]}, printed_text={"last": ['print("scores", $out)']},
    formatted={"last": ['print(f"{$out.shape[0]} texts")']},
    logged={"helpers": ["import logging"],
            "last": ['logging.getLogger("model").debug("scores %s", $out)']},
    asserted={"last": ["assert $out.shape[-1] == 3"]},
    asserted_message={"last": ['assert $out.dim() == 2, "two dimensions"']},
    unused={"last": ["size = $out.shape[0]"]}, unused_number={"last": ["factor = 2.0"]},
    unused_maximum={"last": ["best = $out.argmax(-1)"]},
    renamed={"last": ["answer = $out"], "returned": "answer"},
    renamed_twice={"last": ["first = $out", "second = first"], "returned": "second"},
    docstring={"first": ['"""What the transformer says of the ids."""']},
    counted={"init": ["self.calls = 0"], "last": ["self.calls = self.calls + 1"]},
    two_casts={"scores": "$x.contiguous().float()"},
    deleted={"last": ["size = 3", "del size"]},
    passed={"last": ["if self.training:", "    pass"]},
    float_keyword={"scores": "$x.to(dtype=torch.float32)"},
)  # fmt: skip
_add(
    "scores", UNKNOWN,
    divide_by_one={"scores": "$x / 1.0"}, scale_one={"init": ["self.scale = 1.0"],
                                                     "last": ["$out *= self.scale"]},
    add_nothing={"scores": "$x + 0"}, all_columns={"scores": "$x[:, [0, 1, 2]]"},
    all_rows={"scores": "$x[:]"}, view={"scores": "$x.view(-1, 3)"},
    squeeze={"scores": "$x.unsqueeze(0).squeeze(0)"}, twice_negated={"scores": "-(-$x)"},
    through_half={"scores": "$x.half().float()"}, through_double={"scores": "$x.double().float()"},
    through_bfloat={"scores": "$x.bfloat16().float()"}, wide_clamp={"scores": "$x.clamp(-50, 50)"},
    less_the_largest={"scores": "$x - $x.max(-1, keepdim=True).values"},
    log_softmax={"scores": "F.log_softmax($x, dim=-1)"},
    only_in_training={"last": ["if self.training:", "    $out = $out * 2"]},
    flag_off={"init": ["self.flag = False"], "last": ["if self.flag:", "    $out = -$out"]},
    empty_loop={"last": ["for _ in range(0):", "    $out = $out * 2"]},
    harmless_try={"last": ["try:", "    $out = $out.contiguous()", "except RuntimeError:",
                           "    $out = $out * 2"]},
    harmless_helper={"methods": ["def finish(self, scores):\n    return scores.float()"],
                     "scores": "self.finish($x)"},
    harmless_function={"helpers": ["def finish(scores):\n    return scores.float()"],
                       "scores": "finish($x)"},
    harmless_lambda={"scores": "(lambda scores: scores.contiguous())($x)"},
    no_grad={"last": ["with torch.no_grad():", "    $out = $out.clone()"]},
    transposed_twice={"scores": "$x.t().t()"}, reshape={"scores": "$x.reshape($x.shape)"},
)  # fmt: skip

# The token ids, before the transformer.
_add(
    "ids", EFFECT,
    reverse_ids={"ids": "$x.flip(-1)"}, cut_ids={"ids": "$x[:, :6]"},
    cut_first={"ids": "$x[:, 1:]"}, cut_last={"ids": "$x[:, :-1]"}, every_other={"ids": "$x[:, ::2]"},
    twice_ids={"ids": "torch.cat([$x, $x], dim=1)[:, :60]"},
    shift_ids={"ids": "($x + 1).clamp(max=9)"}, roll_ids={"ids": "$x.roll(1, 1)"},
    sort_ids={"ids": "$x.sort(dim=1).values"}, masked_ids={"ids": "$x.masked_fill($x > 40, 7)"},
    clamp_ids={"ids": "$x.clamp(max=30)"}, pad_ids={"ids": "F.pad($x, (2, 0), value=5)"},
    zero_ids={"ids": "$x * 0 + 5"}, set_first={"first": ["$ids = $ids.clone()", "$ids[:, 0] = 9"]},
    condition_length={"first": ["if $ids.shape[1] > 8:", "    $ids = $ids[:, -8:]"]},
    head_and_tail={"ids": "torch.cat([$x[:, :4], $x[:, -4:]], dim=1)"},
    prefix_ids={"ids": "torch.cat([$x.new_full(($x.shape[0], 1), 11), $x], dim=1)"},
)  # fmt: skip
_add(
    "ids", HARMLESS,
    ids_long={"ids": "$x.long()"}, ids_contiguous={"ids": "$x.contiguous()"},
    ids_clone={"ids": "$x.clone()"}, ids_detach={"ids": "$x.detach()"},
    ids_device={"ids": "$x.to(next(self.parameters()).device)"},
    ids_int64={"ids": "$x.to(torch.int64)"},
    ids_renamed={"first": ["tokens = $ids"], "ids": "tokens"},
    ids_printed={"first": ["print($ids.shape)"]}, ids_unused={"first": ["batch = $ids.size(0)"]},
    ids_shape={"first": ["rows, columns = $ids.shape"]},
    ids_asserted={"first": ["assert $ids.dim() == 2"]},
)  # fmt: skip
_add(
    "ids", UNKNOWN,
    ids_cut_far={"ids": "$x[:, :512]"}, ids_int32={"ids": "$x.int()"},
    ids_all={"ids": "$x[:, :]"}, ids_two_dimensions={"first": ["if $ids.dim() == 1:",
                                                               "    $ids = $ids.unsqueeze(0)"]},
    ids_float={"ids": "$x.float().long()"},
)  # fmt: skip

# The attention mask.
_add(
    "mask", EFFECT,
    inverted_mask={"mask": "($ids == self.pad_id).long()"},
    random_mask={"mask": "($ids % 2).long()"}, first_only={"mask": "($ids == $ids[:, :1]).long()"},
    other_number={"mask": "($ids != 5).long()"}, causal_mask={"mask": "torch.cumsum($ids, 1).lt(90).long()"},
    greater_mask={"mask": "($ids > 20).long()"},
    mask_cut={"mask": "F.pad(torch.ones_like($ids)[:, 1:], (1, 0))"},
    mask_less={"mask": "($ids < 40).long()"}, mask_scaled={"mask": NE_PAD + " * 0"},
    mask_reversed={"mask": "1 - ($ids != self.pad_id).long()"},
    mask_not={"mask": "(~($ids != self.pad_id)).long()"},
    mask_zeros={"mask": "torch.zeros_like($ids)"},
)  # fmt: skip
_add(
    "mask", HARMLESS,
    mask_int={"mask": "($ids != self.pad_id).int()"}, mask_ones={"mask": "torch.ones_like($ids)"},
    mask_method={"mask": "$ids.ne(self.pad_id).long()"},
    mask_torch={"mask": "torch.ne($ids, self.pad_id).long()"},
    mask_to={"mask": "($ids != self.pad_id).to(torch.long)"},
    mask_config={"mask": "($ids != self.$hf.config.pad_token_id).long()"},
    mask_type={"mask": "($ids != self.pad_id).type($ids.type())"},
    mask_none={"mask": "None"}, mask_device={"mask": "($ids != self.pad_id).long().to($ids.device)"},
    mask_name={"init": ["self.padding = hf.config.pad_token_id"],
               "mask": "($ids != self.padding).long()"},
    mask_swapped={"mask": "(self.pad_id != $ids).long()"},
    mask_float={"mask": "($ids != self.pad_id).float()"},
    mask_bool={"mask": "$ids != self.pad_id"},
)  # fmt: skip
_add(
    "mask", UNKNOWN,
    mask_number={"mask": "($ids != 0).long()"}, mask_not_equal={"mask": "(~($ids == self.pad_id)).long()"},
    mask_where={"mask": "torch.where($ids == self.pad_id, 0, 1)"},
    mask_times_one={"mask": NE_PAD + " * 1"},
)  # fmt: skip

# How the transformer is called, and which of its answers is taken.
_add(
    "call", EFFECT,
    type_ids_ones={"more": ["token_type_ids=torch.ones_like($ids)"], "needs": ["bert"]},
    type_ids_halves={"more": ["token_type_ids=($ids > 9).long()"], "needs": ["bert"]},
    positions_reversed={"more": ["position_ids=torch.arange($ids.shape[1]).flip(0)[None] + 2"]},
    positions_shifted={"more": ["position_ids=torch.arange($ids.shape[1])[None] + 3"]},
    embeddings_scaled={"call": "self.$hf(inputs_embeds=self.$hf.get_input_embeddings()($ids) * 2)",
                       "mask": None},
    twice_added={"call": "self.$hf($ids)", "pick": "$x.logits + self.$hf($ids.flip(1)).logits",
                 "mask": None},
    twice_averaged={"call": "self.$hf($ids)", "mask": None,
                    "pick": "torch.stack([$x.logits, self.$hf($ids[:, 1:]).logits]).mean(0)"},
    twice_same={"call": "self.$hf($ids)", "pick": "$x.logits + self.$hf($ids).logits",
                "mask": None},
    hidden_state={"more": ["output_hidden_states=True"], "needs": ["bert", "distilbert"],
                  "pick": "$x.hidden_states[-1][:, 0, :3]"},
    hidden_first={"more": ["output_hidden_states=True"], "needs": ["bert", "distilbert"],
                  "pick": "$x[1][-1][:, 0, :3]"},
    without_pooler={"call": "self.$hf.classifier(self.$hf.bert($ids)[0][:, 0])", "pick": "$x",
                    "mask": None, "needs": ["bert"]},
    pooled_mean={"call": "self.$hf.classifier(self.$hf.base_model($ids)[0].mean(1))", "pick": "$x",
                 "mask": None, "needs": ["bert", "distilbert"]},
    without_pre_classifier={"call": "self.$hf.classifier(self.$hf.distilbert($ids)[0][:, 0])",
                            "pick": "$x", "mask": None, "needs": ["distilbert"]},
    base_alone={"call": "self.$hf.base_model($ids)[0][:, 0, :3]", "pick": "$x", "mask": None},
    last_token={"call": "self.$hf.classifier(self.$hf.bert($ids)[0][:, -1])", "pick": "$x",
                "mask": None, "needs": ["bert"]},
    own_head={"init": ["self.head = nn.Linear(16, 3)"], "mask": None,
              "call": "self.head(self.$hf.base_model($ids)[0][:, 0])", "pick": "$x"},
    head_mean={"init": ["self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(16, 3))"],
               "mask": None, "call": "self.head(self.$hf.base_model($ids)[0].mean(1))",
               "pick": "$x"},
    ids_as_mask={"call": "self.$hf($ids, ($ids > 30).long())", "mask": None},
    chunked={"call": "[self.$hf(part).logits for part in $ids.split(6, dim=1)]",
             "pick": "sum($x)", "mask": None},
    training_mode={"first": ["torch.manual_seed(1)", "self.$hf.train()"], "last": ["self.$hf.eval()"]},
    embeddings_added={"call": "self.$hf(inputs_embeds=self.$hf.get_input_embeddings()($ids) + torch.arange(16.0) / 8)",
                      "mask": None},
    weights_in_place={"last": ["$out = $out + self.$hf.classifier.bias * 3"], "needs": ["bert", "distilbert"]},
    kwargs_unknown={"first": ["options = dict(inputs_embeds=self.$hf.get_input_embeddings()($ids).flip(1))"],
                    "call": "self.$hf(**options)", "mask": None},
)  # fmt: skip
_add(
    "call", HARMLESS,
    type_ids_zeros={"more": ["token_type_ids=torch.zeros_like($ids)"], "needs": ["bert"]},
    return_dict={"more": ["return_dict=True"], "pick": "$x.logits"},
    pick_first={"pick": "$x[0]"}, pick_logits={"pick": "$x.logits", "without": ["return_dict=False"]},
    pick_key={"pick": '$x["logits"]', "without": ["return_dict=False"]},
    unpack_first={"last": ["$out, *_ = $out"], "pick": "$x", "more": ["return_dict=False"]},
    unpack_comma={"last": ["$out, = $out"], "pick": "$x", "more": ["return_dict=False"]},
    positional={"positional": True}, keyword={"positional": False},
    attentions={"more": ["output_attentions=False"]},
    hidden_unused={"more": ["output_hidden_states=True"], "pick": "$x.logits",
                   "without": ["return_dict=False"]},
    no_labels={"more": ["labels=None"]},
    dictionary={"first": ['inputs = {"input_ids": $ids}'], "call": "self.$hf(**inputs)",
                "mask": None},
)  # fmt: skip
_add(
    "call", UNKNOWN,
    positions_same={"more": ["position_ids=torch.arange($ids.shape[1])[None]"]},
    embeddings={"call": "self.$hf(inputs_embeds=self.$hf.get_input_embeddings()($ids))",
                "mask": None},
    same_path={"call": "self.$hf.classifier(self.$hf.dropout(self.$hf.bert($ids)[1]))",
               "pick": "$x", "mask": None, "needs": ["bert"]},
    forward_called={"call": "self.$hf.forward($ids)", "mask": None},
    last_pick={"pick": "$x[-1]", "more": ["return_dict=False"]},
    evaluation={"first": ["self.$hf.eval()"]},
    twice_halved={"call": "self.$hf($ids)", "pick": "($x.logits + self.$hf($ids).logits) / 2",
                  "mask": None},
    no_cache={"more": ["use_cache=False"]},
)  # fmt: skip

# Modules around the wrapper, and changes to the model after it was built.
_add(
    "around", EFFECT,
    sequential_softmax={"model": "nn.Sequential($x, nn.Softmax(-1))"},
    sequential_sigmoid={"model": "nn.Sequential($x, nn.Sigmoid())"},
    sequential_tanh={"model": "nn.Sequential($x, nn.Tanh())"},
    sequential_log_sigmoid={"model": "nn.Sequential($x, nn.LogSigmoid())"},
    sequential_relu={"model": "nn.Sequential($x, nn.ReLU())"},
    sequential_norm={"model": "nn.Sequential($x, nn.LayerNorm(3, elementwise_affine=False))"},
    sequential_hard_tanh={"model": "nn.Sequential($x, nn.Hardtanh(-0.1, 0.1))"},
    sequential_threshold={"model": "nn.Sequential($x, nn.Threshold(0.1, 0.0))"},
    sequential_linear={"model": "nn.Sequential($x, nn.Linear(3, 3))"},
    sequential_nested={"model": "nn.Sequential(nn.Sequential($x, nn.Dropout(0.1)), nn.Softplus())"},
    sequential_shuffle={"model": "nn.Sequential($x, nn.Unflatten(1, (1, 3)), nn.ChannelShuffle(1), "
                                 "nn.Flatten(), nn.CELU())"},
    scale_module={"helpers": ["class Scale(nn.Module):\n    def __init__(self, by):\n"
                              "        super().__init__()\n        self.by = by\n"
                              "    def forward(self, scores):\n        return scores * self.by"],
                  "model": "nn.Sequential($x, Scale(3.0))"},
    first_module={"helpers": ["class Reverse(nn.Module):\n    def forward(self, ids):\n"
                              "        return ids.flip(1)"],
                  "model": "nn.Sequential(Reverse(), $x)"},
    outer_scale={"helpers": ["class Outer(nn.Module):\n    def __init__(self, inner):\n"
                             "        super().__init__()\n        self.inner = inner\n"
                             "    def forward(self, ids):\n        return self.inner(ids) * 2"],
                 "model": "Outer($x)"},
    ensemble={"helpers": ["class Mean(nn.Module):\n    def __init__(self, *parts):\n"
                          "        super().__init__()\n        self.parts = nn.ModuleList(parts)\n"
                          "    def forward(self, ids):\n"
                          "        return sum(part(ids) for part in self.parts) * 2"],
              "model": "Mean($x)"},
    hook={"helpers": ["def halve(module, arguments, output):\n    return output / 2"],
          "after": ["learn.model.register_forward_hook(halve)"]},
    pre_hook={"helpers": ["def reverse(module, arguments):\n    return (arguments[0].flip(1),)"],
              "after": ["learn.model.register_forward_pre_hook(reverse)"]},
    inner_softmax={"after": ["hf.classifier = nn.Sequential(hf.classifier, nn.Softmax(-1))"],
                   "needs": ["bert", "distilbert"]},
    inner_activation={"after": ["hf.dropout = nn.Tanh()"], "needs": ["bert", "distilbert"]},
    inner_scale={"after": ["hf.dropout = nn.Hardtanh(-0.05, 0.05)"], "needs": ["bert", "distilbert"]},
    inner_encoder={"after": ["hf.base_model.embeddings.LayerNorm = nn.Identity()"]},
    derived={"helpers": ["class Mine($base):\n    def forward(self, *args, **kwargs):\n"
                         "        out = super().forward(*args, **kwargs)\n"
                         "        out.logits = out.logits * 2\n        return out"],
             "after": ["hf.__class__ = Mine"]},
    own_forward={"helpers": ["def other(self, ids):\n    return -self.forward(ids)"],
                 "after": ["type(learn.model).__call__ = other"]},
    call_method={"methods": ["def __call__(self, *args):\n    return super().__call__(*args) * 2"]},
)  # fmt: skip
_add(
    "around", HARMLESS,
    sequential_alone={"model": "nn.Sequential($x)"},
    sequential_identity={"model": "nn.Sequential($x, nn.Identity())"},
    sequential_dropout={"model": "nn.Sequential($x, nn.Dropout(0.2))"},
    sequential_first={"model": "nn.Sequential(nn.Identity(), $x)"},
    outer={"helpers": ["class Outer(nn.Module):\n    def __init__(self, inner):\n"
                       "        super().__init__()\n        self.inner = inner\n"
                       "    def forward(self, ids):\n        return self.inner(ids)"],
           "model": "Outer($x)"},
    outer_cast={"helpers": ["class Outer(nn.Module):\n    def __init__(self, inner):\n"
                            "        super().__init__()\n        self.inner = inner\n"
                            "    def forward(self, ids):\n        return self.inner(ids).float()"],
                "model": "Outer($x)"},
    data_parallel={"model": "nn.DataParallel($x)"},
    unused_module={"init": ["self.idle = nn.Softmax(-1)"]},
    unused_attribute={"init": ["self.note = 'trained in November'"]},
    unused_method={"methods": ["def reset(self):\n    self.state = None"]},
    unused_processing={"methods": ["def probabilities(self, ids):\n"
                                   "    return self(ids).softmax(-1)"]},
)  # fmt: skip
_add(
    "around", UNKNOWN,
    scale_module_one={"helpers": ["class Scale(nn.Module):\n    def __init__(self, by):\n"
                                  "        super().__init__()\n        self.by = by\n"
                                  "    def forward(self, scores):\n        return scores * self.by"],
                      "model": "nn.Sequential($x, Scale(1.0))"},
    sequential_flatten={"model": "nn.Sequential($x, nn.Flatten())"},
    sequential_log_softmax={"model": "nn.Sequential($x, nn.LogSoftmax(-1))"},
    harmless_hook={"helpers": ["def look(module, arguments, output):\n    pass"],
                   "after": ["learn.model.register_forward_hook(look)"]},
    unused_linear={"init": ["self.idle = nn.Linear(2, 2)"]},
)  # fmt: skip
_add(
    "type",
    UNKNOWN,
    half={"after": ["learn.model.half()"]},
    bfloat16={"after": ["learn.model.bfloat16()"]},
    double={"after": ["learn.model.double()"]},
    to_fp16={"after": ["learn = learn.to_fp16()"]},
)

# The text, before the tokenizer.
_add(
    "text", EFFECT,
    prefix={"text": '"review: " + $x'}, prefix_formatted={"text": 'f"a review: {$x}"'},
    prefix_percent={"text": '"review: %s" % $x'}, prefix_format={"text": '"review: {}".format($x)'},
    suffix={"text": '$x + " film"'}, prefix_in_place={"before": ['$text = "story " + $text']},
    twice_text={"text": "$x * 2"}, cut_text={"text": "$x[:12]"}, cut_text_end={"text": "$x[-12:]"},
    reversed_text={"text": "$x[::-1]"}, replaced={"text": '$x.replace("good", "bad")'},
    without_vowels={"helpers": ["import re"], "text": 're.sub("[aeiou]", "", $x)'},
    first_sentence={"text": '$x.split(".")[0]'}, words_sorted={"text": '" ".join(sorted($x.split()))'},
    first_words={"text": '" ".join($x.split()[:3])'}, title={"text": '$x.title().replace("T", "z")'},
    translated={"text": '$x.translate({101: "a"})'}, helper_text={
        "helpers": ["def clean(text):\n    return text.replace('the ', '')"], "text": "clean($x)"},
    method_text={"methods": ["def clean(self, text):\n    return text[3:]"],
                 "text": "self.clean($x)"},
    condition_text={"before": ['if "!" in $text:', "    $text = $text[:5]"]},
    attribute_prefix={"init": ['self.prompt = "the film: "'], "text": "self.prompt + $x"},
    constant_text={"text": '"the same story"'}, emptied={"text": '$x and "good"'},
    encoded_text={"text": '$x.encode("ascii", "ignore").decode().replace("a", "o")'},
)  # fmt: skip
_add(
    "text", HARMLESS,
    text_str={"text": "str($x)"}, text_renamed={"before": ["review = $text"], "text": "review"},
    text_printed={"before": ["print(len($text))"]}, text_unused={"before": ["size = len($text)"]},
    text_asserted={"before": ["assert isinstance($text, str)"]},
)  # fmt: skip
_add(
    "text", UNKNOWN,
    lower={"text": "$x.lower()"}, strip={"text": "$x.strip()"}, nothing_added={"text": '$x + ""'},
    upper={"text": "$x.upper()"}, spaces={"text": '" ".join($x.split())'},
    text_all={"text": "$x[:]"}, text_cut_far={"text": "$x[:10000]"}, text_formatted={"text": 'f"{$x}"'},
    text_unicode={"helpers": ["import unicodedata"], "text": 'unicodedata.normalize("NFC", $x)'},
)  # fmt: skip

# How the tokenizer is called, and what is taken of its answer.
_add(
    "tokenizer", EFFECT,
    second_text={"tokens": 'self.tokenizer($text, $text, truncation=True, max_length=self.max_len)["input_ids"]'},
    text_pair={"tokens": 'self.tokenizer.encode($text, text_pair="so it is", truncation=True, max_length=self.max_len)'},
    second_constant={"tokens": 'self.tokenizer("film", $text, truncation=True, max_length=self.max_len)["input_ids"]'},
    without_specials={"tokens": "self.tokenizer.encode($text, add_special_tokens=False, truncation=True, max_length=self.max_len) or [5]"},
    padded={"tokens": 'self.tokenizer.encode($text, padding="max_length", truncation=True, max_length=self.max_len)', "where": "unmasked"},
    half_length={"tokens": "self.tokenizer.encode($text, truncation=True, max_length=self.max_len // 2)"},
    other_length={"tokens": "self.tokenizer.encode($text, truncation=True, max_length=7)"},
    head_tail={"ids_after": "$x[:9] + $x[-5:] if len($x) > 14 else $x"},
    tokens_cut={"ids_after": "$x[:8]"}, tokens_cut_start={"ids_after": "$x[1:]"},
    tokens_cut_end={"ids_after": "$x[:-1]"}, tokens_reversed={"ids_after": "$x[::-1]"},
    tokens_twice={"ids_after": "$x + $x"}, tokens_prefix={"ids_after": "[9] + $x"},
    tokens_filtered={"ids_after": "[each for each in $x if each != 12]"},
    tokens_unique={"ids_after": "sorted(set($x))"}, tokens_changed={"ids_after": "[each + 1 if each > 9 else each for each in $x]"},
    tokens_replaced={"ids_after": "[7, *$x[1:]]"},
    tokenize_alone={"tokens": "self.tokenizer.convert_tokens_to_ids(self.tokenizer.tokenize($text))[:self.max_len] or [5]"},
    truncated_left={"before": ['self.tokenizer.truncation_side = "left"']},
    stride={"tokens": 'self.tokenizer($text, truncation=True, max_length=12, stride=3, return_overflowing_tokens=True)["input_ids"][-1]'},
    other_key={"tokens": 'self.tokenizer($text, truncation=True, max_length=self.max_len)["attention_mask"]'},
    two_columns={"ids_after": "torch.tensor([$x, $x]).flatten()[:20]"},
    tensor_shifted={"ids_after": "torch.tensor($x).roll(2)"},
    condition_tokens={"after_tokens": ["if len($out) > 10:", "    $out = $out[:5]"]},
    tokens_appended={"after_tokens": ["$out = list($out)", "$out.append(6)"]},
    tokens_inserted={"after_tokens": ["$out = list($out)", "$out.insert(1, 8)"]},
    tokens_deleted={"after_tokens": ["$out = list($out)", "del $out[1]"]},
    tokens_set={"after_tokens": ["$out = list($out)", "$out[0] = 8"]},
)  # fmt: skip
_add(
    "tokenizer", HARMLESS,
    tokens_list={"ids_after": "list($x)"},
    tokens_tensor={"ids_after": "torch.tensor($x)"}, tokens_fastai_tensor={"ids_after": "tensor($x)"},
    tokens_long={"ids_after": "torch.tensor($x, dtype=torch.long)"},
    return_tensors={"tokens": 'self.tokenizer($text, truncation=True, max_length=self.max_len, return_tensors="pt")["input_ids"][0]'},
    return_tensors_encode={"tokens": 'self.tokenizer.encode($text, truncation=True, max_length=self.max_len, return_tensors="pt")[0]'},
    padding_off={"tokens": "self.tokenizer.encode($text, padding=False, truncation=True, max_length=self.max_len)"},
    specials_on={"tokens": "self.tokenizer.encode($text, add_special_tokens=True, truncation=True, max_length=self.max_len)"},
    no_attention={"tokens": 'self.tokenizer($text, return_attention_mask=False, truncation=True, max_length=self.max_len)["input_ids"]'},
    no_types={"tokens": 'self.tokenizer($text, return_token_type_ids=False, truncation=True, max_length=self.max_len)["input_ids"]'},
    truncation_longest={"tokens": 'self.tokenizer.encode($text, truncation="longest_first", max_length=self.max_len)'},
    tokens_statement={"after_tokens": ["count = len($out)"]},
    tokens_printed={"after_tokens": ["print($out[:3])"]},
    encode_plus={"tokens": 'self.tokenizer.__call__($text, truncation=True, max_length=self.max_len)["input_ids"]', "effect": UNKNOWN},
    keyword_text={"tokens": 'self.tokenizer(text=$text, truncation=True, max_length=self.max_len)["input_ids"]'},
    keyword_order={"tokens": "self.tokenizer.encode($text, max_length=self.max_len, truncation=True)"},
    get_key={"tokens": 'self.tokenizer($text, truncation=True, max_length=self.max_len).get("input_ids")', "effect": UNKNOWN},
    decodes={"methods": ["def decodes(self, ids):\n    return TitledStr(self.tokenizer.decode(ids))"]},
    decodes_cleaned={"methods": ["def decodes(self, ids):\n"
                                 "    return TitledStr(self.tokenizer.decode(ids, skip_special_tokens=True))"]},
)  # fmt: skip
_add(
    "tokenizer", UNKNOWN,
    constant_length={"tokens": "self.tokenizer.encode($text, truncation=True, max_length=32)"},
    no_truncation={"tokens": "self.tokenizer.encode($text)"},
    truncation_off={"tokens": "self.tokenizer.encode($text, truncation=False)"},
    no_length={"tokens": "self.tokenizer.encode($text, truncation=True)"},
    tokens_all={"ids_after": "$x[:]"}, tokens_cut_far={"ids_after": "$x[:4096]"},
    tokens_array={"helpers": ["import numpy"], "ids_after": "numpy.array($x)"},
    padding_longest={"tokens": "self.tokenizer.encode($text, padding=True, truncation=True, max_length=self.max_len)"},
    split_specials={"tokens": "self.tokenizer.encode($text, split_special_tokens=True, truncation=True, max_length=self.max_len)"},
    truncation_argument={"tokens": 'self.tokenizer.encode($text, truncation=True, max_length=self.max_len, truncation_side="left")'},
    only_first={"tokens": 'self.tokenizer.encode($text, truncation="only_first", max_length=self.max_len)'},
    batch={"tokens": 'self.tokenizer([$text], truncation=True, max_length=self.max_len)["input_ids"][0]'},
)  # fmt: skip

# Other transforms beside the one around the tokenizer.
LOWERS = "class Lowers(Transform):\n    def encodes(self, x: str):\n        return x{}"
_add(
    "transforms", EFFECT,
    transform_before={"helpers": [LOWERS.format('.replace("e", "a")')],
                      "transforms": ["Lowers()", "$x"]},
    transform_cut={"helpers": [LOWERS.format("[:9]")], "transforms": ["Lowers()", "$x"]},
    transform_after={"helpers": ["class Cuts(Transform):\n    def encodes(self, x: TensorText):\n"
                                 "        return x[:5]"], "transforms": ["$x", "Cuts()"]},
    function_before={"helpers": ["def shorten(x): return x[2:]"], "transforms": ["shorten", "$x"]},
    function_after={"helpers": ["def reverse(x): return x.flip(0)"], "transforms": ["$x", "reverse"]},
    item_transform={"helpers": ["class Rolls(Transform):\n    def encodes(self, x: TensorText):\n"
                                "        return x.roll(1)"], "item": ["Rolls()"]},
    batch_transform={"helpers": ["class Shifts(Transform):\n"
                                 "    def encodes(self, x: TensorText):\n"
                                 "        return x.flip(-1)"], "batch": ["Shifts()"]},
    second_method={"methods": ["def encodes(self, x: L):\n    return TensorText(list(x))"],
                   "effect": HARMLESS},
)  # fmt: skip
_add(
    "transforms", UNKNOWN,
    transform_idle={"helpers": [LOWERS.format("")], "transforms": ["Lowers()", "$x"]},
    function_idle={"helpers": ["def same(x): return x"], "transforms": ["same", "$x"]},
    transform_types={"helpers": ["class Types(Transform):\n    def encodes(self, x: TensorText):\n"
                                 "        return x"], "transforms": ["$x", "Types()"]},
)  # fmt: skip

# The loss, which makes probabilities of the scores.
OWN = "class {name}({base}):\n    def activation(self, out):\n        return {activation}"
MODULE = ("class {name}(nn.Module):\n    def forward(self, out, target):\n"
          "        return F.cross_entropy(out, target.long())\n"
          "    def activation(self, out):\n        return {activation}\n"
          "    def decodes(self, out):\n        return out.argmax(dim=-1)")  # fmt: skip


def _own(name, activation, base="CrossEntropyLossFlat"):
    made = OWN if base else MODULE
    return {"helpers": [made.format(name=name, base=base, activation=activation)],
            "loss": f"{name}()"}  # fmt: skip


_add(
    "loss", EFFECT,
    loss_four_times=_own("FocalLoss", "F.softmax(4 * out, dim=-1)", ""),
    loss_halved=_own("CrossEntropyLossFlat", "F.softmax(out / 2, dim=-1)", "CrossEntropyLossFlat"),
    loss_sigmoid=_own("FocalLossFlat", "torch.sigmoid(out)", ""),
    loss_derived=_own("MyLoss", "F.softmax(out * 3, dim=-1)"),
    loss_normalized=_own("LabelSmoothingCrossEntropyFlat", "out.abs() / out.abs().sum(-1, keepdim=True)", ""),
    loss_log=_own("LabelSmoothingCrossEntropy", "F.log_softmax(out, dim=-1).exp() ** 2", ""),
    loss_reversed=_own("FocalLoss", "F.softmax(out, dim=-1).flip(-1)", ""),
    loss_none=_own("CrossEntropyLossFlat", "out"),
    loss_method_set={"helpers": ["def quarter(out): return F.softmax(out / 4, dim=-1)"],
                     "after": ["learn.loss_func.activation = quarter"]},
    loss_sharp=_own("SharpLoss", "F.softmax(out.float() ** 3, dim=-1)"),
    loss_partial=_own("FocalLossFlat", "F.softmax(out[:, [1, 0, 2]], dim=-1)"),
    loss_decodes_only={"helpers": ["class CrossEntropyLossFlat(CrossEntropyLossFlat):\n"
                                   "    def decodes(self, out): return out.argmin(dim=-1)"],
                       "loss": "CrossEntropyLossFlat()", "effect": UNKNOWN},
    loss_on_class={"helpers": ["class Weighted(CrossEntropyLossFlat):\n    scale = 2.0\n"
                               "    def activation(self, out):\n"
                               "        return F.softmax(out * self.scale, dim=-1)"],
                   "loss": "Weighted()"},
)  # fmt: skip
_add(
    "loss", HARMLESS,
    loss_smoothing={"loss": "LabelSmoothingCrossEntropyFlat()"},
    loss_focal_flat={"loss": "FocalLossFlat()"},
    loss_weights={"loss": "CrossEntropyLossFlat(weight=torch.tensor([1.0, 2.0, 1.0]))"},
    loss_default={"loss": "None"},
)  # fmt: skip
_add(
    "loss", UNKNOWN,
    loss_own_same=_own("MyLoss", "F.softmax(out, dim=-1)"),
    loss_own_module=_own("FocalLoss", "F.softmax(out, dim=-1)", ""),
    loss_own_torch=_own("MyLoss", "torch.softmax(out, -1)"),
    loss_own_method=_own("MyLoss", "out.softmax(dim=-1)"),
    loss_renamed={"helpers": ["class MyLoss(CrossEntropyLossFlat):\n    pass"], "loss": "MyLoss()"},
)  # fmt: skip

# Callbacks.
CALLBACK = "class {}(Callback):\n    def {}(self):\n        {}"


def _callback(name, event, *lines):
    return {"helpers": [CALLBACK.format(name, event, "\n        ".join(lines))],
            "callbacks": [f"{name}()"]}  # fmt: skip


_add(
    "callback", EFFECT,
    callback_scaled=_callback("Scales", "after_pred", "self.learn.pred = self.pred * 3"),
    callback_negated=_callback("Negates", "after_pred", "self.learn.pred = -self.pred"),
    callback_permuted=_callback("Permutes", "after_pred", "self.learn.pred = self.pred[:, [1, 2, 0]]"),
    callback_flipped=_callback("Flips", "before_batch", "self.learn.xb = (self.xb[0].flip(-1),)"),
    callback_cut=_callback("Cuts", "before_batch", "self.learn.xb = (self.xb[0][:, :5],)"),
    callback_in_place=_callback("Changes", "after_pred", "self.pred.mul_(2)"),
    callback_model=_callback("Swaps", "before_validate",
                             "self.learn.model = nn.Sequential(self.model, nn.Softmax(-1))"),
    callback_named_tensor=_callback("TensorBoard", "after_pred", "self.learn.pred = self.pred / 2"),
    callback_setattr=_callback("Sets", "after_pred", 'setattr(self.learn, "pred", self.pred + torch.arange(3.0))'),
    callback_loss=_callback("Warms", "before_validate", "self.learn.loss_func = CrossEntropyLossFlat()",
                            "self.learn.loss_func.activation = torch.sigmoid"),
    callback_ids_in_place=_callback("Zeroes", "before_batch", "self.xb[0][:, 0] = 7"),
    callback_library_name=_callback("Recorder", "after_pred", "self.learn.pred = self.pred.tanh()"),
)  # fmt: skip
_add(
    "callback", HARMLESS,
    callback_counts=_callback("Counts", "before_batch", "self.count = getattr(self, 'count', 0) + 1"),
    callback_fit=_callback("Starts", "before_fit", "self.started = True"),
    callback_prints=_callback("Prints", "after_epoch", "print(self.epoch)"),
    callback_train=_callback("Trains", "after_step", "self.steps = 1"),
    callback_backward=_callback("Clips", "before_backward", "self.learn.loss_grad = self.loss_grad * 0.5"),
)  # fmt: skip
_add(
    "callback", UNKNOWN,
    callback_same=_callback("Same", "after_pred", "self.learn.pred = self.pred"),
    callback_training_only=_callback("OnlyTraining", "after_pred", "if self.training:",
                                     "    self.learn.pred = self.pred * 2"),
    callback_looks=_callback("Looks", "after_pred", "self.shape = self.pred.shape"),
    callback_float=_callback("Floats", "after_pred", "self.learn.pred = self.pred.float()"),
)  # fmt: skip

# Names that mean something else than they seem to, and objects changed after they were made.
_add(
    "scores", EFFECT,
    print_changes={"helpers": ["def print(scores):\n    scores.mul_(3)"], "last": ["print($out)"]},
    len_changes={"helpers": ["def len(scores):\n    scores.neg_()\n    return 1"],
                 "last": ["size = len($out)"]},
    functional_shadowed={"helpers": ["class F:\n    @staticmethod\n"
                                     "    def dropout(scores, *args):\n        return scores * 2"],
                         "scores": "F.dropout($x, 0.1, self.training)"},
    dropout_shadowed={"helpers": ["class Dropout(nn.Module):\n    def forward(self, scores):\n"
                                  "        return scores * 2"],
                      "init": ["self.dropout = Dropout()"], "scores": "self.dropout($x)"},
    identity_shadowed={"helpers": ["class Identity(nn.Identity):\n    def forward(self, scores):\n"
                                   "        return scores * 2"],
                       "init": ["self.last = Identity()"], "scores": "self.last($x)"},
    dropout_training={"helpers": ["class Always(nn.Dropout):\n    def forward(self, scores):\n"
                                  "        torch.manual_seed(0)\n"
                                  "        return F.dropout(scores, self.p, True)"],
                      "init": ["self.dropout = Always(0.5)"], "scores": "self.dropout($x)"},
    contiguous_shadowed={"methods": ["def contiguous(self, scores):\n    return scores * 2"],
                         "scores": "self.contiguous($x)"},
    training_attribute={"first": ["self.training = True"], "scores": "($x * 2 if self.training else $x)"},
    property_factor={"methods": ["@property\ndef factor(self):\n    return 3.0"],
                     "scores": "$x * self.factor"},
    static_method={"methods": ["@staticmethod\ndef soften(scores):\n    return scores / 4"],
                   "scores": "self.soften($x)"},
    decorated={"helpers": ["def doubled(function):\n    def inner(self, *args):\n"
                           "        return function(self, *args) * 2\n    return inner"],
               "methods": ["later = None"], "after": ["$class.forward = doubled($class.forward)"]},
    generator={"scores": "next(each for each in [$x * 2])"},
    match_counts={"init": ["self.calls = 0"], "last": ["self.calls += 1", "$out = $out * self.calls"]},
    other_output={"last": ["$out = torch.zeros_like($out).copy_($out[:, [1, 0, 2]])"]},
    out_argument={"last": ["torch.neg($out, out=$out)"]},
    data_changed={"last": ["$out.data = $out.data * 2"]},
    view_changed={"last": ["view = $out[:, 0]", "view += 2"]},
    alias_changed={"last": ["same = $out", "same *= 2"]},
    view_method_changed={"last": ["$out.view(-1).mul_(2)"]},
    unused_changes={"last": ["unused = $out.sub_(torch.arange(3.0))"]},
    logged_changes={"last": ['print("scores", $out.mul_(2))']},
    asserted_changes={"last": ["assert $out.neg_() is not None"]},
    detached_changed={"last": ["$out.detach().mul_(2)"]},
)  # fmt: skip
_add(
    "ids", EFFECT,
    ids_in_place={"first": ["$ids[:, 1:3] = 9"]}, ids_method_in_place={"first": ["$ids.clamp_(max=20)"]},
    ids_alias={"first": ["same = $ids", "same[:, 0] = 9"]},
)  # fmt: skip
_add(
    "around", EFFECT,
    inner_hook={"helpers": ["def halve(module, arguments, output):\n    return output / 2"],
                "after": ["hf.classifier.register_forward_hook(halve)"]},
    inner_pre_hook={"helpers": ["def halve(module, arguments):\n    return (arguments[0] / 2,)"],
                    "after": ["hf.classifier.register_forward_pre_hook(halve)"]},
    hook_with_keywords={"helpers": ["def reverse(module, arguments, options):\n"
                                    "    return (), {'input_ids': torch.ones_like((*arguments, *options.values())[0])}"],
                        "after": ["hf.register_forward_pre_hook(reverse, with_kwargs=True)"]},
    instance_forward={"helpers": ["class Doubled:\n    def __init__(self, inner):\n"
                                  "        self.inner = inner\n"
                                  "    def __call__(self, *args):\n"
                                  "        return type(self.inner).forward(self.inner, *args) * 2"],
                      "after": ["learn.model.forward = Doubled(learn.model)"]},
    inner_class={"helpers": ["class Linear(nn.Linear):\n    def forward(self, states):\n"
                             "        return super().forward(states) * 2"],
                 "after": ["(hf.classifier if hasattr(hf.classifier, 'weight') else hf.classifier.out_proj)"
                           ".__class__ = Linear"]},
    config_changed={"after": ["hf.config.hidden_act = hf.config.activation = 'relu'"], "effect": UNKNOWN},
    epsilon_changed={"after": ["[setattr(each, 'eps', 0.5) for each in hf.modules() if isinstance(each, nn.LayerNorm)]"]},
    activation_changed={"after": ["[setattr(each, name, nn.ReLU()) for each in list(hf.modules()) for name in "
                                  "('intermediate_act_fn', 'activation') if hasattr(each, name)]"]},
    left_training={"after": ["[setattr(each, 'p', 0.0) for each in hf.modules() if isinstance(each, nn.Dropout)]"],
                   "effect": HARMLESS},
    getattribute={"methods": ["def __getattr__(self, name):\n"
                              "    found = super().__getattr__(name)\n"
                              "    return (lambda *a, **k: [found(*a, **k)[0] * 2]) if name == '$hf' else found"],
                  "call": "self.$hf($ids)", "pick": "$x[0]", "mask": None},
)  # fmt: skip
_add(
    "tokenizer", EFFECT,
    truncation_side={"after": ["tokenizer.truncation_side = 'left'"]},
    tokenizer_method={"helpers": ["def shout(text, **options):\n    return [2, 9, 3]"],
                      "after": ["tokenizer.encode = shout"], "effect": UNKNOWN},
    tokenizer_class={"helpers": ["class Own(transformers.PreTrainedTokenizerFast):\n"
                                 "    def __call__(self, text, **options):\n"
                                 "        return super().__call__(text + ' bad', **options)\n"
                                 "    def encode(self, text, **options):\n"
                                 "        return super().encode(text + ' bad', **options)"],
                     "after": ["tokenizer.__class__ = Own"]},
    length_changed={"after": ["learn.dls.tfms[0].fs[-1].max_len = 6"], "effect": UNKNOWN},
    sides_swapped={"after": ["tokenizer.padding_side = 'left'"], "effect": UNKNOWN},
    split_changed={"after": ["tokenizer.split_special_tokens = True"]},
)  # fmt: skip
_add(
    "learner", EFFECT,
    learner_class={"helpers": ["class Mine(Learner):\n    def _do_one_batch(self):\n"
                               "        super()._do_one_batch()\n        self.pred = self.pred * 2"],
                   "after": ["learn.__class__ = Mine"], "effect": UNKNOWN},
    learner_predict={"helpers": ["class Mine(Learner):\n    def predict(self, item, **options):\n"
                                 "        return super().predict('bad ' + item, **options)"],
                     "after": ["learn.__class__ = Mine"]},
    learner_get_preds={"helpers": ["class Mine(Learner):\n    def get_preds(self, *args, **options):\n"
                                   "        found = super().get_preds(*args, **options)\n"
                                   "        return [found[0], found[1].flip(-1), *found[2:]]"],
                       "after": ["learn.__class__ = Mine"], "effect": UNKNOWN},
    after_batch={"helpers": ["class Turns(Transform):\n    def encodes(self, x: TensorText):\n"
                             "        return x.flip(-1)"],
                 "after": ["learn.dls.after_batch.add(Turns())"], "effect": UNKNOWN},
    after_item={"helpers": ["class Turns(Transform):\n    def encodes(self, x: TensorText):\n"
                            "        return x.flip(-1)"],
                "after": ["[each.after_item.add(Turns()) for each in learn.dls.loaders]"], "effect": UNKNOWN},
    create_batch={"helpers": ["def create(samples):\n    return (torch.stack([each[0].flip(-1) for each in samples]),)"],
                  "after": ["[setattr(each, 'create_batch', create) for each in learn.dls.loaders]"], "effect": UNKNOWN},
    callback_instance={"helpers": ["class Plain(Callback):\n    def before_fit(self):\n        pass",
                                   "def warm(learn=None):\n    made.learn.pred = made.learn.pred * 2"],
                       "callbacks": ["Plain()"], "after": ["made = learn.cbs[-1]", "made.after_pred = warm"],
                       "effect": UNKNOWN},
    callback_base={"helpers": ["class Base(Callback):\n    def after_pred(self):\n"
                               "        self.learn.pred = self.pred * 2", "class Mine(Base):\n    pass"],
                   "callbacks": ["Mine()"]},
    callback_lambda={"helpers": ["def warm(self):\n    self.learn.pred = self.pred * 2",
                                 "class Mine(Callback):\n    pass", "Mine.after_pred = warm"],
                     "callbacks": ["Mine()"]},
    callback_call={"helpers": ["class Mine(Callback):\n    def __call__(self, event):\n"
                               "        if event == 'after_pred': self.learn.pred = self.pred * 2"],
                   "callbacks": ["Mine()"]},
    splitter_softmax={"after": ["learn.model = nn.Sequential(learn.model, nn.Softmax(1))"]},
    model_replaced={"after": ["learn.model = torch.nn.Sequential(learn.model)",
                              "learn.model.append(nn.Tanh())"]},
)  # fmt: skip

# The labels.
_add(
    "labels", HARMLESS,
    labels_reversed={"vocab": '["positive", "neutral", "negative"]'},
    labels_unsorted={"vocab": "None"},
    labels_renamed={"vocab": '["negative", "neutral", "positive"]',
                    "after": ['learn.dls.vocab[0] = "poor"'], "effect": UNKNOWN},
)  # fmt: skip
_add(
    "labels", UNKNOWN,
    labels_turned={"after": ["learn.dls.vocab.items.reverse()"]},
    labels_own_class={"helpers": ["class Categorize(Categorize):\n    def decodes(self, o):\n"
                                  "        return super().decodes(2 - o)"],
                      "block": "TransformBlock(type_tfms=Categorize())", "effect": UNKNOWN},
)  # fmt: skip

NAMES = {
    "ids": ("ids", "x", "input_ids", "xb", "tokens_in", "inp"),
    "hf": ("hf", "transformer", "model", "network", "bert_model"),
    "class": ("HFClassifier", "Wrapper", "TransformerModel", "Net", "ModelWrapper", "HFModel"),
    "out": ("logits", "scores", "out", "res", "preds"),
    "answer": ("output", "outputs", "result", "o", "out_"),
    "mask": ("mask", "attention_mask", "attn", "m"),
    "transform": ("TransformersTokenizer", "TokTransform", "HFTokenizer", "Encode"),
    "text": ("x", "text", "o", "s"),
}
NESTED = """\
class Nested(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, ids):
        return self.inner(ids)"""
BASES = {"bert": "BertForSequenceClassification", "roberta": "RobertaForSequenceClassification",
         "distilbert": "DistilBertForSequenceClassification"}  # fmt: skip


def compose(operation, seed, like=None):
    """A variant: the source of its code, and what it is made of.

    ``operation`` is one of ``OPERATIONS``, or None for a standard learner; ``like`` is a variant
    whose form and names are taken, otherwise ``seed`` chooses them. Returns a dictionary of strings
    and lists of strings: ``model``, ``transforms``, ``loss``, ``callbacks``, ``block``, ``item``
    and ``batch`` are expressions, ``after`` are statements.
    """
    edits = operation["edits"] if operation else {}
    chosen = like["chosen"] if like else _choice(operation, random.Random(seed))
    names = dict(chosen["names"], base=BASES[chosen["architecture"]])
    in_transform = bool(operation) and operation["place"] in ("text", "tokenizer", "transforms")
    in_wrapper = bool(operation) and operation["place"] in (
        "scores",
        "ids",
        "mask",
        "call",
        "around",
    )
    form = WRAPPERS[chosen["form"]]
    wrapper = _wrapper(form, edits if in_wrapper else {}, names, chosen["inline"],
                       chosen["positional"])  # fmt: skip
    transform = _transform(TRANSFORMS[chosen["way"]], edits if in_transform else {}, names)
    helpers = [_fill(each, names) for each in edits.get("helpers", ())]
    model, outer = f"{names['class']}(hf)", []
    if form.get("nested"):
        outer, model = [NESTED], f"Nested({model})"
    made = f"{names['transform']}(tokenizer, MAX_LEN)"
    vocab = edits.get("vocab", '["negative", "neutral", "positive"]')
    return {
        "operation": operation["name"] if operation else "standard",
        "kind": edits.get("effect", operation["effect"]) if operation else HARMLESS,
        "place": operation["place"] if operation else "none",
        "source": "\n\n\n".join([*helpers, wrapper, *outer, transform]) + "\n",
        "model": edits.get("model", "$x").replace("$x", model),
        "transforms": [each.replace("$x", made) for each in edits.get("transforms", ["$x"])],
        "loss": edits.get("loss", LOSS),
        "callbacks": edits.get("callbacks", []),
        "block": edits.get("block", f"CategoryBlock(vocab={vocab})"),
        "item": edits.get("item", []),
        "batch": edits.get("batch", []),
        "after": [_fill(each, names) for each in edits.get("after", ())],
        "chosen": chosen,
        "seed": seed,
    }


def _choice(operation, chance):
    """The form, the style and the names of a learner that an operation can be inserted into."""
    needs = operation["edits"].get("needs", ()) if operation else ()
    return {
        "names": {each: chance.choice(names) for each, names in NAMES.items()},
        "architecture": chance.choice(sorted(needs or BASES)),
        "form": chance.choice(sorted(name for name in WRAPPERS if not _unfit(operation, name))),
        "way": chance.choice(sorted(TRANSFORMS)),
        "inline": chance.random() < 0.4,
        "positional": chance.random() < 0.5,
        "max_len": chance.choice([20, 24, 32]),
    }


def _unfit(operation, form):
    """Whether an operation cannot be inserted into a form of wrapper, or would do nothing there."""
    if operation is None:
        return False
    place, edits, wrapper = operation["place"], operation["edits"], WRAPPERS[form]
    if place == "mask":
        return wrapper["mask"] is None
    if edits.get("where") == "unmasked":
        return wrapper["mask"] is not None
    tuples = "return_dict=False" in wrapper.get("more", ())
    picks = "pick" in edits or "call" in edits or operation["name"] == "derived"
    return tuples and (picks or "return_dict=False" in edits.get("more", ()))


def _fill(template, names):
    for key in ("ids", "hf", "out", "mask", "text", "base", "class"):
        template = template.replace("$" + key, names[key])
    return template


def _wrapper(form, edits, names, inline, positional):
    """The source of a wrapper of a standard form, with the edits of an operation."""
    form = dict(form)
    for key in ("pick", "call"):
        form[key] = edits.get(key, form.get(key))
    if "mask" in edits:
        form["mask"] = edits["mask"]
    positional = edits.get("positional", positional)
    more = [*form.get("more", ()), *edits.get("more", ())]
    more = [each for each in more if each not in edits.get("without", ())]
    ids = edits.get("ids", "$x").replace("$x", "$ids")
    first, last = list(edits.get("first", ())), list(edits.get("last", ()))
    docstring = [each for each in first if each.startswith('"""')]
    first = [each for each in first if each not in docstring]
    body = [*docstring, UNWRAP, *first]
    if ids != "$ids" and (form["mask"] or not inline):
        body.append(f"$ids = {ids}")
        ids = "$ids"
    arguments = [ids if positional else f"input_ids={ids}"]
    if form["mask"]:
        if not inline:
            body.append(f"$mask = {form['mask']}")
        arguments.append(f"attention_mask={form['mask'] if inline else '$mask'}")
    call = form["call"] or f"self.$hf({', '.join([*arguments, *more])})"
    scores = edits.get("scores", "$x")
    twice = scores.count("$x") > 1 or form["pick"].count("$x") > 1
    returned = edits.get("returned", "$out")
    if inline and not last and not twice:
        picked = form["pick"].replace("$x", call)
        body.append("return " + scores.replace("$x", picked))
    else:
        picked = form["pick"].replace("$x", names["answer"])
        body += [f"{names['answer']} = {call}", f"$out = {picked}"]
        if scores != "$x" and (last or twice or not inline):
            body.append("$out = " + scores.replace("$x", "$out"))
            scores = "$x"
        body += [*last, "return " + scores.replace("$x", returned)]
    signature = ", ".join(["self", "$ids", *([edits["arguments"]] if "arguments" in edits else [])])
    init = ["super().__init__()", "self.$hf = hf", "self.pad_id = hf.config.pad_token_id",
            *edits.get("init", ())]  # fmt: skip
    methods = [("__init__", "self, hf", init), ("forward", signature, body)]
    source = [f"class {names['class']}(nn.Module):"]
    for name, found, lines in methods:
        source += [
            f"    def {name}({found}):",
            *(textwrap.indent(each, " " * 8) for each in lines),
            "",
        ]
    for each in edits.get("methods", ()):
        source += [textwrap.indent(each, " " * 4), ""]
    return _fill("\n".join(source).rstrip(), names)


def _transform(way, edits, names):
    """The source of a transform of a standard form, with the edits of an operation."""
    text = edits.get("text", "$x").replace("$x", "$text")
    tokens = edits.get("tokens", way)
    body = list(edits.get("before", ()))
    if text != "$text" and tokens.count("$text") > 1:
        body.append(f"$text = {text}")
        text = "$text"
    tokens = tokens.replace("$text", text)
    after, last = edits.get("ids_after"), list(edits.get("after_tokens", ()))
    if after is None and not last:
        body.append(f"return TensorText({tokens})")
    else:
        body += [f"token_ids = {tokens}", *(each.replace("$out", "token_ids") for each in last)]
        body.append(f"return TensorText({(after or '$x').replace('$x', 'token_ids')})")
    init = ["self.tokenizer, self.max_len = tokenizer, max_len", *edits.get("init", ())]
    source = [f"class {names['transform']}(Transform):"]
    for name, found, lines in (("__init__", "self, tokenizer, max_len", init),
                               ("encodes", "self, $text: str", body)):  # fmt: skip
        source += [
            f"    def {name}({found}):",
            *(textwrap.indent(each, " " * 8) for each in lines),
            "",
        ]
    for each in edits.get("methods", ()):
        source += [textwrap.indent(each, " " * 4), ""]
    return _fill("\n".join(source).rstrip(), names)


def choose(wanted, seed):
    """Variants with the operations that ``wanted`` names, or as many as it says.

    Of a number, a third is harmless, and every operation comes once before one comes twice.
    """
    chance = random.Random(seed)
    chosen = _named(wanted) if not wanted.isdigit() else _drawn(int(wanted), chance)
    return [compose(each, seed * 100_000 + number) for number, each in enumerate(chosen)]


def _named(names):
    by_name = {each["name"]: each for each in OPERATIONS}
    return [by_name[name] for name in names.split(",")]


def _drawn(count, chance):
    kinds = {HARMLESS: [], "other": []}
    for each in OPERATIONS:
        effect = each["edits"].get("effect", each["effect"])
        kinds[HARMLESS if effect == HARMLESS else "other"].append(each)
    chosen = []
    for kind, number in ((HARMLESS, count // 3), ("other", count - count // 3)):
        pool = []
        while len(pool) < number:
            pool += chance.sample(kinds[kind], len(kinds[kind]))
        chosen += pool[:number]
    chance.shuffle(chosen)
    return chosen
