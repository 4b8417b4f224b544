"""`/metrics` of the running daemon keeps the metrics contract, also after everything has happened once."""

from __future__ import annotations

import httpx
import metrics_lint
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contracts import load

pytestmark = pytest.mark.req("ORCH-4031")


def value(text: str, name: str, **labels: str) -> float:
    """The sum over the series of a sample that carry these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def scrape(http: httpx.Client) -> str:
    answer = http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.text


def submit(http: httpx.Client, **body: object) -> httpx.Response:
    return http.post("/v1/tasks", json={"prompt": "Write a haiku.", "max_tokens": 8, **body})


@pytest.fixture
def lived(http: httpx.Client) -> tuple[str, str]:
    """A scrape before and one after: a task that ends, one that is canceled, one that is refused."""
    before = scrape(http)
    assert submit(http, wait=True, ignore_eos=True).status_code == 200
    long = submit(http, max_tokens=480, ignore_eos=True).json()["task_id"]
    assert http.post(f"/v1/tasks/{long}/cancel").status_code == 204
    assert any(
        submit(http, priority="tight", max_tokens=400, ignore_eos=True).status_code == 429 for _ in range(50)
    )
    return before, scrape(http)


def test_the_linter_has_no_finding(lived: tuple[str, str]) -> None:
    _, after = lived
    assert metrics_lint.lint(after, load("metrics.yaml")) == []


def test_what_happened_is_counted(lived: tuple[str, str]) -> None:
    before, after = lived
    grown = {
        name: value(after, name) - value(before, name)
        for name in (
            "tasks_enqueued_total",
            "tasks_started_total",
            "tasks_canceled_total",
            "tokens_in_total",
            "tokens_out_total",
            "latency_first_token_ms_count",
            "latency_decode_ms_count",
        )
    }
    assert all(growth > 0 for growth in grown.values()), grown
    assert grown["tokens_out_total"] >= 8
    refused = {"reason": "ADMISSION_REJECT"}
    assert value(after, "tasks_rejected_total", **refused) > value(before, "tasks_rejected_total", **refused)
    policy = {"policy": "reject"}
    assert value(after, "admission_backpressure_events_total", **policy) > 0


def test_the_linter_runs_against_a_daemon(http: httpx.Client) -> None:
    assert metrics_lint.main([str(http.base_url)]) == 0
    assert metrics_lint.main([f"{http.base_url}/healthz/metrics"]) == 3
