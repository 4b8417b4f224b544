"""What only a store in a file has: its mode, its neighbours, what is on the disk."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from orchqueue.store import JournalRecord, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/nested/folder/tasks.db") as opened:
        yield opened


def fold_one(store: Store) -> None:
    admitted = json.dumps({"priority": "batch", "body": {"prompt": "one two", "model_ref": "orchqueue-tiny"}})
    store.fold([JournalRecord(1, "default", "t1", "admitted", 1000, admitted)])


def test_prompts_are_not_kept_in_the_history(store: Store, tmp_path: Path) -> None:
    fold_one(store)
    store.close()
    assert not any(b"one two" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_the_database_is_readable_by_its_owner_only(store: Store) -> None:
    fold_one(store)
    assert store.files.database is not None
    for path in store.files.database.parent.glob("tasks.db*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_what_was_folded_is_on_disk_before_the_store_is_closed(store: Store) -> None:
    fold_one(store)
    with sqlite3.connect(f"file:{store.files.database}?mode=ro", uri=True) as other:
        rows = other.execute("SELECT task_id, folded_seq FROM tasks, fold_watermark").fetchall()
    other.close()
    assert rows == [("t1", 1)]
