"""llama.cpp's own HTTP server (`llama-server`, and the one inside the xllamacpp wheel).

What must be known to change this file:

- Every sampler parameter is sent, also those that the profile does not name: a server may be launched with
  other defaults, and equal requests must not depend on that.
- `cache_prompt` is false: with flash attention a warm cache changes the numbers.
- `seed` is a u32 that the server takes modulo 2^32 without a word, so it is always sent and always small.
- Tokens are counted from `tokens_predicted`: a character split over several tokens comes as one event that
  names only the last of them.
- `/completion` has no `[DONE]`; its last event has `stop: true`. On `/v1/…` usage follows the finish event.
- An error in mid-stream is an event in an answer with status 200; it is followed by EOF and no end event.
- Only `/health` may be polled often. `/slots` and `/metrics` go through the task queue and restart the
  one-second timer by which the server notices that a client has left.
- The server queues without bound and never answers 429: not more tasks are sent than it has slots.

Which launch settings are byte-exact was measured over 64 seeded prompts: one sequence with flash attention
off and equal batch sizes, whatever the thread count; or one sequence with flash attention on, equal threads
and batch sizes, and the cache off. More than one sequence is never exact under load.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchqueue.adapters.base import (
    Adapter,
    DeclaredValue,
    DeterminismPolicy,
    End,
    Getter,
    Grammar,
    HealthRule,
    IdleRule,
    Json,
    Param,
    ProbeRefused,
    ProbeReport,
    Route,
)

#: What the wheel's server says instead of a version.
UNKNOWN_BUILD = "b0-unknown"

_PROFILE_V1: dict[str, Json] = {
    "temperature": Param("temperature"),
    "top_k": Param("top_k"),
    "top_p": Param("top_p"),
    "min_p": Param("min_p"),
    "typical_p": Param("typical_p"),
    "repeat_penalty": Param("repeat_penalty"),
    "repeat_last_n": Param("repeat_last_n"),
    "presence_penalty": Param("presence_penalty"),
    "frequency_penalty": Param("frequency_penalty"),
}

#: Samplers that the profile does not use, switched off, and the order of those that it uses.
_NEUTRAL: dict[str, Json] = {
    "samplers": ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"],
    "dynatemp_range": 0.0,
    "dynatemp_exponent": 1.0,
    "top_n_sigma": -1.0,
    "xtc_probability": 0.0,
    "xtc_threshold": 0.1,
    "dry_multiplier": 0.0,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_penalty_last_n": 64,
    "dry_sequence_breakers": ["\n", ":", '"', "*"],
    "mirostat": 0,
    "mirostat_tau": 5.0,
    "mirostat_eta": 0.1,
    "adaptive_target": -1.0,
    "adaptive_decay": 0.9,
    "n_probs": 0,
    "min_keep": 0,
    "n_keep": 0,
    "n_discard": 0,
    "post_sampling_probs": False,
    "backend_sampling": False,
}

_COMMON: dict[str, Json] = {
    **_PROFILE_V1,
    **_NEUTRAL,
    "seed": Param("seed"),
    "stop": Param("stop", optional=True),
    "ignore_eos": Param("ignore_eos", optional=True),
    "logit_bias": Param("logit_bias", optional=True),
    "cache_prompt": False,
    "stream": True,
    "return_progress": False,
    "timings_per_token": False,
}

_CLASSES = {
    "exceed_context_size_error": "context_overflow",
    "invalid_request_error": "invalid_request",
    "not_supported_error": "invalid_request",
    "authentication_error": "unauthenticated",
    "permission_error": "unauthenticated",
    "not_found_error": "not_found",
    "unavailable_error": "busy",
    "server_error": "engine",
}

_COMPLETION = Route(
    path="/completion",
    body={
        **_COMMON,
        "prompt": Param("prompt"),
        "n_predict": Param("max_tokens"),
        "return_tokens": True,
        "id_slot": -1,
        "n_indent": 0,
        "t_max_predict_ms": 0,
    },
    grammar=Grammar(
        framing="sse",
        text=("/content",),
        ids="/tokens",
        count=("/tokens_predicted",),
        skip_if=("/prompt_progress",),
        end=End("/stop", equals=True),
        end_settles="event",
        finish_reason=("/stop_type",),
        finish_reasons={"limit": "length", "eos": "stop", "word": "stop", "none": "stop"},
        tokens_in=("/tokens_evaluated",),
        tokens_out=("/tokens_predicted", "/timings/predicted_n"),
        tokens_cached=("/timings/cache_n",),
        classes=_CLASSES,
    ),
)

_CHAT = Route(
    path="/v1/chat/completions",
    body={
        **_COMMON,
        "messages": Param("messages"),
        "max_tokens": Param("max_tokens"),
        "tools": Param("tools", optional=True),
        "tool_choice": Param("tool_choice", optional=True),
        "response_format": Param("response_format", optional=True),
        "reasoning_format": "deepseek",
        "stream_options": {"include_usage": True},
    },
    grammar=Grammar(
        framing="sse",
        done="[DONE]",
        text=("/choices/0/delta/content",),
        reasoning=("/choices/0/delta/reasoning_content",),
        tool_call=("/choices/0/delta/tool_calls",),
        skip_if=("/prompt_progress",),
        end=End("/choices/0/finish_reason"),
        end_settles="done",
        finish_reason=("/choices/0/finish_reason",),
        finish_reasons={"stop": "stop", "length": "length", "tool_calls": "tool_calls"},
        tokens_in=("/usage/prompt_tokens",),
        tokens_out=("/usage/completion_tokens", "/timings/predicted_n"),
        tokens_cached=("/usage/prompt_tokens_details/cached_tokens", "/timings/cache_n"),
        classes=_CLASSES,
    ),
)


def _decide(declared: Mapping[str, DeclaredValue]) -> tuple[bool, str]:
    if declared.get("n_parallel") != 1:
        return False, f"it runs {declared.get('n_parallel', 'an unknown number of')} sequences; one is needed"
    batch = [name for name in ("n_batch", "n_ubatch") if name not in declared]
    if batch:
        return False, f"`{batch[0]}` is not known; declare it"
    flash = declared.get("flash_attn")
    if flash is None:
        return False, "`flash_attn` is not known; declare it"
    if flash and "n_threads" not in declared:
        return False, "with flash attention on `n_threads` must be declared"
    return True, ""


async def _probe(engine: Getter) -> ProbeReport:
    status, props = await engine.get("/props")
    if status == 401:
        raise ProbeRefused("the engine wants another key; set `api_key`")
    if status != 200 or not isinstance(props, dict) or "build_info" not in props:
        raise ProbeRefused(f"`/props` answered {status} and not as llama.cpp does")
    _, models = await engine.get("/v1/models")
    settings = props.get("default_generation_settings")
    ctx = settings.get("n_ctx") if isinstance(settings, dict) else None
    build = props["build_info"]
    template = props.get("chat_template")
    prints_date = isinstance(template, str) and "strftime_now" in template
    return ProbeReport(
        engine_version=build if isinstance(build, str) and build not in ("", UNKNOWN_BUILD) else None,
        model_names=_model_names(props, models),
        model_path=_text(props.get("model_path")),
        quant=_text(props.get("model_ftype")),
        slots=_count(props.get("total_slots")),
        ctx=ctx if isinstance(ctx, int) and ctx > 0 else None,
        unpinned="its chat template prints the date" if prints_date else None,
    )


def _model_names(props: Mapping[str, Json], models: Json) -> tuple[str, ...]:
    """Alias and ids of the model, without the folders of a path."""
    found = [props.get("model_alias")]
    if isinstance(models, dict) and isinstance(models.get("data"), list):
        found += [one.get("id") for one in models["data"] if isinstance(one, dict)]
    names = [name.rsplit("/", 1)[-1] for name in found if isinstance(name, str) and name]
    return tuple(dict.fromkeys(name for name in names if name))


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ProbeRefused("`/props` does not say how many slots there are")
    return value


LLAMACPP = Adapter(
    engine="llamacpp",
    routes={"completion": _COMPLETION, "chat": _CHAT},
    idle=IdleRule(path="/slots?fail_on_no_slot=1", ok_status=200, first_after_ms=60, every_ms=2_000),
    health=HealthRule(path="/health", ok_status=200, loading_status=503),
    determinism=DeterminismPolicy(
        declarable={
            "flash_attn": bool,
            "n_batch": int,
            "n_ubatch": int,
            "n_threads": int,
            "engine_version": str,
            "model_digest": str,
            "device_class": str,
        },
        flags=("n_parallel", "flash_attn", "n_batch", "n_ubatch"),
        flags_while={"flash_attn": ("n_threads",)},
        decide=_decide,
    ),
    sampler_profile_version="v1",
    probe=_probe,
    embedded=True,
)
