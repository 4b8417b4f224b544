"""The words of the synthetic poems, each with its number of syllables, and the words of the minutes.

Nothing here is random and nothing here is a text: `poem` draws from these lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Phrase(NamedTuple):
    """Some words and their syllables together."""

    text: str
    syllables: int


def _words(by_syllables: Mapping[int, str]) -> tuple[Phrase, ...]:
    return tuple(Phrase(word, count) for count, words in by_syllables.items() for word in words.split())


NOUNS = _words(
    {
        1: "moon frog pond crow snow rain leaf stone pine wind mist moss reed hawk owl dew creek hill "
        "cloud star tide wave dune fern bell crane plum moth bee deer fox wren lake path bridge field "
        "gate roof lamp boat shore oak elm birch frost brook wolf hare toad goose swan thorn root seed "
        "bud rose marsh cliff cave storm sky sun sea grass branch nest web shell sand smoke flame bark",
        2: "river heron willow cricket maple meadow mountain valley petal blossom sparrow ember lantern "
        "harbor forest garden shadow pebble ripple thistle lotus bamboo swallow raven otter spider "
        "candle orchard island desert badger beetle cedar clover canyon glacier ivy jasmine lily magpie "
        "ocean prairie robin salmon temple thunder tiger winter autumn summer window pigeon kitten "
        "cuckoo",
        3: "dragonfly butterfly waterfall nightingale firefly persimmon kingfisher hummingbird wisteria "
        "cicada peony evergreen horizon violet",
    }
)

PLURALS = _words(
    {
        1: "leaves stars stones reeds clouds waves pines crows owls moths bees ferns hills dunes frogs "
        "roots seeds shells cranes winds",
        2: "rivers petals ripples sparrows lanterns shadows mountains willows crickets swallows embers "
        "blossoms pebbles herons maples branches roses",
        3: "dragonflies fireflies butterflies cicadas nightingales",
    }
)

ADJECTIVES = _words(
    {
        1: "cold pale still bright dark soft lone old slow deep gray green blue white wet thin warm small "
        "quick wild calm faint bare young high clear red black dim cool",
        2: "silver quiet golden hidden frozen lonely misty gentle empty distant ancient silent mossy amber "
        "hollow fading drifting sleeping crimson windy rainy snowy tender humble patient broken painted "
        "velvet evening",
        3: "wandering glimmering forgotten shimmering whispering",
    }
)

#: What one noun does.
VERBS = _words(
    {
        1: "sleeps waits falls drifts sings turns glows fades bends breathes hums stirs shines blooms "
        "melts dreams calls floats rests sways wakes grows burns sinks",
        2: "whispers lingers trembles gathers wanders listens shimmers scatters ripples flickers murmurs "
        "settles returns awakes",
        3: "remembers",
    }
)

#: What several nouns do.
VERBS_PLURAL = _words(
    {
        1: "sleep wait fall drift sing turn glow fade bend breathe hum stir shine bloom melt dream call "
        "float rest sway",
        2: "whisper linger tremble gather wander listen shimmer scatter flicker murmur settle return",
    }
)

#: What one noun does to another.
VERBS_TRANSITIVE = _words(
    {
        1: "holds lifts hides counts keeps meets greets finds leaves drinks hears paints warms",
        2: "carries follows covers awaits forgets touches",
        3: "embraces remembers",
    }
)

PREPOSITIONS = _words({1: "in on by past through near", 2: "under over beyond above beside across"})

MASS_NOUNS = _words(
    {
        1: "snow rain mist frost dew moss smoke dusk dawn light sand ash foam",
        2: "silence moonlight starlight twilight thunder sunlight water shadow",
    }
)

TIMES = (
    Phrase("at dawn", 2),
    Phrase("at dusk", 2),
    Phrase("tonight", 2),
    Phrase("once more", 2),
    Phrase("again", 2),
    Phrase("alone", 2),
    Phrase("in spring", 2),
    Phrase("at last", 2),
    Phrase("before dawn", 3),
    Phrase("all night long", 3),
    Phrase("in the dark", 3),
    Phrase("this morning", 3),
    Phrase("without a sound", 4),
    Phrase("in early spring", 4),
    Phrase("after the rain", 4),
)

DAY_PARTS = _words({1: "dawn dusk noon", 2: "midnight sunrise sunset twilight daybreak"})

#: Nouns that take neither `a` nor a plural.
UNCOUNTABLE = frozenset(
    "snow rain mist dew moss grass sand smoke frost thunder ivy sky sun sea wind bamboo bark autumn winter "
    "summer wisteria".split()
)

#: Words that stand literally in the line templates.
FUNCTION_WORDS = {
    word: syllables
    for word, syllables in _words(
        {
            1: "a and at by call clock code counts drifts hour in is it keeps note of on past reads says "
            "sings slips spells strikes the to",
            2: "away beneath carved minute minutes passes until whispers written",
            3: "remembers",
        }
    )
}

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_ONES_SYLLABLES = (2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 3, 1, 2, 2, 2, 2, 3, 2, 2)
_TENS = {2: "twenty", 3: "thirty", 4: "forty", 5: "fifty"}

NUMBER_WORDS = frozenset(_ONES) | frozenset(_TENS.values())
#: The hyphen of plain text and the one that does not break a line.
HYPHENS = ("-", "\u2011")


def minute_words(minute: int, hyphen: str = "-") -> str:
    """The minute in English words: `zero` to `fifty-nine`."""
    if minute < 20:
        return _ONES[minute]
    tens, ones = divmod(minute, 10)
    return _TENS[tens] + (hyphen + _ONES[ones] if ones else "")


def minute_syllables(minute: int) -> int:
    """The syllables of `minute_words`."""
    if minute < 20:
        return _ONES_SYLLABLES[minute]
    ones = minute % 10
    return 2 + (_ONES_SYLLABLES[ones] if ones else 0)
