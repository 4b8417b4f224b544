"""The runtime form of the configuration: complete, checked, frozen. This is what the daemon is built from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orchqueue.store.files import StoreFiles

if TYPE_CHECKING:
    from pydantic import SecretStr

Determinism = Literal["strict", "best_effort"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    host: str
    port: int
    behind_tls: bool
    max_body_bytes: int
    max_header_bytes: int
    max_streams: int
    idle_ms: int
    write_stall_ms: int
    heartbeat_ms: int
    grace_ms: int
    drain_ms: int
    threads: int
    #: The address can be reached from this host only.
    loopback: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Where tasks, journal, keys and the daemon's own notes lie."""

    #: May carry a password: never printed.
    url: str = field(repr=False)
    retention_hours: int
    retention_max_mb: int
    #: Journal, lease and keys beside it.
    files: StoreFiles
    #: Notes on running replicas and digests that were computed; mode 0700.
    state_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassConfig:
    name: str
    weight: int
    capacity: int
    full_policy: str
    max_wait_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantConfig:
    id: str
    weight: int
    concurrent: int | None
    tokens_per_min: int | None
    kv_mb: int | None
    rps: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    first_token_ms: int
    idle_ms: int
    wall_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedReplica:
    """An engine that somebody else started."""

    id: str
    url: str
    slots: int | None
    declared: Mapping[str, bool | int | str]
    api_key: SecretStr | None
    ca_file: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedReplica:
    """An engine that the daemon starts and supervises."""

    id: str
    spawn: Literal["embedded"]


ReplicaConfig = AttachedReplica | ManagedReplica


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    id: str
    engine: str
    #: `None`: whatever the attached replicas serve.
    model: str | None
    ctx: int | None
    determinism: Determinism
    timeouts: Timeouts
    replicas: tuple[ReplicaConfig, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conventions:
    """What the environment conventions of the test bench ask for."""

    #: `ORCH_REQUIRE_SAME_ENGINE=1`: a pool takes replicas of one engine version only.
    require_same_engine: bool
    #: `REQUIRE_REAL_LLAMA=1`: a missing llama.cpp is a failure at start, not a pool that is unavailable.
    require_real_llama: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    server: ServerConfig
    store: StoreConfig
    classes: tuple[ClassConfig, ...]
    session_ttl_ms: int
    session_max_turns: int
    attempts_max: int
    reclaim_ms: int
    tenants: tuple[TenantConfig, ...]
    pools: tuple[PoolConfig, ...]
    log_level: str
    log_content: bool
    conventions: Conventions
    #: The complete document in its file form, secrets masked.
    effective: Mapping[str, Any] = field(repr=False)
    #: Path of every value in `effective` → `default`, `file:line` or `env NAME`.
    origins: Mapping[str, str] = field(repr=False)
    #: What works but should be known.
    warnings: tuple[str, ...] = ()


def default_threads() -> int:
    return max(1, min(4, os.cpu_count() or 1))


def runtime_document(
    config: Config,
    *,
    version: str,
    control_socket: str | None = None,
    receipt_keys: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The document that `_core.Daemon` is built from. It holds secrets: hand it over, never print it."""
    server = config.server
    return {
        "server": {
            "host": server.host,
            "port": server.port,
            "behind_tls": server.behind_tls,
            "max_body_bytes": server.max_body_bytes,
            "max_header_bytes": server.max_header_bytes,
            "max_streams": server.max_streams,
            "idle_ms": server.idle_ms,
            "write_stall_ms": server.write_stall_ms,
            "heartbeat_ms": server.heartbeat_ms,
            "grace_ms": server.grace_ms,
            "threads": server.threads,
        },
        "journal": {"path": str(config.store.files.journal)},
        "retention": {"hours": config.store.retention_hours, "max_mb": config.store.retention_max_mb},
        "classes": [
            {
                "name": one.name,
                "weight": one.weight,
                "capacity": one.capacity,
                "full_policy": one.full_policy,
                "max_wait_ms": one.max_wait_ms,
            }
            for one in config.classes
        ],
        "session": {"ttl_ms": config.session_ttl_ms, "max_turns": config.session_max_turns},
        "attempts": {"max": config.attempts_max, "reclaim_ms": config.reclaim_ms},
        "control_socket": control_socket,
        "receipt_keys": [dict(key) for key in receipt_keys],
        "version": version,
        "log_content": config.log_content,
        # The line of an ended task is information; warnings and errors are always told.
        "log_tasks": config.log_level in ("debug", "info"),
    }
