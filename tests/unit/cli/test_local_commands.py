"""The commands that work on files of this machine: config, key, receipt-key, doctor."""

import json
import socket
from pathlib import Path

import pytest
from orchqueue.cli import doctor
from orchqueue.config import load

from .conftest import Cli


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "orchqueue.yaml"
    path.write_text(f"store: {{url: 'sqlite:///{tmp_path}/store.db'}}\nserver: {{port: 8123}}\n")
    return path


def test_config_check_says_what_it_would_do(cli: Cli, config_file: Path) -> None:
    outcome = cli.run("config", "check", str(config_file))
    assert outcome.code == 0
    assert outcome.out == "ok: listens on 127.0.0.1:8123, pools: `tiny` (llamacpp, replicas: 1)\n"
    assert cli.run("config", "check", "--config", str(config_file), "--json").documents[0]["ok"] is True


def test_config_check_lists_every_problem_with_a_hint(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("server: {prot: 1}\nstore: {retention: {hours: x}}\n")
    outcome = cli.run("config", "check", str(path))
    assert outcome.code == 2
    assert f"error: {path}:1: `server.prot`: unknown key\nhint: did you mean `port`?\n" in outcome.err
    assert "`store.retention.hours`: must be a whole number" in outcome.err
    problems = cli.run("config", "check", str(path), "--json").documents[0]["problems"]
    assert [problem["path"] for problem in problems] == ["server.prot", "store.retention.hours"]


def test_config_show_tells_where_values_come_from(cli: Cli, config_file: Path) -> None:
    outcome = cli.run("config", "show", str(config_file))
    lines = {line.split()[0]: line.split()[1:] for line in outcome.out.splitlines()}
    assert lines["server.port"] == ["8123", f"{config_file}:2"]
    assert lines["server.host"] == ["127.0.0.1", "default"]
    shown = cli.run("config", "show", str(config_file), "--json").documents[0]
    assert shown["config"]["server"]["port"] == 8123


def test_config_schema_is_a_json_schema(cli: Cli) -> None:
    schema = json.loads(cli.run("config", "schema").out)
    assert "server" in schema["properties"]


def test_key_is_shown_once_and_can_be_revoked(cli: Cli, config_file: Path) -> None:
    at = ("--config", str(config_file))
    created = cli.run("key", "create", "--tenant", "acme", "--role", "viewer", "--role", "admin", *at)
    assert created.code == 0
    assert created.out.startswith("oq_")
    key_id = created.out.split("_")[1]
    assert f"key `{key_id}` of tenant `acme`: it is not shown again" in created.err
    listed = cli.run("key", "list", *at)
    assert created.out.strip() not in listed.out
    assert listed.out.splitlines()[1].split()[:3] == [key_id, "acme", "admin,viewer"]
    last = cli.run("key", "revoke", key_id, *at)
    assert last.code == 1
    assert "is the last key" in last.err
    assert "hint: create another key first" in last.err
    assert cli.run("key", "revoke", key_id, "--reopen", *at).out == f"key `{key_id}`: revoked\n"
    assert cli.run("key", "list", "--json", *at).documents[0]["keys"][0]["revoked_ms"] is not None


def test_key_create_json_carries_the_secret(cli: Cli, config_file: Path) -> None:
    document = cli.run("key", "create", "--json", "--config", str(config_file)).documents[0]
    assert document["key"].startswith(f"oq_{document['key_id']}_")
    assert document["roles"] == ["operator"]


def test_unknown_role_is_refused_with_the_known_ones(cli: Cli, config_file: Path) -> None:
    outcome = cli.run("key", "create", "--role", "boss", "--config", str(config_file))
    assert outcome.code != 0
    assert "`boss`" in outcome.err
    assert "hint: the roles are `admin`" in outcome.err


def test_receipt_keys_show_only_public_halves(cli: Cli, config_file: Path, tmp_path: Path) -> None:
    at = ("--config", str(config_file))
    assert cli.run("receipt-key", "rotate", *at).code == 0
    exported = json.loads(cli.run("receipt-key", "export", *at).out)
    assert [key["active"] for key in exported["keys"]] == [True, False]
    assert "secret" not in json.dumps(exported)
    file = tmp_path / "keys.json"
    cli.run("receipt-key", "export", "--output", str(file), *at)
    assert json.loads(file.read_text()) == exported
    assert cli.run("receipt-key", "list", "--json", *at).documents == [exported]
    assert len(cli.run("receipt-key", "list", *at).out.splitlines()) == 3


def test_doctor_lists_its_findings(cli: Cli, config_file: Path) -> None:
    outcome = cli.run("doctor", "--config", str(config_file), "--json")
    checks = {check["name"]: check for check in outcome.documents[0]["checks"]}
    assert checks["python"]["status"] == "ok"
    assert checks["model"]["status"] == "ok"
    assert checks["store"]["status"] == "ok"
    assert set(checks) == {"python", "system", "core", "engine", "model", "config", "store", "port", "daemon"}


def test_doctor_finds_a_bad_config(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("server: {port: many}\n")
    outcome = cli.run("doctor", "--config", str(path))
    assert outcome.code == 1
    assert "fail config:" in outcome.out
    assert "hint: `orchqueue config check` shows all of it" in outcome.out


def test_doctor_finds_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = load(None, {"ORCHQUEUE_SERVER__PORT": str(taken.getsockname()[1])})
        assert doctor.free_port(config).status == "fail"
    assert doctor.store_folder(tmp_path / "missing").hint == f"make it: `mkdir -p {tmp_path}/missing`"
