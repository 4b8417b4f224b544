"""Rules of the stream that no schema can say: resuming, what a lost client does, heartbeats, slow readers.

The front door is the real one, before an engine that says what the test wants (`orchqueue.testing`).
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from orchqueue.events import SseDecoder, SseFrame
from orchqueue.testing import Reply, Setup
from orchqueue.testing import daemon as scripted

WORDS = "One two three four five."
EVENT_STREAM = {"Accept": "text/event-stream"}
WAIT_S = 10.0


def frames(content: bytes) -> list[SseFrame]:
    return list(SseDecoder().feed(content))


def text(events: list[SseFrame]) -> str:
    return "".join(json.loads(event.data)["t"] for event in events if event.event == "token")


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold while the test has patience."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def finished() -> Iterator[tuple[httpx.Client, str, list[SseFrame]]]:
    """A daemon's client, the path of a finished task's stream, and its events."""
    with scripted([WORDS]) as running, httpx.Client(base_url=running.url, trust_env=False) as http:
        task_id = http.post("/v1/tasks", json={"prompt": "x", "wait": True}).json()["task_id"]
        path = f"/v1/tasks/{task_id}/stream"
        yield http, path, frames(http.get(path).content)


@pytest.mark.req("ORCH-4018")
def test_a_stream_goes_on_after_any_of_its_ids(finished: tuple[httpx.Client, str, list[SseFrame]]) -> None:
    http, path, events = finished
    tokens = [event for event in events if event.event == "token"]
    assert text(tokens) == WORDS
    for place, token in enumerate(tokens):
        answer = http.get(path, headers={"Last-Event-ID": token.id or ""})
        rest = frames(answer.content)
        k = int((token.id or "").partition("-")[0])
        assert json.loads(rest[0].data)["resumed_from"] == k
        assert text(rest) == WORDS.encode()[k:].decode() == text(tokens[place + 1 :])
        assert rest[-1] == events[-1]


@pytest.mark.req("ORCH-4018")
def test_an_id_that_is_not_of_this_stream_is_refused(
    finished: tuple[httpx.Client, str, list[SseFrame]],
) -> None:
    http, path, events = finished
    k, _, digest = (events[1].id or "").partition("-")
    wrong = f"{k}-{'0' if digest[0] != '0' else '1'}{digest[1:]}"
    refused = http.get(path, headers={"Last-Event-ID": wrong})
    assert (refused.status_code, refused.json()["code"]) == (409, "DETERMINISM_DIVERGED")
    refused = http.get(path, headers={"Last-Event-ID": "no-id"})
    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_PARAMS")
    assert http.get(path, headers={"Last-Event-ID": events[-1].id or ""}).status_code == 204


def lost(http: httpx.Client, **body: object) -> str:
    """Opens a one-trip stream, reads its first bytes, leaves it; the id of its task."""
    request = {"prompt": "x", **body}
    with http.stream("POST", "/v1/tasks", json=request, headers=EVENT_STREAM) as answer:
        first = next(SseDecoder().feed(next(answer.iter_raw())))
    return str(json.loads(first.data)["task_id"])


@pytest.mark.req("ORCH-4006")
@pytest.mark.parametrize(
    ("wish", "state"), [(None, "canceled"), ("cancel", "canceled"), ("keep", "finished")]
)
def test_a_lost_client_does_to_its_task_what_it_said(wish: str | None, state: str) -> None:
    setup = Setup(settings={"server": {"grace_ms": 100}})
    body = {} if wish is None else {"on_disconnect": wish}
    with (
        scripted([Reply(WORDS, delay_s=0.2)], setup) as running,
        httpx.Client(base_url=running.url, trust_env=False) as http,
    ):
        task_id = lost(http, **body)
        ended = ("finished", "canceled", "failed")
        assert eventually(lambda: http.get(f"/v1/tasks/{task_id}").json()["state"] in ended)
        assert http.get(f"/v1/tasks/{task_id}").json()["state"] == state


@pytest.mark.req("ORCH-4006")
def test_a_client_that_comes_back_in_time_has_lost_nothing() -> None:
    setup = Setup(settings={"server": {"grace_ms": 2000}})
    with (
        scripted([Reply(WORDS, delay_s=0.1)], setup) as running,
        httpx.Client(base_url=running.url, trust_env=False) as http,
    ):
        task_id = lost(http)
        events = frames(http.get(f"/v1/tasks/{task_id}/stream").content)
        assert text(events) == WORDS
        assert events[-1].event == "end"


@pytest.mark.req("ORCH-4007")
def test_a_silent_stream_shows_that_it_lives() -> None:
    setup = Setup(settings={"server": {"heartbeat_ms": 100}})
    body = {"model": "scripted", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with (
        scripted([Reply("One two.", delay_s=0.5)], setup) as running,
        httpx.Client(base_url=running.url, trust_env=False) as http,
    ):
        chat = http.post("/v1/chat/completions", json=body).content
        assert chat.count(b"\n:\n\n") + chat.startswith(b":\n\n") >= 3
        task = frames(http.post("/v1/tasks", json={"prompt": "x"}, headers=EVENT_STREAM).content)
        assert [event.event for event in task if event.event != "metrics"] == [
            "started",
            "token",
            "token",
            "end",
        ]


@pytest.mark.req("ORCH-4007")
def test_a_reader_that_takes_nothing_is_cut_off_and_its_task_is_not() -> None:
    setup = Setup(settings={"server": {"write_stall_ms": 300, "grace_ms": 60_000}})
    long = [f"{'x' * 4000} " for _ in range(4000)]
    with (
        scripted([Reply(long)], setup) as running,
        httpx.Client(base_url=running.url, trust_env=False) as http,
    ):
        accepted = http.post("/v1/tasks", json={"prompt": "x", "max_tokens": 500})
        task_id = accepted.json()["task_id"]
        address = urlsplit(running.url)
        with socket.create_connection((address.hostname or "", address.port or 0)) as slow:
            slow.sendall(
                f"GET /v1/tasks/{task_id}/stream HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
            )
            assert eventually(lambda: http.get(f"/v1/tasks/{task_id}").json()["state"] == "finished")
            # Reading is what the test must not do while the daemon's patience (`write_stall_ms`) runs out.
            time.sleep(1.0)
            taken = drained(slow)
        assert taken < sum(map(len, long)), "the reader got everything, so nothing was cut off"
        whole = frames(http.get(f"/v1/tasks/{task_id}/stream").content)
        assert text(whole) == "".join(long)


def drained(connection: socket.socket) -> int:
    """How many bytes come until the other side closes."""
    connection.settimeout(WAIT_S)
    taken = 0
    try:
        while piece := connection.recv(1 << 16):
            taken += len(piece)
    except ConnectionResetError:
        pass
    return taken


@pytest.mark.req("ORCH-3015")
@pytest.mark.parametrize("body", [{"max_tokens": 513}, {"max_tokens": 1, "ctx": 513}])
def test_what_cannot_fit_never_reaches_the_engine(body: dict[str, int]) -> None:
    with scripted([WORDS]) as running, httpx.Client(base_url=running.url, trust_env=False) as http:
        refused = http.post("/v1/tasks", json={"prompt": "x", **body})
        assert (refused.status_code, refused.json()["reason"]) == (400, "context_overflow")
        assert running.engine.requests == []
