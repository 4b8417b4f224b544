"""From the file form to the runtime form: everything that needs two keys at once, or the environment."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from orchqueue.adapters import ENGINES, adapter_for
from orchqueue.config.errors import ConfigError, Problem, show_path, suggest
from orchqueue.config.file import ConfigFile, PoolFile, ReplicaFile, StoreFile
from orchqueue.config.read import Document, leaves
from orchqueue.config.read import Path as KeyPath
from orchqueue.config.runtime import (
    AttachedReplica,
    ClassConfig,
    Config,
    Conventions,
    Determinism,
    ManagedReplica,
    PoolConfig,
    ReplicaConfig,
    ServerConfig,
    StoreConfig,
    TenantConfig,
    Timeouts,
    default_threads,
)
from orchqueue.store.errors import StoreUrlError
from orchqueue.store.files import files_beside

DEFAULT_MODEL = "orchqueue-tiny"
#: What the default model was trained for.
DEFAULT_CTX = 512
MASK = "**********"
_ENV_NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):([^/]*)(?=@)")


@dataclass(slots=True)
class _Findings:
    """Collects problems so that one run shows all of them."""

    document: Document
    env: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)

    def add(self, path: KeyPath, message: str, hint: str | None = None) -> None:
        self.problems.append(Problem(show_path(path), message, hint, self.document.origin(path)))

    def from_env(self, path: KeyPath, text: str) -> str:
        """`text` with every `${NAME}` replaced; a name that is not set is a problem."""

        def value(match: re.Match[str]) -> str:
            found = self.env.get(match[1])
            if not found:
                self.add(path, f"the environment variable `{match[1]}` is not set", f"export {match[1]}=…")
            return found or ""

        return _ENV_NAME.sub(value, text)


def resolve(file: ConfigFile, document: Document, env: Mapping[str, str]) -> Config:
    """The runtime form, or a `ConfigError` with everything that is wrong."""
    findings = _Findings(document, env)
    _check_engines(findings, file)
    file = _complete(file)
    _refuse_twice(findings, "classes", [one.name for one in file.classes], "name")
    _refuse_twice(findings, "tenants", [one.id for one in file.tenants], "id")
    _refuse_twice(findings, "pools", [one.id for one in file.pools], "id")
    store = _store(findings, file.store)
    conventions = _conventions(findings)
    pools = tuple(_pool(findings, index, pool) for index, pool in enumerate(file.pools))
    if findings.problems:
        raise ConfigError(findings.problems)
    server = ServerConfig(
        **file.server.model_dump(exclude={"threads"}),
        threads=file.server.threads or default_threads(),
        loopback=is_loopback(file.server.host),
    )
    effective = _effective(file)
    return Config(
        server=server,
        store=store,
        classes=tuple(ClassConfig(**one.model_dump()) for one in file.classes),
        session_ttl_ms=file.session.ttl_ms,
        session_max_turns=file.session.max_turns,
        attempts_max=file.attempts.max,
        reclaim_ms=file.attempts.reclaim_ms,
        tenants=tuple(TenantConfig(id=t.id, weight=t.weight, **t.quotas.model_dump()) for t in file.tenants),
        pools=pools,
        log_level=file.log.level,
        log_content=file.log.content,
        conventions=conventions,
        effective=effective,
        origins={show_path(path): document.origins.get(path, "default") for path, _ in leaves(effective)},
        warnings=tuple(_warnings(file, server)),
    )


def is_loopback(host: str) -> bool:
    """Whether only this host can reach an address; a name other than `localhost` counts as public."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_engines(findings: _Findings, file: ConfigFile) -> None:
    """Everything about a pool hangs on its engine, so an unknown one ends the search for faults."""
    for index, pool in enumerate(file.pools):
        if pool.engine not in ENGINES:
            hint = suggest(pool.engine, list(ENGINES))
            findings.add(("pools", index, "engine"), f"no adapter for `{pool.engine}`", hint)
    if findings.problems:
        raise ConfigError(findings.problems)


def _complete(file: ConfigFile) -> ConfigFile:
    """Fills in the defaults that depend on other keys."""
    return file.model_copy(update={"pools": [_complete_pool(pool) for pool in file.pools]})


def _complete_pool(pool: PoolFile) -> PoolFile:
    given = pool.replicas
    if not given and adapter_for(pool.engine).embedded:
        given = [ReplicaFile(spawn="embedded")]
    replicas = [
        one.model_copy(update={"count": 1}) if one.spawn and one.count is None else one for one in given or []
    ]
    managed = [one.spawn is not None for one in replicas]
    update: dict[str, Any] = {"replicas": replicas}
    if pool.model is None and any(managed):
        update["model"] = DEFAULT_MODEL
    if pool.ctx is None and update.get("model", pool.model) == DEFAULT_MODEL:
        update["ctx"] = DEFAULT_CTX
    if pool.determinism is None:
        update["determinism"] = "strict" if all(managed) else "best_effort"
    return pool.model_copy(update=update)


def _refuse_twice(findings: _Findings, section: str, names: list[str], key: str) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            findings.add(
                (section, index, key), f"`{name}` stands here twice", "give each one a name of its own"
            )


def _store(findings: _Findings, store: StoreFile) -> StoreConfig:
    path: KeyPath = ("store", "url")
    url = findings.from_env(path, store.url)
    try:
        files = files_beside(url)
    except (StoreUrlError, OSError, ValueError):
        findings.add(
            path, "is not the address of a store", "`sqlite:///file.db` or `postgresql://user@host/name`"
        )
        files = files_beside("sqlite:///orchqueue.db")
    return StoreConfig(
        url=url,
        retention_hours=store.retention.hours,
        retention_max_mb=store.retention.max_mb,
        files=files,
        state_dir=files.keys.with_suffix(".state"),
    )


