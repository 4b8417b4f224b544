"""What the suite asks, how it finds a difference, and how it draws one."""

from dataclasses import replace

import pytest
from orchqueue.determinism.cases import Case, Plan
from orchqueue.determinism.divergence import Decode, Divergence, differ, first_difference
from orchqueue.determinism.picture import figure, page
from orchqueue.determinism.suite import SetReport, SuiteReport, Target, decode_of

CASE = Case("Say <so>.", 7, 0.7, 4)
LEFT = Decode("t1", "a-0", "one two", "aa", "bb", "set", {"flags": {"n_parallel": 1}}, 2, ("one", " two"))
RIGHT = replace(
    LEFT, task_id="t2", replica_id="a-1", text="one tvo", output_digest="cc", pieces=("one", " tvo")
)
TARGET = Target("set", "pool", "llamacpp", "b1", "sha256:00", ("a-0", "a-1"))


def test_the_same_plan_asks_the_same_everywhere() -> None:
    assert Plan(prompts=64).cases() == Plan(prompts=64).cases()
    assert Plan(prompts=64).cases() != Plan(prompts=64, seed=2).cases()


def test_every_prompt_is_asked_at_every_temperature_and_no_prompt_twice() -> None:
    cases = Plan(prompts=64, temperatures=(0.0, 1.2)).cases()
    assert len(cases) == 128
    assert len({case.prompt for case in cases}) == 64
    assert all(0 <= case.seed < 2**31 for case in cases)
    assert all(case.fields()["ignore_eos"] is True for case in cases)


@pytest.mark.parametrize("wrong", [{"prompts": 0}, {"tokens": 0}, {"temperatures": ()}])
def test_a_plan_that_asks_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Plan(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("left", "right", "offset"),
    [(b"abc", b"abd", 2), (b"ab", b"abc", 2), (b"", b"x", 0), (b"same", b"same", 4)],
)
def test_the_offset_is_that_of_the_first_byte_that_differs(left: bytes, right: bytes, offset: int) -> None:
    assert first_difference(left, right) == offset


def test_the_offset_counts_bytes_and_not_characters() -> None:
    case = Divergence(CASE, replace(LEFT, text="é a"), replace(LEFT, text="é b"))
    assert case.byte_offset == 3


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ({"text": "one tvo"}, "their bytes differ from offset 5"),
        ({"output_digest": "cc"}, "their bytes are the same and their output digests differ"),
        ({"request_digest": "cc"}, "their request digests differ"),
        ({"identity": "other"}, "they come from two replica sets"),
    ],
)
def test_each_way_to_differ_has_its_reason(field: dict[str, str], reason: str) -> None:
    other = replace(LEFT, **field)
    assert differ(LEFT, other)
    assert Divergence(CASE, LEFT, other).reason == reason


def test_another_replica_and_task_are_no_difference() -> None:
    assert not differ(LEFT, replace(LEFT, task_id="t9", replica_id="a-9"))


def test_the_artifact_has_all_that_is_needed_to_see_it_again() -> None:
    document = Divergence(CASE, LEFT, RIGHT).to_dict()
    assert document["prompt"] == CASE.prompt
    assert (document["seed"], document["temperature"], document["max_tokens"]) == (7, 0.7, 4)
    assert document["byte_offset"] == 5
    assert document["flags"] == {"n_parallel": 1}
    assert document["left"]["text"] == "one two"
    assert document["right"]["replica_id"] == "a-1"


def test_the_picture_marks_the_first_token_that_differs() -> None:
    drawn = figure(Divergence(CASE, LEFT, RIGHT))
    assert '<span class="t">one</span><span class="t d first"> two</span>' in drawn
    assert '<span class="t">one</span><span class="t d first"> tvo</span>' in drawn
    assert "Say &lt;so&gt;." in drawn


def test_the_page_says_what_it_comes_to_and_needs_nothing_else() -> None:
    good = SetReport(TARGET, cases=3)
    bad = SetReport(TARGET, cases=3, divergences=[Divergence(CASE, LEFT, RIGHT)])
    assert "no difference" in page(SuiteReport(Plan(), (good,)))
    drawn = page(SuiteReport(Plan(), (good, bad)))
    assert "NOT reproducible" in drawn
    assert drawn.count("<figure>") == 1
    assert "<script" not in drawn
    assert "src=" not in drawn


def test_a_report_without_a_case_or_with_an_open_question_is_not_good() -> None:
    assert SetReport(TARGET, cases=1).ok
    assert not SetReport(TARGET).ok
    assert not SetReport(TARGET, cases=1, one_sided=1).ok
    assert not SetReport(TARGET, cases=1, unfinished=[(CASE, "WORKER_RESET")]).ok
    assert not SuiteReport(Plan(), ()).ok


def test_a_digest_that_is_not_that_of_the_output_is_a_difference() -> None:
    from orchqueue import _core

    request = "ab" * 32
    true = _core.output_digest(request, b"text")
    task = {
        "task_id": "t",
        "output": {"text": "text", "usage": {"tokens_out": 1}},
        "receipt": {"request_digest": request, "output_digest": true, "identity": "set"},
    }
    honest = decode_of(task)
    lying = decode_of({**task, "output": {"text": "other"}})
    assert honest.output_digest == true
    assert lying.output_digest == f"{true} (not that of the output)"
