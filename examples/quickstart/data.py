"""The sentences that `train.py` learns from.

Sentences rated by people come from the vaderSentiment source package, which is read but not copied.
The others are built from our own word lists and patterns. They teach what is too rare in the rated
sentences: negation ("not good at all"), contrast ("the room was small, but the view is great") and
plain facts that express no opinion.
"""

import csv
import io
import random
import re
import tarfile
from pathlib import Path

Labelled = list[tuple[str, str]]
LABELS = ["negative", "neutral", "positive"]
RATED = ("movieReviewSnippets", "amazonReviewSnippets", "tweets")
CLEAR_SENTENCE, CLEAR_WORD = 0.45, 1.0  # of ratings from -4 to 4; beyond it there is an opinion


def words(text: str, separator: str | None = None) -> list[str]:
    """Split a list that is written as one string, to keep it compact."""
    return [word.strip() for word in text.split(separator)]


GOOD = words("""good great excellent superb wonderful fantastic lovely delightful brilliant perfect
outstanding amazing awesome charming pleasant enjoyable impressive beautiful clever funny friendly
helpful kind polite reliable comfortable clean fresh tasty delicious fast smooth quick bright sturdy
useful exciting touching fun cosy flawless generous thoughtful""")
BAD = words("""bad terrible awful horrible dreadful poor boring dull disappointing disgusting lame
annoying ugly stupid useless rude unfriendly dirty filthy slow broken faulty noisy cold stale bland
greasy confusing clumsy expensive overpriced uncomfortable unreliable weak predictable pointless
tedious painful messy sloppy flimsy careless arrogant tasteless""")
THINGS = words("""film movie book series show plot story acting music ending food soup steak pizza
coffee breakfast dessert service waiter waitress staff hotel room bed bathroom view pool location
phone laptop camera screen battery sound charger keyboard printer app website program game update
interface delivery packaging support driver doctor teacher course flight price quality jacket chair
vacuum kettle""")

# {own} and {own2} match the label, {other} is the opposite, {verb} is what the writer feels.
PLAIN = words(
    """It was {own}.|The {a} was {own}.|The {a} is really {own}.|What a {own} {a}!|A {own} {a}.|
    I found the {a} {own}.|So {own}.|Very {own} {a}, {own2} {b}.|This {a} is just {own}|
    The {a} and the {b} were {own}.""",
    "|",
)
NEGATED = words(
    """It was not {other}.|The {a} is not {other} at all.|The {a} wasn't {other}.|
    I never found it {other}.|Not a {other} {a}.|not {other} at all|
    There is nothing {other} about this {a}.|The {a} is anything but {other}.""",
    "|",
)
CONTRAST = words(
    """The {a} was {other}, but the {b} is {own}.|Although the {a} was {other}, it is {own}.|
    It looks {other}, but it is {own}.|I expected a {other} {a} and it was {own}.|
    The {a} is {other}, the {b} is {own} though, and I {verb} it.|
    The {a} may be {other}, but I {verb} it.""",
    "|",
)

WHO = words(
    """my sister;the teacher;a friend;the driver;the manager;her father;the team;the doctor;
    my colleague;the author;the actor;the company;their cousin;the visitor;a student""",
    ";",
)
DOES = words(
    """works in;comes from;moved to;was born in;studies in;travels to;called from;wrote about;
    sent a letter to;opened an office in;talked about;asked about;took a photo of;drove to""",
    ";",
)
WHERE = words(
    """the city;the north;a small town;the kitchen;the garden;Japan;the school;the station;Rome;
    the office;the village;the river;the harbour;the library;Chicago;the upper floor""",
    ";",
)
ITEM = words(
    """the film;the book;the train;the hotel;the lamp;the phone;the cup;the room;the program;
    the concert;the museum;the order;the update;the table;the flight;the invoice;the bag;the game;
    the file;the picture;the key;the course;the camera;the coat;the letter;the report;the bottle""",
    ";",
)
FACT = words(
    """has a round handle;stands in the corner;belongs to the school;was painted last year;
    needs two batteries;connects to the computer;was printed in Italy;shows a map;has a number;
    lies under the desk;begins with a song;is called Aurora;dates from 1950;hangs on the wall;
    was given to the neighbour;lists the names;has a wooden floor;covers the first year;
    was signed by the owner;is part of a set;takes place in winter;is sold in pairs;
    was returned to the library;is round;has a lid;was mentioned in the newspaper;is for adults""",
    ";",
)
ACTION = words(
    """press the button twice;choose a language;enter the number;read the first chapter;
    turn the key to the left;put the cup on the table;write your name here;send it by post;
    we ate at seven;how many rooms are there;when does it start;which one is for adults;
    is it made of wood;I gave it to my son;I am looking for a grey one;they asked for my passport;
    she put on her coat;who wrote the letter;what is the number of the office;fold the paper""",
    ";",
)


