"""The steps of `features/journey_submit.feature`."""

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from orchqueue import AsyncClient, Client, End, Error, Event, Metrics, Started, Task, TaskStream, Token
from orchqueue.errors import Canceled
from orchqueue.testing import LiveDaemon
from pytest_bdd import given, parsers, scenarios, then, when

scenarios("features/journey_submit.feature")


@dataclass
class Journey:
    """What has happened so far in one scenario."""

    daemon: LiveDaemon
    client: Client
    task: Task | None = None
    events: list[Event] = field(default_factory=list)
    again: list[Event] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    tokens_before: float = 0.0
    waiting: list[Task] = field(default_factory=list)

    @property
    def the_task(self) -> Task:
        assert self.task is not None
        return self.task

    @property
    def tokens(self) -> list[Token]:
        return [event for event in self.events if isinstance(event, Token)]


def counted_tokens(url: str) -> float:
    """`tokens_out_total` over all replicas, as `/metrics` has it."""
    text = httpx.get(f"{url}/metrics").raise_for_status().text
    return sum(float(value) for value in re.findall(r"^tokens_out_total\{[^}]*\} (\S+)$", text, re.MULTILINE))


def read(stream: TaskStream) -> list[Event]:
    """Every event, the terminal too when it is an error."""
    events: list[Event] = []
    try:
        events += stream
    except Canceled:
        assert isinstance(stream.terminal, Error)
        events.append(stream.terminal)
    return events


@pytest.fixture
def opened() -> Iterator[list[Client]]:
    clients: list[Client] = []
    yield clients
    for client in clients:
        client.close()


def start(daemon: LiveDaemon, opened: list[Client]) -> Journey:
    client = daemon.client()
    opened.append(client)
    return Journey(daemon, client, tokens_before=counted_tokens(daemon.url))


@given("a daemon with two llama.cpp replicas", target_fixture="journey")
def two_replicas(live: LiveDaemon, opened: list[Client]) -> Journey:
    return start(live, opened)


@given("a daemon with a slow llama.cpp replica", target_fixture="journey")
def slow_replica(slow: LiveDaemon, opened: list[Client]) -> Journey:
    return start(slow, opened)


@when(parsers.parse('I submit "{prompt}" with seed {seed:d}'))
def submit_with_seed(journey: Journey, prompt: str, seed: int) -> None:
    journey.task = journey.client.submit(prompt, seed=seed, max_tokens=48)


@when(parsers.parse('I submit "{prompt}" with room for {tokens:d} tokens'))
def submit_long(journey: Journey, prompt: str, tokens: int) -> None:
    journey.task = journey.client.submit(prompt, max_tokens=tokens)


@when(parsers.parse('I submit "{prompt}" with seed {seed:d} eight times at once'))
def submit_eight(journey: Journey, prompt: str, seed: int) -> None:
    async def all_of_them() -> list[dict[str, Any]]:
        async with AsyncClient(journey.daemon.url) as client:
            return await asyncio.gather(*(client.run(prompt, seed=seed, max_tokens=48) for _ in range(8)))

    journey.texts = [task["output"]["text"] for task in asyncio.run(all_of_them())]


@when("I read its stream to the end")
def read_stream(journey: Journey) -> None:
    journey.events = read(journey.the_task.stream())


@when("I read its stream a second time")
def read_again(journey: Journey) -> None:
    journey.again = read(journey.the_task.stream())


@when("I cancel it after its third token")
def cancel_after_three(journey: Journey) -> None:
    stream = journey.the_task.stream()
    while len(journey.tokens) < 3:
        journey.events.append(next(stream))
    journey.the_task.cancel()
    # What the daemon had sent before the cancel may still arrive; after the answer nothing is added.
    journey.events += read(stream)


@when("the replica is busy with another task")
def occupy(journey: Journey) -> None:
    other = journey.client.submit("Keep it busy.", max_tokens=900)
    stream = other.stream()
    while not isinstance(next(stream), Token):
        pass
    stream.close()
    journey.waiting.append(other)


@when("I cancel it while it waits")
def cancel_waiting(journey: Journey) -> None:
    assert journey.the_task.refresh()["state"] == "queued"
    journey.the_task.cancel()
    journey.events = read(journey.the_task.stream())
    for other in journey.waiting:
        other.cancel()


@then('the stream was "started", then tokens, then "end"')
def shape_of_stream(journey: Journey) -> None:
    kinds = [type(event).__name__ for event in journey.events if type(event).__name__ != "Metrics"]
    assert kinds[0] == "Started"
    assert kinds[-1] == "End"
    assert set(kinds[1:-1]) == {"Token"}


@then("every token and the end carry an id that grows with the output")
def ids_grow(journey: Journey) -> None:
    output = 0
    for event in journey.tokens:
        output += len(event.text.encode())
        assert event.id is not None
        assert re.fullmatch(rf"{output}-[0-9a-f]{{16}}", event.id)
    last = journey.events[-1]
    assert last.id == f"{journey.tokens[-1].id}-end"


@then(parsers.parse('the task is "{state}" and its output is what was streamed'))
def output_is_kept(journey: Journey, state: str) -> None:
    task = journey.the_task.refresh()
    assert task["state"] == state
    assert task["output"]["text"] == "".join(token.text for token in journey.tokens)
    assert task["output"]["text"].strip()


@then("the daemon counted the tokens of the task")
def tokens_counted(journey: Journey) -> None:
    end = journey.events[-1]
    assert isinstance(end, End)
    assert end.tokens_out
    grown = counted_tokens(journey.daemon.url) - journey.tokens_before
    assert grown == end.tokens_out


@then("all texts are equal, byte for byte")
def texts_equal(journey: Journey) -> None:
    assert len(journey.texts) == 8
    assert len(set(journey.texts)) == 1


@then("another seed gives another text")
def other_seed(journey: Journey) -> None:
    others = {
        journey.client.run("Write one line about the sea.", seed=seed, max_tokens=48)["output"]["text"]
        for seed in (12, 13, 14)
    }
    assert others - set(journey.texts)


@then("both readings are the same")
def readings_equal(journey: Journey) -> None:
    def told(events: list[Event]) -> list[tuple[str | None, Any]]:
        return [(event.id, event.data) for event in events if not isinstance(event, Started)]

    assert told(journey.again) == told(journey.events)


@then(parsers.parse('its stream ends with "{code}" and no token follows'))
def ends_with(journey: Journey, code: str) -> None:
    last = journey.events[-1]
    assert isinstance(last, Error)
    assert last.code == code
    assert sum(isinstance(event, (End, Error)) for event in journey.events) == 1
    # Whoever comes after the cancel gets its end and nothing of its output.
    again = read(journey.the_task.stream())
    assert [type(event) for event in again if not isinstance(event, Metrics)] == [Started, Error]


@then(parsers.parse('the task is "{state}"'))
def task_state(journey: Journey, state: str) -> None:
    assert journey.the_task.refresh()["state"] == state


@then("the replica is free for the next task within a second")
def replica_is_free(journey: Journey) -> None:
    begun = time.monotonic()
    stream = journey.client.stream("Next.", max_tokens=4)
    while not isinstance(next(stream), Token):
        pass
    assert time.monotonic() - begun < 1.0
    stream.result()
