"""Record the output of fastai's text rules for many texts, by running fastai itself.

    python ulmfit_rules.py OUT.json

Runs in the environments of ``ulmfit_v1.py`` and ``ulmfit_v2.py``.
"""

import json
import random
import sys

import fastai

if fastai.__version__.startswith("1."):
    from fastai.text import transform as rules

    TEXT = ["fix_html", "replace_rep", "replace_wrep", "spec_add_spaces", "rm_useless_spaces"]
    WORDS = ["replace_all_caps", "deal_caps"]
else:
    from fastai.text import core as rules

    TEXT = [
        "fix_html",
        "replace_rep",
        "replace_wrep",
        "spec_add_spaces",
        "rm_useless_spaces",
        "replace_all_caps",
        "replace_maj",
        "lowercase",
        "replace_space",
    ]
    WORDS = []

PIECES = [
    "ha ",
    "ha",
    " ",
    "  ",
    "   ",
    "\n",
    "\t",
    "\u00a0",
    "A",
    "I ",
    "THE ",
    "The ",
    "tHe ",
    "iPhone ",
    "USA",
    "B2B ",
    "Ä",
    "É",
    "ß",
    "İ",
    "ǅ",
    "Σ",
    "中",
    "!!!!",
    "!!!",
    "!!",
    "...",
    "....",
    "…",
    "aaa",
    "aaaa",
    "#39;",
    "&amp;",
    "amp;",
    "#146;",
    "nbsp;",
    "#36;",
    "\\n",
    "\\",
    "quot;",
    "<br />",
    '\\"',
    "<unk>",
    " @.@ ",
    " @-@ ",
    " @,@ ",
    "&lt;",
    "&#8217;",
    "/",
    "#",
    "-",
    "_",
    "'",
    '"',
    "x1",
    "1 1 1 1 ",
    "no no no no ",
    "no, no, no, no, no, ",
    "so so so",
    "word ",
    "Word",
    "WORD",
    "-WORD-",
    "x" * 9,
    "😀😀😀😀",
]


def made(count=150, seed=4):
    rng = random.Random(seed)
    texts = ["", " ", "a", "A", "xxbos The FILM"]
    return texts + [
        "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 12))) for _ in range(count)
    ]


found = {name: [[text, getattr(rules, name)(text)] for text in made()] for name in TEXT}
for each in WORDS:
    found[each] = [
        [text.split(" "), list(getattr(rules, each)(text.split(" ")))] for text in made()
    ]
with open(sys.argv[1], "w", encoding="utf-8") as file:
    json.dump({"fastai": fastai.__version__, "rules": found}, file, ensure_ascii=False, indent=0)
    file.write("\n")
