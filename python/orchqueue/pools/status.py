"""What can be seen of pools and replicas from outside: plain values, made on request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class PoolState(StrEnum):
    """The four words that the scheduler knows a pool by."""

    #: No replica is ready yet, or none any more: tasks are queued.
    STARTING = "starting"
    #: Tasks are queued and placed.
    READY = "ready"
    #: What is there is finished, nothing new is taken.
    DRAINING = "draining"
    #: No replica can be had as things are: tasks are refused.
    FAILED = "failed"


class ReplicaState(StrEnum):
    """Where a replica is in its life."""

    #: Being started, or an attached one that has not answered yet.
    STARTING = "starting"
    #: Answers, has told what it is, takes tasks.
    READY = "ready"
    #: Was ready and is not trusted at the moment; takes no tasks.
    UNREADY = "unready"
    #: Ended or failed to start; the next start waits.
    BACKING_OFF = "backing_off"
    #: As things are it cannot come up: a file is missing, the wrong model, the wrong key.
    FAILED = "failed"
    #: Ended on request.
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """One replica as the control API shows it."""

    id: str
    pool: str
    url: str | None
    managed: bool
    pid: int | None
    state: ReplicaState
    restarts: int
    last_error: str | None
    engine_version: str | None
    model_digest: str | None
    #: The fields whose digest names the replica set.
    identity: Mapping[str, Any] | None
    slots: int | None
    ctx: int | None
    #: `None` until the replica has been probed.
    reproducible: bool | None
    #: Why it is not reproducible.
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """One pool as the control API shows it."""

    id: str
    engine: str
    state: PoolState
    #: A replica answers, or is being brought up.
    live: bool
    ready: bool
    draining: bool
    last_error: str | None
    models: tuple[str, ...]
    ctx: int | None
    workloads: tuple[str, ...]
    determinism: str
    replicas: tuple[ReplicaStatus, ...]
