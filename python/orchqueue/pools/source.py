"""Where a replica comes from: a child process that we start, or an address that somebody else serves."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from orchqueue.engines import embedded
from orchqueue.engines.spawn import Child, SpawnFailed, start_child
from orchqueue.pools.catalog import Digests, ModelFile, ModelUnavailable, find_model
from orchqueue.pools.device import device_class
from orchqueue.pools.probe import Access, LaunchFacts, on_this_host

if TYPE_CHECKING:
    from orchqueue.config import AttachedReplica, ManagedReplica, PoolConfig


@dataclass(frozen=True, slots=True)
class Opened:
    """A replica that can be asked."""

    access: Access
    facts: LaunchFacts


class ReplicaSource(Protocol):
    """One replica's origin. `open` and `close` alternate; `close` is safe at any time."""

    managed: bool

    @property
    def pid(self) -> int | None: ...
    async def open(self) -> Opened:
        """Brings the replica up, or raises `SpawnFailed`."""
        ...

    async def ended(self) -> str:
        """Returns when the replica has ended by itself, with how; never for an attached one."""
        ...

    async def close(self, grace_s: float) -> None:
        """Ends what `open` began."""
        ...


class AttachedSource:
    """An engine that runs elsewhere; it is neither started nor stopped."""

    managed = False
    pid: int | None = None

    def __init__(self, replica: AttachedReplica) -> None:
        declared = dict(replica.declared)
        local = device_class() if on_this_host(replica.url) else None
        key = replica.api_key.get_secret_value() if replica.api_key is not None else None
        self._opened = Opened(
            Access(url=replica.url, api_key=key, ca_file=replica.ca_file),
            LaunchFacts(
                engine_version=_text(declared.pop("engine_version", None)),
                model_digest=_text(declared.pop("model_digest", None)),
                device_class=_text(declared.pop("device_class", None)) or local,
                settings=declared,
                slots=replica.slots,
            ),
        )

    async def open(self) -> Opened:
        return self._opened

    async def ended(self) -> str:
        await asyncio.Event().wait()
        return ""

    async def close(self, grace_s: float) -> None:
        """Nothing was begun."""


class EmbeddedSource:
    """The embedded llama.cpp server as a child process."""

    managed = True

    def __init__(
        self, pool: PoolConfig, replica: ManagedReplica, notes: Path | None, digests: Digests
    ) -> None:
        self._pool = pool
        self._note = notes / f"{replica.id}.json" if notes is not None else None
        self._digests = digests
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and self._child.alive else None

    async def open(self) -> Opened:
        version = embedded.engine_version()
        if version is None:
            hint = "hint: pip install 'orchqueue[embedded]'"
            raise SpawnFailed(f"the package `{embedded.PACKAGE}` is not installed; {hint}", permanent=True)
        model, digest = await asyncio.to_thread(self._model)
        settings = embedded.EmbeddedSettings(model=model.path, ctx=self._pool.ctx or 0, alias=model.name)
        key = secrets.token_urlsafe(24)
        self._child = await start_child(settings.command, self._note, {embedded.KEY_VARIABLE: key})
        said = await self._child.ready_line(embedded.START_TIMEOUT_S)
        return Opened(
            Access(url=f"http://{said.get('listening')}", api_key=key, ca_file=None),
            LaunchFacts(
                engine_version=version,
                model_digest=digest,
                device_class=device_class(),
                settings=settings.declared(),
                slots=None,
            ),
        )

    def _model(self) -> tuple[ModelFile, str]:
        try:
            model = find_model(self._pool.model or "")
            if self._pool.ctx is not None and model.ctx is not None and self._pool.ctx > model.ctx:
                message = f"`ctx`: {self._pool.ctx} is more than the model was trained for: {model.ctx}"
                raise SpawnFailed(message, permanent=True)
            return model, model.digest or self._digests.digest(model.path)
        except (ModelUnavailable, OSError) as error:
            raise SpawnFailed(str(error), permanent=True) from error

    async def ended(self) -> str:
        if self._child is None:
            return "was not started"
        await self._child.ended()
        return self._child.epitaph()

    async def close(self, grace_s: float) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.stop(grace_s)


def _text(value: bool | int | str | None) -> str | None:
    return value if isinstance(value, str) and value else None
