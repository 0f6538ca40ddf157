"""What the source and the bytecode of a wrapper's forward() say."""

from __future__ import annotations

import textwrap

import pytest

from fastai_deploy.learner.embedded import Code
from fastai_deploy.learner.forward import Forward, from_code, from_source

WRAPPER: dict[str, object] = {"pad": 7, "name": "x"}


def source(*lines: str, arguments: str = "ids, attention_mask=None") -> Forward:
    body = textwrap.indent("\n".join(lines), " " * 8)
    text = f"    class Wrap(nn.Module):\n      def forward(self, {arguments}):\n{body}\n"
    return from_source(text, "Wrap", "net", WRAPPER)


MASKS: dict[str, tuple[Forward, str, int | None]] = {
    "as the notebook": (
        source("attention_mask = (ids != pad_idx).type(ids.type())",
               "logits = self.net(ids, attention_mask = attention_mask)[0]", "return logits"),
        "from-ids", None),
    "by a number": (source("return self.net(ids, attention_mask=(ids != 1).long())[0]"),
                    "from-ids", 1),
    "by an attribute": (source("return self.net(ids, attention_mask=ids != self.pad).logits"),
                        "from-ids", 7),
    "second in order": (source("m = ids != self.pad", "return self.net(ids, m)[0]"),
                        "from-ids", 7),
    "greater than 0": (source("return self.net(ids, attention_mask=(ids > 0).long())[0]"),
                       "from-ids", 0),
    "none given": (source("return self.net(ids)[0]"), "none", None),
    "in a comment": (source("# attention_mask=(ids != 1)", "return self.net(ids)[0]"),
                     "none", None),
    "None": (source("return self.net(ids, attention_mask=None)[0]"), "none", None),
    "its default": (source("return self.net(ids, attention_mask=attention_mask)[0]"),
                    "none", None),
    "ones": (source("return self.net(ids, attention_mask=torch.ones_like(ids))[0]"),
             "none", None),
    "two masks": (source("m = ids != 1", "m = ids != 2", "return self.net(ids, m)[0]"),
                  "unknown", None),
    "by a function": (source("return self.net(ids, attention_mask=make(ids))[0]"),
                      "unknown", None),
    "more than one comparison": (source("return self.net(ids, (ids != 1) & (ids != 2))[0]"),
                                 "unknown", None),
    "called twice": (source("self.net(ids)", "return self.net(ids)[0]"), "unknown", None),
    "unpacked": (source("return self.net(**ids)[0]"), "unknown", None),
    "a global": (source("return self.net(ids, attention_mask=mask)[0]"), "unknown", None),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_the_mask_in_source(name: str) -> None:
    found, mask, pad = MASKS[name]
    assert (found.mask, found.pad_token_id) == (mask, pad)


def test_a_function_on_the_way_out_is_seen() -> None:
    assert source("return F.softmax(self.net(ids)[0], dim=-1)").processes == "softmax"
    assert source("return self.net(ids)[0]").processes is None


@pytest.mark.parametrize(
    "text",
    ["", "class Other: pass", "class Wrap:\n  x = 1", "class Wrap(:", "\0", "x" * 100_000,
     "class Wrap:\n  def forward(self):\n    return " + "(" * 5_000 + ")" * 5_000,
     "class Wrap:\n  def forward(self):\n    return a" + ".b" * 20_000,
     "class Wrap:\n  def forward(self):\n    return " + "-" * 20_000 + "1"],
    ids=lambda text: repr(text[:40]),
)  # fmt: skip
def test_source_that_cannot_be_read_says_nothing(text: str) -> None:
    assert from_source(text, "Wrap", "net", {}).mask == "unknown"


def test_source_with_an_odd_escape_makes_no_noise() -> None:
    assert source('pattern = "\\d"', "return self.net(ids)[0]").mask == "none"


def code(**changes: object) -> Code:
    fields: dict[str, object] = {
        "name": "forward", "arguments": ("self", "ids"), "texts": frozenset(), "numbers": (),
        "keywords": frozenset(), "names": frozenset(), "compares": False, "python": "3.11",
    }  # fmt: skip
    return Code(**{**fields, **changes})  # type: ignore[arg-type]


CODES: dict[str, tuple[Code, str, int | None]] = {
    "compared with an attribute": (
        code(keywords=frozenset({"attention_mask"}), compares=True, names=frozenset({"pad"})),
        "from-ids", 7),
    "compared by ne": (
        code(keywords=frozenset({"attention_mask"}), names=frozenset({"ne", "pad"})),
        "from-ids", 7),
    "compared with a number": (
        code(keywords=frozenset({"attention_mask"}), compares=True), "from-ids", None),
    "ones": (code(keywords=frozenset({"attention_mask"}), names=frozenset({"ones_like"})),
             "none", None),
    "its parameter": (code(keywords=frozenset({"attention_mask"}),
                           arguments=("self", "ids", "attention_mask")), "none", None),
    "made elsewhere": (code(keywords=frozenset({"attention_mask"})), "unknown", None),
    "not named": (code(names=frozenset({"net", "logits"})), "none", None),
    "compared, not named": (code(compares=True), "unknown", None),
    "by position": (code(names=frozenset({"make_mask"})), "unknown", None),
}  # fmt: skip


@pytest.mark.parametrize("name", CODES)
def test_the_mask_in_bytecode(name: str) -> None:
    tables, mask, pad = CODES[name]
    found = from_code(tables, WRAPPER)
    assert (found.mask, found.pad_token_id) == (mask, pad)
