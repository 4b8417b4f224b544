"""`ci/metrics_lint.py URL|FILE`: holds what `/metrics` says to contracts/metrics.yaml (ORCH-4031).

Every required family is there with its type; no family is there that the contract does not require; every
series carries exactly its labels; no label value is outside what bounds it. A finding is one line; no finding
is exit 0.
"""

from __future__ import annotations

import re
import sys
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from contracts import load

TIMEOUT_S = 10
# What a sample's name adds to the name of its family, by the family's type.
SUFFIXES = {"counter": {""}, "gauge": {""}, "histogram": {"_bucket", "_sum", "_count"}}


@dataclass(frozen=True)
class Kind:
    """What bounds the values of a label."""

    values: frozenset[str] | None
    pattern: re.Pattern[str] | None
    most: int | None

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Kind:
        values = document.get("values")
        if document.get("values_from") == "errors.yaml":
            values = [error["code"] for error in load("errors.yaml")["errors"]]
        pattern = re.compile(document["pattern"]) if "pattern" in document else None
        if values is None and (pattern is None or "max" not in document):
            raise ValueError("a label needs `values`, or `pattern` and `max`")
        return cls(frozenset(values) if values is not None else None, pattern, document.get("max"))

    def allows(self, value: str) -> bool:
        if self.values is not None:
            return value in self.values
        return self.pattern is not None and self.pattern.fullmatch(value) is not None


@dataclass(frozen=True)
class Family:
    name: str
    type: str
    labels: dict[str, Kind]


def parse_contract(document: dict[str, Any]) -> tuple[dict[str, Family], set[str]]:
    """The required families by name, and the reserved names."""
    kinds = {name: Kind.parse(body) for name, body in document["labels"].items()}
    families = [_family(entry, kinds) for entry in document["required"] + document["reserved"]]
    if len({family.name for family in families}) != len(families):
        raise ValueError("a family is listed twice")
    required = {entry["name"] for entry in document["required"]}
    return (
        {family.name: family for family in families if family.name in required},
        {family.name for family in families if family.name not in required},
    )


def _family(entry: dict[str, Any], kinds: dict[str, Kind]) -> Family:
    if (entry["type"] == "counter") != entry["name"].endswith("_total"):
        raise ValueError(f"`{entry['name']}`: counters, and only they, end in `_total`")
    named = [item if isinstance(item, dict) else {item: item} for item in entry["labels"]]
    labels = {name: kinds[kind] for item in named for name, kind in item.items()}
    return Family(entry["name"], entry["type"], labels)


def lint(text: str, document: dict[str, Any]) -> list[str]:
    """What is wrong with a scrape, one line each."""
    required, reserved = parse_contract(document)
    try:
        scraped = [(_full_name(metric), metric) for metric in text_string_to_metric_families(text)]
    except ValueError as error:
        return [f"the scrape can't be parsed: {error}"]
    counts = Counter(name for name, _ in scraped)
    findings = [f"`{name}`: missing" for name in sorted(required.keys() - counts.keys())]
    findings += [f"`{name}`: the family comes {count} times" for name, count in counts.items() if count > 1]
    for name, metric in scraped:
        if name in reserved:
            findings.append(f"`{name}`: reserved in the contract; list it as required to expose it")
        elif name not in required:
            findings.append(f"`{name}`: not in the contract")
        else:
            findings.extend(f"`{name}`: {finding}" for finding in _check(required[name], metric))
    return findings


def _full_name(metric: Metric) -> str:
    # The parser takes `_total` off a counter's family.
    return f"{metric.name}_total" if metric.type == "counter" else str(metric.name)


def _check(family: Family, metric: Metric) -> Iterator[str]:
    if metric.type != family.type:
        yield f"type: `{metric.type}`, the contract says `{family.type}`"
        return
    if not metric.documentation:
        yield "no HELP text"
    seen: dict[str, set[str]] = defaultdict(set)
    series: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for sample in metric.samples:
        suffix = sample.name.removeprefix(family.name)
        if suffix not in SUFFIXES[family.type]:
            yield f"unknown sample `{sample.name}`"
            continue
        key = (sample.name, frozenset(sample.labels.items()))
        if key in series:
            yield f"series twice: {sample.labels}"
        series.add(key)
        yield from _check_labels(family, sample.labels, "le" if suffix == "_bucket" else None, seen)
        if sample.value < 0:
            yield f"negative value: {sample.value}"
    for label, values in seen.items():
        most = family.labels[label].most
        if most is not None and len(values) > most:
            yield f"label `{label}` has {len(values)} values, at most: {most}"


def _check_labels(
    family: Family, labels: dict[str, str], own: str | None, seen: dict[str, set[str]]
) -> Iterator[str]:
    have = labels.keys() - {own}
    if have != family.labels.keys():
        yield f"labels: {sorted(have)}, the contract says {sorted(family.labels)}"
        return
    for label in sorted(have):
        seen[label].add(labels[label])
        if not family.labels[label].allows(labels[label]):
            yield f"label `{label}` has a value outside its bounds: `{labels[label]}`"


def read(source: str) -> str:
    """A scrape, from a daemon's address or from a file."""
    if not source.startswith(("http://", "https://")):
        return Path(source).read_text()
    url = source if source.endswith("/metrics") else source.rstrip("/") + "/metrics"
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310
        return str(answer.read().decode())


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: ci/metrics_lint.py URL|FILE\n")
        return 2
    try:
        findings = lint(read(arguments[0]), load("metrics.yaml"))
    except OSError as error:
        sys.stderr.write(f"`{arguments[0]}` can't be read: {error}\n")
        return 3
    for finding in findings:
        sys.stdout.write(f"{finding}\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
