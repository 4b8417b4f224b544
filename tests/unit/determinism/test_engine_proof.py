"""What shows that a model answers: each sign has an engine without it that is found out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from orchqueue.client import AsyncClient
from orchqueue.determinism.engine_proof import prove, stated_faults

REPLICA = {"id": "r-0", "engine": "llamacpp", "engine_version": "b1", "model_digest": "sha256:" + "0f" * 32}


def honest(task: dict[str, Any]) -> list[int]:
    """Token numbers as a sampler would give them: decided by the seed where there is chance."""
    forbidden = {int(one) for one in task.get("logit_bias", {})}
    start = task["seed"] * 100 if task["temperature"] else 7
    allowed = [number for number in range(start, start + 50) if number not in forbidden]
    return allowed[: task["max_tokens"]]


@dataclass
class Engine:
    """Stands for a client; says what `sampler` decides."""

    sampler: Callable[[dict[str, Any]], list[int]] = honest
    ids: bool = True
    replica: str = "r-0"
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def run(self, prompt: str, /, **task: Any) -> dict[str, Any]:
        self.asked.append(task)
        tokens = self.sampler(task)
        return {
            "attempts": [{"replica_id": self.replica}],
            "output": {
                "text": "".join(f"<{one}>" for one in tokens),
                "finish_reason": "length",
                "usage": {"tokens_out": len(tokens)},
            },
            "receipt": {"token_ids": tokens} if self.ids else {},
        }


async def reason(engine: Engine, **replica: Any) -> str:
    check = await prove(cast(AsyncClient, engine), {**REPLICA, **replica})
    return "" if check.outcome == "ok" else check.reason


# req: ORCH-4080
async def test_an_engine_that_samples_is_believed_and_asked_at_its_own_set() -> None:
    engine = Engine()
    assert await reason(engine) == ""
    assert {task["model_ref"] for task in engine.asked} == {REPLICA["model_digest"]}
    assert any("logit_bias" in task for task in engine.asked)


def only_five(task: dict[str, Any]) -> list[int]:
    return honest(task)[:5]


def no_chance(task: dict[str, Any]) -> list[int]:
    return honest({**task, "seed": 1})


def chance_at_zero(task: dict[str, Any]) -> list[int]:
    return honest({**task, "temperature": 1.0})


def deaf_to_bias(task: dict[str, Any]) -> list[int]:
    return honest({**task, "logit_bias": {}})


# req: ORCH-4080
@pytest.mark.parametrize(
    ("sampler", "found"),
    [
        (only_five, "7 tokens were asked for, 5 came"),
        (no_chance, "the seed changes nothing at a high temperature"),
        (chance_at_zero, "a longer answer does not begin with the shorter one"),
        (deaf_to_bias, "a token that was forbidden came all the same"),
    ],
)
async def test_an_engine_that_lacks_one_sign_is_found_out(
    sampler: Callable[[dict[str, Any]], list[int]], found: str
) -> None:
    assert found in await reason(Engine(sampler))


async def test_a_seed_that_does_not_repeat_is_found_out() -> None:
    calls: list[int] = []

    def drifting(task: dict[str, Any]) -> list[int]:
        calls.append(1)
        return honest({**task, "seed": task["seed"] + len(calls)})

    assert "the same seed gives different texts" in await reason(Engine(drifting))


async def test_an_attached_engine_must_give_ids_and_answer_itself() -> None:
    assert await reason(Engine(ids=False)) == "it gives no token ids"
    assert await reason(Engine(ids=False), managed=True) == ""
    assert "others answered for it: r-1" in await reason(Engine(replica="r-1"))
    assert await reason(Engine(replica="r-1"), managed=True) == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("engine_version", None),
        ("engine_version", "unknown"),
        ("model_digest", "unknown"),
        ("model_digest", "sha256:" + "0f" * 31),
    ],
)
async def test_a_replica_that_does_not_say_what_it_runs_is_not_even_asked(
    field: str, value: str | None
) -> None:
    engine = Engine()
    assert f"`{field}` is not known" in await reason(engine, **{field: value})
    assert engine.asked == []
    assert stated_faults(REPLICA) == []
