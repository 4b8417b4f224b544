"""The daemon's counters, read from `/metrics`: what a gate compares before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchqueue.errors import OrchqueueError


class MetricsUnreadable(OrchqueueError):
    """`/metrics` answered something that is not the exposition format."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Every sample at one moment: name, labels, value."""

    samples: tuple[tuple[str, Mapping[str, str], float], ...]

    @classmethod
    def parse(cls, text: str) -> Counters:
        from prometheus_client.parser import text_string_to_metric_families

        try:
            families = list(text_string_to_metric_families(text))
        except ValueError as error:
            raise MetricsUnreadable(f"`/metrics` cannot be read: {error}") from error
        samples = [sample for family in families for sample in family.samples]
        return cls(tuple((sample.name, sample.labels, sample.value) for sample in samples))

    def has(self, name: str) -> bool:
        """Whether there is any series of this name."""
        return any(found == name for found, _, _ in self.samples)

    def total(self, name: str, **labels: str) -> float:
        """The sum over the series of `name` that carry these labels; 0 where there are none."""
        return sum(
            value
            for found, carried, value in self.samples
            if found == name and all(carried.get(label) == wanted for label, wanted in labels.items())
        )
