"""A reader that takes nothing is cut off; the task and its other readers do not notice."""

from orchqueue.testing import Reply, Setup, daemon
from wire import TERMINALS, Raw, events, followed, submitted, text, the_end, waits_for_state

STALL_MS = 300
#: Far more than the sockets of both sides hold, over far longer than a reader may stall.
PIECE = "x" * 100_000
PIECES = 80
LOUD = Reply([PIECE] * PIECES, delay_s=0.02)
SETUP = Setup(settings={"server": {"write_stall_ms": STALL_MS, "grace_ms": 100}})


def whatever_is_left(reader: Raw) -> bytes:
    try:
        return reader.body()
    except ConnectionResetError:
        return b""


# req: ORCH-4007
def test_reader_that_stops_reading_is_cut_off_alone() -> None:
    with daemon([LOUD], SETUP) as running:
        task_id = submitted(running.url)
        with Raw.following(running.url, task_id, receive_buffer=4096) as slow:
            last = slow.event_named("token")
            other = events(followed(running.url, task_id).content)
            assert the_end(other).name == "end"
            assert len(text(other)) == len(PIECE) * PIECES
            left = whatever_is_left(slow)
        assert len(left) < len(PIECE) * PIECES
        assert not any(f"event: {name}".encode() in left for name in TERMINALS)
        assert waits_for_state(running.url, task_id, "finished")["output"]["usage"]["tokens_out"] == PIECES
        assert running.engine.aborted == 0
        # It may come back and goes on where it was.
        rest = events(followed(running.url, task_id, last.id).content)
        assert len(last.data["t"]) + len(text(rest)) == len(PIECE) * PIECES


def test_reader_that_was_cut_off_counts_as_gone() -> None:
    with daemon([LOUD], SETUP) as running:
        with Raw.submitting(running.url, {"prompt": "Hi"}, receive_buffer=4096) as slow:
            task_id = slow.event_named("started").data["task_id"]
            waits_for_state(running.url, task_id, "canceled")
            assert running.engine.aborted == 1
