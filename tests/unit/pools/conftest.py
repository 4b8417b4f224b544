"""A core that records what it is told and an engine that answers from a table which the test changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from orchqueue.config import Config, load
from orchqueue.pools.replica import Timing
from orchqueue.pools.supervisor import Supervisor

#: As fast as a test can bear; the order of things does not depend on it.
QUICK = Timing(
    starting_poll_s=0.005,
    watch_s=0.01,
    request_timeout_s=2.0,
    patience_s=0.1,
    backoff_first_s=0.01,
    backoff_most_s=0.05,
    lost_after=20,
    stop_grace_s=1.0,
)


class RecordingCore:
    """Keeps every command; `refuse` holds operations that it does not take."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []
        self.refuse: dict[str, str] = {}
        self._told = asyncio.Event()

    def apply(self, command_json: str) -> str:
        command = json.loads(command_json)
        if command["op"] in self.refuse:
            raise ValueError(self.refuse[command["op"]])
        self.commands.append(command)
        self._told.set()
        return "{}"

    def ops(self, *names: str) -> list[dict[str, Any]]:
        return [command for command in self.commands if command["op"] in names]

    def names(self) -> list[str]:
        return [command["op"] for command in self.commands]

    async def until(self, op: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """The `count`th command of this kind, once it has come."""
        async with asyncio.timeout(10):
            while True:
                found = [
                    c for c in self.ops(op) if all(c.get(name) == value for name, value in fields.items())
                ]
                if len(found) >= count:
                    return found[count - 1]
                self._told.clear()
                await self._told.wait()


class TableEngine:
    """Speaks just enough HTTP to be probed. A path that is not in the table is 404."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.authorization: set[str] = set()
        self.answers: dict[str, tuple[int, Any]] = {
            "/health": (200, {"status": "ok"}),
            "/slots?fail_on_no_slot=1": (200, []),
            "/v1/models": (200, {"data": [{"id": "mine"}]}),
            "/props": (
                200,
                {
                    "build_info": "b1-abc",
                    "total_slots": 1,
                    "model_ftype": "F16",
                    "model_alias": "mine",
                    "default_generation_settings": {"n_ctx": 1024},
                },
            ),
        }
        self.url = ""
        self._server: asyncio.Server | None = None

    async def open(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def props(self, **changes: Any) -> None:
        status, body = self.answers["/props"]
        self.answers["/props"] = (status, {**body, **changes})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ")[1]
            self.asked.append(path)
            self.authorization |= {
                line.partition(": ")[2]
                for line in head.split("\r\n")
                if line.lower().startswith("authorization")
            }
            status, body = self.answers.get(path, (404, None))
            text = json.dumps(body).encode()
            writer.write(
                b"HTTP/1.1 %d X\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (status, len(text))
            )
            writer.write(text)
            await writer.drain()
        finally:
            writer.close()


@pytest.fixture
def core() -> RecordingCore:
    return RecordingCore()


@pytest.fixture
async def engine() -> AsyncIterator[TableEngine]:
    engine = TableEngine()
    await engine.open()
    yield engine
    await engine.close()


Start = Callable[..., Any]


@pytest.fixture
async def start(core: RecordingCore, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a supervisor over pools in their file form; it is stopped at the end."""
    running: list[Supervisor] = []

    async def start(*pools: dict[str, Any], env: dict[str, str] | None = None) -> Supervisor:
        supervisor = Supervisor(core, config(tmp_path, pools, env or {}), QUICK)
        running.append(supervisor)
        await supervisor.start()
        return supervisor

    yield start
    for supervisor in running:
        await supervisor.stop(1_000)


def config(folder: Path, pools: tuple[dict[str, Any], ...], env: dict[str, str]) -> Config:
    path = folder / "config.yaml"
    document = {"store": {"url": f"sqlite:///{folder}/oq.db"}, "pools": list(pools)}
    path.write_text(json.dumps(document))
    return load(path, env)
