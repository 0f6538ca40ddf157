"""The evaluation report: one HTML page with plots, which loads no resources and runs no scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape

from fastai_deploy.evaluation.metrics import Bin, Calibration, Figure
from fastai_deploy.evaluation.result import Evaluation, Given, TextRow, labels, p_value, said
from fastai_deploy.parity.page import document, shortened

_STYLE = """
h2{margin-top:2.2rem}td.r,th.r{text-align:right}.i{color:#666;font-size:.87em;white-space:nowrap}
.scroll{overflow-x:auto}.plots{display:flex;flex-wrap:wrap;gap:2rem;margin-top:1.5rem}
.plots figure{margin:0 0 1.5rem}.plots>div{flex:1 1 22rem;max-width:36rem}
.plots>figure{flex:0 1 22rem}figcaption{color:#666}.grid{stroke:#ddd}.axis{stroke:#888}
.whisker{stroke:#222;stroke-width:1.5}.dot{fill:#3b6ea5}.count{fill:#b9c8d8}.ideal{stroke:#888;
stroke-dasharray:4 3}.failed{background:#fdecea;padding:.6rem 1rem;border-left:4px solid #c0392b}
table.matrix{width:auto}table.matrix td{text-align:right;min-width:3rem;border:1px solid #ddd}
table.matrix td.on{background:rgba(59,110,165,calc(var(--s)*.55))}
table.matrix td.off{background:rgba(192,57,43,calc(var(--s)*.55))}
.truth{font-weight:600}
@media(prefers-color-scheme:dark){.i,figcaption{color:#aaa}.grid{stroke:#333}.whisker{stroke:#ddd}
.dot,.bar{fill:#7aa7d6}.count{fill:#3a4a5c}.failed{background:#4a2320}
table.matrix td{border-color:#444}}
"""
_ROWS = 1_000  # texts in a table; the JSON file has all of them
_MATRIX = 25  # labels up to which the confusion matrix is shown whole
_PAIRS = 40  # confused pairs shown for more labels
_CURVE = 340  # pixels
_PAD = 40
_LINE = 26  # pixels
_NAMES_WIDTH = 190
_CHARACTERS = 26  # of a name beside a plot


def page(found: Evaluation) -> str:
    """The report of an evaluation; all texts are escaped."""
    return document(f"Evaluation of {found.model}", _parts(found), _STYLE)


def _parts(found: Evaluation) -> Iterator[str]:
    texts = found.main.figures.texts
    yield (
        f"<p>{texts:,} labelled texts of {escape(found.source.file)}. Judged is "
        f"<b>{escape(found.judged)}</b>: {escape(found.on)}."
    )
    if found.failure is not None:
        yield f"<p class=failed>{escape(found.failure.message)}"
    yield from (f"<p>Note: {escape(note)}." for note in found.notes)
    yield _headlines(found)
    yield _label_figures(found)
    yield "<div class=plots><div>"
    yield _figure(_intervals(_accuracies(found)), f"{_first(found)}, with 95 % intervals")
    plotted = [(each.label, each.f1) for each in found.main.figures.labels[:_MATRIX]]
    yield _figure(_intervals(plotted), f"F1 of each label ({found.judged}), with 95 % intervals")
    yield "</div>"
    calibration = found.main.figures.calibration
    if calibration is not None:
        yield _figure(_reliability(calibration), _reliability_caption(found))
    yield "</div>"
    yield _confusion(found)
    yield _changes(found)
    yield _wrong(found)
    yield _method(found)


def _first(found: Evaluation) -> str:
    return "Exact match" if found.several else "Accuracy"


def _headlines(found: Evaluation) -> str:
    micro = "<th>micro F1" if found.several else ""
    head = f"<tr><th>answers<th>computed by<th>texts<th>{_first(found)}{micro}<th>macro F1"
    body = "".join(
        f"<tr><td><b>{escape(each.name)}</b><td>{escape(each.what)}"
        f"{f'<br><span class=i>version {escape(each.version)}</span>' if each.version else ''}"
        f"<td class=n>{each.figures.texts:,}{_cell(each.figures.accuracy)}"
        f"{_cell(each.figures.micro_f1) if each.figures.micro_f1 else ''}"
        f"{_cell(each.figures.macro_f1)}{_cell(each.figures.weighted_f1)}"
        f"{_cell(each.figures.calibration.error if each.figures.calibration else Figure(None))}"
        for each in found.columns
    )
    return (
        f"<h2>Figures</h2><div class=scroll tabindex=0><table>{head}<th>weighted F1"
        f"<th>calibration error{body}</table></div>"
    )


def _cell(figure: Figure) -> str:
    """A figure with its interval, as a cell."""
    if figure.value is None:
        return "<td class=n>—"
    value, _, rest = said(figure).partition(" ")
    return f"<td class=n>{value}{f' <span class=i>{rest}</span>' if rest else ''}"


def _figure(plot: str, caption: str) -> str:
    return f"<figure>{plot}<figcaption>{escape(caption)}</figcaption></figure>"


def _accuracies(found: Evaluation) -> list[tuple[str, Figure]]:
    return [(each.name, each.figures.accuracy) for each in found.columns]


def _intervals(rows: Sequence[tuple[str, Figure]]) -> str:
    """A dot and its interval for each row, on an axis from 0 to 1."""
    width, height = 520, _LINE * len(rows) + 26
    scale = width - _NAMES_WIDTH - 20

    def at(value: float) -> float:
        return _NAMES_WIDTH + scale * value

    parts = [f'<svg viewBox="0 0 {width} {height}" role=img aria-label="values with intervals">']
    for tenth in range(0, 11, 2):
        x = at(tenth / 10)
        parts.append(
            f'<line class=grid x1="{x:.1f}" x2="{x:.1f}" y1=0 y2="{height - 22}"/>'
            f'<text x="{x:.1f}" y="{height - 8}" text-anchor=middle>{tenth / 10:.1f}</text>'
        )
    for place, (name, figure) in enumerate(rows):
        y = _LINE * place + _LINE / 2
        parts.append(f'<text x=0 y="{y + 4:.1f}">{escape(_name(name))}</text>')
        if figure.value is None:
            parts.append(f'<text x="{at(0) + 6:.1f}" y="{y + 4:.1f}">cannot be said</text>')
            continue
        if figure.interval is not None:
            low, high = at(figure.interval.low), at(figure.interval.high)
            parts.append(
                f'<line class=whisker x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
        parts.append(
            f'<circle class=dot cx="{at(figure.value):.1f}" cy="{y:.1f}" r=5>'
            f"<title>{escape(name)}: {escape(said(figure))}</title></circle>"
        )
    return "".join((*parts, "</svg>"))


def _name(name: str) -> str:
    return name if len(name) <= _CHARACTERS else name[: _CHARACTERS - 1] + "…"


def _reliability(found: Calibration) -> str:
    """The share of right answers by their probability, and below it how many there are."""
    side, low = _CURVE, 60
    width, height = side + _PAD, side + low + 34
    most = max(each.count for each in found.bins)

    def x(value: float) -> float:
        return _PAD + side * value

    def y(value: float) -> float:
        return side * (1 - value) + 6

    parts = [
        f'<svg viewBox="0 0 {width + 8} {height}" role=img aria-label="reliability diagram">',
        f'<line class=ideal x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>',
        f'<line class=axis x1="{x(0)}" x2="{x(1)}" y1="{y(0)}" y2="{y(0)}"/>',
    ]
    for tenth in (0.0, 0.5, 1.0):
        parts.append(f'<text x=0 y="{y(tenth) + 4:.0f}">{tenth:.1f}</text>')
        parts.append(f'<text x="{x(tenth):.0f}" y="{height - 4}" text-anchor=middle>{tenth}</text>')
    for each in found.bins:
        left, wide = x(each.low) + 1, side / len(found.bins) - 2
        parts.append(_bin_dot(each, x(each.low if each.confidence is None else each.confidence), y))
        tall = 0.0 if not most else (low - 12) * each.count / most
        parts.append(
            f'<rect class=count x="{left:.1f}" width="{wide:.1f}" '
            f'y="{height - 20 - tall:.1f}" height="{tall:.1f}"><title>{each.count:,}</title></rect>'
        )
    return "".join((*parts, "</svg>"))


def _bin_dot(each: Bin, middle: float, y: Callable[[float], float]) -> str:
    if each.right.value is None:
        return ""
    found = each.right.interval
    whisker = (
        f'<line class=whisker x1="{middle:.1f}" x2="{middle:.1f}" y1="{y(found.low):.1f}" '
        f'y2="{y(found.high):.1f}"/>'
        if found
        else ""
    )
    return (
        f'{whisker}<circle class=dot cx="{middle:.1f}" cy="{y(each.right.value):.1f}" r=5><title>'
        f"{each.low:.1f} to {each.high:.1f}: {escape(said(each.right))} right, {each.count:,} "
        "answers</title></circle>"
    )


def _reliability_caption(found: Evaluation) -> str:
    what = "Probabilities of all labels" if found.several else "Probability of the answer"
    return (
        f"{what} of {found.judged} (across) and the share that is right (up), with 95 % intervals; "
        "the dashed line is a perfectly calibrated model. The pale bars count the answers."
    )


def _label_figures(found: Evaluation) -> str:
    body = "".join(
        f"<tr><td>{escape(each.label)}{_cell(each.precision)}{_cell(each.recall)}"
        f"{_cell(each.f1)}<td class='n r'>{each.support:,}<td class='n r'>{each.answered:,}"
        for each in found.main.figures.labels
    )
    return (
        f"<h2>Labels ({escape(found.judged)})</h2><div class=scroll tabindex=0><table><tr><th>label"
        "<th>precision<th>recall<th>F1<th class=r>texts<th class=r>answered"
        f"{body}</table></div>"
    )


def _confusion(found: Evaluation) -> str:
    matrix, names = found.main.figures.confusion, found.names
    if not matrix:
        return ""
    title = f"<h2>Confusion ({escape(found.judged)})</h2>"
    columns = [*names, "no answer"] if any(row[-1] for row in matrix) else list(names)
    if len(names) > _MATRIX:
        return title + _confused_pairs(found)
    head = "".join(f"<th class=r>{escape(_name(name))}" for name in columns)
    body = "".join(
        f"<tr><th>{escape(_name(name))}"
        + "".join(
            _matrix_cell(row[place], sum(row), on=place == at) for place in range(len(columns))
        )
        for at, (name, row) in enumerate(zip(names, matrix, strict=False))
    )
    return (
        f"{title}<div class=scroll tabindex=0><table class=matrix><tr><th>truth ↓ answer →"
        f"{head}{body}"
        "</table></div><p class=i>Texts; the colour is the share of the row."
    )


def _matrix_cell(count: int, whole: int, *, on: bool) -> str:
    share = count / whole if whole else 0.0
    return f'<td class="{"on" if on else "off"}" style="--s:{share:.2f}">{count:,}'


def _confused_pairs(found: Evaluation) -> str:
    """The most frequent confusions, where a matrix would be too large."""
    names = (*found.names, "(no answer)")
    pairs = sorted(
        (
            (count, found.names[truth], names[answered])
            for truth, row in enumerate(found.main.figures.confusion)
            for answered, count in enumerate(row)
            if count and truth != answered
        ),
        key=lambda pair: -pair[0],
    )
    body = "".join(
        f"<tr><td>{escape(truth)}<td>{escape(answered)}<td class='n r'>{count:,}"
        for count, truth, answered in pairs[:_PAIRS]
    )
    return f"<table><tr><th>truth<th>answer<th class=r>texts{body}</table>"


def _changes(found: Evaluation) -> str:
    others = [each for each in found.columns if each.paired is not None]
    if not others:
        return ""
    lines = "".join(
        f"<p>{escape(each.name)} → {escape(found.judged)}: {each.paired.changed:,} of "
        f"{each.paired.texts:,} answers changed; {each.paired.lost:,} right ones lost, "
        f"{each.paired.gained:,} gained; McNemar's exact test: p = "
        f"{escape(p_value(each.paired.p_value))}"
        for each in others
        if each.paired
    )
    rows = _text_table(found, found.changed) if found.changed else ""
    return f"<h2>Changed answers</h2>{lines}{rows}"


def _wrong(found: Evaluation) -> str:
    if not found.wrong:
        return ""
    return (
        f"<h2>Wrong answers ({escape(found.judged)}), the most confident first</h2>"
        f"{_text_table(found, found.wrong)}"
    )


def _text_table(found: Evaluation, rows: Sequence[TextRow]) -> str:
    names = [each.name for each in found.columns]
    head = "".join(f"<th>{escape(name)}" for name in names)
    body = "".join(
        f"<tr><td class='n r'>{row.row}<td class=t>{shortened(row.text)}"
        f"<td class=truth>{escape(', '.join(row.truth) or '(no label)')}"
        + "".join(f"<td>{_given(row.answers.get(name))}" for name in names)
        for row in rows[:_ROWS]
    )
    more = f"<p>and {len(rows) - _ROWS:,} more in the JSON file" if len(rows) > _ROWS else ""
    return (
        "<div class=scroll tabindex=0><table><tr><th class=r>row<th>text<th>truth"
        f"{head}{body}</table></div>{more}"
    )


def _given(given: Given | None) -> str:
    if given is None:
        return ""
    if given.error:
        return f"<span class=i>{escape(given.error)}</span>"
    score = "" if given.score is None else f" <span class=i>{given.score:.3f}</span>"
    return f"{escape(labels(given))}{score}"


def _method(found: Evaluation) -> str:
    average = "labels that occur in the truth or in an answer"
    return (
        "<h2>Method</h2><p class=i style='white-space:normal'>Intervals hold 95 %: Wilson's for "
        "accuracy, precision, recall and a label's F1; the delta method for averages of F1, from "
        "30 texts on; a bootstrap of the texts for the calibration error, which is the expected "
        f"calibration error with ten bins. Averages are over the {average}. A text without an "
        "answer counts as wrong. A dash is a figure that these texts cannot give."
        f"{' Row numbers are those of the file.' if found.rows else ''}"
    )
