"""Asks a replica whether it is well and what it is. Nothing here decides what becomes of it."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from orchqueue.adapters import Adapter
from orchqueue.adapters.base import DeclaredValue, ProbeRefused, ProbeReport
from orchqueue.engines.gguf import MAGIC
from orchqueue.pools.catalog import Digests

UNKNOWN = "unknown"
_MAX_ANSWER_BYTES = 8_388_608


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a replica is reached."""

    url: str
    api_key: str | None
    ca_file: str | None

    def __repr__(self) -> str:
        return f"Access(url={self.url!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchFacts:
    """What is known of a replica without asking it: because we launched it, or because it was declared."""

    settings: Mapping[str, DeclaredValue]
    engine_version: str | None
    model_digest: str | None
    device_class: str | None
    #: Most tasks at once that the configuration allows; `None`: what the engine has.
    slots: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a replica turned out to be."""

    engine_version: str
    model_digest: str
    model_names: tuple[str, ...]
    slots: int
    ctx: int | None
    #: The fields whose digest is the identity of its replica set.
    identity: Mapping[str, Any]
    reproducible: bool
    #: Why it is not reproducible; empty when it is.
    reason: str


class EngineClient:
    """One replica's HTTP as pools use it: rare small requests, never a task."""

    def __init__(self, access: Access, timeout_s: float) -> None:
        headers = {} if access.api_key is None else {"Authorization": f"Bearer {access.api_key}"}
        verify: ssl.SSLContext | bool = True
        if access.ca_file is not None:
            verify = ssl.create_default_context(cafile=access.ca_file)
        elif not access.url.startswith("https:"):
            # Reading the host's certificates takes 20 ms and would be for nothing.
            verify = False
        self.access = access
        self._http = httpx.AsyncClient(
            base_url=access.url, headers=headers, timeout=timeout_s, verify=verify, trust_env=False
        )

    async def status(self, path: str) -> int | str:
        """The status that `path` answers, or in words why there was none."""
        try:
            return (await self._http.get(path)).status_code
        except httpx.TimeoutException:
            return "no answer in time"
        except httpx.HTTPError as error:
            return str(error) or type(error).__name__

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and parsed body; raises `ProbeRefused` when there is no answer."""
        try:
            async with self._http.stream("GET", path) as response:
                body = b""
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > _MAX_ANSWER_BYTES:
                        raise ProbeRefused(f"`{path}` answers with more than {_MAX_ANSWER_BYTES} bytes")
        except httpx.HTTPError as error:
            raise ProbeRefused(f"`{path}`: {str(error) or type(error).__name__}") from error
        try:
            return response.status_code, httpx.Response(200, content=body).json()
        except (ValueError, RecursionError):
            return response.status_code, None

    async def close(self) -> None:
        await self._http.aclose()


async def probe(client: EngineClient, adapter: Adapter, facts: LaunchFacts, digests: Digests) -> Probed:
    """Asks the engine, adds what is known otherwise; raises `ProbeRefused` when the two contradict."""
    report = await adapter.probe(client)
    digest = await _model_digest(report, facts, digests, client.access.url)
    version = facts.engine_version or report.engine_version
    settings = {**facts.settings, "n_parallel": report.slots}
    reproducible, reason = _reproducible(adapter, settings, version, digest, facts, report)
    identity = {
        "engine": adapter.engine,
        "build": version or UNKNOWN,
        "model_digest": digest or UNKNOWN,
        "quant": report.quant or UNKNOWN,
        "ctx": report.ctx or 0,
        "sampler_profile_version": adapter.sampler_profile_version,
        "device_class": facts.device_class or UNKNOWN,
        "flags": adapter.determinism.identity_flags(settings),
    }
    return Probed(
        engine_version=version or UNKNOWN,
        model_digest=digest or UNKNOWN,
        model_names=report.model_names,
        slots=min(facts.slots or report.slots, report.slots),
        ctx=report.ctx,
        identity=identity,
        reproducible=reproducible,
        reason=reason,
    )


def _reproducible(
    adapter: Adapter,
    settings: Mapping[str, DeclaredValue],
    version: str | None,
    digest: str | None,
    facts: LaunchFacts,
    report: ProbeReport,
) -> tuple[bool, str]:
    """A replica without a complete identity belongs to no set that could promise anything."""
    for known, name in (
        (version, "engine_version"),
        (digest, "model_digest"),
        (facts.device_class, "device_class"),
    ):
        if known is None:
            return False, f"`{name}` is not known; declare it"
    if report.unpinned is not None:
        return False, report.unpinned
    return adapter.determinism.reproducible(settings)


async def _model_digest(report: ProbeReport, facts: LaunchFacts, digests: Digests, url: str) -> str | None:
    """The digest that is known, checked against the file where the file can be seen from here."""
    path = Path(report.model_path) if report.model_path is not None else None
    if path is None or not path.is_absolute() or not on_this_host(url):
        return facts.model_digest
    computed = await asyncio.to_thread(_digest_of_model, path, digests)
    if facts.model_digest is not None and computed is not None and computed != facts.model_digest:
        raise ProbeRefused(f"the model's digest is {computed}, expected {facts.model_digest}")
    return facts.model_digest or computed


def _digest_of_model(path: Path, digests: Digests) -> str | None:
    """Only a file that is a model is read: the path comes from the engine."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return None
        return digests.digest(path)
    except OSError:
        return None


def on_this_host(url: str) -> bool:
    """Whether an engine runs on this host, so that its paths and processor are ours."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
