"""``fdeploy evaluate`` as a whole: where it asks, what it compares, and how it ends."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.local.stage import Stage, stage_that_was_up
from tests.runtime.bundles import LABELS, WORDS

TEXTS = [f"{WORDS[place]} {WORDS[-place]} {WORDS[place // 2]}" for place in range(60)]


@dataclass(frozen=True)
class Serving:
    """A stage with an API, whose first version was deployed before the second."""

    stage: Stage
    first: str
    second: str

    def __call__(self, *arguments: str) -> Any:
        return self.stage.ok(*arguments).result


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with stage_that_was_up(tmp_path_factory.mktemp("evaluate")) as stage:
        stage.restore()
        first = stage.ok("deploy").result["version"]
        stage.ok("up", str(stage.folder / "second"))
        yield Serving(stage, first, stage.ok("status").result["version"])


@pytest.fixture(scope="module")
def labelled(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with the labels that the first version gives them, but three."""
    answers = tmp_path_factory.mktemp("labelled") / "answers.jsonl"
    found = serving.stage.ok("evaluate", str(truths(answers)), "--on", "bundle")
    against = serving.stage(
        "evaluate", str(answers), "--on", "bundle", "--against", serving.first
    ).result
    assert found.result["columns"][0]["figures"]["texts"] == len(TEXTS)
    rows = {row["row"]: row["answers"][serving.first]["labels"][0] for row in against["rows"]}
    path = answers.with_name("labelled.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "text", "label"))
        for place, text in enumerate(TEXTS, 1):
            truth = rows.get(place, LABELS[0])
            wrong = LABELS[(LABELS.index(truth) + 1) % 3]
            writer.writerow((place, text, wrong if place <= 3 else truth))
    return path


def truths(path: Path) -> Path:
    """The texts, all with the first label."""
    lines = (json.dumps({"text": text, "label": LABELS[0]}) for text in TEXTS)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_most_deployed_is_asked(serving: Serving, labelled: Path) -> None:
    found = serving("evaluate", str(labelled))
    assert (found["judged"], [each["name"] for each in found["columns"]]) == ("api", ["api"])
    assert found["columns"][0]["version"] == serving.second
    assert found["on"].startswith(f"version {serving.second} at http://127.0.0.1:")
    assert found["labels"] == list(LABELS)  # in the order of the model
    every = serving("evaluate", str(labelled), "--on", "endpoint")
    assert every["columns"][0]["figures"] == found["columns"][0]["figures"]
    assert every["judged"] == "endpoint"


def test_every_station_gives_the_same_figures(serving: Serving, labelled: Path) -> None:
    figures = []
    for station in ("bundle", "artifact", "endpoint", "api"):
        found = serving("evaluate", str(labelled), "--on", station)
        figures.append(found["columns"][0]["figures"])
    bundle, *others = figures
    for each in others:
        assert each["confusion"] == bundle["confusion"]
        assert each["accuracy"] == bundle["accuracy"]
        error = each["calibration"]["error"]["value"]
        assert error == pytest.approx(bundle["calibration"]["error"]["value"], abs=1e-4)


def test_the_live_version_and_the_learner_stand_beside_the_bundle(
    serving: Serving, tmp_path: Path
) -> None:
    file = tmp_path / "goldens.jsonl"
    rows = [{"text": text, "label": LABELS[2]} for text in TEXTS]
    rows[0]["probabilities"] = {LABELS[0]: 0.1, LABELS[1]: 0.1, LABELS[2]: 0.8}  # type: ignore[assignment]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = serving("evaluate", str(file), "--on", "bundle", "--live")
    learner, served, live = found["columns"]
    assert [each["name"] for each in (learner, served, live)] == ["learner", "served", "live"]
    assert learner["figures"]["texts"] == 1
    assert learner["figures"]["accuracy"]["value"] == 1
    assert (live["version"], live["paired"]["changed"]) == (serving.second, 0)
    assert "every text has the label positive" in " ".join(found["notes"])


def test_a_version_that_is_significantly_worse_ends_with_16(
    serving: Serving, labelled: Path
) -> None:
    ran = serving.stage("evaluate", str(labelled), "--on", "bundle", "--against", serving.first)
    assert (ran.status, ran.error["code"]) == (16, "significantly-worse")
    served, first = ran.result["columns"]
    assert first["name"] == first["version"] == serving.first
    assert first["figures"]["accuracy"]["value"] == pytest.approx(57 / 60)
    assert first["paired"]["lost"] > first["paired"]["gained"]
    assert first["paired"]["p_value"] < 0.05
    assert ran.result["failed"] == "significantly-worse"
    assert served["figures"]["accuracy"]["value"] < 0.9
    same = serving("evaluate", str(labelled), "--on", "bundle", "--against", "live")
    assert same["columns"][1]["version"] == serving.second
    assert same["columns"][1]["paired"]["changed"] == 0


def test_too_few_right_answers_end_with_16_after_the_results(
    serving: Serving, labelled: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    ran = serving.stage("evaluate", str(labelled), "--min-accuracy", "0.99", "--report", str(page))
    assert (ran.status, ran.error["code"]) == (16, "accuracy-too-low")
    assert ran.result["failed"] == "accuracy-too-low"
    assert ran.result["page"] == str(page)
    assert "less than --min-accuracy 0.99" in page.read_text(encoding="utf-8")
    assert serving("evaluate", str(labelled), "--min-accuracy", "0.1")["failed"] is None


def test_an_evaluation_of_the_bundle_is_in_its_card_and_changes_no_version(
    serving: Serving, labelled: Path
) -> None:
    before = serving("package")["sha256"]
    serving("evaluate", str(truths(labelled.with_name("one-label.jsonl"))), "--on", "bundle")
    assert "one-label.jsonl" in serving("inspect", "--card")["card"]
    found = serving("evaluate", str(labelled), "--on", "bundle")
    card = serving("inspect", "--card")["card"]
    assert "one-label.jsonl" not in card
    assert "name: labelled.csv" in card
    assert f"| accuracy | {found['columns'][0]['figures']['accuracy']['value']:.3f} |" in card
    assert serving("package")["sha256"] == before
    data = json.loads((serving.stage.dev / "bundle-evaluation.json").read_bytes())
    assert data["columns"][0]["figures"]["texts"] == len(TEXTS)
    assert (serving.stage.dev / "bundle-evaluation.html").exists()


@dataclass(frozen=True)
class File:
    """A labelled file, and the version to compare with."""

    name: str
    content: str
    against: str = ""


@pytest.mark.parametrize(
    ("case", "status", "said"),
    [
        (File("a.csv", "text,label\ngood,grand\n"), 5, "row 1: the learner has no label 'grand'"),
        (File("a.csv", "text,stars\ngood,1\n"), 2, "there is no column label"),
        (File("a.csv", "text,label\ngood,\n"), 4, "none of 1 rows has a label"),
        (File("a.csv", "text,label\n"), 4, "contains no texts"),
        (File("a.jsonl", '{"text": "good"}\n'), 2, 'no line has the key "label"'),
        (File("a.jsonl", '{"label": "positive"}\n'), 4, 'line 1: there is no text under "text"'),
        (File("a.jsonl", '{"text": "good", "label": ["positive"]}\n'), 5, "single-label"),
        (File("a.json", "{}"), 4, "not a list"),
        (File("a.txt", "good\n"), 2, "not a file of labelled texts"),
        (File("a.csv", "text,label\ngood,positive\n", "zz"), 2, "was never deployed"),
    ],
)
def test_what_cannot_be_evaluated(
    serving: Serving, tmp_path: Path, case: File, status: int, said: str
) -> None:
    path = tmp_path / case.name
    path.write_text(case.content, encoding="utf-8")
    options = ("--against", case.against) if case.against else ()
    ran = serving.stage("evaluate", str(path), "--on", "bundle", *options)
    assert (ran.status, ran.out) == (status, "")
    assert said in ran.error["message"]


def test_a_missing_file_is_missing(serving: Serving) -> None:
    assert serving.stage("evaluate", "nowhere.csv").error["code"] == "file-missing"


def test_one_row_is_said_to_say_little(serving: Serving, tmp_path: Path) -> None:
    file = tmp_path / "one.csv"
    file.write_text("text,label\ngood,positive\nbad,\n,positive\n", encoding="utf-8")
    found = serving("evaluate", str(file), "--on", "bundle")
    notes = " ".join(found["notes"])
    for note in ("1 rows have no label", "1 texts are empty", "2 texts are few"):
        assert note in notes
    assert found["columns"][0]["figures"]["macro_f1"]["interval"] is None
