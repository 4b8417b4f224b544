"""`/metrics`: the contract's families in the text format, with the daemon's values (ORCH-4031)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import yaml
from orchqueue.config import load
from orchqueue.control.app import build
from orchqueue.control.errors import _RETRIABLE, STATUS
from orchqueue.control.metrics import FAMILIES
from orchqueue.store import TaskPage
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

CONTRACTS = Path(__file__).parents[2] / "contracts"
QUEUE = {"priority": "batch", "engine": "llamacpp", "pool_id": "tiny"}
LATENCY = {**QUEUE, "engine_version": "b6700"}


class RecordedDaemon:
    def __init__(self) -> None:
        self.document: dict[str, list[Any]] = {"counters": [], "gauges": [], "histograms": []}

    def metrics(self) -> str:
        return json.dumps(self.document)

    def snapshot(self) -> str:
        return json.dumps({"pools": [], "replicas": []})


class NoPools:
    def status(self) -> list[Any]:
        return []


class NoHistory:
    def tasks(self, *_: Any, **__: Any) -> TaskPage:
        return TaskPage([], None)


def app_of(daemon: RecordedDaemon) -> Starlette:
    return build(daemon, NoHistory(), NoPools(), load(None, {}))


async def scrape(app: Starlette) -> httpx.Response:
    headers = {"x-orchqueue-tenant": "default", "x-orchqueue-roles": "viewer"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://daemon") as client:
        return await client.get("/metrics", headers=headers)


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_families_are_those_of_the_contract() -> None:
    contract = yaml.safe_load((CONTRACTS / "metrics.yaml").read_text())
    required = {
        (
            family["name"],
            family["type"],
            tuple(label if isinstance(label, str) else next(iter(label)) for label in family["labels"]),
            family["meaning"],
        )
        for family in contract["required"]
    }
    assert {tuple(family) for family in FAMILIES} == required


def test_the_codes_of_this_app_are_those_of_the_registry() -> None:
    registry = {
        entry["code"]: entry for entry in yaml.safe_load((CONTRACTS / "errors.yaml").read_text())["errors"]
    }
    assert {code: registry[code]["status"] for code in STATUS} == STATUS
    assert {code for code in STATUS if registry[code]["retriable"]} == _RETRIABLE


async def test_every_family_is_there_before_the_first_event() -> None:
    answer = await scrape(app_of(RecordedDaemon()))
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family.type for family in text_string_to_metric_families(answer.text)}
    expected = {family.name.removesuffix("_total"): family.kind for family in FAMILIES}
    assert families == expected


async def test_counters_and_gauges_carry_the_daemons_values_whatever_the_order_of_labels() -> None:
    daemon = RecordedDaemon()
    daemon.document["counters"] = [["tasks_enqueued_total", QUEUE, 12]]
    daemon.document["gauges"] = [["queue_depth", dict(reversed(QUEUE.items())), 3]]
    found = samples((await scrape(app_of(daemon))).text)
    labels = ("engine=llamacpp", "pool_id=tiny", "priority=batch")
    assert found == {("tasks_enqueued_total", *labels): 12.0, ("queue_depth", *labels): 3.0}


async def test_a_histogram_ends_with_its_count() -> None:
    daemon = RecordedDaemon()
    daemon.document["histograms"] = [["latency_decode_ms", LATENCY, [["5", 1], ["900", 4]], 2750.5, 6]]
    found = samples((await scrape(app_of(daemon))).text)
    by_bound = {key[3]: value for key, value in found.items() if key[0].endswith("_bucket")}
    assert by_bound == {"le=5.0": 1.0, "le=900.0": 4.0, "le=+Inf": 6.0}
    totals = {key[0]: value for key, value in found.items() if not key[0].endswith("_bucket")}
    assert totals == {"latency_decode_ms_count": 6.0, "latency_decode_ms_sum": 2750.5}


async def test_a_scrape_reads_anew_and_two_apps_share_nothing() -> None:
    first, second = RecordedDaemon(), RecordedDaemon()
    apps = app_of(first), app_of(second)
    first.document["gauges"] = [["queue_depth", QUEUE, 3]]
    assert samples((await scrape(apps[0])).text) and not samples((await scrape(apps[1])).text)
    first.document["gauges"] = []
    assert not samples((await scrape(apps[0])).text)


async def test_a_family_outside_the_contract_does_not_cost_the_others() -> None:
    daemon = RecordedDaemon()
    daemon.document["counters"] = [["surprise_total", {"a": "b"}, 1], ["tasks_enqueued_total", QUEUE, 2]]
    text = (await scrape(app_of(daemon))).text
    assert "# HELP surprise_total Not in the metrics contract.\n" in text
    assert sorted(samples(text).values()) == [1.0, 2.0]
