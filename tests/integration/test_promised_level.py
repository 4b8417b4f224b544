"""`strict` is kept or refused, never quietly lowered; the seed is the same wherever a task runs."""

import hashlib
from typing import Any

import pytest
from orchqueue.testing import Reply, ScriptedDaemon, Setup, daemon
from wire import STREAM, events, post, streamed, the_end

TASK = "7b0c5a3e-6f0d-4c3b-9d63-0f6f1b1f7a11"


def not_reproducible(running: ScriptedDaemon) -> None:
    """Announces the replica again, launched in a way that is not exact."""
    running.apply(
        "replica_set",
        pool="test",
        replica="test-0",
        url=running.engine.url,
        slots=running.engine.slots,
        reproducible=False,
        engine_version="scripted",
        model_digest="0" * 64,
        identity={"engine": "llamacpp", "flags": {"flash_attn": True}},
    )
    running.apply("replica_ready", replica="test-0")


# req: ORCH-4011
@pytest.mark.parametrize("headers", [{}, STREAM], ids=["submit", "one trip"])
def test_explicit_strict_without_a_reproducible_replica_is_refused(headers: dict[str, str]) -> None:
    with daemon() as running:
        not_reproducible(running)
        answer = post(running.url, {"prompt": "Hi", "determinism": "strict"}, **headers)
        told = answer.json()
        assert (answer.status_code, told["code"]) == (503, "POOL_UNAVAILABLE")
        assert (told["reason"], told["retriable"]) == ("no_reproducible_replica", False)
        assert "retry_after_ms" not in told
        assert told["hint"]
        assert running.engine.requests == []


def test_level_that_was_kept_is_stated() -> None:
    def levels(running: ScriptedDaemon, **fields: Any) -> tuple[str, str]:
        stream = streamed(running.url, **fields)
        return stream[0].data["determinism"], the_end(stream).data["receipt"]["determinism"]

    with daemon(setup=Setup(pool={"determinism": "strict"})) as running:
        assert levels(running) == ("strict", "strict")
        assert levels(running, determinism="best_effort") == ("best_effort", "best_effort")
        not_reproducible(running)
        # The pool's level is a default, not a demand of this task.
        assert levels(running) == ("best_effort", "best_effort")


# req: ORCH-4012
def test_seed_that_is_left_out_follows_from_the_task_id() -> None:
    expected = int.from_bytes(hashlib.sha256(TASK.encode()).digest()[:4], "big") & 0x7FFF_FFFF
    with daemon() as running:
        stream = streamed(running.url, task_id=TASK.upper())
        assert running.engine.requests[0]["seed"] == expected
        assert the_end(stream).data["receipt"]["seed"] == expected


@pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "7"])
def test_seed_out_of_range_is_refused(seed: object) -> None:
    with daemon() as running:
        answer = post(running.url, {"prompt": "Hi", "seed": seed})
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_PARAMS")
        assert "`seed`" in answer.json()["message"]
        assert running.engine.requests == []


# req: ORCH-4014
def test_digest_depends_on_the_request_and_the_bytes_alone() -> None:
    def digests(cut: list[str], **fields: Any) -> tuple[str, str, str]:
        with daemon([Reply(cut)]) as running:
            stream = events(post(running.url, {"prompt": "Hi", "seed": 5, **fields}, **STREAM).content)
            receipt = the_end(stream).data["receipt"]
            return receipt["request_digest"], receipt["output_digest"], str(stream[-1].id)

    plain = digests(["a", "b", "c"])
    assert digests(["ab", "c"]) == plain
    assert digests(["abc"], priority="batch", deadline_ms=60_000) == plain
    assert digests(["a", "b", "d"])[0] == plain[0]
    assert digests(["a", "b", "d"])[1] != plain[1]
    assert digests(["a", "b", "c"], seed=6)[0] != plain[0]
