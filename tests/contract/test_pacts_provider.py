"""The daemon keeps its side of the pact with the Python client."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from interactions import FINISHED_BODY, PROVIDER, RUNNING, SESSION
from orchqueue.testing import LiveDaemon
from pact import Verifier

# The verifier leaves the socket of its state handler to the garbage collector; see `collected`.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

PACTS = Path(__file__).resolve().parents[2] / "contracts" / "pacts"
WAIT_S = 20.0


class States:
    """Brings the daemon into the states that the pact names."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._full = threading.Event()
        self._filler: threading.Thread | None = None

    def handlers(self) -> dict[str, Any]:
        return {
            "the pool is ready": self.ready,
            "a finished task": self.finished,
            "a finished task in the history": self.in_history,
            "an accepted task": self.accepted,
            "a session": self.session,
            "the queue of a class is full": self.full_queue,
        }

    def ready(self, action: str, parameters: dict[str, Any] | None = None) -> None:
        """It is: the fixture has waited for it."""

    def finished(self, action: str, parameters: dict[str, Any] | None = None) -> None:
        if action == "setup":
            self._submit({**FINISHED_BODY, "wait": True}, httpx.codes.OK)

    def in_history(self, action: str, parameters: dict[str, Any] | None = None) -> None:
        self.finished(action)
        until = time.monotonic() + WAIT_S
        while action == "setup" and not self._listed():
            assert time.monotonic() < until, "the task does not appear in the history"
            time.sleep(0.05)

    def accepted(self, action: str, parameters: dict[str, Any] | None = None) -> None:
        if action == "setup":
            self._submit({**FINISHED_BODY, "task_id": RUNNING}, httpx.codes.ACCEPTED)

    def session(self, action: str, parameters: dict[str, Any] | None = None) -> None:
        if action == "setup":
            body = {"prompt": "x", "max_tokens": 1, "session_id": SESSION, "wait": True}
            self._submit(body, httpx.codes.OK)

    def full_queue(self, action: str, parameters: dict[str, Any] | None = None) -> None:
        """Keeps the queue of a class full until the interaction is over."""
        if action == "teardown":
            self._full.set()
            if self._filler is not None:
                self._filler.join()
            return
        assert parameters is not None
        refused = threading.Event()
        self._full.clear()
        arguments = (parameters["priority"], refused)
        self._filler = threading.Thread(target=self._fill, args=arguments, daemon=True)
        self._filler.start()
        assert refused.wait(WAIT_S), "the queue did not fill"

    def _fill(self, priority: str, refused: threading.Event) -> None:
        body = {"prompt": "x", "max_tokens": 400, "ignore_eos": True, "priority": priority}
        ids = []
        while not self._full.is_set():
            answer = self._http.post("/v1/tasks", json=body)
            if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                refused.set()
            else:
                ids.append(answer.json()["task_id"])
        for task_id in ids:
            self._http.post(f"/v1/tasks/{task_id}/cancel")

    def _submit(self, body: dict[str, Any], status: int) -> None:
        answer = self._http.post("/v1/tasks", json=body)
        assert answer.status_code == status, answer.text

    def _listed(self) -> bool:
        tasks = self._http.get("/v1/tasks").json()["tasks"]
        return any(task["task_id"] == FINISHED_BODY["task_id"] for task in tasks)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collects what the verifier left behind while its warning is still ignored."""
    yield
    gc.collect()


def verifier(url: str, http: httpx.Client) -> Verifier:
    states = States(http)
    return (
        Verifier(PROVIDER, "127.0.0.1").add_transport(url=url).state_handler(states.handlers(), teardown=True)
    )


@pytest.mark.req("ORCH-4072")
def test_the_daemon_keeps_the_pact(daemon: LiveDaemon, http: httpx.Client) -> None:
    verifier(daemon.url, http).add_source(PACTS).verify()


def test_a_daemon_that_answers_otherwise_is_caught(
    daemon: LiveDaemon, http: httpx.Client, tmp_path: Path
) -> None:
    (pact,) = PACTS.glob("*.json")
    wrong = pact.read_text().replace('"INVALID_PARAMS"', '"INVALID_PARAM"')
    (tmp_path / pact.name).write_text(wrong)
    with pytest.raises(RuntimeError):
        verifier(daemon.url, http).add_source(tmp_path).filter("unknown field").verify()
