"""The file form of the configuration: what a user may write, key by key.

These models know types, bounds and defaults of single keys. Whatever needs two keys at once, or the world
outside, is decided in `resolve.py`, which makes the runtime form out of this one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from orchqueue.adapters import ENGINES

Milliseconds = Annotated[int, Field(ge=1, le=86_400_000)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
DeclaredValue = bool | int | str


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ServerFile(_Section):
    """The front door."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(default=8700, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    behind_tls: bool = Field(default=False, description="A proxy in front of this address speaks TLS.")
    max_body_bytes: int = Field(
        default=4_194_304, ge=1_024, le=268_435_456, description="Largest request body."
    )
    max_header_bytes: int = Field(default=16_384, ge=1_024, le=1_048_576, description="Largest request head.")
    max_streams: int = Field(default=20_000, ge=1, le=1_000_000, description="Most connections at once.")
    idle_ms: Milliseconds = Field(default=60_000, description="An idle connection is closed after this time.")
    write_stall_ms: Milliseconds = Field(
        default=10_000, description="A reader that takes nothing so long is cut off."
    )
    heartbeat_ms: Milliseconds = Field(
        default=10_000, description="A silent stream carries a comment so often."
    )
    grace_ms: Milliseconds = Field(
        default=10_000, description="A one-trip stream without reader is canceled after this."
    )
    drain_ms: Milliseconds = Field(
        default=30_000, description="Running tasks get so long to finish at shutdown."
    )
    threads: int | None = Field(
        default=None, ge=1, le=256, description="Threads of the front door; by default up to 4."
    )


class RetentionFile(_Section):
    """How long ended tasks can be read."""

    hours: int = Field(default=24, ge=1, le=8_784, description="Ended tasks are kept so many hours.")
    max_mb: int = Field(default=1_024, ge=1, le=1_048_576, description="Ended tasks may fill so much disk.")


class StoreFile(_Section):
    """The task store. The journal and the keys lie beside it."""

    url: str = Field(
        default="sqlite:///orchqueue.db",
        min_length=1,
        description="`sqlite:///file` or `postgresql://…`; `${NAME}` is taken from the environment.",
    )
    retention: RetentionFile = RetentionFile()


class ClassFile(_Section):
    """One priority class; classes are listed from the highest to the lowest."""

    name: Name = Field(description="What a task's `priority` says.")
    weight: int = Field(default=1, ge=1, le=1_000, description="Share of the slots under contention.")
    capacity: int = Field(default=256, ge=1, le=1_000_000, description="Most tasks that may wait per pool.")
    full_policy: Literal["reject", "drop-lru", "shed-low-priority"] = Field(
        default="reject", description="What happens when the queue is full."
    )
    max_wait_ms: Milliseconds | None = Field(
        default=None, description="After this wait a task goes before all classes."
    )


DEFAULT_CLASSES = (
    ClassFile(name="interactive", weight=4, capacity=256, full_policy="reject"),
    ClassFile(name="batch", weight=1, capacity=4_096, full_policy="drop-lru", max_wait_ms=30_000),
)


class SessionFile(_Section):
    """Bounds of a session."""

    ttl_ms: int = Field(
        default=600_000, ge=1_000, le=600_000, description="Idle time after which it is forgotten."
    )
    max_turns: int = Field(default=8, ge=1, le=8, description="Most tasks in a session.")


class AttemptsFile(_Section):
    """Bounds of the attempts that one task may take."""

    max: int = Field(default=3, ge=1, le=10, description="Most attempts per task.")
    reclaim_ms: Milliseconds = Field(
        default=5_000, description="A slot not given back so long has its replica probed."
    )


class QuotasFile(_Section):
    """Bounds of one tenant; what is left out is unbounded."""

    concurrent: int | None = Field(default=None, ge=1, description="Tasks queued or running.")
    tokens_per_min: int | None = Field(default=None, ge=1, description="Tokens in and out per minute.")
    kv_mb: int | None = Field(default=None, ge=1, description="Key-value cache of the running tasks.")
    rps: int | None = Field(default=None, ge=1, description="Requests per second.")


class TenantFile(_Section):
    """One tenant; a tenant that is not listed has weight 1 and no quotas."""

    id: Name = Field(description="The tenant that an API key names.")
    weight: int = Field(default=1, ge=1, le=1_000, description="Share inside a class.")
    quotas: QuotasFile = QuotasFile()


class TimeoutsFile(_Section):
    """Bounds of one attempt; time in the queue does not count."""

    first_token_ms: Milliseconds = Field(default=120_000, description="Until the first token.")
    idle_ms: Milliseconds = Field(default=5_000, description="Between two tokens.")
    wall_ms: Milliseconds = Field(default=600_000, description="From start to end.")


class ReplicaFile(_Section):
    """An attached replica (`url`) or managed ones (`spawn`)."""

    url: str | None = Field(default=None, description="Address of a running engine.")
    slots: int | None = Field(
        default=None, ge=1, le=4_096, description="Tasks at once; by default what the engine has."
    )
    declared: dict[str, DeclaredValue] = Field(
        default_factory=dict,
        description="Launch settings of an attached engine that it does not tell over HTTP.",
    )
    api_key: SecretStr | None = Field(default=None, description="Key of an attached engine: `${NAME}`.")
    ca_file: str | None = Field(
        default=None, description="Certificates that sign an attached engine's `https://`."
    )
    spawn: Literal["embedded"] | None = Field(default=None, description="What starts the replica.")
    count: int | None = Field(
        default=None, ge=1, le=256, description="How many managed replicas; 1 by default."
    )


class PoolFile(_Section):
    """One pool of replicas."""

    id: Name = Field(description="Name of the pool.")
    engine: str = Field(description="Engine of its replicas.", json_schema_extra={"enum": list(ENGINES)})
    model: str | None = Field(
        default=None, min_length=1, description="Catalog name, `sha256:…` or path of the model."
    )
    ctx: int | None = Field(
        default=None, ge=16, le=16_777_216, description="Context per task; by default the model's."
    )
    determinism: Literal["strict", "best_effort"] | None = Field(
        default=None,
        description="For tasks that do not say; by default `strict` when every replica is managed.",
    )
    timeouts: TimeoutsFile = TimeoutsFile()
    replicas: list[ReplicaFile] | None = Field(
        default=None, max_length=256, description="By default one embedded replica."
    )


class LogFile(_Section):
    """JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")
    content: bool = Field(default=False, description="Let logs carry prompts and outputs.")


class ConfigFile(_Section):
    """Configures a daemon. Every key has a default but `pools[].id` and `pools[].engine`."""

    server: ServerFile = ServerFile()
    store: StoreFile = StoreFile()
    classes: list[ClassFile] = Field(
        default_factory=lambda: list(DEFAULT_CLASSES), min_length=1, max_length=16
    )
    session: SessionFile = SessionFile()
    attempts: AttemptsFile = AttemptsFile()
    tenants: list[TenantFile] = Field(default_factory=list, max_length=10_000)
    pools: list[PoolFile] = Field(
        default_factory=lambda: [PoolFile(id="tiny", engine="llamacpp")], max_length=256
    )
    log: LogFile = LogFile()
