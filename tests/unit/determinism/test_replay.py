"""What is sent again for a replay, and what is refused before anything is sent."""

from typing import Any, cast

import pytest
from orchqueue import _core
from orchqueue.client import AsyncClient
from orchqueue.determinism.replay import ReplayImpossible, replay, replay_body
from orchqueue.determinism.verify import ReceiptUnreadable

REQUEST = {"prompt": "Hi", "max_tokens": 4, "temperature": 0.5}
IDENTITY = "ab" * 32


def receipt(**fields: Any) -> dict[str, Any]:
    import json

    effective = _core.task_effective(
        json.dumps({**REQUEST, "seed": 9}), "0f8fad5b-d9cb-469f-a165-70867728950e"
    )
    return {
        "task_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "seed": 9,
        "request_digest": _core.request_digest(effective),
        "output_digest": "cd" * 32,
        "output_bytes": 3,
        "identity": IDENTITY,
        "identity_fields": {"engine": "llamacpp", "model_digest": "sha256:" + "0f" * 32},
        **fields,
    }


class Daemon:
    """Stands for a client of a daemon with one set, whose decodes have this digest."""

    def __init__(self, digest: str = "cd" * 32, identity: str = IDENTITY, slots: int = 1) -> None:
        self.receipt = {"output_digest": digest, "output_bytes": 3, "identity": identity}
        self.slots = slots
        self.sent: list[dict[str, Any]] = []

    async def replicasets(self) -> dict[str, Any]:
        return {"replicasets": [{"id": IDENTITY, "slots_total": self.slots}]}

    async def run(self, **body: Any) -> dict[str, Any]:
        self.sent.append(body)
        return {"task_id": "t2", "receipt": {**self.receipt, "attempts": [{"replica_id": "r-1"}]}}


def test_the_second_submission_is_a_task_of_its_own_on_the_same_set() -> None:
    first = {
        **REQUEST,
        "task_id": "x",
        "session_id": "y",
        "priority": "batch",
        "reuse": "cache",
        "wait": True,
    }
    assert replay_body(receipt(), first, 9) == {
        **REQUEST,
        "seed": 9,
        "determinism": "strict",
        "engine": "llamacpp",
        "model_ref": "sha256:" + "0f" * 32,
    }


# req: ORCH-4081
async def test_equal_digests_are_a_replay_that_holds() -> None:
    daemon = Daemon()
    replayed = await replay(cast(AsyncClient, daemon), receipt(), REQUEST)
    assert replayed.ok
    assert (replayed.task_id, replayed.replica_id) == ("t2", "r-1")
    assert daemon.sent[0]["seed"] == 9


# req: ORCH-4081
@pytest.mark.parametrize("daemon", [Daemon(digest="ce" * 32), Daemon(identity="ff" * 32)])
async def test_another_digest_or_another_set_does_not_hold(daemon: Daemon) -> None:
    assert not (await replay(cast(AsyncClient, daemon), receipt(), REQUEST)).ok


async def test_nothing_is_decoded_for_another_request_or_without_the_set() -> None:
    daemon = Daemon()
    with pytest.raises(ReplayImpossible, match="not the request of the receipt"):
        await replay(cast(AsyncClient, daemon), receipt(), {**REQUEST, "prompt": "Ho"})
    with pytest.raises(ReplayImpossible, match="the request is not valid"):
        await replay(cast(AsyncClient, daemon), receipt(), {**REQUEST, "promt": "Hi"})
    with pytest.raises(ReplayImpossible, match="this daemon has no replica set"):
        await replay(cast(AsyncClient, daemon), receipt(identity="00" * 32), REQUEST)
    with pytest.raises(ReplayImpossible, match="no replica of set"):
        await replay(cast(AsyncClient, Daemon(slots=0)), receipt(), REQUEST)
    with pytest.raises(ReceiptUnreadable):
        await replay(cast(AsyncClient, daemon), {"task_id": "x"}, REQUEST)
    assert daemon.sent == []
