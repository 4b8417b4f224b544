"""API keys, from `orchqueue key create` to the door of a running daemon."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from orchqueue.errors import Forbidden, NotFound, Unauthenticated
from orchqueue.testing import LiveDaemon

from .conftest import Run


@pytest.fixture
def live() -> Iterator[LiveDaemon]:
    with LiveDaemon() as daemon:
        yield daemon


def create(run: Run, live: LiveDaemon, tenant: str, role: str) -> dict[str, Any]:
    result = run(
        "key", "create", "--tenant", tenant, "--role", role, "--config", str(live.config_path), "--json"
    )
    assert result.returncode == 0, result.stderr
    created: dict[str, Any] = json.loads(result.stdout)
    return created


def wait_until_closed(live: LiveDaemon) -> None:
    """The daemon looks at its keys once a second."""
    until = time.monotonic() + 5
    with live.client() as client:
        while time.monotonic() < until:
            try:
                client.capabilities()
            except Unauthenticated:
                return
            time.sleep(0.05)
    raise AssertionError("the daemon stayed open after a key was made")


# req: ORCH-4040
def test_a_key_closes_the_daemon_and_opens_it_for_its_tenant(live: LiveDaemon, run: Run) -> None:
    acme = create(run, live, "acme", "operator")
    wait_until_closed(live)
    with live.client() as nobody, pytest.raises(Unauthenticated) as caught:
        nobody.run("Hi", max_tokens=2)
    assert caught.value.http_status == 401
    with live.client(acme["key"]) as client:
        task = client.run("Hi", max_tokens=2)
        assert task["state"] == "finished"

    rival = create(run, live, "rival", "operator")
    viewer = create(run, live, "acme", "viewer")
    time.sleep(1.5)
    with live.client(rival["key"]) as client, pytest.raises(NotFound):
        client.task(task["task_id"])
    with live.client(viewer["key"]) as client:
        assert client.task(task["task_id"])["state"] == "finished"
        with pytest.raises(Forbidden):
            client.run("Hi", max_tokens=2)

    assert run("key", "revoke", acme["key_id"], "--config", str(live.config_path)).returncode == 0
    time.sleep(1.5)
    with live.client(acme["key"]) as client, pytest.raises(Unauthenticated):
        client.task(task["task_id"])


def test_a_key_that_is_almost_right_is_not_let_in(live: LiveDaemon, run: Run) -> None:
    key = create(run, live, "acme", "operator")["key"]
    wait_until_closed(live)
    for wrong in (key[:-1], f"{key}x", key.replace("oq_", "oq-"), key[:16], "oq_", "x" * 200):
        with live.client(wrong) as client, pytest.raises(Unauthenticated):
            client.capabilities()
