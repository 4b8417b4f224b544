"""One replica's life: bring it up, find out what it is, announce it, watch it, bring it up again.

    starting --(healthy, probed)--> ready <--(health fails / recovers)--> unready
       ^                              |                                     |
       +------- backing_off <---------+------------(lost)-------------------+
                (failed: as things are it cannot come up; tried again, less often)

Only `/health` is polled. The scheduler hears of a change once, in the order in which it happened.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

from orchqueue.adapters import Adapter
from orchqueue.adapters.base import ProbeRefused
from orchqueue.engines.spawn import SpawnFailed
from orchqueue.pools.catalog import Digests
from orchqueue.pools.probe import Access, EngineClient, Probed, probe
from orchqueue.pools.source import Opened, ReplicaSource
from orchqueue.pools.status import ReplicaState, ReplicaStatus

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Every wait in a replica's life."""

    #: Between two looks at a replica that is starting; grows to `watch_s`.
    starting_poll_s: float = 0.02
    #: Between two looks at a replica that is ready.
    watch_s: float = 1.0
    request_timeout_s: float = 2.0
    #: Failed looks in a row until it takes no tasks any more, and until it is given up.
    unready_after: int = 3
    lost_after: int = 6
    #: An address that does not answer for so long has failed.
    patience_s: float = 30.0
    backoff_first_s: float = 0.1
    backoff_most_s: float = 30.0
    #: A replica that was ready for so long starts with a clean record.
    forgiven_after_s: float = 60.0
    #: Failed starts in a row until the replica counts as failed.
    failed_after: int = 5
    #: A slot that stays busy over so many looks is stuck.
    stuck_after: int = 3
    stop_grace_s: float = 2.0


