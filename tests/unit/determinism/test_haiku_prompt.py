"""The prompt of the haiku and what is accepted as one."""

import re

import pytest
from orchqueue.determinism.haiku_prompt import HaikuPrompt, minute_words


@pytest.mark.parametrize(
    ("minute", "words"),
    [(0, "zero"), (7, "seven"), (13, "thirteen"), (20, "twenty"), (42, "forty-two"), (59, "fifty-nine")],
)
def test_minutes_in_words(minute: int, words: str) -> None:
    assert minute_words(minute) == words


def test_the_words_of_all_minutes_differ() -> None:
    assert len({minute_words(minute) for minute in range(60)}) == 60


@pytest.mark.parametrize("minute", [-1, 60])
def test_what_is_no_minute_is_refused(minute: int) -> None:
    with pytest.raises(ValueError, match="not a minute"):
        minute_words(minute)


def test_prompt_of_now_has_a_fresh_nonce_and_is_one_line() -> None:
    one, other = HaikuPrompt.now(), HaikuPrompt.now()
    assert re.fullmatch(r"[a-z0-9]{8}", one.nonce)
    assert one.nonce != other.nonce
    assert one.nonce in one.text
    assert "\n" not in one.text


def test_poem_is_judged_by_lines_minute_and_nonce() -> None:
    prompt = HaikuPrompt("w", "n")
    assert prompt.faults("a w\nb n\nc") == []
    assert prompt.faults("\n\nb n\n") == ["it has 1 lines, not 3", "the minute is missing"]
    assert prompt.faults("a w\nb\nc") == ["the nonce is missing"]
