"""What a configuration means: defaults, file, environment, and what a reader is told when it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from orchqueue.config import (
    AttachedReplica,
    Config,
    ConfigError,
    ManagedReplica,
    effective_values,
    load,
    runtime_document,
)

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "orchqueue.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path: Path | None, **env: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load(path, env)
    return str(refused.value)


def attached(config: Config, index: int = 0) -> AttachedReplica:
    replica = config.pools[0].replicas[index]
    assert isinstance(replica, AttachedReplica)
    return replica


# req: ORCH-4070
def test_no_file_is_the_embedded_default() -> None:
    config = load(None, {})
    (pool,) = config.pools
    assert (pool.id, pool.engine, pool.model, pool.ctx) == ("tiny", "llamacpp", "orchqueue-tiny", 512)
    assert pool.determinism == "strict"
    assert pool.replicas == (ManagedReplica(id="tiny-0", spawn="embedded"),)
    assert (config.server.host, config.server.port, config.server.loopback) == ("127.0.0.1", 8700, True)


def test_pool_with_only_id_and_engine_is_the_embedded_default(write: Write) -> None:
    config = load(write("pools: [{id: tiny, engine: llamacpp}]"), {})
    assert config.pools == load(None, {}).pools


def test_empty_file_is_the_default(write: Write) -> None:
    assert load(write("# nothing yet\n"), {}).effective == load(None, {}).effective


def test_attached_pool_is_best_effort_and_counts_ids_over_all_replicas(write: Write) -> None:
    text = """
    pools:
      - id: mixed
        engine: llamacpp
        replicas:
          - {spawn: embedded, count: 2}
          - {url: "http://127.0.0.1:8091/", slots: 4, declared: {flash_attn: false, n_batch: 2048}}
    """
    pool = load(write(text), {}).pools[0]
    assert [replica.id for replica in pool.replicas] == ["mixed-0", "mixed-1", "mixed-2"]
    assert pool.determinism == "best_effort"
    last = pool.replicas[2]
    assert isinstance(last, AttachedReplica)
    assert last.url == "http://127.0.0.1:8091"
    assert last.declared == {"flash_attn": False, "n_batch": 2048}


# req: ORCH-4070
def test_unknown_key_is_refused_with_path_line_and_suggestion(write: Write) -> None:
    message = refusal(write("pools:\n  - id: a\n    engine: llamacpp\n    timeout: {idle_ms: 1}\n"))
    assert "orchqueue.yaml:4: `pools[0].timeout`: unknown key" in message
    assert "hint: did you mean `timeouts`?" in message


def test_every_fault_is_told_at_once(write: Write) -> None:
    message = refusal(write("server: {port: 70000, hots: x}\nclasses: [{}]\npools: [{id: A b}]\n"))
    assert "`server.port`: must be at most 65535" in message
    assert "`server.hots`: unknown key\n  hint: did you mean `host`?" in message
    assert "`classes[0].name`: is missing" in message
    assert "`pools[0].id`: must be lower-case letters" in message
    assert "`pools[0].engine`: is missing" in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("server: {port: '8700'}", "`server.port`: must be a whole number"),
        ("server: {port: true}", "`server.port`: must be a whole number"),
        ("server: [1]", "`server`: must be a mapping"),
        ("server: {host: 5}", "`server.host`: must be text"),
        ("classes: []", "`classes`: must be at least 1 items"),
        ("classes: [{name: a, full_policy: rejct}]", "did you mean `reject`?"),
        ("classes: [{name: a}, {name: a}]", "`classes[1].name`: `a` stands here twice"),
        ("pools: [{id: a, engine: lamacpp}]", "hint: did you mean `llamacpp`?"),
        (
            "pools: [{id: a, engine: llamacpp}, {id: a, engine: llamacpp}]",
            "`pools[1].id`: `a` stands here twice",
        ),
        ("server: {port: 1}\nserver: {port: 2}", ":2: `server`: the key stands here twice"),
        (
            "server: !!python/name:os.system x",
            "the tag `tag:yaml.org,2002:python/name:os.system` is not allowed",
        ),
        ("server: {port: [}", "not valid YAML"),
        ("- 1", "the document must be a mapping of sections"),
        ("a: &a [*a]", "too large or too deep"),
        ("store: {url: 'mysql://x'}", "`store.url`: is not the address of a store"),
        ("store: {url: 'sqlite:///:memory:'}", "`store.url`: is not the address of a store"),
    ],
)
def test_wrong_document_is_refused(write: Write, text: str, told: str) -> None:
    assert told in refusal(write(text))


@pytest.mark.parametrize(
    ("replica", "told"),
    [
        ("{}", "needs `url` or `spawn`"),
        ("{url: 'ftp://x'}", "`http://` or `https://`"),
        ("{url: 'http://u:p@x'}", "must not carry a password"),
        ("{url: 'http://x?y=1'}", "must end with its path"),
        ("{url: 'http://x', count: 2}", "`pools[0].replicas[0].count`: has no meaning beside `url`"),
        ("{spawn: embedded, url: 'http://x'}", "`pools[0].replicas[0].url`: has no meaning beside `spawn`"),
        ("{spawn: embedded, slots: 2}", "`pools[0].replicas[0].slots`: an embedded replica has one slot"),
        ("{url: 'http://x', declared: {n_bach: 1}}", "declared.n_bach`: `llamacpp` has no such setting"),
        ("{url: 'http://x', declared: {n_batch: true}}", "declared.n_batch`: must be a whole number"),
        ("{url: 'http://x', declared: {flash_attn: 1}}", "declared.flash_attn`: must be `true` or `false`"),
    ],
)
def test_wrong_replica_is_refused(write: Write, replica: str, told: str) -> None:
    assert told in refusal(write(f"pools: [{{id: a, engine: llamacpp, replicas: [{replica}]}}]"))


def test_missing_file_is_told() -> None:
    assert "cannot read `/nowhere/x.yaml`: No such file or directory" in refusal(Path("/nowhere/x.yaml"))


def test_environment_overrides_the_file(write: Write) -> None:
    path = write("server: {port: 9000, host: 127.0.0.2}\n")
    env = {"ORCHQUEUE_SERVER__PORT": "9001", "ORCHQUEUE_POOLS": "[{id: e, engine: llamacpp}]"}
    config = load(path, env)
    assert (config.server.port, config.server.host, config.pools[0].id) == (9001, "127.0.0.2", "e")
    assert config.origins["server.port"] == "env ORCHQUEUE_SERVER__PORT"
    assert config.origins["server.host"] == f"{path}:1"
    assert config.origins["pools[0].id"] == "env ORCHQUEUE_POOLS"
    assert config.origins["server.idle_ms"] == "default"


def test_environment_reaches_into_lists(write: Write) -> None:
    path = write("pools: [{id: a, engine: llamacpp}]")
    assert load(path, {"ORCHQUEUE_POOLS__0__CTX": "256"}).pools[0].ctx == 256
    assert "`pools[3]`: the list has 1 items" in refusal(path, ORCHQUEUE_POOLS__3__CTX="256")


def test_environment_name_that_almost_fits_is_refused() -> None:
    assert "did you mean `ORCHQUEUE_SERVER__PORT`?" in refusal(None, ORCHQUEUE_SERVER_PORT="1")
    assert "`severs`: unknown section" in refusal(None, ORCHQUEUE_SEVERS__PORT="1")


def test_environment_of_the_client_is_not_configuration() -> None:
    assert load(None, {"ORCHQUEUE_URL": "http://x", "ORCHQUEUE_API_KEY": "oq_x"}) == load(None, {})


def test_secret_comes_from_the_environment_and_is_never_shown(write: Write) -> None:
    path = write(
        "pools: [{id: a, engine: llamacpp, replicas: [{url: 'http://x', api_key: '${ENGINE_KEY}'}]}]"
    )
    config = load(path, {"ENGINE_KEY": "hush-hush"})
    key = attached(config).api_key
    assert key is not None
    assert key.get_secret_value() == "hush-hush"
    assert "hush" not in repr(config)
    assert "hush" not in str(effective_values(config))


def test_missing_secret_is_named(write: Write) -> None:
    path = write(
        "pools: [{id: a, engine: llamacpp, replicas: [{url: 'http://x', api_key: '${ENGINE_KEY}'}]}]"
    )
    message = refusal(path)
    assert "`pools[0].replicas[0].api_key`: the environment variable `ENGINE_KEY` is not set" in message


def test_password_of_the_store_is_masked(write: Write) -> None:
    path = write("store: {url: 'postgresql://me:${PW}@db/oq'}")
    config = load(path, {"PW": "hush"})
    assert config.store.url == "postgresql://me:hush@db/oq"
    assert "hush" not in repr(config) + str(effective_values(config))
    plain = load(write("store: {url: 'postgresql://me:hush@db/oq'}"), {})
    assert "hush" not in repr(plain) + str(effective_values(plain))


def test_open_address_without_tls_is_warned_about() -> None:
    assert load(None, {}).warnings == ()
    (warning,) = load(None, {"ORCHQUEUE_SERVER__HOST": "0.0.0.0"}).warnings  # noqa: S104
    assert "`server.behind_tls: true`" in warning
    behind = {"ORCHQUEUE_SERVER__HOST": "10.0.0.1", "ORCHQUEUE_SERVER__BEHIND_TLS": "true"}
    assert load(None, behind).warnings == ()


def test_conventions_take_the_documented_values_only() -> None:
    assert not load(None, {}).conventions.require_same_engine
    assert load(None, {"ORCH_REQUIRE_SAME_ENGINE": "1"}).conventions.require_same_engine
    assert load(None, {"REQUIRE_REAL_LLAMA": "1"}).conventions.require_real_llama
    assert load(None, {"ORCH_SEED_DEFAULT": "hash(job_id)"}) == load(None, {})
    assert "`REQUIRE_REAL_LLAMA` must be `0` or `1`" in refusal(None, REQUIRE_REAL_LLAMA="yes")
    assert "`ORCH_SEED_DEFAULT` must be `hash(job_id)`" in refusal(None, ORCH_SEED_DEFAULT="7")


def test_runtime_document_is_complete(tmp_path: Path) -> None:
    config = load(None, {"ORCHQUEUE_STORE__URL": f"sqlite:///{tmp_path}/x.db"})
    document = runtime_document(config, version="1", control_socket="/s", receipt_keys=[{"key_id": "k"}])
    assert document["journal"] == {"path": f"{tmp_path}/x.journal.db"}
    assert document["server"]["heartbeat_ms"] == 10_000
    assert [one["name"] for one in document["classes"]] == ["interactive", "batch"]
    assert document["classes"][1]["max_wait_ms"] == 30_000
    assert (document["control_socket"], document["receipt_keys"]) == ("/s", [{"key_id": "k"}])
    assert document["session"] == {"ttl_ms": 600_000, "max_turns": 8}


def test_every_shown_value_has_an_origin() -> None:
    shown = effective_values(load(None, {}))
    assert ("server.port", 8700, "default") in shown
    assert len({path for path, _, _ in shown}) == len(shown)
