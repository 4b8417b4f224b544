"""`GET /metrics`: the daemon's own counters in the text format of Prometheus (ORCH-4031).

Rust counts and this module only writes down. Every family of the contract (contracts/metrics.yaml; a test
holds `FAMILIES` equal to it) is there from the start, with or without a series.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchqueue.control.principal import reader
from orchqueue.control.sources import Sources

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Family(NamedTuple):
    """A family of the contract."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


_REPLICA = ("engine", "engine_version", "pool_id", "replica_id")
_POOL = ("engine", "pool_id")
_QUEUE = ("engine", "pool_id", "priority")
_LATENCY = ("engine", "engine_version", "pool_id", "priority")

FAMILIES = (
    Family("tasks_enqueued_total", "counter", _QUEUE, "Tasks that were admitted to a queue."),
    Family(
        "tasks_started_total",
        "counter",
        (*_REPLICA, "priority"),
        "Times that a task was placed on a replica.",
    ),
    Family(
        "tasks_canceled_total",
        "counter",
        (*_QUEUE, "reason"),
        "Tasks that ended because someone canceled them.",
    ),
    Family(
        "tasks_rejected_total",
        "counter",
        ("reason", "engine"),
        "Tasks that were refused, at admission or while they waited.",
    ),
    Family("tokens_in_total", "counter", _REPLICA, "Input tokens, by the engine's own count."),
    Family("tokens_out_total", "counter", _REPLICA, "Output tokens, by the engine's own count."),
    Family("tokens_redecoded_total", "counter", _REPLICA, "Tokens that were decoded again for a failover."),
    Family("failovers_total", "counter", _POOL, "Attempts that replaced a failed one in mid-stream."),
    Family("divergences_total", "counter", _POOL, "Re-decodes that were not byte-equal."),
    Family(
        "admission_backpressure_events_total",
        "counter",
        ("engine", "policy"),
        "Times that a full queue refused or dropped a task.",
    ),
    Family("queue_depth", "gauge", _QUEUE, "Tasks that wait."),
    Family("model_state", "gauge", ("model_id", "state"), "1 for the state that the model is in."),
    Family("latency_first_token_ms", "histogram", _LATENCY, "From receipt of the task to its first token."),
    Family("latency_decode_ms", "histogram", _LATENCY, "From the first token to the end."),
)


class DaemonCollector(Collector):
    """Reads the daemon anew at every scrape; keeps nothing."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        document = json.loads(self._read())
        page = _Page()
        for kind in ("counter", "gauge"):
            for name, labels, value in document[f"{kind}s"]:
                page.add(kind, name, labels, value)
        for name, labels, buckets, total, count in document["histograms"]:
            rows = [(str(float(bound)), seen) for bound, seen in buckets]
            page.add("histogram", name, labels, [*rows, ("+Inf", count)], total)
        yield from page.metrics()


_KINDS: dict[str, Callable[..., Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


class _Page:
    """One scrape: every family of the contract, filled series by series."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[Family, Any]] = {}
        for family in FAMILIES:
            self._declare(family)

    def add(self, kind: str, name: str, labels: Mapping[str, str], *sample: Any) -> None:
        """A name that the contract lacks is shown as it is: the linter, not the scrape, has to fail."""
        if name not in self._families:
            self._declare(Family(name, kind, tuple(labels), "Not in the metrics contract."))
        family, metric = self._families[name]
        metric.add_metric([labels[label] for label in family.labels], *sample)

    def metrics(self) -> Iterator[Metric]:
        return (metric for _, metric in self._families.values())

    def _declare(self, family: Family) -> None:
        metric = _KINDS[family.kind](family.name, family.meaning, labels=family.labels)
        self._families[family.name] = (family, metric)


def routes(sources: Sources) -> list[Route]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DaemonCollector(sources.daemon.metrics))

    async def metrics(request: Request) -> Response:
        reader(request)
        return Response(await asyncio.to_thread(generate_latest, registry), media_type=_CONTENT_TYPE)

    return [Route("/metrics", metrics)]
