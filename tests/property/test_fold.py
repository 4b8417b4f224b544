"""The fold is a function of the records alone: batches, crashes and repetitions leave no trace."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from orchqueue.store import JournalRecord, Store, TaskRow
from orchqueue.store import queries as store_queries

ERRORS = [
    None,
    {"code": "CANCELED", "message": "m", "retriable": False},
    {"code": "WORKER_RESET", "message": "m"},
]


def documents(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    match kind:
        case "admitted":
            return st.fixed_dictionaries({"priority": st.sampled_from(["interactive", "batch"])})
        case "started":
            return st.fixed_dictionaries({"attempt": st.integers(1, 3), "replica": st.just("tiny-0")})
        case _:
            return st.fixed_dictionaries(
                {"error": st.sampled_from(ERRORS), "end": st.just({"finish_reason": "stop"})}
            )


@st.composite
def journals(draw: st.DrawFn) -> list[JournalRecord]:
    """Any order of records, also impossible ones: few tasks, so that they meet often."""
    records = []
    for seq in range(1, draw(st.integers(1, 25)) + 1):
        kind = draw(st.sampled_from(["admitted", "started", "ended"]))
        data = draw(st.one_of(documents(kind), documents(kind), st.just({})))
        task, tenant = draw(st.sampled_from(["t1", "t2", "t3"])), draw(st.sampled_from(["a", "b"]))
        records.append(JournalRecord(seq, tenant, task, kind, 1000 + seq, json.dumps(data)))
    return records


class PowerCut(Exception):
    """The process dies inside a transaction."""


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables, to be copied: making them anew takes longer than an example."""
    path = tmp_path_factory.mktemp("empty") / "tasks.db"
    Store.open(f"sqlite:///{path}").close()
    return path


@contextlib.contextmanager
def fresh_url(empty: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(empty, folder)
        yield f"sqlite:///{folder}/{empty.name}"


def tables(store: Store) -> list[tuple[Any, ...]]:
    rows = [store.task(row.tenant, row.task_id) for row in store.tasks(None, limit=500).tasks]
    assert all(isinstance(row, TaskRow) for row in rows)
    return [astuple(row) for row in rows if row is not None]


def folded_at_once(empty: Path, records: Sequence[JournalRecord]) -> list[tuple[Any, ...]]:
    with fresh_url(empty) as url, Store.open(url) as store:
        store.fold(records)
        return tables(store)


def folded_with_crashes(
    empty: Path,
    records: list[JournalRecord],
    sizes: list[int],
    crashes: list[bool],
    patch: pytest.MonkeyPatch,
) -> list[tuple[Any, ...]]:
    """Folds as the loop does, in batches of any size; some die before their commit."""
    with fresh_url(empty) as url:
        steps = zip(itertools.cycle(sizes), itertools.chain(crashes, itertools.repeat(False)), strict=False)
        store = Store.open(url)
        for size, crash in steps:
            rest = [record for record in records if record.seq > store.folded_seq()]
            if not rest:
                break
            if crash:
                with patch.context() as cut, pytest.raises(PowerCut):
                    cut.setattr(store_queries, "set_folded_seq", _power_cut)
                    store.fold(rest[:size])
                store.close()
                store = Store.open(url)
            else:
                store.fold(rest[:size])
        with store:
            return tables(store)


def _power_cut(*_: object) -> None:
    raise PowerCut


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=journals(),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    crashes=st.lists(st.booleans(), max_size=6),
)
def test_batches_and_crashes_leave_no_trace(
    records: list[JournalRecord],
    sizes: list[int],
    crashes: list[bool],
    empty: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert folded_with_crashes(empty, records, sizes, crashes, monkeypatch) == folded_at_once(empty, records)


@settings(max_examples=30, deadline=None)
@given(records=journals(), data=st.data())
def test_records_given_again_in_any_order_change_nothing(
    records: list[JournalRecord], data: st.DataObject, empty: Path
) -> None:
    with fresh_url(empty) as url, Store.open(url) as store:
        store.fold(data.draw(st.permutations(records)))
        before = tables(store)
        store.fold(data.draw(st.lists(st.sampled_from(records))))
        assert tables(store) == before == folded_at_once(empty, records)


def test_a_watermark_that_is_forgotten_is_noticed(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: with a watermark that never moves, the same check fails."""
    records = [
        JournalRecord(1, "a", "t1", "admitted", 1, "{}"),
        JournalRecord(2, "a", "t1", "started", 2, "{}"),
        JournalRecord(3, "a", "t1", "started", 3, "{}"),
    ]
    with fresh_url(empty) as url, Store.open(url) as store:
        monkeypatch.setattr(store_queries, "set_folded_seq", lambda *_: None)
        store.fold(records)
        before = tables(store)
        store.fold(records[1:])
        assert tables(store) != before
