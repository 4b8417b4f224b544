"""The control app from outside: real Starlette, real store, a recorded daemon.

ORCH-2006, ORCH-4010, ORCH-4032, ORCH-4033, ORCH-4034, ORCH-4035, ORCH-4036.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from orchqueue import wire_models
from orchqueue.config import load
from orchqueue.control.app import build
from orchqueue.pools.status import PoolState, PoolStatus, ReplicaState, ReplicaStatus
from orchqueue.store import JournalRecord, Store
from pydantic import BaseModel

SET_A, SET_B = "a" * 64, "b" * 64
IDENTITY = {
    "engine": "llamacpp",
    "build": "b6700",
    "model_digest": SET_A,
    "quant": "F16",
    "ctx": 512,
    "sampler_profile_version": "v1",
    "device_class": "cpu-avx2",
    "flags": {"flash_attn": False},
}
VIEWER = {"x-orchqueue-tenant": "acme", "x-orchqueue-roles": "viewer", "x-correlation-id": "c-1"}
ADMIN = {"x-orchqueue-tenant": "root", "x-orchqueue-roles": "admin"}
READABLE = [
    "/metrics",
    "/v1/pools",
    "/v1/pools/tiny/health",
    "/v1/replicas",
    "/v1/replicasets",
    "/v1/capabilities",
    "/v1/tasks",
]


class RecordedDaemon:
    """Answers with documents in the form of the Rust daemon."""

    def __init__(self) -> None:
        self.replicas: list[dict[str, Any]] = []
        self.counters: list[Any] = []
        self.gauges: list[Any] = []
        self.histograms: list[Any] = []
        self.fault: Exception | None = None

    def snapshot(self) -> str:
        if self.fault:
            raise self.fault
        pools = [{"pool_id": "tiny", "queued": {"interactive": 2, "batch": 3}}]
        return json.dumps({"pools": pools, "replicas": self.replicas})

    def metrics(self) -> str:
        return json.dumps({"counters": self.counters, "gauges": self.gauges, "histograms": self.histograms})


class RecordedPools:
    def __init__(self) -> None:
        self.pools = [pool()]

    def status(self) -> list[PoolStatus]:
        return self.pools


def replica(name: str, **changes: Any) -> ReplicaStatus:
    ready = ReplicaStatus(
        id=name,
        pool="tiny",
        url="http://127.0.0.1:1",
        managed=True,
        pid=7,
        state=ReplicaState.READY,
        restarts=0,
        last_error=None,
        engine_version="b6700",
        model_digest=SET_A,
        identity=IDENTITY,
        slots=1,
        ctx=512,
        reproducible=True,
        reason=None,
    )
    return replace(ready, **changes)


def pool(*replicas: ReplicaStatus, **changes: Any) -> PoolStatus:
    ready = PoolStatus(
        id="tiny",
        engine="llamacpp",
        state=PoolState.READY,
        live=True,
        ready=True,
        draining=False,
        last_error=None,
        models=("orchqueue-tiny",),
        ctx=512,
        workloads=("completion", "chat"),
        determinism="strict",
        replicas=replicas,
    )
    return replace(ready, **changes)


def counts(name: str, **changes: Any) -> dict[str, Any]:
    idle = {"slots": 1, "in_flight": 0, "reclaiming": 0, "identity": SET_A}
    return {"replica_id": name, **idle, **changes}


@pytest.fixture
def daemon() -> RecordedDaemon:
    return RecordedDaemon()


@pytest.fixture
def pools() -> RecordedPools:
    return RecordedPools()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/tasks.db") as opened:
        yield opened


@pytest.fixture
async def http(
    daemon: RecordedDaemon, pools: RecordedPools, store: Store
) -> AsyncIterator[httpx.AsyncClient]:
    app = build(daemon, store, pools, load(None, {}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://daemon") as client:
        yield client


def fold_tasks(store: Store, tenant: str, *tasks: str) -> None:
    first = store.folded_seq() + 1
    store.fold(
        [JournalRecord(first + n, tenant, task, "admitted", 1000, "{}") for n, task in enumerate(tasks)]
    )


# -- who may ask -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", READABLE)
async def test_a_viewer_may_read(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path, headers=VIEWER)).status_code == 200


@pytest.mark.parametrize("path", READABLE)
async def test_without_the_front_doors_word_nobody_may_read(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")
    answer = await http.get(path, headers={"x-orchqueue-tenant": "acme", "x-orchqueue-roles": "guest"})
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")


# -- the contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/pools", wire_models.PoolList),
        ("/v1/pools/tiny/health", wire_models.PoolHealth),
        ("/v1/replicas", wire_models.ReplicaList),
        ("/v1/replicasets", wire_models.ReplicaSetList),
        ("/v1/capabilities", wire_models.Capabilities),
        ("/v1/tasks", wire_models.TaskList),
        ("/v1/nothing", wire_models.Error),
        ("/v1/tasks?limit=x", wire_models.Error),
    ],
)
async def test_answers_have_the_shape_of_the_contract(
    http: httpx.AsyncClient,
    daemon: RecordedDaemon,
    pools: RecordedPools,
    store: Store,
    path: str,
    model: type[BaseModel],
) -> None:
    unknown = replica("tiny-1", state=ReplicaState.STARTING, model_digest=None, identity=None, slots=None)
    pools.pools = [pool(replica("tiny-0"), unknown)]
    daemon.replicas = [counts("tiny-0", in_flight=1)]
    fold_tasks(store, "acme", "0193a1f0-0000-7000-8000-000000000001")
    answer = await http.get(path, headers=VIEWER)
    # The generated models allow more than they name, so that clients survive additions; a server may not add.
    parsed = model.model_validate(answer.json()).model_dump(mode="json", exclude_unset=True)
    assert parsed == answer.json()


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/pools/", "/v1/tasks/", "/metrics/x"])
async def test_an_unknown_path_is_a_typed_404(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path, headers=VIEWER)
    assert answer.status_code == 404
    body = answer.json()
    assert (body["code"], body["retriable"], body["correlation_id"]) == ("NOT_FOUND", False, "c-1")
    assert answer.headers["x-correlation-id"] == "c-1"


async def test_a_wrong_method_is_a_typed_405_that_says_which_are_right(http: httpx.AsyncClient) -> None:
    answer = await http.delete("/v1/pools", headers=VIEWER)
    assert (answer.status_code, answer.json()["code"]) == (405, "INVALID_PARAMS")
    assert answer.json()["reason"] == "method_not_allowed"
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_a_fault_is_internal_with_an_id_and_without_its_cause(
    http: httpx.AsyncClient, daemon: RecordedDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.fault = RuntimeError("the pepper is hunter2")
    answer = await http.get("/v1/pools", headers=VIEWER)
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
    assert answer.json()["correlation_id"] == "c-1"
    assert "hunter2" not in answer.text and "Traceback" not in answer.text
    (logged,) = [record for record in caplog.records if record.name.startswith("orchqueue.control")]
    assert logged.__dict__["correlation_id"] == "c-1"
    assert logged.exc_info is not None and "hunter2" in str(logged.exc_info[1])


async def test_an_answer_without_a_correlation_id_gets_one(http: httpx.AsyncClient) -> None:
    first, second = [
        (await http.get("/v1/pools", headers=ADMIN)).headers["x-correlation-id"] for _ in range(2)
    ]
    assert first and second and first != second


# -- pools and replicas ----------------------------------------------------------------------------


async def test_the_health_of_a_pool_joins_state_and_counts(
    http: httpx.AsyncClient, daemon: RecordedDaemon, pools: RecordedPools
) -> None:
    pools.pools = [
        pool(replica("tiny-0"), replica("tiny-1", state=ReplicaState.UNREADY), last_error="it broke")
    ]
    daemon.replicas = [counts("tiny-0", slots=4, in_flight=1, reclaiming=1), counts("tiny-1", slots=4)]
    answer = await http.get("/v1/pools/tiny/health", headers=VIEWER)
    assert answer.json() == {
        "pool_id": "tiny",
        "state": "ready",
        "live": True,
        "ready": True,
        "draining": False,
        "last_error": "it broke",
        "metrics": {"queue_depth": 5, "slots_total": 4, "slots_free": 2},
    }
    assert (await http.get("/v1/pools", headers=VIEWER)).json() == {"pools": [answer.json()]}


async def test_an_unknown_pool_is_not_found(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/pools/huge/health", headers=VIEWER)
    assert (answer.status_code, answer.json()["message"]) == (404, "no pool has the id: `huge`")


async def test_replicas_are_listed_also_before_the_daemon_knows_them(
    http: httpx.AsyncClient, daemon: RecordedDaemon, pools: RecordedPools
) -> None:
    starting = replica("tiny-1", state=ReplicaState.STARTING, engine_version=None, model_digest=None)
    broken = replica("tiny-2", state=ReplicaState.BACKING_OFF, last_error="exit status 1")
    busy = replica("tiny-3", managed=False)
    pools.pools = [pool(replica("tiny-0"), starting, broken, busy)]
    daemon.replicas = [counts("tiny-0", in_flight=1), counts("tiny-3", reclaiming=1)]
    found = (await http.get("/v1/replicas", headers=VIEWER)).json()["replicas"]
    assert [(one["id"], one["state"]) for one in found] == [
        ("tiny-0", "ready"),
        ("tiny-1", "starting"),
        ("tiny-2", "unready"),
        ("tiny-3", "reclaiming"),
    ]
    assert "replicaset_id" not in found[1] and "engine_version" not in found[1]
    assert found[2]["last_error"] == "exit status 1"
    assert (found[0]["replicaset_id"], found[0]["in_flight"], found[3]["managed"]) == (SET_A, 1, False)


async def test_replicas_of_one_identity_are_one_set_and_only_ready_ones_count(
    http: httpx.AsyncClient, daemon: RecordedDaemon, pools: RecordedPools
) -> None:
    other = replica("tiny-3", engine_version="b7000", reproducible=False)
    down = replica("tiny-2", state=ReplicaState.FAILED)
    unknown = replica("tiny-4", state=ReplicaState.STARTING)
    pools.pools = [pool(replica("tiny-0"), replica("tiny-1"), down, other, unknown)]
    daemon.replicas = [
        counts("tiny-0", in_flight=1),
        counts("tiny-1"),
        counts("tiny-2"),
        counts("tiny-3", slots=2, identity=SET_B),
    ]
    first, second = (await http.get("/v1/replicasets", headers=VIEWER)).json()["replicasets"]
    assert (first["id"], first["slots_total"], first["slots_free"], first["load"]) == (SET_A, 2, 1, 0.5)
    assert (second["id"], second["reproducible"], second["slots_free"], second["load"]) == (
        SET_B,
        False,
        2,
        0.0,
    )
    assert (second["engine_version"], first["identity"]) == ("b7000", IDENTITY)


async def test_a_set_without_a_ready_replica_has_no_load(
    http: httpx.AsyncClient, daemon: RecordedDaemon, pools: RecordedPools
) -> None:
    pools.pools = [pool(replica("tiny-0", state=ReplicaState.UNREADY))]
    daemon.replicas = [counts("tiny-0", in_flight=1)]
    (only,) = (await http.get("/v1/replicasets", headers=VIEWER)).json()["replicasets"]
    assert (only["load"], only["slots_total"], only["slots_free"]) == (0.0, 0, 0)


async def test_capabilities_follow_pools_and_configuration(
    http: httpx.AsyncClient, pools: RecordedPools
) -> None:
    pools.pools = [pool(), pool(id="big", ctx=4096, workloads=("embedding",)), pool(id="new", ctx=None)]
    body = (await http.get("/v1/capabilities", headers=VIEWER)).json()
    assert (body["api_version"], body["ctx_max"]) == ("v1", 4096)
    assert body["workloads"] == ["chat", "completion", "embedding"]
    assert body["engines"] == ["llamacpp"]
    assert body["limits"]["session_max_turns"] == load(None, {}).session_max_turns
    assert [one["name"] for one in body["limits"]["classes"]] == ["interactive", "batch"]


# -- history ---------------------------------------------------------------------------------------


async def test_the_history_is_the_tenants_own(http: httpx.AsyncClient, store: Store) -> None:
    fold_tasks(store, "acme", "t1", "t2")
    fold_tasks(store, "other", "t3")
    body = (await http.get("/v1/tasks", headers=VIEWER)).json()
    assert body == {
        "tasks": [
            {"task_id": task, "state": "queued", "priority": "interactive", "created_ms": 1000}
            for task in ("t2", "t1")
        ]
    }
    refused = await http.get("/v1/tasks?tenant=other", headers=VIEWER)
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    allowed = await http.get("/v1/tasks?tenant=other", headers=ADMIN)
    assert [task["task_id"] for task in allowed.json()["tasks"]] == ["t3"]


async def test_pages_are_followed_by_their_next(http: httpx.AsyncClient, store: Store) -> None:
    fold_tasks(store, "acme", *[f"t{n}" for n in range(5)])
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        body = (await http.get("/v1/tasks", params=query, headers=VIEWER)).json()
        seen += [task["task_id"] for task in body["tasks"]]
        if "next" not in body:
            break
        query["after"] = body["next"]
    assert seen == ["t4", "t3", "t2", "t1", "t0"]


async def test_a_failed_task_shows_its_error_and_no_output(http: httpx.AsyncClient, store: Store) -> None:
    error = {"code": "WORKER_RESET", "message": "the replica died", "retriable": True}
    ended = json.dumps({"state": "failed", "error": error, "pool_id": "tiny", "segments": [[0, "half a po"]]})
    fold_tasks(store, "acme", "t1")
    store.fold([JournalRecord(2, "acme", "t1", "ended", 2000, ended)])
    answer = await http.get("/v1/tasks?state=failed", headers=VIEWER)
    (task,) = answer.json()["tasks"]
    assert (task["error"], task["pool_id"], task["ended_ms"]) == (error, "tiny", 2000)
    assert "half a po" not in answer.text


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=0", "`limit`"),
        ("limit=501", "`limit`"),
        ("limit=", "`limit`"),
        ("limit=1_0", "`limit`"),
        ("limit=%D9%A3", "`limit`"),
        ("limit=" + "9" * 5000, "`limit`"),
        ("state=done", "`state`"),
        ("after=yesterday", "`after`"),
        ("after=1&after=2", "`after`: given twice"),
        ("page=2", "`page`"),
    ],
)
async def test_a_wrong_parameter_is_refused_by_name(http: httpx.AsyncClient, query: str, named: str) -> None:
    answer = await http.get(f"/v1/tasks?{query}", headers=VIEWER)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_PARAMS")
    assert named in answer.json()["message"]
