"""Compile snippets of learners' code with this Python, and record the bytecode.

    python record_bytecode.py ../bytecode

writes ``py3XY.json`` there. Nothing but the standard library is needed; any Python from 3.8 on will
do. The snippets are methods of ``variant_sources.py``; the fields of a code object are those that
cloudpickle stores of a function.
"""

import json
import sys
import types
from pathlib import Path

from variant_sources import OPERATIONS, compose

SEED = 12
METHODS = {
    "text": "encodes",
    "tokenizer": "encodes",
    "loss": "activation",
}  # of the other places: forward
SNIPPETS = """
divide floor_divide multiply_left add subtract power remainder negate matrix_product permute_list
permute_ellipsis flip softmax_function clamp temperature divide_in_place method_in_place set_item
condition_scores condition_flag loop while_loop try_except with_block helper_method lambda_within
comprehension default_argument conditional_expression walrus other_name detour_tuple detour_dict
getattr_call to_float contiguous detach dropout_function printed formatted asserted_message
unused_number renamed counted deleted identity_module all_rows reverse_ids cut_ids condition_length
ids_shape ids_renamed inverted_mask random_mask mask_not mask_method mask_ones mask_type
type_ids_ones type_ids_zeros twice_added without_pooler pick_key unpack_first unpack_comma
dictionary kwargs_unknown chunked return_dict prefix prefix_formatted prefix_percent cut_text
condition_text text_str second_text without_specials head_tail tokens_filtered tokens_replaced
tokens_deleted return_tensors keyword_text tokens_long padding_off loss_four_times loss_halved
loss_reversed loss_own_module callback_scaled callback_setattr callback_counts callback_training_only
""".split()
FIELDS = [
    "argcount",
    "posonlyargcount",
    "kwonlyargcount",
    "nlocals",
    "stacksize",
    "flags",
    "code",
    "consts",
    "names",
    "varnames",
    "filename",
    "name",
    "firstlineno",
    "freevars",
    "cellvars",
]
NEWER = ["qualname", "linetable", "exceptiontable"]  # of some Pythons; lnotab is 3.8's and 3.9's


def written(value):
    """A constant as JSON; values that JSON lacks become a list of kind and value."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, frozenset)):
        return [type(value).__name__, [written(each) for each in value]]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, slice):
        return ["slice", [written(each) for each in (value.start, value.stop, value.step)]]
    if isinstance(value, types.CodeType):
        return ["code", code_fields(value)]
    if value is Ellipsis:
        return ["ellipsis", None]
    return ["complex", [value.real, value.imag]]


def code_fields(code):
    """The fields of a code object by their names without ``co_``."""
    fields = [*FIELDS, *(each for each in NEWER if hasattr(code, "co_" + each))]
    found = {each: getattr(code, "co_" + each) for each in fields}
    if "linetable" not in found:
        found["lnotab"] = code.co_lnotab
    return {
        name: value.hex() if isinstance(value, bytes)
        else [written(each) for each in value] if isinstance(value, tuple) else value
        for name, value in found.items()
    }  # fmt: skip


def methods(code):
    """Every function in compiled source, with those of classes, by name; the last of a name."""
    found = {}
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            found[each.co_name] = each
            found.update(methods(each))
    return found


def record(operation, seed):
    """A snippet: its source, its effect on answers, and the code of its method."""
    made = compose(operation, seed)
    method = METHODS.get(made["place"], "forward")
    if made["place"] == "callback":
        helper = operation["edits"]["helpers"][0]
        method = helper.split("def ")[1].split("(")[0]
    found = methods(compile(made["source"], "<ipython-input-1>", "exec"))
    return {"name": made["operation"], "expectation": made["kind"], "place": made["place"],
            "form": made["chosen"]["form"], "way": made["chosen"]["way"],
            "source": made["source"], "method": method,
            "code": code_fields(found[method])}  # fmt: skip


def main():
    folder = Path(sys.argv[1])
    by_name = {each["name"]: each for each in OPERATIONS}
    snippets = [record(by_name[name], SEED + number) for number, name in enumerate(SNIPPETS)]
    for number in range(12):  # the standard forms themselves, in several styles
        for method in ("forward", "encodes"):
            found = record(None, SEED + 1000 + number)
            code = methods(compile(found["source"], "<ipython-input-1>", "exec"))[method]
            snippets.append({**found, "name": f"standard_{number}", "method": method,
                             "code": code_fields(code)})  # fmt: skip
    version = ".".join(map(str, sys.version_info[:3]))
    lines = ",\n".join(json.dumps(each) for each in snippets)
    name = "py{}{}.json".format(*sys.version_info[:2])
    text = '{{"python": "{}", "snippets": [\n{}\n]}}\n'.format(version, lines)
    folder.joinpath(name).write_text(text, encoding="utf-8")
    print(f"{name}: {len(snippets)} snippets")


if __name__ == "__main__":
    main()
