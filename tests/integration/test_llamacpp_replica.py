"""The adapter, the probe and the embedded replica against the real llama.cpp server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from orchqueue import models
from orchqueue.adapters.llamacpp import LLAMACPP
from orchqueue.config import ManagedReplica, load
from orchqueue.engines.embedded import PACKAGE, engine_version
from orchqueue.pools.catalog import Digests
from orchqueue.pools.probe import Access, EngineClient, probe
from orchqueue.pools.source import EmbeddedSource, Opened

PARAMS: dict[str, Any] = {
    "temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "typical_p": 1.0, "repeat_penalty": 1.0,
    "repeat_last_n": 64, "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": 7, "max_tokens": 24,
    "prompt": "Write one line about the sea.",
    "messages": [{"role": "user", "content": "Write one line about the sea."}],
}  # fmt: skip


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[EmbeddedSource]:
    pool = load(None, {}).pools[0]
    source = EmbeddedSource(pool, ManagedReplica(id="tiny-0", spawn="embedded"), tmp_path, Digests(None))
    yield source
    await source.close(2.0)


@pytest.fixture
async def opened(source: EmbeddedSource) -> Opened:
    return await source.open()


def rendered(workload: str, **changes: Any) -> Any:
    """The body of a route with the template's places filled in."""

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            if "$" in value:
                return params[value["$"]]
            inner = {key: fill(one) for key, one in value.items() if not _absent(one, params)}
            return inner
        return [fill(one) for one in value] if isinstance(value, list) else value

    params = {**PARAMS, **changes}
    return fill(LLAMACPP.document()["routes"][workload]["body"])


def _absent(value: Any, params: dict[str, Any]) -> bool:
    if isinstance(value, dict) and "$?" in value:
        name = value.pop("$?")
        value["$"] = name
        return name not in params
    return False


async def stream(access: Access, workload: str, **changes: Any) -> list[Any]:
    """The data of every event, as JSON where it is JSON."""
    path = LLAMACPP.document()["routes"][workload]["path"]
    headers = {"Authorization": f"Bearer {access.api_key}"}
    events: list[Any] = []
    async with httpx.AsyncClient(base_url=access.url, headers=headers, timeout=30) as http:
        async with http.stream("POST", path, json=rendered(workload, **changes)) as response:
            assert response.status_code == 200, await response.aread()
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    data = line.removeprefix("data: ")
                    events.append(data if data == "[DONE]" else json.loads(data))
    return events


def pointed(event: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        try:
            event = event[int(part) if isinstance(event, list) else part]
        except (KeyError, IndexError, TypeError):
            return None
    return event


# req: ORCH-4062
async def test_replica_is_probed_as_what_it_is(opened: Opened) -> None:
    client = EngineClient(opened.access, 5.0)
    try:
        assert await client.status(LLAMACPP.health.path) == LLAMACPP.health.ok_status
        found = await probe(client, LLAMACPP, opened.facts, Digests(None))
        assert await client.status("/slots?fail_on_no_slot=1") == 200
    finally:
        await client.close()
    assert (found.reproducible, found.reason) == (True, "")
    assert found.model_digest == models.digest("orchqueue-tiny")
    assert found.engine_version == engine_version() != PACKAGE
    assert (found.slots, found.ctx) == (1, 512)
    assert found.model_names == ("orchqueue-tiny",)
    assert found.identity["quant"] == "F16"
    assert found.identity["flags"] == {"n_parallel": 1, "flash_attn": False, "n_batch": 2048, "n_ubatch": 512}


async def test_replica_is_closed_to_whoever_has_no_key(opened: Opened) -> None:
    async with httpx.AsyncClient(base_url=opened.access.url) as http:
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/slots")).status_code == 401
        assert (await http.post("/completion", json={"prompt": "x"})).status_code == 401


async def test_completion_streams_as_the_grammar_says(opened: Opened) -> None:
    grammar = LLAMACPP.document()["routes"]["completion"]["grammar"]
    events = await stream(opened.access, "completion")
    *tokens, end = events
    assert "".join(pointed(one, grammar["text"]["text"][0]) for one in tokens)
    assert all(pointed(one, grammar["end"]["pointer"]) is not True for one in tokens)
    assert pointed(end, grammar["end"]["pointer"]) is True
    assert pointed(end, grammar["finish_reason"]["pointers"][0]) in grammar["finish_reason"]["map"]
    counts = [pointed(one, grammar["count"][0]) for one in tokens]
    assert counts == sorted(counts)
    assert pointed(end, grammar["usage"]["tokens_out"][0]) >= counts[-1]
    assert pointed(end, grammar["usage"]["tokens_in"][0]) > 0
    assert pointed(end, grammar["usage"]["tokens_cached"][0]) == 0


# req: ORCH-4013
async def test_engine_takes_every_parameter_that_is_sent(opened: Opened) -> None:
    end = (await stream(opened.access, "completion", temperature=0.25, top_k=3, stop=["zzz"]))[-1]
    body, used = rendered("completion", temperature=0.25, top_k=3, stop=["zzz"]), end["generation_settings"]
    echoed = set(body) & set(used) - {"stream", "n_predict", "return_progress"}
    assert {
        "seed",
        "temperature",
        "top_k",
        "samplers",
        "mirostat",
        "dry_multiplier",
        "adaptive_target",
    } <= echoed
    for name in echoed:
        assert used[name] == pytest.approx(body[name]), name


async def test_chat_streams_as_the_grammar_says(opened: Opened) -> None:
    grammar = LLAMACPP.document()["routes"]["chat"]["grammar"]
    *events, done = await stream(opened.access, "chat")
    assert done == grammar["done"]
    text = "".join(pointed(one, grammar["text"]["text"][0]) or "" for one in events)
    assert text.strip()
    ends = [one for one in events if pointed(one, grammar["end"]["pointer"]) is not None]
    assert len(ends) == 1
    assert pointed(events[-1], grammar["usage"]["tokens_out"][0]) > 0
    assert pointed(events[-1], grammar["usage"]["tokens_in"][0]) > 0


# req: ORCH-4011
async def test_equal_requests_give_equal_bytes(opened: Opened) -> None:
    def text(events: list[Any]) -> str:
        return "".join(one["content"] for one in events)

    first = text(await stream(opened.access, "completion", seed=11))
    await stream(opened.access, "completion", prompt="something else entirely", seed=1)
    assert text(await stream(opened.access, "completion", seed=11)) == first
    # The control: another seed is another text.
    assert text(await stream(opened.access, "completion", seed=12)) != first


async def test_killed_replica_is_told_and_leaves_nothing(source: EmbeddedSource, opened: Opened) -> None:
    pid = source.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        assert await source.ended() == "was killed by SIGKILL"
    assert source.pid is None


# req: ORCH-4060
async def test_replica_does_not_outlive_a_killed_daemon(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from orchqueue.config import ManagedReplica, load\n"
        "from orchqueue.pools.catalog import Digests\n"
        "from orchqueue.pools.source import EmbeddedSource\n"
        "async def main():\n"
        "    replica = ManagedReplica(id='tiny-0', spawn='embedded')\n"
        "    source = EmbeddedSource(load(None, {}).pools[0], replica, Path(sys.argv[1]), Digests(None))\n"
        "    opened = await source.open()\n"
        "    print(source.pid, opened.access.url, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    root = str(Path(__file__).parents[2] / "python")
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    ) as run:
        assert run.stdout is not None
        pid, url = run.stdout.readline().split()
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{url}/health")).status_code == 200
        run.kill()
    async with asyncio.timeout(10):
        while _runs(int(pid)):
            await asyncio.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