class Lost(Exception):
    """The replica is gone or must go. `permanent`: coming back cannot help as things are."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class Announcer(Protocol):
    """What a replica tells of itself; the supervisor passes it on to the scheduler."""

    def announce(self, replica: str, probed: Probed, access: Access) -> None:
        """It is known and takes tasks from now on. Raises `Lost` when it is not wanted."""
        ...

    def ready(self, replica: str) -> None: ...
    def unready(self, replica: str) -> None: ...
    def retire(self, replica: str) -> None: ...
    def changed(self, replica: str) -> None:
        """Its state has changed."""
        ...


@dataclass(frozen=True, slots=True)
class _Visit:
    """What one life has at hand."""

    client: EngineClient
    opened: Opened
    ended: asyncio.Task[str]
    digests: Digests


class ReplicaKeeper:
    """Keeps one replica. `run` never returns; it is canceled to stop."""

    def __init__(
        self,
        name: str,
        pool: str,
        source: ReplicaSource,
        adapter: Adapter,
        announcer: Announcer,
        timing: Timing,
    ) -> None:
        self.name = name
        self.pool = pool
        self.state = ReplicaState.STARTING
        self.last_error: str | None = None
        self._source = source
        self._adapter = adapter
        self._announcer = announcer
        self._timing = timing
        self._suspected = asyncio.Event()
        self._access: Access | None = None
        self._probed: Probed | None = None
        self._announced = False
        self._failures = 0
        self._restarts = 0

    def status(self) -> ReplicaStatus:
        probed = self._probed
        return ReplicaStatus(
            id=self.name,
            pool=self.pool,
            url=self._access.url if self._access is not None else None,
            managed=self._source.managed,
            pid=self._source.pid,
            state=self.state,
            restarts=self._restarts,
            last_error=self.last_error,
            engine_version=probed.engine_version if probed is not None else None,
            model_digest=probed.model_digest if probed is not None else None,
            identity=probed.identity if probed is not None else None,
            slots=probed.slots if probed is not None else None,
            ctx=probed.ctx if probed is not None else None,
            reproducible=probed.reproducible if probed is not None else None,
            reason=probed.reason or None if probed is not None else None,
        )

    def suspect(self, reason: str) -> None:
        """The scheduler asks whether the replica is well; it places nothing there until it hears `ready`."""
        if self._announced:
            log.info("replica is suspect", extra={**self._fields(), "reason": reason})
            self._suspected.set()

    async def run(self, digests: Digests) -> None:
        try:
            while True:
                started = asyncio.get_running_loop().time()
                try:
                    await self._live(digests)
                except (Lost, SpawnFailed) as error:
                    reason, permanent = str(error), error.permanent
                except Exception as error:  # A fault of ours must not end the care for the replica.
                    log.exception("replica keeper failed", extra=self._fields())
                    reason, permanent = f"{type(error).__name__}: {error}", False
                lived = asyncio.get_running_loop().time() - started
                await self._pause(reason, lived, permanent=permanent)
                self._restarts += 1
        finally:
            self.state = ReplicaState.STOPPED

    async def _live(self, digests: Digests) -> None:
        """One life, from the start to the loss; always ends with an exception."""
        self._enter(ReplicaState.STARTING)
        client: EngineClient | None = None
        ended: asyncio.Task[str] | None = None
        try:
            opened = await self._source.open()
            self._access = opened.access
            client = self._client(opened)
            ended = asyncio.ensure_future(self._source.ended())
            visit = _Visit(client, opened, ended, digests)
            await self._until_healthy(visit)
            self._announce(await self._probe(visit), opened.access)
            await self._watch(visit)
        finally:
            self._retire()
            if ended is not None:
                ended.cancel()
            if client is not None:
                await client.close()
            await self._source.close(self._timing.stop_grace_s)

    def _client(self, opened: Opened) -> EngineClient:
        try:
            return EngineClient(opened.access, self._timing.request_timeout_s)
        except (OSError, ValueError) as error:
            raise Lost(f"`ca_file`: {error}", permanent=True) from error

    async def _until_healthy(self, visit: _Visit) -> None:
        poll, waited = self._timing.starting_poll_s, 0.0
        rule = self._adapter.health
        while (answer := await visit.client.status(rule.path)) != rule.ok_status:
            if answer != rule.loading_status:
                self.last_error = _unwell(rule.path, answer)
                if waited >= self._timing.patience_s:
                    raise Lost(self.last_error, permanent=True)
                waited += poll
            await self._rest(visit, poll)
            poll = min(poll * 1.5, self._timing.watch_s)

    async def _probe(self, visit: _Visit) -> Probed:
        try:
            return await probe(visit.client, self._adapter, visit.opened.facts, visit.digests)
        except ProbeRefused as error:
            raise Lost(str(error), permanent=not self._source.managed) from error

    def _announce(self, probed: Probed, access: Access) -> None:
        self._announcer.announce(self.name, probed, access)
        self._probed, self._announced = probed, True
        self.last_error = None
        self._enter(ReplicaState.READY)

    def _retire(self) -> None:
        self._suspected.clear()
        if self._announced:
            self._announced = False
            self._announcer.retire(self.name)

    async def _watch(self, visit: _Visit) -> None:
        """Looks after a replica that is ready, until it is lost."""
        health, failed, busy, doubt = self._adapter.health, 0, 0, False
        while True:
            doubt |= await self._rest(visit, self._pace(busy))
            answer = await visit.client.status(health.path)
            if answer != health.ok_status:
                failed += 1
                self.last_error = _unwell(health.path, answer)
                if doubt or failed >= self._timing.unready_after:
                    self._distrust()
                if failed >= self._lost_after(doubt):
                    raise Lost(self.last_error)
                continue
            failed = 0
            if doubt and not await self._idle(visit):
                busy += 1
                self._distrust()
                if busy < self._timing.stuck_after:
                    continue
                if self._source.managed:
                    raise Lost("a slot was not given back")
                if self._one_slot():
                    self.last_error = "the only slot stays busy"
                    continue
            if doubt or self.state is ReplicaState.UNREADY:
                await self._trust(visit)
            busy, doubt = 0, False

    def _lost_after(self, doubt: bool) -> int:
        """A replica of ours that tasks have failed on is not waited for: starting another one is quicker."""
        return self._timing.unready_after if doubt and self._source.managed else self._timing.lost_after

    def _pace(self, busy: int) -> float:
        """While a slot is awaited not more often than the engine bears."""
        rule = self._adapter.idle
        return max(self._timing.watch_s, rule.every_ms / 1000) if busy and rule else self._timing.watch_s

    def _one_slot(self) -> bool:
        return self._probed is None or self._probed.slots == 1

    async def _idle(self, visit: _Visit) -> bool:
        rule = self._adapter.idle
        return rule is None or await visit.client.status(rule.path) == rule.ok_status

    def _distrust(self) -> None:
        if self.state is ReplicaState.READY:
            self._announcer.unready(self.name)
            self._enter(ReplicaState.UNREADY)

    async def _trust(self, visit: _Visit) -> None:
        """It answers again. An attached engine may be another one by now."""
        if self.state is ReplicaState.UNREADY and not self._source.managed:
            if await self._probe(visit) != self._probed:
                raise Lost("another engine answers at its address")
        self.last_error = None
        self._announcer.ready(self.name)
        self._enter(ReplicaState.READY)

    async def _rest(self, visit: _Visit, seconds: float) -> bool:
        """Waits; returns early with true when the replica is suspected, raises `Lost` when it has ended."""
        suspected = asyncio.ensure_future(self._suspected.wait())
        try:
            await asyncio.wait({suspected, visit.ended}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            suspected.cancel()
        if visit.ended.done():
            raise Lost(visit.ended.result())
        found = self._suspected.is_set()
        self._suspected.clear()
        return found

    async def _pause(self, reason: str, lived_s: float, *, permanent: bool) -> None:
        if lived_s >= self._timing.forgiven_after_s and not permanent:
            self._failures = 0
        self._failures += 1
        failed = permanent or self._failures >= self._timing.failed_after or self.state is ReplicaState.FAILED
        self.last_error = reason
        log.warning("replica lost", extra={**self._fields(), "cause": reason, "restarts": self._restarts})
        self._enter(ReplicaState.FAILED if failed else ReplicaState.BACKING_OFF)
        doublings = min(self._failures - 1, 20)
        await asyncio.sleep(min(self._timing.backoff_most_s, self._timing.backoff_first_s * 2**doublings))

    def _enter(self, state: ReplicaState) -> None:
        """A failed replica that is tried again stays failed until it is ready."""
        if state is ReplicaState.STARTING and self.state is ReplicaState.FAILED:
            return
        if state is not self.state or state is ReplicaState.STARTING:
            self.state = state
            log.info(f"replica {state}", extra=self._fields())
            self._announcer.changed(self.name)

    def _fields(self) -> dict[str, object]:
        return {"pool_id": self.pool, "replica_id": self.name, "engine": self._adapter.engine}


def _unwell(path: str, answer: int | str) -> str:
    return f"`{path}`: {f'status {answer}' if isinstance(answer, int) else answer}"
