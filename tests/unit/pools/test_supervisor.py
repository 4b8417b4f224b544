"""What the scheduler is told of pools and replicas, in which order, and what is seen from outside."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from orchqueue.adapters.llamacpp import LLAMACPP
from orchqueue.engines import embedded
from orchqueue.pools.core import UNBOUNDED_CTX
from orchqueue.pools.pool import derive
from orchqueue.pools.status import PoolState, PoolStatus, ReplicaState
from orchqueue.pools.supervisor import PoolsUnusable, Supervisor

from .conftest import RecordingCore, Start, TableEngine

DECLARED = {"flash_attn": False, "n_batch": 2048, "n_ubatch": 512, "model_digest": "sha256:abc"}


def pool(*urls: str, replica: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    replicas = [{"url": url, "declared": DECLARED, **(replica or {})} for url in urls]
    return {"id": "p", "engine": "llamacpp", "replicas": replicas, **keys}


async def until(supervisor: Supervisor, wanted: Any) -> PoolStatus:
    """The first pool, once `wanted` holds for it."""
    async with asyncio.timeout(10):
        while not wanted(status := supervisor.status()[0]):
            await asyncio.sleep(0.005)
    return status


async def test_replica_is_announced_after_it_was_probed(
    core: RecordingCore, engine: TableEngine, start: Start
) -> None:
    supervisor = await start(pool(engine.url))
    await core.until("pool_state", state="ready")
    assert core.names() == ["pool_set", "pool_set", "replica_set", "replica_ready", "pool_state"]
    first, second = core.ops("pool_set")
    assert (first["state"], first["models"], first["ctx"]) == ("starting", [], UNBOUNDED_CTX)
    assert (second["models"], second["ctx"]) == (["mine", "sha256:abc"], 1024)
    assert second["adapter"] == LLAMACPP.document()
    (replica,) = core.ops("replica_set")
    assert (replica["replica"], replica["url"], replica["slots"]) == ("p-0", engine.url, 1)
    assert (replica["reproducible"], replica["engine_version"]) == (True, "b1-abc")
    identity = replica["identity"]
    assert set(identity) == {
        "engine", "build", "model_digest", "quant", "ctx", "sampler_profile_version", "device_class", "flags",
    }  # fmt: skip
    assert identity["flags"] == {"n_parallel": 1, "flash_attn": False, "n_batch": 2048, "n_ubatch": 512}
    assert identity["device_class"].startswith("cpu:")
    status = supervisor.status()[0]
    assert (status.state, status.live, status.ready, status.last_error) == (PoolState.READY, True, True, None)
    assert (status.replicas[0].managed, status.replicas[0].pid, status.replicas[0].restarts) == (
        False,
        None,
        0,
    )


async def test_engine_that_loads_is_waited_for(
    core: RecordingCore, engine: TableEngine, start: Start
) -> None:
    engine.answers["/health"] = (503, {"error": {"message": "Loading model"}})
    supervisor = await start(pool(engine.url))
    async with asyncio.timeout(10):
        # Longer than the patience for an address that does not answer.
        while len(engine.asked) < 25:
            await asyncio.sleep(0.005)
    assert supervisor.status()[0].state is PoolState.STARTING
    assert set(engine.asked) == {"/health"}
    engine.answers["/health"] = (200, {})
    await core.until("replica_ready")


async def test_address_that_does_not_answer_fails_the_pool_and_is_tried_again(
    core: RecordingCore, engine: TableEngine, start: Start
) -> None:
    port = int(engine.url.rpartition(":")[2])
    await engine.close()
    supervisor = await start(pool(engine.url))
    await core.until("pool_state", state="failed")
    status = supervisor.status()[0]
    assert (status.live, status.replicas[0].state) == (False, ReplicaState.FAILED)
    assert "`/health`" in (status.last_error or "")
    await engine.open(port)
    await core.until("pool_state", state="ready")
    assert supervisor.status()[0].last_error is None


async def test_health_has_hysteresis(core: RecordingCore, engine: TableEngine, start: Start) -> None:
    supervisor = await start(pool(engine.url))
    await core.until("replica_ready")
    engine.answers["/health"] = (500, None)
    await core.until("replica_unready")
    status = supervisor.status()[0]
    assert status.replicas[0].state is ReplicaState.UNREADY
    assert status.last_error == "`/health`: status 500"
    engine.answers["/health"] = (200, None)
    await core.until("replica_ready", count=2)
    await core.until("pool_state", count=2, state="ready")
    assert core.ops("replica_remove") == []


async def test_single_failed_look_changes_nothing(
    core: RecordingCore, engine: TableEngine, start: Start
) -> None:
    await start(pool(engine.url))
    await core.until("replica_ready")
    engine.answers["/health"] = (500, None)
    seen = engine.asked.count("/health")
    async with asyncio.timeout(10):
        while engine.asked.count("/health") <= seen:
            await asyncio.sleep(0.001)
    engine.answers["/health"] = (200, None)
    seen = engine.asked.count("/health")
    async with asyncio.timeout(10):
        while engine.asked.count("/health") < seen + 5:
            await asyncio.sleep(0.001)
    assert core.ops("replica_unready") == []


async def test_engine_that_comes_back_as_another_one_is_announced_anew(
    core: RecordingCore, engine: TableEngine, start: Start
) -> None:
    await start(pool(engine.url))
    await core.until("replica_ready")
    engine.answers["/health"] = (500, None)
    await core.until("replica_unready")
    engine.props(build_info="b2-def")
    engine.answers["/health"] = (200, None)
    await core.until("replica_remove")
    assert (await core.until("replica_set", count=2))["engine_version"] == "b2-def"


async def test_probe_event_is_answered_once_the_slot_is_idle(
    core: RecordingCore, engine: TableEngine, start: Start
) -> None:
    supervisor = await start(pool(engine.url))
    await core.until("replica_ready")
    engine.answers["/slots?fail_on_no_slot=1"] = (503, None)
    await supervisor.on_event({"event": "probe", "replica": "p-0"})
    await core.until("replica_unready")
    engine.answers["/slots?fail_on_no_slot=1"] = (200, None)
    await core.until("replica_ready", count=2)


async def test_probe_event_for_a_well_replica_is_answered_at_once(
    core: RecordingCore, engine: TableEngine, start: Start
) -> None:
    supervisor = await start(pool(engine.url))
    await core.until("replica_ready")
    await supervisor.on_event({"event": "probe", "replica": "p-0", "reason": "attempt failed"})
    await core.until("replica_ready", count=2)
    assert core.ops("replica_unready") == []


async def test_other_events_are_not_for_pools(core: RecordingCore, engine: TableEngine, start: Start) -> None:
    supervisor = await start(pool(engine.url))
    await core.until("pool_state", state="ready")
    told = len(core.commands)
    await supervisor.on_event({"event": "stopped"})
    await supervisor.on_event({"event": "probe", "replica": "nobody"})
    assert len(core.commands) == told


@pytest.mark.parametrize(
    ("keys", "props", "told"),
    [
        ({"model": "sha256:other"}, {}, "serves the model sha256:abc, the pool wants sha256:other"),
        ({"ctx": 4096}, {}, "its context is 1024, the pool has `ctx`: 4096"),
        ({}, {"build_info": None, "total_slots": "x"}, "how many slots"),
    ],
)
async def test_replica_that_does_not_belong_is_refused(
    core: RecordingCore, engine: TableEngine, start: Start, keys: Any, props: Any, told: str
) -> None:
    engine.props(**props)
    supervisor = await start(pool(engine.url, **keys))
    await core.until("pool_state", state="failed")
    assert told in (supervisor.status()[0].last_error or "")
    assert core.ops("replica_set") == []


async def test_refusal_of_the_core_is_the_replica_s_last_error(
    core: RecordingCore, engine: TableEngine, start: Start
) -> None:
    core.refuse["replica_set"] = "`identity`: another replica set"
    supervisor = await start(pool(engine.url))
    await core.until("pool_state", state="failed")
    assert supervisor.status()[0].last_error == "`identity`: another replica set"


@pytest.mark.parametrize(("required", "taken"), [("1", 1), ("0", 2)])
async def test_same_engine_is_required_on_request(
    core: RecordingCore, engine: TableEngine, start: Start, required: str, taken: int
) -> None:
    other = TableEngine()
    other.props(build_info="b2-def")
    await other.open()
    try:
        env = {"ORCH_REQUIRE_SAME_ENGINE": required}
        supervisor = await start(pool(engine.url, other.url), env=env)
        done = (ReplicaState.READY, ReplicaState.FAILED)
        status = await until(supervisor, lambda seen: all(one.state in done for one in seen.replicas))
        assert sum(one.state is ReplicaState.READY for one in status.replicas) == taken
        errors = [one.last_error or "" for one in status.replicas]
        assert any("takes no other" in error for error in errors) is (required == "1")
    finally:
        await other.close()


@pytest.mark.parametrize(
    ("declared", "props", "reason"),
    [
        ({**DECLARED, "flash_attn": True}, {}, "`n_threads`"),
        (DECLARED, {"total_slots": 4}, "it runs 4 sequences; one is needed"),
        (DECLARED, {"build_info": "b0-unknown"}, "`engine_version` is not known; declare it"),
        (DECLARED, {"chat_template": "{{ strftime_now('%d') }}"}, "its chat template prints the date"),
        ({}, {}, "`model_digest` is not known; declare it"),
    ],
)
async def test_why_a_replica_is_not_reproducible(
    core: RecordingCore, engine: TableEngine, start: Start, declared: Any, props: Any, reason: str
) -> None:
    engine.props(**props)
    supervisor = await start(pool(engine.url, replica={"declared": declared}))
    assert (await core.until("replica_set"))["reproducible"] is False
    assert reason in (supervisor.status()[0].replicas[0].reason or "")


async def test_declared_version_stands_in_for_an_unknown_build(
    core: RecordingCore, engine: TableEngine, start: Start
) -> None:
    engine.props(build_info="b0-unknown")
    await start(pool(engine.url, replica={"declared": {**DECLARED, "engine_version": "wheel-7"}}))
    replica = await core.until("replica_set")
    assert (replica["engine_version"], replica["identity"]["build"], replica["reproducible"]) == (
        "wheel-7", "wheel-7", True,
    )  # fmt: skip


async def test_slots_are_what_both_sides_allow(
    core: RecordingCore, engine: TableEngine, start: Start
) -> None:
    engine.props(total_slots=4)
    await start(pool(engine.url, replica={"slots": 2}))
    replica = await core.until("replica_set")
    assert replica["slots"] == 2
    # The engine has four sequences, whatever is used of them.
    assert replica["identity"]["flags"]["n_parallel"] == 4


async def test_key_of_an_engine_is_sent_and_handed_over(
    core: RecordingCore, engine: TableEngine, start: Start
) -> None:
    await start(pool(engine.url, replica={"api_key": "${K}"}), env={"K": "hush"})
    assert (await core.until("replica_set"))["api_key"] == "hush"
    assert engine.authorization == {"Bearer hush"}


async def test_nothing_is_told_while_stopping(core: RecordingCore, engine: TableEngine, start: Start) -> None:
    supervisor = await start(pool(engine.url))
    await core.until("pool_state", state="ready")
    told = len(core.commands)
    await supervisor.stop(1_000)
    assert len(core.commands) == told
    assert supervisor.status()[0].replicas[0].state is ReplicaState.STOPPED


async def test_missing_model_fails_the_managed_pool_with_a_hint(core: RecordingCore, start: Start) -> None:
    supervisor = await start({"id": "p", "engine": "llamacpp", "model": "/nowhere/m.gguf"})
    await core.until("pool_state", state="failed")
    error = supervisor.status()[0].last_error or ""
    assert "`/nowhere/m.gguf`: No such file or directory; hint: a catalog name (`orchqueue-tiny`)" in error


async def test_context_beyond_the_model_s_is_refused(core: RecordingCore, start: Start) -> None:
    supervisor = await start({"id": "p", "engine": "llamacpp", "ctx": 4096})
    await core.until("pool_state", state="failed")
    assert "`ctx`: 4096 is more than the model was trained for: 512" in (
        supervisor.status()[0].last_error or ""
    )


async def test_missing_engine_is_a_failure_where_a_real_one_is_required(
    core: RecordingCore, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "engine_version", lambda: None)
    with pytest.raises(PoolsUnusable, match="REQUIRE_REAL_LLAMA"):
        await start({"id": "p", "engine": "llamacpp"}, env={"REQUIRE_REAL_LLAMA": "1"})
    supervisor = await start({"id": "p", "engine": "llamacpp"})
    await core.until("pool_state", state="failed")
    assert "`xllamacpp` is not installed" in (supervisor.status()[0].last_error or "")


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["ready", "failed"], "ready"),
        (["failed", "failed"], "failed"),
        (["failed", "backing_off"], "starting"),
        (["unready"], "starting"),
        ([], "starting"),
    ],
)
def test_state_of_a_pool_follows_its_replicas(states: list[str], expected: str) -> None:
    assert derive([ReplicaState(state) for state in states]) == PoolState(expected)
