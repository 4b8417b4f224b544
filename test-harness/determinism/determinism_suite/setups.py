"""The set-ups that are held against the reference, and what each of them is expected to do.

The reference is what every embedded replica is: one sequence, one thread, flash attention off, batches of
2048/512, no prompt cache, one request at a time. Some set-ups are held against another one than that: what
flash attention does to the choice of threads shows only between two engines that both have it on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from orchqueue.determinism.cases import Case, Plan

from determinism_suite.ask import Answer, Load, ask_all
from determinism_suite.compare import Apart, compare
from determinism_suite.launch import Launch, running

#: The set-ups that the design names: each must be caught, and in the way named there.
OTHER_QUANT = "weights of 8 bits"
FLASH_THREADS = "flash attention on, 2 threads against 1"
UNIFIED_UNDER_LOAD = "4 sequences, unified KV, 8 clients"


class Expected(StrEnum):
    #: Not one bit may differ.
    HARMLESS = "harmless"
    #: At least some log-probabilities must differ.
    TOLD_APART = "told apart"
    #: It is only reported.
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Setup:
    name: str
    launch: Launch
    #: What it is held against, one request at a time.
    against: Launch
    load: Load = field(default_factory=Load)
    expected: Expected = Expected.HARMLESS


@dataclass(frozen=True, slots=True)
class Measured:
    """One set-up against the reference."""

    setup: Setup
    apart: Apart

    @property
    def as_expected(self) -> bool:
        match self.setup.expected:
            case Expected.HARMLESS:
                return self.apart.harmless
            case Expected.TOLD_APART:
                return self.apart.logprobs > 0
            case Expected.OPEN:
                return True


def setups(base: Launch, other_quant: Path | None) -> list[Setup]:
    """All of them around the reference `base`, the control first."""
    flash = replace(base, flash_attn=True)
    four = replace(base, parallel=4)
    unified = replace(four, kv_unified=True)
    busy, cached, told, open_ = Load(clients=8), Load(cache_prompt=True), Expected.TOLD_APART, Expected.OPEN
    found = [
        Setup("the same again", base, base),
        Setup("8 clients at once", base, base, busy),
        Setup("last request first", base, base, Load(reverse=True)),
        Setup("prompt cache on", replace(base, cache_prompt=True), base, cached),
        Setup("2 threads", replace(base, threads=2), base),
        Setup("batches of 128/128", replace(base, batch=128, ubatch=128), base, expected=open_),
        Setup("twice the context", replace(base, ctx=2 * base.ctx), base),
        Setup("4 sequences, one request at a time", four, base, expected=open_),
        Setup("4 sequences, 8 clients", four, base, busy, told),
        Setup(UNIFIED_UNDER_LOAD, unified, base, busy, told),
        Setup("flash attention on", flash, base, expected=told),
        Setup("flash attention on, the same again", flash, flash),
        Setup("flash attention on, 8 clients at once", flash, flash, busy),
        Setup(FLASH_THREADS, replace(flash, threads=2), flash, expected=told),
        Setup("flash attention on, prompt cache on", replace(flash, cache_prompt=True), flash, cached, open_),
        Setup(
            "flash attention on, batches of 128/128",
            replace(flash, batch=128, ubatch=128),
            flash,
            expected=open_,
        ),
    ]
    if other_quant is not None:
        found.append(Setup(OTHER_QUANT, replace(base, model=other_quant), base, expected=told))
    return found


def measure(found: Sequence[Setup], plan: Plan) -> Iterator[Measured]:
    """Every set-up against what it is held against, which is run once."""
    cases = plan.cases()
    known: dict[Launch, list[Answer]] = {}
    for setup in found:
        against = setup.against
        if against not in known:
            known[against] = answers(against, Load(), cases)
        yield Measured(setup, compare(known[against], answers(setup.launch, setup.load, cases)))


def answers(launch: Launch, load: Load, cases: list[Case]) -> list[Answer]:
    """What an engine that is started for this says to all cases."""
    with running(launch) as url:
        return ask_all(url, cases, load)
