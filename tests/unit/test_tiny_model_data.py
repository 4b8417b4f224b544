"""The tiny model's corpus: every poem that is taught would be accepted, and a seed says what is taught."""

import sys
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "test-harness" / "tiny-model"))

from tiny_model import data, evaluate, forms, lexicon, tokenizer
from tiny_model.texts import Copied

SEEDS = st.integers(min_value=0, max_value=2**32)
TASKS = sorted(data.STANDARD.weights)


@pytest.fixture(scope="module")
def words() -> tokenizer.Tokenizer:
    return tokenizer.Tokenizer(tokenizer.choose_words(islice(data.Corpus(1), 3000)))


def copied(sample: data.Sample) -> list[str]:
    return [part.text for part in sample.output if isinstance(part, Copied)]


@settings(max_examples=300, deadline=None)
@given(SEEDS, st.sampled_from((data.STANDARD, data.HAIKU)))
def test_every_poem_that_is_taught_would_be_accepted(seed: int, mixture: data.Mixture) -> None:
    sample = data.Corpus(seed, mixture).sample("gate")
    kept = copied(sample)
    assert len(kept) == 2
    first, second = kept
    gate = evaluate.Gate(first, second)
    assert gate.accepts(sample.text)
    assert evaluate.filled_lines(sample.text) == 3
    assert all(part in sample.prompt for part in kept)


@settings(max_examples=300, deadline=None)
@given(SEEDS, st.sampled_from(TASKS))
def test_whatever_is_marked_as_copied_stands_in_the_prompt(seed: int, task: str) -> None:
    sample = data.Corpus(seed).sample(task)
    assert sample.task == task
    assert sample.prompt and sample.text
    assert all(part in sample.prompt for part in copied(sample))
    assert not set(sample.text) & {"\x01", "\x02"}


def test_acceptance_refuses_what_lacks_a_part() -> None:
    gate = evaluate.Gate("@@@@", "####")
    assert gate.accepts("@@@@\n####\n-")
    assert not gate.accepts("@@@@\n####")
    assert not gate.accepts("@@@\n####\n-")
    assert not gate.accepts("@@@@\n###\n-")
    assert not gate.accepts("@@@@\n\n####\n ")


def test_a_seed_gives_the_same_corpus_and_another_seed_another() -> None:
    first, again, other = (list(islice(data.Corpus(seed), 200)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_mixture_is_kept_roughly() -> None:
    drawn = [sample.task for sample in islice(data.Corpus(5), 2000)]
    shares = data.STANDARD.weights
    total = sum(shares.values())
    for task, weight in shares.items():
        assert abs(drawn.count(task) / len(drawn) - weight / total) < 0.05


def test_codes_are_hardly_ever_repeated() -> None:
    prompts = [data.Corpus(seed).sample("gate").prompt for seed in range(2000)]
    assert len(set(prompts)) > 1990


def test_poems_have_their_syllables_more_often_than_not() -> None:
    from tiny_model.poem import NATURE, Poet, fitted

    poet = Poet(data.Corpus(6).rng)
    lines = [fitted(lambda: poet.line(NATURE), 5) for _ in range(200)]
    assert sum(line.syllables == 5 for line in lines) > 150


@pytest.mark.parametrize(
    ("minute", "words_expected", "syllables"),
    [(0, "zero", 2), (9, "nine", 1), (11, "eleven", 3), (20, "twenty", 2), (47, "forty-seven", 4)],
)
def test_minute_words(minute: int, words_expected: str, syllables: int) -> None:
    assert lexicon.minute_words(minute) == words_expected
    assert lexicon.minute_syllables(minute) == syllables


def test_minutes_all_differ() -> None:
    assert len({lexicon.minute_words(minute) for minute in range(60)}) == 60


@settings(max_examples=200, deadline=None)
@given(SEEDS, st.sampled_from(TASKS))
def test_tokens_decode_to_the_text(words: tokenizer.Tokenizer, seed: int, task: str) -> None:
    sample = data.Corpus(seed).sample(task)
    assert words.decode(words.encode(sample.prompt)) == sample.prompt
    spelled = words.encode(sample.prompt, spell=0.5, rng=data.Corpus(seed).rng)
    assert words.decode(spelled) == sample.prompt


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_survives_the_tokenizer(words: tokenizer.Tokenizer, text: str) -> None:
    assert words.decode(words.encode(text)) == text


def test_number_words_and_names_never_become_one_token(words: tokenizer.Tokenizer) -> None:
    taken = {word.strip() for word in words.words}
    assert not taken & lexicon.NUMBER_WORDS
    assert "Alice" not in taken


@settings(max_examples=200, deadline=None)
@given(st.integers(min_value=0, max_value=10_000), st.floats(0, 0.999))
def test_every_form_teaches_the_output_and_the_end(
    words: tokenizer.Tokenizer, seed: int, kind: float
) -> None:
    sample = data.Corpus(seed).sample()
    example = forms.Examples(words, seed).form(sample, kind)
    output = example.tokens[example.output_at :]
    assert len(output) == len(example.weights)
    assert output[-1] == tokenizer.EOS
    assert words.decode(output[:-1]).lstrip("\n") == sample.text.lstrip("\n")
    weighty = [t for t, w in zip(output, example.weights, strict=True) if w == forms.COPIED_WEIGHT]
    assert words.decode(weighty) == "".join(copied(sample))


@settings(max_examples=100, deadline=None)
@given(st.integers(min_value=0, max_value=10_000))
def test_a_drill_repeats_its_pieces(words: tokenizer.Tokenizer, seed: int) -> None:
    drills = forms.Drills(1.0, words=True)
    example = forms.Examples(words, seed).draw(data.STANDARD, drills)
    given_pieces = example.tokens[1 : example.output_at - 1]
    repeated = example.tokens[example.output_at : -1]
    assert sorted(given_pieces) == sorted(repeated)
    assert len(example.tokens) <= forms.LONGEST
    assert len(example.weights) == len(repeated) + 1
