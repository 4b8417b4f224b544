"""Migrations: what they make is what the code expects."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from orchqueue.store import Store, StoreTooNew, schema
from orchqueue.store.migrations import HEAD, run


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/tasks.db"


def test_a_missing_column_would_be_noticed(url: str) -> None:
    Store.open(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE api_keys DROP COLUMN label"))
        differences = compare_metadata(MigrationContext.configure(connection), schema.metadata)
    engine.dispose()
    assert [difference[0] for difference in differences] == ["add_column"]


def test_head_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", "orchqueue.store:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_tables_of_a_later_version_are_left_alone(url: str, tmp_path: Path) -> None:
    Store.open(url).close()
    with sqlite3.connect(tmp_path / "tasks.db") as later:
        later.execute("UPDATE alembic_version SET version_num = '9999'")
    later.close()
    for owner in (True, False):
        with pytest.raises(StoreTooNew, match="revision: 9999"):
            Store.open(url, owner=owner)


def test_a_migration_that_fails_half_way_leaves_nothing_behind(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run.upgrade

    def half(connection: sa.Connection) -> None:
        whole(connection)
        raise RuntimeError("power cut")

    monkeypatch.setattr(run, "upgrade", half)
    with pytest.raises(RuntimeError, match="power cut"):
        Store.open(url)
    with sqlite3.connect(tmp_path / "tasks.db") as left:
        assert left.execute("SELECT name FROM sqlite_master").fetchall() == []
    left.close()
    monkeypatch.undo()
    Store.open(url).close()


def test_an_up_to_date_store_opens_without_alembic(url: str) -> None:
    Store.open(url).close()
    code = (
        "import sys\nfrom orchqueue.store import Store\n"
        f"Store.open({url!r}, owner=False).close()\nprint('alembic' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "False\n"


def test_the_store_package_itself_is_light() -> None:
    code = "import sys, orchqueue.store, orchqueue.keys; print('sqlalchemy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "False\n"
