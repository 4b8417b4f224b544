"""The scripted engine that users test with: it says what the script says, and fails as told."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from orchqueue.testing import Fault, Reply, engine


def ask(url: str, **fields: Any) -> list[dict[str, Any]]:
    """The events of one completion."""
    answer = httpx.post(f"{url}/completion", json={"prompt": "Hi", **fields})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]


def eventually(holds: Callable[[], bool]) -> bool:
    """Waits, within bounds, until `holds`."""
    pause = threading.Event()
    return any(holds() or pause.wait(0.01) for _ in range(500))


def test_text_is_cut_into_words_and_ends_with_the_end_marker() -> None:
    with engine(["Hello there, you."]) as running:
        events = ask(running.url, seed=7)
        assert [event["content"] for event in events] == ["Hello", " there,", " you.", ""]
        assert [event["stop"] for event in events] == [False, False, False, True]
        assert events[-1]["tokens_predicted"] == 3
        assert running.requests == [{"prompt": "Hi", "seed": 7}]


def test_the_last_line_of_a_script_is_repeated() -> None:
    with engine(["one", "two"]) as running:
        texts = ["".join(event["content"] for event in ask(running.url)) for _ in range(3)]
    assert texts == ["one", "two", "two"]


def test_a_script_may_be_a_function_of_the_request() -> None:
    def echo(request: Mapping[str, Any]) -> str:
        return f"you said {request['prompt']}"

    with engine(echo) as running:
        assert "".join(event["content"] for event in ask(running.url)) == "you said Hi"


def test_chat_route_ends_with_usage_and_done() -> None:
    with engine(["Good day"]) as running:
        answer = httpx.post(f"{running.url}/v1/chat/completions", json={"messages": []})
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    assert json.loads(lines[-2])["usage"]["completion_tokens"] == 2
    assert json.loads(lines[-3])["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (Fault.FAIL, 500, "server_error"),
        (Fault.BUSY, 503, "unavailable_error"),
        (Fault.CONTEXT_OVERFLOW, 400, "exceed_context_size_error"),
    ],
)
def test_refusals_before_the_stream(fault: Fault, status: int, kind: str) -> None:
    with engine([Reply(fault=fault)]) as running:
        answer = httpx.post(f"{running.url}/completion", json={})
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)


@pytest.mark.parametrize("after", [0, 2])
def test_die_resets_the_connection(after: int) -> None:
    with engine([Reply("a b c d", fault=Fault.DIE, after=after)]) as running:
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{running.url}/completion", json={})


def test_eof_ends_cleanly_without_the_end_marker() -> None:
    with engine([Reply("a b c d", fault=Fault.EOF, after=2)]) as running:
        events = ask(running.url)
    assert [event["content"] for event in events] == ["a", " b"]


def test_error_event_stands_in_an_answer_with_status_200() -> None:
    with engine([Reply("a b", fault=Fault.ERROR_EVENT, after=1)]) as running:
        events = ask(running.url)
    assert events[-1]["error"]["type"] == "server_error"


def test_garbage_is_not_json() -> None:
    with engine([Reply("a b", fault=Fault.GARBAGE, after=1)]) as running:
        with pytest.raises(json.JSONDecodeError):
            ask(running.url)


def test_hang_lasts_until_the_caller_hangs_up() -> None:
    with engine([Reply("a b", fault=Fault.HANG, after=1)]) as running:
        with httpx.stream("POST", f"{running.url}/completion", json={}) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data:")
            assert httpx.get(f"{running.url}/slots").json()[0]["is_processing"] is True
        assert eventually(lambda: running.aborted == 1)


def test_hang_up_is_noted_at_its_time_and_the_slot_may_stay_busy() -> None:
    with engine([Reply(fault=Fault.HANG, lingers_s=0.3)]) as running:
        with httpx.stream("POST", f"{running.url}/completion", json={}):
            left = time.monotonic()
        assert eventually(lambda: running.aborted == 1)
        assert 0 <= running.hang_ups[0] - left < 0.3
        assert httpx.get(f"{running.url}/slots?fail_on_no_slot=1").status_code == 503
        assert eventually(
            lambda: httpx.get(f"{running.url}/slots?fail_on_no_slot=1").status_code == 200,
        )
        assert time.monotonic() - running.hang_ups[0] >= 0.3


def test_engine_with_a_key_serves_only_its_holder() -> None:
    with engine(api_key="secret") as running:
        assert httpx.get(f"{running.url}/health").status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}):
            answer = httpx.post(f"{running.url}/completion", json={}, headers=headers)
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
            assert httpx.get(f"{running.url}/props", headers=headers).status_code == 401
        assert running.requests == []
        right = {"authorization": "Bearer secret"}
        assert httpx.post(f"{running.url}/completion", json={}, headers=right).status_code == 200


def test_closing_the_engine_ends_a_hanging_reply() -> None:
    with engine([Reply(fault=Fault.HANG)]) as running:
        with httpx.stream("POST", f"{running.url}/completion", json={}) as answer:
            assert answer.status_code == 200
            running.close()


def test_health_and_slots_tell_the_state() -> None:
    with engine(slots=2) as running:
        assert httpx.get(f"{running.url}/health").json() == {"status": "ok"}
        running.set_healthy(False)
        assert httpx.get(f"{running.url}/health").status_code == 503
        assert len(httpx.get(f"{running.url}/slots").json()) == 2
        assert httpx.get(f"{running.url}/slots?fail_on_no_slot=1").status_code == 200
        assert httpx.get(f"{running.url}/props").json()["total_slots"] == 2
        assert httpx.get(f"{running.url}/nothing").status_code == 404


def test_a_script_without_a_reply_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one reply"), engine([]):
        pass
