"""What has ended is kept within bounds: past them it is not found any more, and its id is free."""

import httpx
from orchqueue.testing import Reply, Setup, daemon
from wire import post, until

TASK = "7b0c5a3e-6f0d-4c3b-9d63-0f6f1b1f7a11"
#: Eight of them are more than the one megabyte that is the least `max_mb`.
BIG = Reply(["x" * 50_000] * 4)
SMALL = Setup(settings={"store": {"retention": {"max_mb": 1}}})


# req: ORCH-4051
def test_ended_task_past_retention_is_404_and_its_id_is_free() -> None:
    with daemon(lambda request: BIG if request["prompt"] == "big" else "small", SMALL) as running:
        path = f"{running.url}/v1/tasks/{TASK}"

        def found(suffix: str = "") -> int:
            return httpx.get(path + suffix, timeout=10, trust_env=False).status_code

        body = {"prompt": "first", "task_id": TASK, "wait": True}
        assert post(running.url, body).status_code == 200
        for _ in range(8):
            assert post(running.url, {"prompt": "big", "wait": True}).status_code == 200
        assert found() == 200

        # As the fold of the journal into the store does, once it has read so far.
        read = running.core.journal_read(0, 1000)
        assert running.core.journal_trim(read[-1][0]) > 0
        until(lambda: found() == 404)
        assert (found("/stream"), found("/receipt")) == (404, 404)
        before = len(running.engine.requests)
        assert post(running.url, {**body, "prompt": "second"}).status_code == 200
        assert len(running.engine.requests) == before + 1