def _conventions(findings: _Findings) -> Conventions:
    switches: dict[str, bool] = {}
    for name in ("ORCH_REQUIRE_SAME_ENGINE", "REQUIRE_REAL_LLAMA"):
        value = findings.env.get(name, "") or "0"
        if value not in ("0", "1"):
            findings.problems.append(Problem("", f"`{name}` must be `0` or `1`", origin=f"env {name}"))
        switches[name] = value == "1"
    name = "ORCH_SEED_DEFAULT"
    if findings.env.get(name, "") not in ("", "hash(job_id)", "hash(task_id)"):
        hint = "the default seed is always a hash of the task's id; a task may carry a `seed` of its own"
        findings.problems.append(Problem("", f"`{name}` must be `hash(job_id)`", hint, f"env {name}"))
    return Conventions(
        require_same_engine=switches["ORCH_REQUIRE_SAME_ENGINE"],
        require_real_llama=switches["REQUIRE_REAL_LLAMA"],
    )


def _pool(findings: _Findings, index: int, pool: PoolFile) -> PoolConfig:
    path: KeyPath = ("pools", index)
    if not pool.replicas:
        findings.add((*path, "replicas"), f"`{pool.engine}` has no embedded form", "list the replicas' `url`")
    replicas: list[ReplicaConfig] = []
    for number, replica in enumerate(pool.replicas or []):
        here = (*path, "replicas", number)
        if replica.spawn is None:
            replicas.append(_attached(findings, here, pool, replica, f"{pool.id}-{len(replicas)}"))
        else:
            _check_managed(findings, here, replica)
            ids = range(len(replicas), len(replicas) + (replica.count or 1))
            replicas.extend(ManagedReplica(id=f"{pool.id}-{one}", spawn=replica.spawn) for one in ids)
    determinism: Determinism = pool.determinism or "best_effort"
    return PoolConfig(
        id=pool.id,
        engine=pool.engine,
        model=pool.model,
        ctx=pool.ctx,
        determinism=determinism,
        timeouts=Timeouts(**pool.timeouts.model_dump()),
        replicas=tuple(replicas),
    )


def _check_managed(findings: _Findings, path: KeyPath, replica: ReplicaFile) -> None:
    for key in ("url", "declared", "api_key", "ca_file"):
        if getattr(replica, key):
            findings.add((*path, key), "has no meaning beside `spawn`", "leave it out")
    if replica.slots not in (None, 1):
        findings.add((*path, "slots"), "an embedded replica has one slot", "set `count` instead")


def _attached(
    findings: _Findings, path: KeyPath, pool: PoolFile, replica: ReplicaFile, name: str
) -> AttachedReplica:
    if replica.url is None:
        findings.add(path, "needs `url` or `spawn`", "write `url: http://…` or `spawn: embedded`")
    elif (fault := _url_fault(replica.url)) is not None:
        findings.add((*path, "url"), fault)
    if replica.count is not None:
        findings.add((*path, "count"), "has no meaning beside `url`", "list each address")
    _check_declared(findings, (*path, "declared"), pool, replica)
    key = replica.api_key
    if key is not None:
        key = SecretStr(findings.from_env((*path, "api_key"), key.get_secret_value()))
        if not re.fullmatch(r"[\x21-\x7e]*", key.get_secret_value()):
            findings.add((*path, "api_key"), "must be printable ASCII without spaces")
    return AttachedReplica(
        id=name,
        url=(replica.url or "").rstrip("/"),
        slots=replica.slots,
        declared=dict(replica.declared),
        api_key=key,
        ca_file=replica.ca_file,
    )


def _check_declared(findings: _Findings, path: KeyPath, pool: PoolFile, replica: ReplicaFile) -> None:
    known = adapter_for(pool.engine).determinism.declarable
    for key, value in replica.declared.items():
        wanted = known.get(key)
        if wanted is None:
            names = ", ".join(f"`{one}`" for one in sorted(known))
            findings.add((*path, key), f"`{pool.engine}` has no such setting", f"known are {names}")
        elif type(value) is not wanted:
            words = {bool: "`true` or `false`", int: "a whole number", str: "text"}
            findings.add((*path, key), f"must be {words[wanted]}")


def _url_fault(url: str) -> str | None:
    """What is wrong with the address of an engine: it is a scheme, a host and perhaps a port and a path."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not an address"
    if parts.scheme not in ("http", "https"):
        return "must begin with `http://` or `https://`"
    if not parts.hostname or port == 0 or not url.isascii() or any(c.isspace() or c < " " for c in url):
        return "is not an address"
    if parts.username is not None or parts.password is not None:
        return "must not carry a password: use `api_key`"
    if parts.query or parts.fragment:
        return "must end with its path"
    return None


def _effective(file: ConfigFile) -> dict[str, Any]:
    """The complete document without what is not set and without secrets."""
    tree: dict[str, Any] = file.model_dump(mode="json", exclude_none=True)
    tree["store"]["url"] = _PASSWORD.sub(rf"\1:{MASK}", tree["store"]["url"])
    return tree


def _warnings(file: ConfigFile, server: ServerConfig) -> Iterator[str]:
    if not server.loopback and not server.behind_tls:
        yield (
            f"`server.host`: {server.host} can be reached without TLS; put a proxy in front and set "
            "`server.behind_tls: true`"
        )
    for index, tenant in enumerate(file.tenants):
        if any(limit is not None for limit in tenant.quotas.model_dump().values()):
            yield f"`tenants[{index}].quotas`: this version reads quotas but does not enforce them"
