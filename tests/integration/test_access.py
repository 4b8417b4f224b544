"""Keys, tenants and roles at the door (the command line's part is in tests/e2e/test_keys.py)."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from orchqueue._core import hash_api_key
from orchqueue.testing import ScriptedDaemon, daemon

PEPPER = "5a" * 32
SECRET = "s" * 43
KEYS = {
    "acme": ("a" * 12, "acme", ["operator"]),
    "rival": ("b" * 12, "rival", ["operator"]),
    "looker": ("c" * 12, "acme", ["viewer"]),
}
TASK = "7b0c5a3e-6f0d-4c3b-9d63-0f6f1b1f7a11"
BODY = {"prompt": "Hi", "seed": 1, "task_id": TASK, "wait": True}
SESSION = "0f8fad5b-d9cb-469f-a165-70867728950e"


def hand_over(running: ScriptedDaemon, *names: str) -> None:
    keys = [
        {"key_id": key_id, "tenant": tenant, "roles": roles, "hmac_hex": hash_api_key(PEPPER, SECRET)}
        for key_id, tenant, roles in (KEYS[name] for name in names)
    ]
    running.apply("keys_set", pepper_hex=PEPPER, keys=keys)


@pytest.fixture
def locked() -> Iterator[ScriptedDaemon]:
    """A daemon that lets in only holders of a key."""
    with daemon(["one two"]) as running:
        hand_over(running, *KEYS)
        yield running


def ask(running: ScriptedDaemon, who: str | None, method: str, path: str, **more: Any) -> httpx.Response:
    headers = dict(more.pop("headers", {}))
    if who is not None:
        text = f"oq_{KEYS[who][0]}_{SECRET}" if who in KEYS else who
        headers["authorization"] = f"Bearer {text}"
    return httpx.request(method, f"{running.url}{path}", headers=headers, timeout=10, trust_env=False, **more)


EVERY_DOOR = [
    ("POST", "/v1/tasks"),
    ("GET", f"/v1/tasks/{TASK}"),
    ("GET", f"/v1/tasks/{TASK}/stream"),
    ("GET", f"/v1/tasks/{TASK}/receipt"),
    ("POST", f"/v1/tasks/{TASK}/cancel"),
    ("GET", f"/v1/sessions/{SESSION}"),
    ("DELETE", f"/v1/sessions/{SESSION}"),
    ("GET", "/v1/receipt-keys"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/replicas"),
    ("GET", "/metrics"),
]


# req: ORCH-4040
def test_no_door_opens_without_a_key(locked: ScriptedDaemon) -> None:
    stranger = f"oq_{'d' * 12}_{SECRET}"
    almost = f"oq_{'a' * 12}_{'t' * 43}"
    for method, path in EVERY_DOOR:
        for who in (None, stranger, almost, "oq_"):
            answer = ask(locked, who, method, path, json=BODY if method == "POST" else None)
            assert answer.status_code == 401, (who, path)
            assert answer.headers["www-authenticate"] == "Bearer"
            told = answer.json()
            assert told.get("code", told.get("error", {}).get("code")) == "UNAUTHENTICATED"
    assert locked.engine.requests == []


def test_health_is_everybody_s(locked: ScriptedDaemon) -> None:
    assert [ask(locked, None, "GET", path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_viewer_looks_and_changes_nothing(locked: ScriptedDaemon) -> None:
    assert ask(locked, "acme", "POST", "/v1/tasks", json=BODY).status_code == 200
    assert ask(locked, "looker", "GET", f"/v1/tasks/{TASK}").status_code == 200
    chat = {"messages": [{"role": "user", "content": "Hi"}], "model": "scripted"}
    changes = [
        ("POST", "/v1/tasks", BODY),
        ("POST", f"/v1/tasks/{TASK}/cancel", None),
        ("DELETE", f"/v1/sessions/{SESSION}", None),
        ("POST", "/v1/chat/completions", chat),
    ]
    for method, path, body in changes:
        answer = ask(locked, "looker", method, path, json=body)
        assert answer.status_code == 403, path
    assert len(locked.engine.requests) == 1


def test_tenants_do_not_see_each_other(locked: ScriptedDaemon) -> None:
    body = {**BODY, "session_id": SESSION}
    assert ask(locked, "acme", "POST", "/v1/tasks", json=body).status_code == 200
    hidden = [
        ("GET", f"/v1/tasks/{TASK}"),
        ("GET", f"/v1/tasks/{TASK}/stream"),
        ("GET", f"/v1/tasks/{TASK}/receipt"),
        ("POST", f"/v1/tasks/{TASK}/cancel"),
        ("GET", f"/v1/sessions/{SESSION}"),
        ("DELETE", f"/v1/sessions/{SESSION}"),
    ]
    for method, path in hidden:
        answer = ask(locked, "rival", method, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND"), path
    # An id is a tenant's own: the same one with another body is another task, not a conflict.
    theirs = ask(locked, "rival", "POST", "/v1/tasks", json={**BODY, "prompt": "Ours"})
    assert theirs.status_code == 200
    assert len(locked.engine.requests) == 2


def test_nobody_names_himself_into_another_tenant(locked: ScriptedDaemon) -> None:
    assert ask(locked, "acme", "POST", "/v1/tasks", json=BODY).status_code == 200
    claims = {"x-orchqueue-tenant": "acme", "x-orchqueue-roles": "admin", "x-orchqueue-key-id": "a" * 12}
    answer = ask(locked, "rival", "GET", f"/v1/tasks/{TASK}", headers=claims)
    assert answer.status_code == 404
    answer = ask(locked, "looker", "POST", "/v1/tasks", json=BODY, headers=claims)
    assert answer.status_code == 403


def test_revoked_key_is_refused_at_the_next_request(locked: ScriptedDaemon) -> None:
    assert ask(locked, "acme", "GET", "/v1/models").status_code == 200
    hand_over(locked, "rival")
    assert ask(locked, "acme", "GET", "/v1/models").status_code == 401
    assert ask(locked, "rival", "GET", "/v1/models").status_code == 200
