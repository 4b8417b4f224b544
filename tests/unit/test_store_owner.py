"""One owner per store: the lease, the fence, and who is told what (ORCH-4052)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from orchqueue.store import JournalRecord, Store, StoreFenced, StoreOwned, StoreUrlError, files_beside
from orchqueue.store.lease import FileLease, Holder


def url_in(folder: Path) -> str:
    return f"sqlite:///{folder}/tasks.db"


def test_a_second_owner_is_told_who_has_the_store_and_what_to_do(tmp_path: Path) -> None:
    with Store.open(url_in(tmp_path)):
        with pytest.raises(StoreOwned) as refused:
            Store.open(url_in(tmp_path))
    assert f"process {os.getpid()} on" in str(refused.value)
    assert "hint: stop that daemon" in str(refused.value)


def test_the_store_is_free_again_after_close(tmp_path: Path) -> None:
    Store.open(url_in(tmp_path)).close()
    with Store.open(url_in(tmp_path)) as store:
        assert store.fence == 2


def test_two_names_of_one_database_are_one_store(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "tasks.db")
    with Store.open(url_in(tmp_path)):
        with pytest.raises(StoreOwned):
            Store.open(f"sqlite:///{tmp_path}/link.db")


def test_a_lease_taken_before_the_journal_is_handed_over_to_the_store(tmp_path: Path) -> None:
    lease = FileLease.take(files_beside(url_in(tmp_path)), now_ms=lambda: 1_700_000_000_000)
    with Store.open(url_in(tmp_path), lease=lease):
        with pytest.raises(StoreOwned, match="since 2023-11-14 22:13:20 UTC"):
            FileLease.take(files_beside(url_in(tmp_path)))
    FileLease.take(files_beside(url_in(tmp_path))).release()


def test_the_lease_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom orchqueue.store import Store\n"
        f"store = Store.open({url_in(tmp_path)!r})\nprint('open', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "open\n"
        with pytest.raises(StoreOwned, match=f"process {holder.pid} on"):
            Store.open(url_in(tmp_path))
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with Store.open(url_in(tmp_path)) as store:
        assert store.fence == 2


def test_replicas_started_by_the_owner_do_not_inherit_the_lease(tmp_path: Path) -> None:
    store = Store.open(url_in(tmp_path))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as child:
        store.close()
        Store.open(url_in(tmp_path)).close()
        assert child.stdin is not None
        child.stdin.write(b"\n")


def test_an_owner_that_was_overtaken_writes_nothing(tmp_path: Path) -> None:
    with Store.open(url_in(tmp_path)) as stale:
        # The lock file is deleted under the daemon, the only way to get two owners.
        stale.files.owner.unlink()
        with Store.open(url_in(tmp_path)) as fresh:
            record = JournalRecord(1, "default", "t1", "admitted", 1, "{}")
            with pytest.raises(StoreFenced, match="own fence: 1, current fence: 2"):
                stale.fold([record])
            assert fresh.folded_seq() == 0
            assert fresh.fold([record]) == 1


def test_the_command_line_reads_while_a_daemon_owns_the_store(tmp_path: Path) -> None:
    with Store.open(url_in(tmp_path)) as daemon:
        daemon.fold([JournalRecord(1, "default", "t1", "admitted", 1, "{}")])
        with Store.open(url_in(tmp_path), owner=False) as guest:
            assert [row.task_id for row in guest.tasks("default").tasks] == ["t1"]
            assert guest.fence is None


def test_without_a_daemon_the_command_line_makes_the_tables(tmp_path: Path) -> None:
    with Store.open(url_in(tmp_path), owner=False) as guest:
        assert guest.api_keys() == []
        # The lease was only held for the migration.
        Store.open(url_in(tmp_path)).close()


def test_the_command_line_does_not_migrate_under_a_daemon(tmp_path: Path) -> None:
    with Store.open(url_in(tmp_path)) as daemon:
        engine = sa.create_engine(url_in(tmp_path))
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
        engine.dispose()
        with pytest.raises(StoreOwned):
            Store.open(url_in(tmp_path), owner=False)
        assert daemon.folded_seq() == 0


def test_a_holder_that_has_not_written_its_name_yet_is_still_refused(tmp_path: Path) -> None:
    files = files_beside(url_in(tmp_path))
    lease = FileLease.take(files)
    files.owner.write_text("")
    slept: list[float] = []
    with pytest.raises(StoreOwned, match="another process"):
        FileLease.take(files, sleep=slept.append)
    assert sum(slept) == pytest.approx(0.3, abs=0.05)
    lease.release()


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"pid": "x", "host": "h", "started_ms": 1}'])
def test_a_damaged_owner_file_names_nobody(text: str) -> None:
    assert Holder.from_json(text) is None
    known = Holder(7, "host", 5)
    assert Holder.from_json(json.dumps({"pid": 7, "host": "host", "started_ms": 5})) == known


@pytest.mark.parametrize(
    "url",
    ["", "orchqueue.db", "sqlite://", "sqlite:///", "sqlite:///:memory:", "mysql://root:secret@host/name"],
)
def test_an_address_that_is_no_store_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreUrlError) as refused:
        files_beside(url)
    assert "secret" not in str(refused.value)
    assert "hint: write `sqlite:///path/to/file.db`" in str(refused.value)


def test_the_files_of_a_store_lie_beside_it(tmp_path: Path) -> None:
    files = files_beside(f"sqlite:///{tmp_path}/my.tasks.db?timeout=5")
    assert files.database == tmp_path / "my.tasks.db"
    assert files.journal == tmp_path / "my.tasks.journal.db"
    assert files.keys == tmp_path / "my.tasks.keys"
    assert files_beside("postgresql://user:secret@host/name").database is None
