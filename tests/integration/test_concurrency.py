"""Many tasks at once on real replicas: all of them end, and equal requests give equal bytes."""

import asyncio
from collections.abc import Iterator

import pytest
from orchqueue import AsyncClient, End
from orchqueue.testing import LiveDaemon

TASKS = 64
SEEDS = 16
PROMPT = "Write one line about the sea."


@pytest.fixture(scope="module")
def live() -> Iterator[LiveDaemon]:
    pool = {"id": "tiny", "engine": "llamacpp", "replicas": [{"spawn": "embedded", "count": 2}]}
    with LiveDaemon({"pools": [pool]}) as daemon:
        yield daemon


async def streamed(client: AsyncClient, seed: int) -> tuple[int, str, End]:
    stream = client.stream(PROMPT, seed=seed, max_tokens=32)
    end = await stream.result()
    return seed, stream.text, end


# req: ORCH-4011, ORCH-3007
async def test_64_streams_on_two_replicas_end_and_equal_seeds_give_equal_texts(live: LiveDaemon) -> None:
    async with AsyncClient(live.url) as client:
        results = await asyncio.gather(*(streamed(client, number % SEEDS) for number in range(TASKS)))
    assert len(results) == TASKS
    texts = {seed: {text for at, text, _ in results if at == seed} for seed in range(SEEDS)}
    assert all(len(found) == 1 for found in texts.values())
    assert len({text for found in texts.values() for text in found}) > 1
    ends = [end for _, _, end in results]
    replicas = {end.receipt["attempts"][0]["replica_id"] for end in ends if end.receipt}
    assert replicas == {"tiny-0", "tiny-1"}
    digests = {(end.receipt["seed"], end.receipt["output_digest"]) for end in ends if end.receipt}
    assert len(digests) == SEEDS


async def test_64_submitted_tasks_are_all_finished(live: LiveDaemon) -> None:
    async with AsyncClient(live.url) as client:
        tasks = await asyncio.gather(
            *(client.submit(PROMPT, seed=number % SEEDS, max_tokens=32) for number in range(TASKS))
        )
        assert len({task.id for task in tasks}) == TASKS
        await asyncio.gather(*(task.stream().result() for task in tasks))
        states = await asyncio.gather(*(task.refresh() for task in tasks))
    assert {state["state"] for state in states} == {"finished"}
    texts = {(number % SEEDS, state["output"]["text"]) for number, state in enumerate(states)}
    assert len(texts) == SEEDS


async def test_half_of_them_canceled_leaves_the_other_half(live: LiveDaemon) -> None:
    async with AsyncClient(live.url) as client:
        tasks = await asyncio.gather(
            *(client.submit(PROMPT, seed=1, max_tokens=200, ignore_eos=True) for _ in range(32))
        )
        await asyncio.gather(*(task.cancel() for task in tasks[::2]))
        await asyncio.gather(*(task.stream().result() for task in tasks[1::2]))
        states = [(await task.refresh())["state"] for task in tasks]
    assert set(states[1::2]) == {"finished"}
    # The first ones may have been done before their cancel came.
    assert set(states[::2]) <= {"canceled", "finished"}
    assert states[::2].count("canceled") >= 8
