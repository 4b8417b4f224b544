"""A client that is closed leaves no task, no thread and no open stream behind, however it was left."""

import subprocess
import sys

import pytest

USES = {
    "read to the end": "list(client.stream('Hi'))",
    "left early": "stream = client.stream('Hi'); next(stream); next(stream)",
    "closed early": "stream = client.stream('Hi'); next(stream); stream.close()",
    "never read": "client.stream('Hi')",
    "failed": "try: client.task('7')\nexcept orchqueue.OrchqueueError: pass",
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_nothing_is_complained_about_at_exit(use: str) -> None:
    code = (
        "import orchqueue\n"
        "from orchqueue import testing\n"
        "with testing.daemon(['one two three four five']) as daemon, daemon.client() as client:\n"
        + "\n".join(f"    {line}" for line in use.splitlines())
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stderr) == (0, "")
