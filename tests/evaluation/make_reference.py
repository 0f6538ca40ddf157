"""Write reference.json, the figures of scikit-learn and SciPy for random answers.

Run with a Python that has both: ``python tests/evaluation/make_reference.py``. The committed file
was made with scikit-learn 1.9.1 and SciPy 1.17.1.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from scipy.stats import binomtest
from sklearn import metrics

NAMES = ["a", "b", "c", "d", "e"]
WIDTH = 10  # bins


def single(seed: int, texts: int, names: list[str]) -> dict[str, Any]:
    """Random single-label answers and their figures."""
    draw = random.Random(seed)  # noqa: S311 - statistics, not secrets
    truths = [draw.choice(names) for _ in range(texts)]
    answers = [truth if draw.random() < 0.7 else draw.choice(names) for truth in truths]
    scores = [round(draw.uniform(0.2, 1), 3) for _ in truths]
    right = [truth == answer for truth, answer in zip(truths, answers, strict=True)]
    present = sorted({*truths, *answers})
    each = metrics.precision_recall_fscore_support(truths, answers, labels=present, zero_division=0)
    averages = {
        name: metrics.f1_score(truths, answers, labels=present, average=name, zero_division=0)
        for name in ("macro", "weighted")
    }
    return {
        "truths": truths,
        "answers": answers,
        "scores": scores,
        "names": names,
        "accuracy": metrics.accuracy_score(truths, answers),
        "accuracy_interval": wilson(sum(right), texts),
        "labels": dict(zip(present, _rows(each), strict=True)),
        **averages,
        "confusion": metrics.confusion_matrix(truths, answers, labels=names).tolist(),
        "calibration_error": calibration_error(scores, right),
    }


def several(seed: int, texts: int) -> dict[str, Any]:
    """Random multi-label answers and their figures."""
    draw = random.Random(seed)  # noqa: S311 - statistics, not secrets
    names = NAMES[:3]
    rows = [[draw.random() < 0.4 for _ in names] for _ in range(texts)]
    found = [[value != (draw.random() < 0.2) for value in row] for row in rows]
    each = metrics.precision_recall_fscore_support(rows, found, zero_division=0)
    return {
        "truths": [[n for n, has in zip(names, row, strict=True) if has] for row in rows],
        "answers": [[n for n, has in zip(names, row, strict=True) if has] for row in found],
        "names": names,
        "accuracy": metrics.accuracy_score(rows, found),
        "labels": dict(zip(names, _rows(each), strict=True)),
        **{
            name: metrics.f1_score(rows, found, average=name, zero_division=0)
            for name in ("macro", "weighted", "micro")
        },
    }


def _rows(found: Any) -> list[tuple[float, ...]]:
    """Precision, recall, F1 and support of each label."""
    return list(zip(*(part.tolist() for part in found), strict=True))


def wilson(right: int, count: int) -> list[float]:
    """SciPy's Wilson interval."""
    found = binomtest(right, count).proportion_ci(method="wilson")
    return [float(found.low), float(found.high)]


def calibration_error(scores: list[float], right: list[bool]) -> float:
    """ECE by its definition; scikit-learn has only the curve."""
    error = 0.0
    for place in range(WIDTH):
        inside = [
            (score, hit)
            for score, hit in zip(scores, right, strict=True)
            if place == min(WIDTH - 1, int(score * WIDTH))
        ]
        if inside:
            gap = sum(hit for _, hit in inside) - sum(score for score, _ in inside)
            error += abs(gap) / len(scores)
    return error


def main() -> None:
    """Write the file."""
    pairs = [(0, 0), (1, 0), (0, 5), (3, 9), (10, 2), (40, 60), (300, 250), (700, 900)]
    counts = [(0, 1), (1, 1), (0, 30), (30, 30), (7, 9), (850, 1000)]
    found = {
        "single": [
            single(1, 200, NAMES), single(2, 1, NAMES[:2]), single(3, 40, NAMES[:1]),
            single(4, 12, NAMES),
        ],
        "several": [several(5, 150), several(6, 3)],
        "mcnemar": [
            {"lost": lost, "gained": gained,
             "p": float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0}
            for lost, gained in pairs
        ],
        "wilson": [
            {"right": right, "count": count, "interval": wilson(right, count)}
            for right, count in counts
        ],
    }  # fmt: skip
    path = Path(__file__).with_name("reference.json")
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
