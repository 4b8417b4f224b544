"""The metrics linter finds what it is for: a good scrape passes, each fault is one finding."""

from __future__ import annotations

import re
from pathlib import Path

import metrics_lint
import pytest

from contracts import load

pytestmark = pytest.mark.req("ORCH-4031")

LABELS = {
    "engine": "llamacpp",
    "engine_version": "b6123",
    "pool_id": "tiny",
    "replica_id": "tiny-0",
    "priority": "interactive",
}
OWN = {
    "tasks_canceled_total": {"reason": "client"},
    "tasks_rejected_total": {"reason": "ADMISSION_REJECT", "engine": "any"},
    "admission_backpressure_events_total": {"policy": "drop-lru", "engine": "any"},
    "model_state": {"model_id": "orchqueue-tiny", "state": "Active"},
}


def good() -> str:
    """A scrape with one series of every required family."""
    return "".join(_family(entry) for entry in load("metrics.yaml")["required"])


def _family(entry: dict[str, object]) -> str:
    name, kind = str(entry["name"]), str(entry["type"])
    values = {**LABELS, **OWN.get(name, {})}
    listed = entry["labels"]
    assert isinstance(listed, list)
    names = [next(iter(item)) if isinstance(item, dict) else item for item in listed]
    labels = ",".join(f'{label}="{values[label]}"' for label in names)
    head = f"# HELP {name} {entry['meaning']}\n# TYPE {name} {kind}\n"
    if kind != "histogram":
        return f"{head}{name}{{{labels}}} 3\n"
    buckets = "".join(f'{name}_bucket{{{labels},le="{le}"}} {n}\n' for le, n in (("5", 1), ("+Inf", 2)))
    return f"{head}{buckets}{name}_sum{{{labels}}} 9.5\n{name}_count{{{labels}}} 2\n"


def findings(text: str) -> list[str]:
    return metrics_lint.lint(text, load("metrics.yaml"))


def test_a_good_scrape_has_no_finding() -> None:
    assert findings(good()) == []


def test_a_family_without_series_is_still_there() -> None:
    text = re.sub(r"^tasks_canceled_total\{.*\n", "", good(), flags=re.MULTILINE)
    assert findings(text) == []


@pytest.mark.parametrize(
    ("change", "replacement", "finding"),
    [
        (r"^.*queue_depth.*\n", "", "`queue_depth`: missing"),
        (
            r"\Z",
            "# HELP my_total x\n# TYPE my_total counter\nmy_total 1\n",
            "`my_total`: not in",
        ),
        (
            r"\Z",
            "# HELP reuse_hits_total x\n# TYPE reuse_hits_total counter\nreuse_hits_total 1\n",
            "`reuse_hits_total`: reserved",
        ),
        (r"TYPE queue_depth gauge", "TYPE queue_depth summary", "`queue_depth`: type"),
        (r"^(queue_depth\{)", r'\1task_id="a",', "`queue_depth`: labels"),
        (r'^(queue_depth\{.*)priority="interactive"', r'\1prio="interactive"', "`queue_depth`: labels"),
        (r'^(tasks_rejected_total\{.*)ADMISSION_REJECT"', r'\1OH_NO"', "label `reason` has a value outside"),
        (r'^(queue_depth\{.*pool_id=")tiny"', r'\1A pool!"', "label `pool_id` has a value outside"),
        (r"^# HELP queue_depth.*\n", "", "`queue_depth`: no HELP text"),
        (r"^(queue_depth\{.*\}) 3$", r"\1 -3", "negative value"),
        (r"^(queue_depth\{.*\}) 3$", r"\1 3\n\1 4", "series twice"),
        (r"^(queue_depth\{.*\}) 3$", r"\1 three", "can't be parsed"),
        (r"\Z", "queue_depth 1\n", "`queue_depth`: the family comes 2 times"),
    ],
)
def test_a_fault_is_found(change: str, replacement: str, finding: str) -> None:
    text = re.sub(change, replacement, good(), count=0 if not replacement else 1, flags=re.MULTILINE)
    assert text != good()
    found = findings(text)
    assert any(finding in line for line in found), found


def test_a_label_that_grows_without_bound_is_found() -> None:
    series = "".join(
        f'queue_depth{{engine="llamacpp",pool_id="tiny",priority="class-{n}"}} 1\n' for n in range(17)
    )
    found = findings(good().replace("queue_depth{", series + "queue_depth{"))
    assert any("label `priority` has 18 values" in line for line in found), found


def test_the_command_says_by_its_exit_code_what_came_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scrape = tmp_path / "scrape.txt"
    scrape.write_text(good())
    assert metrics_lint.main([str(scrape)]) == 0
    scrape.write_text(good() + "surprise 1\n")
    assert metrics_lint.main([str(scrape)]) == 1
    assert "`surprise`: not in the contract" in capsys.readouterr().out
    assert metrics_lint.main([]) == 2
    assert metrics_lint.main([str(tmp_path / "absent.txt")]) == 3


@pytest.mark.parametrize("body", [{}, {"pattern": "x"}])
def test_a_contract_with_an_unbounded_label_is_refused(body: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="`values`, or `pattern` and `max`"):
        metrics_lint.Kind.parse(body)
