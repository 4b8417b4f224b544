"""What has ended is kept within bounds: past them it is not found any more, and its id is free."""

import httpx
from orchqueue.testing import LiveDaemon, Reply, engine
from wire import post, submitted, until, waits_for_state

TASK = "7b0c5a3e-6f0d-4c3b-9d63-0f6f1b1f7a11"
#: Eight of them are more than the one megabyte that is the least `max_mb`.
BIG = Reply(["x" * 50_000] * 4)


# req: ORCH-4051
def test_ended_task_past_retention_is_404_and_its_id_is_free() -> None:
    with engine(lambda request: BIG if request["prompt"] == "big" else "small") as scripted:
        replica = {"url": scripted.url, "slots": 1}
        pool = {"id": "one", "engine": "llamacpp", "model": "scripted", "ctx": 512, "replicas": [replica]}
        with LiveDaemon({"store": {"retention": {"max_mb": 1}}, "pools": [pool]}) as live:
            path = f"{live.url}/v1/tasks/{TASK}"
            body = {"prompt": "first", "task_id": TASK, "wait": True}
            assert post(live.url, body).status_code == 200
            for _ in range(8):
                waits_for_state(live.url, submitted(live.url, "big"), "finished")
            until(lambda: httpx.get(path, trust_env=False).status_code == 404)
            assert httpx.get(f"{path}/stream", trust_env=False).status_code == 404
            assert httpx.get(f"{path}/receipt", trust_env=False).status_code == 404
            before = len(scripted.requests)
            other = post(live.url, {**body, "prompt": "second"})
            assert other.status_code == 200
            assert len(scripted.requests) == before + 1