def opinions(count: int, rng: random.Random) -> Labelled:
    """Sentences that express an opinion, half of them negative, each with its label."""
    made: dict[str, str] = {}
    while len(made) < count:
        label = rng.choice(["negative", "positive"])
        own, other = (BAD, GOOD) if label == "negative" else (GOOD, BAD)
        first, second = rng.sample(own, 2)
        a, b = rng.sample(THINGS, 2)
        verb = rng.choice(["hate", "regret"] if label == "negative" else ["love", "loved"])
        text = rng.choice(rng.choice([PLAIN, NEGATED, CONTRAST])).format(
            own=first, own2=second, other=rng.choice(other), a=a, b=b, verb=verb
        )
        text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
        if rng.choice([True, False, False]):  # many people type without capitals or full stops
            text = text.lower().rstrip(".!")
        made[text] = label
    return list(made.items())


def facts(count: int, rng: random.Random) -> Labelled:
    """Sentences that express no opinion."""
    made: dict[str, str] = {}
    while len(made) < count:
        text = rng.choice(
            [
                f"{rng.choice(WHO)} {rng.choice(DOES)} {rng.choice(WHERE)}",
                f"{rng.choice(ITEM)} {rng.choice(FACT)}",
                f"{rng.choice(ITEM)} {rng.choice(FACT)} and {rng.choice(FACT)}",
                rng.choice(ACTION),
            ]
        )
        text = text[0].upper() + text[1:] + rng.choice([".", ".", "", " today.", " this year."])
        made[text] = "neutral"
    return list(made.items())


def label_of(rating: float, clear: float) -> str:
    """The label of a rating between -4 and 4; ``clear`` is where an opinion begins."""
    return LABELS[1 + (rating >= clear) - (rating <= -clear)]


def rated(package: Path) -> tuple[Labelled, Labelled]:
    """Review sentences and short messages, and single words, each rated by ten or more people."""
    sentences: Labelled = []
    with tarfile.open(package) as outer:
        folder = package.name.removesuffix(".tar.gz")
        inner = outer.extractfile(f"{folder}/additional_resources/hutto_ICWSM_2014.tar.gz")
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as archive:
            for name in RATED:
                member = archive.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
                for line in member.read().decode("utf-8", "replace").splitlines():
                    _, rating, text = line.split("\t")
                    sentences.append((text, label_of(float(rating), CLEAR_SENTENCE)))
        lines = outer.extractfile(f"{folder}/vaderSentiment/vader_lexicon.txt").read().decode()
    rows = [line.split("\t")[:2] for line in lines.splitlines()]
    lexicon = [(w, label_of(float(r), CLEAR_WORD)) for w, r in rows if re.fullmatch("[a-z]{3,}", w)]
    return sentences, [(word, label) for word, label in lexicon if label != "neutral"]


def from_csv(path: Path) -> Labelled:
    """The rows of a CSV file with the columns ``text`` and ``label``."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def plain(text: str) -> str:
    """A text without capitals and punctuation, to compare two texts."""
    return " ".join(re.findall(r"\w+", text.lower()))
