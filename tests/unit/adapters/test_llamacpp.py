"""The llama.cpp adapter as data: what is sent, what is read, what counts as reproducible."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from orchqueue.adapters import ENGINES, adapter_for
from orchqueue.adapters.base import ProbeRefused
from orchqueue.adapters.llamacpp import LLAMACPP

PROFILE_V1 = {
    "temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty", "repeat_last_n",
    "presence_penalty", "frequency_penalty",
}  # fmt: skip
#: Sampler parameters that llama.cpp lists in `/props` and that a request can set.
ENGINE_SAMPLERS = {
    "dynatemp_range", "dynatemp_exponent", "top_n_sigma", "xtc_probability", "xtc_threshold",
    "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n",
    "mirostat", "mirostat_tau", "mirostat_eta",
    "adaptive_target", "adaptive_decay", "samplers", "n_probs", "min_keep", "n_keep", "n_discard", "seed",
}  # fmt: skip


class Engine:
    """Answers from a table."""

    def __init__(self, answers: dict[str, tuple[int, Any]]) -> None:
        self._answers = answers

    async def get(self, path: str) -> tuple[int, Any]:
        return self._answers.get(path, (404, None))


def props(**changes: Any) -> dict[str, Any]:
    return {
        "build_info": "b4711-abc",
        "total_slots": 1,
        "model_alias": "tiny",
        "model_path": "/models/tiny.gguf",
        "model_ftype": "F16",
        "default_generation_settings": {"n_ctx": 512},
        "chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
        **changes,
    }


def params(value: Any) -> Iterator[tuple[str, bool]]:
    """Every parameter of a template with whether it is optional."""
    if isinstance(value, dict):
        if "$" in value or "$?" in value:
            yield value.get("$") or value["$?"], "$?" in value
        else:
            for inner in value.values():
                yield from params(inner)


def test_registry_knows_the_adapter_by_its_name() -> None:
    assert adapter_for("llamacpp") is LLAMACPP
    assert "llamacpp" in ENGINES


@pytest.mark.parametrize("workload", ["completion", "chat"])
def test_every_sampler_parameter_is_sent(workload: str) -> None:
    body = LLAMACPP.document()["routes"][workload]["body"]
    assert PROFILE_V1 | ENGINE_SAMPLERS <= set(body)
    required = {name for name, optional in params(body) if not optional}
    assert PROFILE_V1 | {"seed", "max_tokens"} <= required
    assert body["cache_prompt"] is False
    assert body["stream"] is True
    # Off: each of these values makes its sampler do nothing.
    assert (body["mirostat"], body["dry_multiplier"], body["xtc_probability"]) == (0, 0.0, 0.0)
    assert (body["dynatemp_range"], body["top_n_sigma"], body["adaptive_target"]) == (0.0, -1.0, -1.0)


def test_what_a_client_may_leave_out_is_optional() -> None:
    body = LLAMACPP.document()["routes"]["chat"]["body"]
    optional = {name for name, is_optional in params(body) if is_optional}
    assert optional == {"stop", "ignore_eos", "logit_bias", "tools", "tool_choice", "response_format"}


def test_streams_end_where_the_engine_ends_them() -> None:
    routes = LLAMACPP.document()["routes"]
    completion, chat = routes["completion"]["grammar"], routes["chat"]["grammar"]
    assert (completion["end"], completion["end_settles"]) == ({"pointer": "/stop", "equals": True}, "event")
    assert completion["done"] is None
    assert chat["end"] == {"pointer": "/choices/0/finish_reason", "present": True}
    assert (chat["end_settles"], chat["done"]) == ("done", "[DONE]")
    assert completion["classes"]["exceed_context_size_error"] == "context_overflow"


def test_document_is_plain_json() -> None:
    document = LLAMACPP.document()
    assert json.loads(json.dumps(document)) == document
    assert document["idle"] == {
        "path": "/slots?fail_on_no_slot=1",
        "ok_status": 200,
        "first_after_ms": 60,
        "every_ms": 2000,
    }


@pytest.mark.parametrize(
    ("settings", "reproducible"),
    [
        ({"n_parallel": 1, "flash_attn": False, "n_batch": 2048, "n_ubatch": 512}, True),
        ({"n_parallel": 1, "flash_attn": True, "n_batch": 2048, "n_ubatch": 512, "n_threads": 2}, True),
        ({"n_parallel": 1, "flash_attn": True, "n_batch": 2048, "n_ubatch": 512}, False),
        ({"n_parallel": 4, "flash_attn": False, "n_batch": 2048, "n_ubatch": 512}, False),
        ({"n_parallel": 1, "flash_attn": False, "n_batch": 2048}, False),
        ({"n_parallel": 1, "n_batch": 2048, "n_ubatch": 512}, False),
        ({}, False),
    ],
)
# req: ORCH-4062
def test_reproducible_as_measured(settings: dict[str, Any], reproducible: bool) -> None:
    verdict, reason = LLAMACPP.determinism.reproducible(settings)
    assert verdict is reproducible
    assert bool(reason) is not reproducible


# req: ORCH-4019
def test_threads_are_part_of_the_identity_only_with_flash_attention() -> None:
    settings = {"n_parallel": 1, "flash_attn": False, "n_batch": 2048, "n_ubatch": 512, "n_threads": 2}
    policy = LLAMACPP.determinism
    assert policy.identity_flags(settings) == {
        "n_parallel": 1,
        "flash_attn": False,
        "n_batch": 2048,
        "n_ubatch": 512,
    }
    assert policy.identity_flags({**settings, "flash_attn": True})["n_threads"] == 2


async def test_probe_reads_what_the_engine_says() -> None:
    models = {"data": [{"id": "tiny"}, {"id": "folder/other.gguf"}]}
    report = await LLAMACPP.probe(Engine({"/props": (200, props()), "/v1/models": (200, models)}))
    assert (report.engine_version, report.quant, report.slots, report.ctx) == ("b4711-abc", "F16", 1, 512)
    assert report.model_names == ("tiny", "other.gguf")
    assert report.model_path == "/models/tiny.gguf"
    assert report.unpinned is None


async def test_probe_without_a_version_leaves_it_open() -> None:
    report = await LLAMACPP.probe(Engine({"/props": (200, props(build_info="b0-unknown"))}))
    assert report.engine_version is None


async def test_template_that_prints_the_date_is_not_pinned() -> None:
    report = await LLAMACPP.probe(Engine({"/props": (200, props(chat_template="{{ strftime_now('%d') }}"))}))
    assert report.unpinned == "its chat template prints the date"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((401, {"error": {}}), "`api_key`"),
        ((200, {"hello": "world"}), "not as llama.cpp does"),
        ((200, [1]), "not as llama.cpp does"),
        ((503, None), "answered 503"),
        ((200, props(total_slots=0)), "how many slots"),
        ((200, props(total_slots="1")), "how many slots"),
    ],
)
async def test_probe_refuses_what_is_not_llamacpp(answer: tuple[int, Any], told: str) -> None:
    with pytest.raises(ProbeRefused, match=told):
        await LLAMACPP.probe(Engine({"/props": answer}))
