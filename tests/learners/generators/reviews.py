"""Code shared by the generators; runs on the Python of any fastai since 2019."""

import csv
import json
import random

# Made-up reviews: openings, subjects, verdicts by class.
SUBJECTS = [
    "the movie",
    "the plot",
    "the lead actor",
    "this film",
    "the script",
    "the soundtrack",
    "the ending",
    "every scene",
    "the cast",
    "The director",
]
VERDICTS = {
    "negative": [
        "was awful",
        "is terrible",
        "felt unwatchable",
        "was SO boring!!!!",
        "seemed dull",
    ],
    "neutral": ["was okay", "is average", "felt so-so", "was neither good nor bad", "seemed fine"],
    "positive": ["was brilliant", "is superb", "felt wonderful", "was GREAT", "seemed a joy"],
}
ENDINGS = ["", ".", "!", ", from start to finish", " - don't miss it", " (really)", " on a Sunday"]


def rows(count=400, seed=0):
    """Texts with a label, a score, and tags."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        label = rng.choice(sorted(VERDICTS))
        subjects = rng.sample(SUBJECTS, 2)
        text = "{} {} and {} {}{}".format(
            subjects[0],
            rng.choice(VERDICTS[label]),
            subjects[1],
            rng.choice(VERDICTS[label]),
            rng.choice(ENDINGS),
        )
        tags = sorted({"acting" if "act" in text else "story", "loud" if "!" in text else "calm"})
        made.append(
            {
                "text": text,
                "label": label,
                "tags": " ".join(tags),
                "score": float(sorted(VERDICTS).index(label)),
            }
        )
    return made


def texts(path):
    """The golden texts of a ``.golden.json`` beside a learner: ``[(id, text)]``."""
    with open(path, encoding="utf-8") as file:
        return [(each["id"], each["text"]) for each in json.load(file)["golden"]]


def write(path, meta, golden):
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"meta": meta, "golden": golden}, file, ensure_ascii=False)
        file.write("\n")


def table(path, made):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(made[0]))
        writer.writeheader()
        writer.writerows(made)
