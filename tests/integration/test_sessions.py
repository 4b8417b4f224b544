"""A session is affinity and counters: its turns are counted, and go to the same replica when it is free."""

import httpx
from orchqueue.testing import Fault, Reply, Setup, daemon
from wire import canceled, post, shown, streamed, submitted, the_end, until, waits_for_state

SESSION = "0f8fad5b-d9cb-469f-a165-70867728950e"
TURNS = 8


def session(url: str, *, method: str = "GET", name: str = SESSION) -> httpx.Response:
    return httpx.request(method, f"{url}/v1/sessions/{name}", timeout=10, trust_env=False)


# req: ORCH-2004, ORCH-3021
def test_turns_are_counted_and_the_ninth_is_refused() -> None:
    with daemon(["one two"]) as running:
        assert session(running.url).status_code == 404
        for turn in range(1, TURNS + 1):
            assert the_end(streamed(running.url, session_id=SESSION)).name == "end"
            view = session(running.url).json()
            assert (view["session_id"], view["turns"]) == (SESSION, turn)
            assert 0 < view["ttl_ms_remaining"] <= 600_000
        refused = post(running.url, {"prompt": "one too many", "session_id": SESSION})
        assert refused.status_code == 400
        assert refused.json()["code"] == "INVALID_PARAMS"
        assert refused.json()["reason"] == "session_turns_exhausted"
        assert not refused.json()["retriable"]
        assert session(running.url).json()["turns"] == TURNS
        # Whoever has no session is not held up by it.
        assert the_end(streamed(running.url)).name == "end"


# req: ORCH-2005
def test_deleted_session_is_gone_and_its_id_begins_anew() -> None:
    with daemon(["one two"]) as running:
        for _ in range(TURNS):
            streamed(running.url, session_id=SESSION)
        assert session(running.url, method="DELETE").status_code == 204
        gone = session(running.url)
        assert (gone.status_code, gone.json()["code"]) == (404, "NOT_FOUND")
        assert session(running.url, method="DELETE").status_code == 404
        assert the_end(streamed(running.url, session_id=SESSION)).name == "end"
        assert session(running.url).json()["turns"] == 1


def test_session_that_is_not_used_is_forgotten() -> None:
    with daemon(["one two"], Setup(settings={"session": {"ttl_ms": 1_000}})) as running:
        streamed(running.url, session_id=SESSION)
        assert session(running.url).status_code == 200
        until(lambda: session(running.url).status_code == 404, within_s=5)


def test_task_that_was_refused_took_no_turn() -> None:
    with daemon(["one two"]) as running:
        streamed(running.url, session_id=SESSION)
        body = {"prompt": "Hi", "session_id": SESSION, "max_tokens": 100_000}
        assert post(running.url, body).status_code == 400
        assert session(running.url).json()["turns"] == 1


# req: ORCH-3009
def test_turns_of_a_session_go_to_the_same_replica_when_it_is_free() -> None:
    """The other replica is free as well, and would be taken first: its number is lower."""
    held = {"hold": Reply(fault=Fault.HANG)}
    with daemon(lambda request: held.get(request["prompt"], "one two"), Setup(replicas=2)) as running:

        def placed(**fields: str) -> str:
            stream = streamed(running.url, **fields)
            assert the_end(stream).name == "end"
            replica: str = shown(running.url, stream[0].data["task_id"])["attempts"][0]["replica_id"]
            return replica

        first = submitted(running.url, "hold")
        until(lambda: running.engines[0].requests)
        assert placed(session_id=SESSION) == "test-1"
        canceled(running.url, first)
        waits_for_state(running.url, first, "canceled")
        until(lambda: placed() == "test-0")
        assert [placed(session_id=SESSION) for _ in range(3)] == ["test-1"] * 3

        # Affinity is a wish: when its replica is taken the session goes elsewhere, at once.
        second = [submitted(running.url, "hold", session_id=SESSION)]
        until(lambda: len([r for r in running.engines[1].requests if r["prompt"] == "hold"]) == 1)
        assert placed(session_id=SESSION) == "test-0"
        canceled(running.url, second[0])
