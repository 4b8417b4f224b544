"""The loop between journal and store: its pace, its patience, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from orchqueue.store import JournalRecord, Retention, Store, StoreFenced
from orchqueue.store.fold import BATCH, Folder, Pace

QUICK = Pace(busy_s=0.001, idle_s=0.001, backoff_s=0.001, backoff_max_s=0.004)


class RecordingJournal:
    """A journal in memory that notes what it was asked."""

    def __init__(self) -> None:
        self.records: list[JournalRecord] = []
        self.reads: list[tuple[int, int]] = []
        self.trims: list[int] = []

    def admit(self, count: int) -> None:
        for _ in range(count):
            seq = len(self.records) + 1
            self.records.append(JournalRecord(seq, "default", f"t{seq}", "admitted", seq, "{}"))

    def journal_read(self, after_seq: int, limit: int) -> list[tuple[int, str, str, str, int, str]]:
        self.reads.append((after_seq, limit))
        return [tuple(record) for record in self.records if record.seq > after_seq][:limit]

    def journal_trim(self, folded_seq: int) -> int:
        self.trims.append(folded_seq)
        return 0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/tasks.db") as opened:
        yield opened


def folder(journal: RecordingJournal, store: Store, pace: Pace = QUICK) -> Folder:
    return Folder(journal, store, Retention(), now_ms=lambda: 10, pace=pace)


def test_a_batch_goes_on_where_the_store_stands_and_then_trims(store: Store) -> None:
    journal = RecordingJournal()
    journal.admit(BATCH + 20)
    folding = folder(journal, store)
    assert [folding.fold_batch() for _ in range(3)] == [BATCH, 20, 0]
    assert journal.reads == [(0, BATCH), (BATCH, BATCH), (BATCH + 20, BATCH)]
    assert journal.trims == [BATCH, BATCH + 20]


async def test_the_end_folds_what_is_left(store: Store) -> None:
    journal = RecordingJournal()
    journal.admit(2 * BATCH + 1)
    stop = asyncio.Event()
    stop.set()
    await asyncio.wait_for(folder(journal, store).run(stop), 30)
    assert store.folded_seq() == 2 * BATCH + 1


async def test_records_that_arrive_while_it_runs_are_folded(store: Store) -> None:
    journal = RecordingJournal()
    stop = asyncio.Event()
    running = asyncio.create_task(folder(journal, store).run(stop))
    journal.admit(3)
    while store.folded_seq() < 3:
        await asyncio.sleep(0)
    journal.admit(1)
    stop.set()
    await asyncio.wait_for(running, 30)
    assert store.folded_seq() == 4


async def test_a_store_that_fails_is_tried_again_later_each_time_and_nothing_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = RecordingJournal()
    journal.admit(5)
    stop = asyncio.Event()
    whole = store.fold
    failures = 5

    def failing(records: list[JournalRecord]) -> int:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError("disk full")
        return whole(records)

    monkeypatch.setattr(store, "fold", failing)
    running = asyncio.create_task(folder(journal, store).run(stop))
    while store.folded_seq() < 5:
        await asyncio.sleep(0)
    stop.set()
    await asyncio.wait_for(running, 30)
    rests = [record.__dict__["retry_s"] for record in caplog.records if record.levelname == "ERROR"]
    assert rests == [0.001, 0.002, 0.004, 0.004, 0.004]
    assert journal.trims[0] == 5


async def test_a_store_that_stays_broken_does_not_hold_up_the_shutdown(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: object) -> int:
        raise OSError("disk full")

    journal = RecordingJournal()
    journal.admit(5)
    stop = asyncio.Event()
    stop.set()
    monkeypatch.setattr(store, "fold", failing)
    await asyncio.wait_for(folder(journal, store).run(stop), 30)
    assert journal.trims == []


async def test_a_lost_lease_ends_the_loop(store: Store, tmp_path: Path) -> None:
    journal = RecordingJournal()
    journal.admit(1)
    store.files.owner.unlink()
    with Store.open(f"sqlite:///{tmp_path}/tasks.db"), pytest.raises(StoreFenced):
        await asyncio.wait_for(folder(journal, store).run(asyncio.Event()), 30)


def test_retention_is_looked_at_once_a_minute(store: Store) -> None:
    journal = RecordingJournal()
    clock = iter([60_000, 60_001, 119_999, 120_000])
    folding = Folder(journal, store, Retention(), now_ms=lambda: next(clock), pace=Pace())
    for _ in range(4):
        folding.keep_to_retention()
    assert len(journal.trims) == 2
