"""Texts that are asked where a user brings none: as different from each other as real texts are."""

from __future__ import annotations

PROBES: tuple[str, ...] = (
    "I would buy this again without a second thought.",
    "The second half drags, the jokes fall flat and I left before the end.",
    "It arrived on Tuesday.",
    "Not bad, not great: a quiet film for a rainy evening.",
    "WORST. SERVICE. EVER!!!",
    "ok",
    "The café on the corner serves the best crème brûlée in town, says Zoë.",
    "Das Gerät fiel schon am dritten Tag aus; der Händler antwortet nicht.",
    "El camarero fue muy amable y la comida, excelente.",
    "この店のラーメンはとても美味しかったです。",
    "الخدمة كانت بطيئة لكن الطعام لذيذ",
    "Loved it 😀👍 but the ending 💔",
    "see https://example.org/review?id=42&lang=en #mustread @editor 4/5 $19.99",
    "<p>The <b>screen</b> is bright &amp; sharp.</p>",
    "first line\nsecond line\n\n\tindented third line",
    "   spaces   in    front,  between   and behind   ",
    "sooooo goooood!!!!! ha ha ha",
    "don't, won't, can't, it's, they're, I'd've",
    "1234567890 3.14159 -17 1e-6 50% 1,000,000",
    "\"Quoted,\" she said -- 'twice' (and then again)...",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "if (a < b && b > c) { return x[0] * 2; }",
    "Thin as the plot is, I loved it: two sisters, one lighthouse, and a cast that carries it.",
    " ".join(["The chapter goes on and on, and nothing in it is new."] * 120),
)
