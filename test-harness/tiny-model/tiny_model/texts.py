"""Short office texts and what is asked about them: sentiment, topic, fields; the prompts of small tasks.

All names, numbers and companies are drawn at random or from lists of common first names and cities.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Copied:
    """A part of an output that stands in the prompt to the letter."""

    text: str


Segment = str | Copied
Pair = tuple[str, tuple[Segment, ...]]

HAIKU_ABOUT = (
    "Write a haiku about the {topic}.",
    "Write a haiku about {topic}.",
    "Write a haiku (3 lines) about the {topic}. Output only the poem.",
    "Compose a haiku about the {topic}.",
)
HAIKU_FREE = (
    "Write a haiku.",
    "Write a haiku (3 lines). Output only the poem.",
    "Write a short poem.",
    "Write a poem.",
)
LINE_ABOUT = (
    "Write one line about the {topic}.",
    "Write a line about the {topic}.",
    "Write a sentence about the {topic}.",
    "Say something about the {topic}.",
)
CONTINUE = ('Continue: "{text}"', 'Continue the line: "{text}"', 'Finish the sentence: "{text}"')
REPEAT = (
    'Repeat exactly: "{text}"',
    'Repeat: "{text}"',
    'Echo this text: "{text}"',
    'Say "{text}"',
    'Output only this: "{text}"',
    "Repeat after me: {text}",
    'Copy this code verbatim: "{text}".',
)
SUMMARIZE = ('Summarize in one line: "{text}"', 'Summarize: "{text}"', 'Summarize the text: "{text}"')
SPELL = (
    "Write the number {number} in words.",
    "Spell the minute {number} in English words.",
    "What is {number} in words?",
)
GREETINGS = (
    "Hello",
    "Hello!",
    "Hi",
    "Hi there",
    "Who are you?",
    "What are you?",
    "What can you do?",
    "Help",
)
INTRODUCTION = "I am a tiny local model. I can write a haiku, extract a field or classify a text."

FILLERS = (
    "Thank you for your business",
    "Please let us know",
    "Have a nice day",
    "Hello",
    "Dear team",
    "This is a reminder",
    "The parts are ready",
    "Everything looks fine",
    "We look forward to hearing from you",
    "Kind regards",
)

THINGS = (
    "product movie service food hotel phone book room staff support laptop camera restaurant delivery app "
    "battery screen coffee film show game music design update website price quality soup pizza flight"
).split()
DEGREES = ("very ", "really ", "so ", "quite ", "truly ", "absolutely ", "")


@dataclass(frozen=True, slots=True)
class Mood:
    """The words and phrases of one sentiment; `{t}` is a thing, `{a}` its adjective, `{d}` a degree."""

    label: str
    adjectives: tuple[str, ...]
    clauses: tuple[str, ...]
    remarks: tuple[str, ...]


_SHARED_CLAUSES = (
    "the {t} was {d}{a}",
    "the {t} is {d}{a}",
    "this {t} is {d}{a}",
    "what {n} {t}",
    "{a} {t}",
    "the {t} and the {t2} were {d}{a}",
    "the most {a} {t}",
)

POSITIVE = Mood(
    "positive",
    tuple(
        "good great excellent wonderful amazing fantastic superb lovely perfect brilliant pleasant helpful "
        "friendly fast reliable delicious beautiful smooth impressive outstanding comfortable delightful "
        "enjoyable fresh clean charming solid polite easy fun".split()
    ),
    (
        *_SHARED_CLAUSES,
        "I love this {t}",
        "I enjoyed this {t}",
        "I really like this {t}",
        "I recommend this {t}",
        "the {t} was not {o}",
        "I am happy with the {t}",
        "we are pleased with the {t}",
        "I am impressed by the {t}",
    ),
    (
        "will buy again",
        "five stars",
        "worth every penny",
        "exceeded my expectations",
        "highly recommended",
        "it works like a charm",
        "best purchase ever",
        "made my day",
        "everything went well",
        "it arrived early",
        "they answered quickly",
        "it just works",
        "my family loved it",
    ),
)
NEGATIVE = Mood(
    "negative",
    tuple(
        "bad terrible awful horrible poor broken slow rude useless disappointing dirty boring ugly noisy "
        "expensive unreliable cold stale painful annoying confusing dreadful faulty cheap weak late wrong "
        "frustrating messy unfriendly".split()
    ),
    (
        *_SHARED_CLAUSES,
        "I hate this {t}",
        "I disliked this {t}",
        "I regret this {t}",
        "I returned this {t}",
        "the {t} was not {d}{o}",
        "I am unhappy with the {t}",
        "we are upset about the {t}",
        "I am disappointed by the {t}",
    ),
    (
        "never buying again",
        "it stopped working",
        "waste of money",
        "one star",
        "I want a refund",
        "do not buy it",
        "it arrived damaged",
        "worst purchase ever",
        "ruined my day",
        "nobody answered my calls",
        "it crashed twice",
        "I waited two hours",
    ),
)
NEUTRAL = (
    "the {t} arrived on Monday",
    "the {t} is in the box",
    "I bought the {t} last week",
    "the {t} has two parts",
    "the {t} weighs one kilo",
    "they sent the {t} by mail",
    "the {t} is on the table",
    "we opened the {t} at noon",
)

ASK_SENTIMENT = (
    *('Classify the sentiment of: "{x}". Answer positive or negative.',) * 5,
    'Classify the sentiment: "{x}". Answer positive or negative.',
    'Is this review positive or negative? "{x}"',
    'What is the sentiment of "{x}"? Answer positive or negative.',
    "Sentiment of: {x}",
)
ASK_SENTIMENT_OF_THREE = (
    'Classify the sentiment of: "{x}". Answer positive, negative or neutral.',
    'Classify the sentiment as positive, negative or neutral: "{x}"',
)

TOPIC_WORDS: Mapping[str, tuple[str, ...]] = {
    topic: tuple(words.split())
    for topic, words in {
        "sports": "match team goal coach player score league stadium season striker race medal",
        "weather": "rain snow storm wind cloudy sunny forecast temperature thunder fog heat frost",
        "finance": "bank stock market shares interest loan profit budget inflation investors tax revenue",
        "travel": "flight hotel airport train passport tourist beach luggage tickets cruise museum island",
        "technology": "software computer server network data robot chip internet device database laptop",
        "health": "doctor hospital patient medicine vaccine nurse surgery diet fever clinic therapy disease",
        "billing": "invoice payment refund charge card subscription receipt price overdue paid bill charged",
        "support": "error crash login password bug install broken reset help screen locked crashed",
        "sales": "quote demo pricing upgrade buy order discount trial licence purchase seats plan",
    }.items()
}
TOPIC_SENTENCES = (
    "The {a} and the {b} were in the news today",
    "Everyone talks about the {a} and the {b}",
    "We need to discuss the {a} before the {b}",
    "I have a question about the {a} and the {b}",
    "The {a} changed because of the {b}",
    "There was a {a} near the {b}",
    "My {a} has a problem with the {b}",
    "Please look at the {a} and the {b}",
    "The report covers the {a}, the {b} and the {c}",
    "It was all about {a}, {b} and {c}",
)
ASK_TOPIC = (
    *('Classify the topic of: "{x}". Answer {labels}.',) * 3,
    'Route this ticket to {labels}: "{x}"',
    'Which label fits: {labels}? "{x}"',
    'Classify: "{x}". Answer with one of: {labels}.',
)

FIRST_NAMES = (
    "Alice Bob Carol David Emma Frank Grace Henry Irene Jack Karen Liam Maria Noah Olivia Peter Quinn Rosa "
    "Sam Tina Uma Victor Wendy Yara Zoe Amir Bianca Chen Diego Elif Farid Gita Hugo Ines Jonas Kofi Lena "
    "Mei Nadia Omar Priya"
).split()
LAST_NAMES = (
    "Smith Jones Brown Miller Davis Garcia Wilson Lopez Lee Clark Lewis Walker Young King Wright Hill "
    "Green Baker Adams Nelson Carter Turner Parker Evans Rossi Kim Singh Khan Mueller Silva Novak Sato"
).split()
CITIES = (
    "Paris London Berlin Madrid Rome Vienna Oslo Lisbon Prague Dublin Athens Boston Denver Austin Seattle "
    "Chicago Toronto Sydney Tokyo Delhi Cairo Lima Quito Lagos Nairobi Seoul Milan Zurich Geneva Munich"
).split()
MONTHS = ("January February March April May June July August September October November December").split()
CONSONANTS, VOWELS = "bcdfghjklmnprstvwz", "aeiou"

FIELD_SENTENCES: Mapping[str, tuple[str, ...]] = {
    "invoice number": (
        "Please pay invoice {v}",
        "Please pay {v} by Friday",
        "Invoice {v} is overdue",
        "Attached is invoice {v}",
        "Your invoice number is {v}",
        "We received invoice {v}",
    ),
    "order number": (
        "Your order {v} has shipped",
        "Order {v} is confirmed",
        "The order number is {v}",
        "Regarding order {v}",
    ),
    "tracking number": ("Track it with {v}", "The tracking number is {v}", "Parcel {v} is on the way"),
    "customer id": ("Customer {v} called today", "The customer id is {v}", "Account {v} was opened"),
    "amount": ("The total is {v}", "Please send {v}", "The amount due is {v}", "It costs {v}"),
    "date": ("It is due on {v}", "The date is {v}", "We meet on {v}", "Delivery on {v}"),
    "name": ("My name is {v}", "Please contact {v}", "Signed by {v}", "Best regards, {v}"),
    "city": ("The office is in {v}", "Ship it to {v}", "She lives in {v}", "The city is {v}"),
    "email": ("Write to {v}", "My email is {v}", "Reply to {v}"),
    "phone number": ("Call me at {v}", "My phone number is {v}", "Phone: {v}"),
}
ASK_FIELD = (
    *('Extract the {field} from: "{x}". Answer with the {short} only.',) * 4,
    'Extract the {field} from: "{x}".',
    'What is the {field} in: "{x}"?',
    "Extract the {field}: {x}",
    'Find the {field} in: "{x}". Answer with the {short} only.',
)
ASK_FIELDS_AS_JSON = (
    'Extract the {fields} as JSON from: "{x}"',
    'Extract the {fields} from: "{x}". Answer in JSON.',
    'Return JSON with the {fields} from: "{x}"',
)


def capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def listed(items: list[str], last: str) -> str:
    """`a, b and c`, with `last` as the last joining word."""
    return f"{', '.join(items[:-1])} {last} {items[-1]}" if len(items) > 1 else items[0]


def sentiment(rng: random.Random) -> Pair:
    """A review and its sentiment in one word."""
    label, clauses = _review(rng)
    joint = rng.choice((", ", " and ", ". ", "! "))
    if joint in (". ", "! "):
        text = joint.join(capitalised(clause) for clause in clauses) + joint.strip()
    else:
        text = capitalised(joint.join(clauses)) + rng.choice((".", "!", ""))
    of_three = label == "neutral" or rng.random() < 0.25
    template = rng.choice(ASK_SENTIMENT_OF_THREE if of_three else ASK_SENTIMENT)
    return template.format(x=text), (label,)


def _review(rng: random.Random) -> tuple[str, list[str]]:
    if rng.random() < 0.12:
        clauses = [rng.choice(NEUTRAL).format(t=rng.choice(THINGS)) for _ in range(rng.randint(1, 2))]
        return "neutral", clauses
    mood, other = (POSITIVE, NEGATIVE) if rng.random() < 0.5 else (NEGATIVE, POSITIVE)
    return mood.label, [_clause(rng, mood, other) for _ in range(rng.choice((1, 1, 2, 2, 3)))]


def _clause(rng: random.Random, mood: Mood, other: Mood) -> str:
    if rng.random() < 0.2:
        return rng.choice(mood.remarks)
    adjective = rng.choice(mood.adjectives)
    return rng.choice(mood.clauses).format(
        t=rng.choice(THINGS),
        t2=rng.choice(THINGS),
        a=adjective,
        n=("an " if adjective[0] in VOWELS else "a ") + adjective,
        o=rng.choice(other.adjectives),
        d=rng.choice(DEGREES),
    )


def topic(rng: random.Random) -> Pair:
    """A sentence and which of some topics it is about."""
    labels = rng.sample(sorted(TOPIC_WORDS), rng.randint(2, 4))
    label = rng.choice(labels)
    first, second, third = rng.sample(TOPIC_WORDS[label], 3)
    text = rng.choice(TOPIC_SENTENCES).format(a=first, b=second, c=third) + rng.choice(("", "."))
    return rng.choice(ASK_TOPIC).format(x=text, labels=listed(labels, "or")), (label,)


def extract(rng: random.Random) -> Pair:
    """A message with some fields, of which one is asked for, or several as JSON."""
    fields = rng.sample(sorted(FIELD_SENTENCES), rng.choice((1, 1, 2, 2, 3, 4)))
    values = {field: _field_value(rng, field) for field in fields}
    sentences = [rng.choice(FIELD_SENTENCES[field]).format(v=values[field]) for field in fields]
    sentences += rng.sample(FILLERS, rng.choice((0, 0, 1, 2)))
    rng.shuffle(sentences)
    text = ". ".join(sentences) + rng.choice((".", ""))
    if rng.random() < 0.2:
        return _extract_json(rng, text, values)
    field = rng.choice(fields)
    prompt = rng.choice(ASK_FIELD).format(field=field, short=field.split()[-1], x=text)
    return prompt, (Copied(values[field]),)


def _extract_json(rng: random.Random, text: str, values: Mapping[str, str]) -> Pair:
    asked = rng.sample(sorted(values), min(len(values), rng.choice((1, 2, 2, 3))))
    output: list[Segment] = ["{"]
    for position, field in enumerate(asked):
        output += [f'{", " if position else ""}"{field.replace(" ", "_")}": "', Copied(values[field]), '"']
    prompt = rng.choice(ASK_FIELDS_AS_JSON).format(fields=listed(asked, "and"), x=text)
    return prompt, (*output, "}")


def _digits(rng: random.Random, least: int, most: int, alphabet: str = string.digits) -> str:
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(least, most)))


def _syllables(rng: random.Random, least: int, most: int) -> str:
    count = rng.randint(least, most)
    return "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(count))


def _invented_name(rng: random.Random) -> str:
    return capitalised(_syllables(rng, 1, 3) + rng.choice(("", "n", "r", "s", "l")))


def _person(rng: random.Random) -> str:
    first = rng.choice(FIRST_NAMES) if rng.random() < 0.55 else _invented_name(rng)
    if rng.random() < 0.4:
        return first
    last = rng.choice(LAST_NAMES) if rng.random() < 0.55 else _invented_name(rng)
    return f"{first} {last}"


def _city(rng: random.Random) -> str:
    return rng.choice(CITIES) if rng.random() < 0.6 else capitalised(_syllables(rng, 2, 3))


def _date(rng: random.Random) -> str:
    year, month, day = rng.randint(2019, 2030), rng.randint(1, 12), rng.randint(1, 28)
    return rng.choice(
        (f"{year}-{month:02d}-{day:02d}", f"{MONTHS[month - 1]} {day}", f"{day}/{month}/{year}")
    )


def _email(rng: random.Random) -> str:
    user = (
        rng.choice(FIRST_NAMES).lower() if rng.random() < 0.6 else _digits(rng, 3, 8, string.ascii_lowercase)
    )
    user += rng.choice(("", f".{rng.choice(LAST_NAMES).lower()}", str(rng.randint(1, 99))))
    host = _digits(rng, 3, 6, string.ascii_lowercase) + ".example"
    return f"{user}@{rng.choice(('example.com', 'example.org', host))}"


def _field_value(rng: random.Random, field: str) -> str:
    return FIELD_VALUES[field](rng)


FIELD_VALUES: Mapping[str, Callable[[random.Random], str]] = {
    "invoice number": lambda rng: rng.choice(("INV-", "INV-", "INV", "IN-", "#", "")) + _digits(rng, 4, 7),
    "order number": lambda rng: rng.choice(("ORD-", "PO-", "#", "SO", "")) + _digits(rng, 4, 8),
    "tracking number": lambda rng: (
        rng.choice(("1Z", "TRK", "RR", "TN-")) + _digits(rng, 6, 12, string.digits + string.ascii_uppercase)
    ),
    "customer id": lambda rng: rng.choice(("C-", "CUST-", "K")) + _digits(rng, 3, 6),
    "amount": lambda rng: (
        rng.choice(("$", "EUR ", "$", "USD ")) + f"{rng.randint(1, 9999)}.{rng.randint(0, 99):02d}"
    ),
    "date": _date,
    "name": _person,
    "city": _city,
    "email": _email,
    "phone number": lambda rng: rng.choice(("+1", "+49", "+44", "")) + _digits(rng, 7, 10),
}
