"""Child processes: how they start, what is known when they end, and that none is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from orchqueue.engines.spawn import Child, SpawnFailed, Tail, remove_stale, start_child

READY = "import json, os, sys, time; print(json.dumps({'listening': 'x'}), flush=True); "
WATCH_PIPE = READY + "os.read(int(sys.argv[1]), 1)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY + "time.sleep(60)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def start(code: str, note: Path | None = None) -> Child:
    return await start_child(lambda fd: [*python(code), str(fd)], note)


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while runs(pid):
            await asyncio.sleep(0.01)


async def test_child_says_where_it_listens_and_stops() -> None:
    child = await start(WATCH_PIPE)
    assert await child.ready_line(10) == {"listening": "x"}
    assert child.alive
    assert os.getpgid(child.pid) == child.pid
    await child.stop(5)
    assert not child.alive
    await child.stop(5)


async def test_closing_the_pipe_ends_the_child() -> None:
    child = await start(WATCH_PIPE)
    await child.ready_line(10)
    os.close(child._pipe)
    child._pipe = -1
    assert await child.ended() == 0
    await child.stop(0)


async def test_child_that_ignores_the_signal_is_killed() -> None:
    child = await start(DEAF)
    await child.ready_line(10)
    await child.stop(0.05)
    assert child.epitaph() == "was killed by SIGKILL"


async def test_end_is_told_with_the_last_words() -> None:
    child = await start("import sys; sys.stderr.write('no memory\\n'); sys.exit(3)")
    with pytest.raises(SpawnFailed, match=r"exited with status 3: no memory") as failed:
        await child.ready_line(10)
    assert failed.value.permanent
    await child.stop(0)


@pytest.mark.parametrize("said", ["print('hello')", "print([1])"])
async def test_child_that_says_something_else_has_failed(said: str) -> None:
    child = await start(f"{said}; import sys, time; sys.stdout.flush(); time.sleep(60)")
    with pytest.raises(SpawnFailed):
        await child.ready_line(0.5)
    await child.stop(0)


async def test_command_that_does_not_exist() -> None:
    with pytest.raises(SpawnFailed, match="cannot be started: No such file"):
        await start_child(lambda fd: ["/nowhere/engine"])


async def test_stale_child_of_an_earlier_daemon_is_removed(tmp_path: Path) -> None:
    note = tmp_path / "tiny-0.json"
    child = await start(READY + "time.sleep(60)", note)
    await child.ready_line(10)
    assert remove_stale(tmp_path) == [child.pid]
    assert await child.ended() == -signal.SIGKILL
    assert not note.exists()
    await child.stop(0)


async def test_another_process_with_the_number_of_a_stale_child_is_left_alone(tmp_path: Path) -> None:
    bystander = subprocess.Popen(python("import time; time.sleep(60)"), start_new_session=True)
    try:
        (tmp_path / "tiny-0.json").write_text(json.dumps({"pid": bystander.pid, "started": "other-boot/1"}))
        (tmp_path / "tiny-1.json").write_text("not json")
        (tmp_path / "tiny-2.json").write_text(json.dumps({"pid": 1, "started": None}))
        assert remove_stale(tmp_path) == []
        assert bystander.poll() is None
        assert list(tmp_path.iterdir()) == []
    finally:
        bystander.kill()
        bystander.wait()


async def test_child_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    parent_code = (
        "import asyncio, sys\n"
        "from orchqueue.engines.spawn import start_child\n"
        f"child_code = {WATCH_PIPE!r}\n"
        "async def main():\n"
        "    child = await start_child(lambda fd: [sys.executable, '-c', child_code, str(fd)])\n"
        "    await child.ready_line(10)\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    root = str(Path(__file__).parents[3] / "python")
    with subprocess.Popen(
        python(parent_code), stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert runs(pid)
        parent.kill()
    await gone(pid)


def test_tail_is_bounded() -> None:
    tail = Tail()
    for number in range(1_000):
        tail.feed(f"line {number} {'x' * 1_000}\n".encode())
    tail.feed(b"half a li")
    tail.feed("ne é\n".encode()[:-2])
    assert len(tail.lines()) == 41
    assert max(map(len, tail.lines())) <= 400
    assert tail.lines()[-2].startswith("line 999")
    assert (tail.last() or "").startswith("half a line")
