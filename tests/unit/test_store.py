"""The store: history, retention, pages. One suite for every database (ORCH-4051).

`ORCHQUEUE_TEST_POSTGRESQL=postgresql://…` adds PostgreSQL; whatever is in that database is erased.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from orchqueue.store import BadCursor, JournalRecord, Retention, Store, StoreError, TaskState, schema

HOUR_MS = 3_600_000
POSTGRESQL = os.environ.get("ORCHQUEUE_TEST_POSTGRESQL", "")


@pytest.fixture(params=["sqlite", "postgresql"] if POSTGRESQL else ["sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/nested/folder/tasks.db"
    # The owner file of a store on a server lies in the working directory.
    monkeypatch.chdir(tmp_path)
    engine = sa.create_engine(POSTGRESQL)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return POSTGRESQL


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as opened:
        yield opened


def record(seq: int, kind: str, task: str = "t1", tenant: str = "default", /, **data: Any) -> JournalRecord:
    return JournalRecord(seq, tenant, task, kind, 1000 + seq, json.dumps(data))


def life_of(task: str, first_seq: int, tenant: str = "default") -> list[JournalRecord]:
    """The three records of a task that finished."""
    usage = {"tokens_in": 7, "tokens_out": 2}
    end = {"tokens_out": 2, "finish_reason": "stop", "usage": usage, "receipt": {"seed": 3}}
    segments = [[1, "hm"], [0, "fi"], [0, "ve"]]
    body = {"prompt": "one two", "workload": "completion", "model_ref": "orchqueue-tiny"}
    return [
        record(first_seq, "admitted", task, tenant, priority="batch", session_id=None, body=body),
        record(first_seq + 1, "started", task, tenant, attempt=1, replica="tiny-0"),
        record(first_seq + 2, "ended", task, tenant, state="finished", segments=segments, end=end),
    ]


def test_a_finished_task_is_read_back_with_output_and_receipt(store: Store) -> None:
    assert store.fold(life_of("t1", 1)) == 3
    row = store.task("default", "t1")
    assert row is not None
    assert row.state is TaskState.FINISHED
    assert row.output == {
        "text": "five",
        "reasoning": "hm",
        "finish_reason": "stop",
        "usage": {"tokens_in": 7, "tokens_out": 2},
    }
    assert row.receipt == {"seed": 3}
    assert (row.priority, row.model_ref, row.tokens_in, row.tokens_out) == ("batch", "orchqueue-tiny", 7, 2)
    assert row.attempts == [{"attempt": 1, "replica_id": "tiny-0"}]
    assert (row.created_ms, row.started_ms, row.ended_ms) == (1001, 1002, 1003)


def test_folding_the_same_records_again_changes_nothing(store: Store) -> None:
    records = life_of("t1", 1)
    store.fold(records)
    before = store.task("default", "t1")
    assert store.fold(records) == 3
    assert store.fold(records[:1]) == 3
    assert store.task("default", "t1") == before


def test_records_and_watermark_survive_reopening(store: Store, url: str) -> None:
    store.fold(life_of("t1", 1))
    store.close()
    with Store.open(url) as again:
        assert again.folded_seq() == 3
        assert again.task("default", "t1") is not None


def test_a_failed_transaction_leaves_tables_and_watermark_as_they_were(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.fold(life_of("t1", 1))

    def disk_full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("orchqueue.store.queries.set_folded_seq", disk_full)
    with pytest.raises(OSError, match="disk full"):
        store.fold(life_of("t2", 4))
    monkeypatch.undo()
    assert store.folded_seq() == 3
    assert store.task("default", "t2") is None
    assert store.fold(life_of("t2", 4)) == 6


def test_an_id_admitted_again_after_a_retriable_end_starts_over(store: Store) -> None:
    error = {"code": "WORKER_RESET", "message": "gone", "retriable": True}
    store.fold([record(1, "admitted"), record(2, "ended", state="failed", error=error)])
    failed = store.task("default", "t1")
    assert failed is not None and (failed.state, failed.error_code) == (TaskState.FAILED, "WORKER_RESET")
    store.fold([record(3, "admitted")])
    again = store.task("default", "t1")
    assert again is not None
    assert (again.state, again.error, again.ended_ms, again.admitted_seq) == (TaskState.QUEUED, None, None, 3)


@pytest.mark.parametrize(
    ("door", "body", "workload"),
    [
        ("queued", {"workload": "rerank"}, "rerank"),
        ("queued", {}, "completion"),
        ("openai_chat", {"messages": []}, "chat"),
        ("openai_completion", {"model": "m"}, "completion"),
    ],
)
def test_a_body_that_names_no_workload_has_that_of_its_door(
    store: Store, door: str, body: dict[str, Any], workload: str
) -> None:
    store.fold([record(1, "admitted", door=door, body=body)])
    row = store.task("default", "t1")
    assert row is not None and row.workload == workload


def test_the_first_end_of_a_task_counts(store: Store) -> None:
    canceled = {"code": "CANCELED", "message": "canceled", "retriable": False}
    store.fold(
        [record(1, "admitted"), record(2, "ended", error=canceled), record(3, "ended", state="finished")]
    )
    row = store.task("default", "t1")
    assert row is not None and row.state is TaskState.CANCELED


def test_ids_are_scoped_to_the_tenant(store: Store) -> None:
    store.fold(
        [record(1, "admitted", "t1", "a"), record(2, "admitted", "t1", "b"), record(3, "ended", "t1", "b")]
    )
    mine, other = store.task("a", "t1"), store.task("b", "t1")
    assert mine is not None and mine.state is TaskState.QUEUED
    assert other is not None and other.state is TaskState.FINISHED
    assert [row.tenant for row in store.tasks("a").tasks] == ["a"]


@pytest.mark.parametrize("data", ["", "[1]", "{", "[" * 100_000, '"text"'])
def test_a_record_that_cannot_be_read_is_skipped_and_logged(
    store: Store, caplog: pytest.LogCaptureFixture, data: str
) -> None:
    broken = JournalRecord(1, "default", "t1", "admitted", 1, data)
    assert store.fold([broken, record(2, "admitted", "t2")]) == 2
    assert store.task("default", "t1") is None
    assert store.task("default", "t2") is not None
    assert [entry.message for entry in caplog.records] == ["journal record skipped"]


def test_odd_values_in_a_record_do_not_stop_the_fold(store: Store) -> None:
    odd = {"usage": {"tokens_in": 2**70, "tokens_out": True}, "finish_reason": "x" * 9000, "receipt": []}
    segments = [[0, "nul \0 \ud800"], [9, "x"], "junk", [0, 5], None]
    ended = record(2, "ended", end=odd, segments=segments, attempts="none", error=7)
    store.fold([record(1, "admitted", priority=5, body=[], door=[]), ended])
    row = store.task("default", "t1")
    assert row is not None
    assert (row.tokens_in, row.tokens_out, row.priority) == (None, None, "interactive")
    assert row.output is not None and row.output["text"] == "nul \0 \ud800"
    store.fold([record(3, "admitted"), record(4, "ended", state={}, end=odd, segments=7)])
    assert store.folded_seq() == 4


def test_pages_follow_each_other_newest_first_without_gap_or_repeat(store: Store) -> None:
    store.fold([record(seq, "admitted", f"t{seq}") for seq in range(1, 8)])
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(4):
        page = store.tasks("default", limit=3, cursor=cursor)
        seen += [row.task_id for row in page.tasks]
        cursor = page.next_cursor
        if cursor is None:
            break
        # What is admitted meanwhile does not move the pages.
        store.fold([record(100 + len(seen), "admitted", f"late{len(seen)}")])
    assert seen == ["t7", "t6", "t5", "t4", "t3", "t2", "t1"]


def test_the_last_page_has_no_cursor_even_when_it_is_full(store: Store) -> None:
    store.fold([record(seq, "admitted", f"t{seq}") for seq in (1, 2)])
    assert store.tasks("default", limit=2).next_cursor is None


def test_a_list_can_be_narrowed_to_a_state_and_spans_tenants_on_request(store: Store) -> None:
    store.fold([record(1, "admitted", "t1"), record(2, "admitted", "t2", "b"), record(3, "ended", "t1")])
    assert [row.task_id for row in store.tasks("default", state=TaskState.FINISHED).tasks] == ["t1"]
    assert store.tasks("default", state=TaskState.QUEUED).tasks == []
    assert [row.task_id for row in store.tasks(None).tasks] == ["t2", "t1"]


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "٣", str(2**63), "9" * 400])
def test_a_cursor_that_was_never_given_out_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(BadCursor, match="`cursor`"):
        store.tasks("default", cursor=cursor)


# req: ORCH-4051
def test_retention_drops_what_ended_too_long_ago_and_keeps_what_runs(store: Store) -> None:
    store.fold([*life_of("old", 1), record(4, "admitted", "runs"), *life_of("new", 5)])
    ended_new = store.task("default", "new")
    assert ended_new is not None and ended_new.ended_ms is not None
    dropped = store.apply_retention(Retention(hours=1), ended_new.ended_ms + HOUR_MS)
    assert dropped == 1
    assert {row.task_id for row in store.tasks("default").tasks} == {"runs", "new"}


def test_retention_drops_the_oldest_ends_beyond_its_size(store: Store) -> None:
    store.fold([entry for n in range(4) for entry in life_of(f"t{n}", 1 + 3 * n)])
    row = store.task("default", "t0")
    assert row is not None
    room_for_two = Retention(hours=1000, max_mb=2.5 * row.size_bytes / 1024 / 1024)
    assert store.apply_retention(room_for_two, 5000) == 2
    assert {row.task_id for row in store.tasks("default").tasks} == {"t2", "t3"}
    assert store.apply_retention(room_for_two, 5000) == 0


def test_records_of_a_task_past_retention_are_ignored(store: Store) -> None:
    store.fold([record(1, "started", "gone"), record(2, "ended", "gone")])
    assert store.task("default", "gone") is None
    assert store.folded_seq() == 2


def test_only_the_owner_writes_history(store: Store, url: str) -> None:
    with Store.open(url, owner=False) as guest:
        assert guest.tasks("default").tasks == []
        with pytest.raises(StoreError, match="owns the store"):
            guest.fold(life_of("t1", 1))


def test_migrated_tables_equal_the_schema(store: Store, url: str) -> None:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), schema.metadata)
    engine.dispose()
    assert store.folded_seq() == 0
    assert differences == []
