"""The data of OrchQueue v1 as pydantic models.

Generated from contracts/openapi by `ci/generate`: change the contract, not this file.
Responses may gain fields, so unknown ones are ignored; requests are strict.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from typing_extensions import TypeAliasType

TaskId = TypeAliasType(
    "TaskId",
    Annotated[
        str,
        Field(pattern='^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'),
    ],
)
"""
As the daemon writes it.
"""


Uuid = TypeAliasType(
    "Uuid",
    Annotated[
        str,
        Field(
            pattern='^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$'
        ),
    ],
)
"""
As the daemon reads it, in any case.
"""


EventId = TypeAliasType(
    "EventId",
    Annotated[str, Field(pattern='^(0|[1-9][0-9]{0,18})-[0-9a-f]{16}(-end)?$')],
)
"""
Bytes of output so far, and the first 16 hex digits of D(k); `-end` marks the terminal.
"""


Digest = TypeAliasType("Digest", Annotated[str, Field(pattern='^[0-9a-f]{64}$')])


ClassName = TypeAliasType(
    "ClassName", Annotated[str, Field(pattern='^[a-z][a-z0-9_-]{0,31}$')]
)
"""
A priority class of the configuration; by default `interactive` and `batch`.
"""


Engine = TypeAliasType("Engine", Literal['llamacpp', 'vllm', 'tgi', 'triton', 'openai'])


Workload = TypeAliasType("Workload", Literal['completion', 'chat', 'embedding', 'rerank'])


Determinism = TypeAliasType("Determinism", Literal['strict', 'best_effort'])


FinishReason = TypeAliasType("FinishReason", Literal['stop', 'length', 'tool_calls'])


TaskState = TypeAliasType("TaskState", Literal['queued', 'started', 'finished', 'failed', 'canceled'])


PolicyLabel = TypeAliasType("PolicyLabel", Literal['reject', 'drop-lru', 'shed-low-priority'])


ErrorCode = TypeAliasType("ErrorCode", Literal['ADMISSION_REJECT', 'QUEUE_FULL_DROP_LRU', 'INVALID_PARAMS', 'POOL_UNREADY', 'POOL_UNAVAILABLE', 'REPLICA_EXHAUSTED', 'DECODE_TIMEOUT', 'WORKER_RESET', 'INTERNAL', 'DEADLINE_UNMET', 'MODEL_DEPRECATED', 'UNTRUSTED_ARTIFACT', 'QUOTA_EXCEEDED', 'UNAUTHENTICATED', 'FORBIDDEN', 'NOT_FOUND', 'CONFLICT', 'CANCELED', 'DETERMINISM_DIVERGED'])


Input = TypeAliasType("Input", Annotated[str, Field(min_length=1)])


StopItem = TypeAliasType(
    "StopItem", Annotated[str, Field(max_length=256, min_length=1)]
)


Stop = TypeAliasType("Stop", Annotated[list[StopItem], Field(max_length=16)])
"""
Text that ends the output; not part of it.
"""


LogitBiasAdditionalProperty = TypeAliasType(
    "LogitBiasAdditionalProperty", Annotated[float, Field(ge=-100.0, le=100.0)]
)


LogitBias = TypeAliasType(
    "LogitBias",
    Annotated[
        dict[Annotated[str, StringConstraints(pattern=r'^(0|[1-9][0-9]{0,8}|[1-3][0-9]{9}|4[01][0-9]{8}|42[0-8][0-9]{7}|429[0-3][0-9]{6})$')], LogitBiasAdditionalProperty],
        Field(max_length=4096),
    ],
)
"""
Token id (as a decimal string, below 2^32) to bias.
"""


class FunctionCall(BaseModel):
    model_config = ConfigDict(
        extra='forbid',
    )
    name: str
    arguments: str


class ToolCall(BaseModel):
    model_config = ConfigDict(
        extra='forbid',
    )
    id: str
    type: Literal['function']
    function: Annotated[FunctionCall, Field(title='FunctionCall')]


class ToolFunction(BaseModel):
    model_config = ConfigDict(
        extra='forbid',
    )
    name: Annotated[str, Field(max_length=64, min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    model_config = ConfigDict(
        extra='forbid',
    )
    type: Literal['function']
    function: Annotated[ToolFunction, Field(title='ToolFunction')]


class ResponseFormat(BaseModel):
    model_config = ConfigDict(
        extra='forbid',
    )
    type: Literal['text', 'json_object', 'json_schema']
    json_schema: dict[str, Any] | None = None


class TaskAccepted(BaseModel):
    task_id: TaskId
    queue_position: Annotated[int, Field(ge=0)]
    """
    Tasks that are dispatched before this one; 0 is next.
    """
    predicted_start_ms: Annotated[int | None, Field(ge=0)]
    """
    Milliseconds until it starts; null until the pool has served something.
    """
    backoff_ms: Annotated[int, Field(ge=0)]
    """
    How long to wait before submitting more.
    """


class Attempt(BaseModel):
    """
    One upstream exchange of a task.
    """

    attempt: Annotated[int, Field(ge=1)]
    replica_id: str
    started_ms: Annotated[int | None, Field(ge=0)] = None
    """
    Unix time.
    """
    ended_ms: Annotated[int | None, Field(ge=0)] = None
    """
    Unix time; absent while it runs.
    """
    outcome: Literal['running', 'finished', 'stopped', 'canceled', 'refused', 'busy', 'failed'] | None = (
        None
    )


class Usage(BaseModel):
    tokens_in: Annotated[int, Field(ge=0)]
    tokens_out: Annotated[int, Field(ge=0)]
    tokens_cached: Annotated[int | None, Field(ge=0)] = None
    """
    Input tokens taken from the engine's cache; absent where the engine does not say.
    """


class Output(BaseModel):
    text: str
    reasoning: str | None = None
    tool_calls: str | None = None
    """
    JSON as the engine wrote it.
    """
    finish_reason: FinishReason
    usage: Usage


class Session(BaseModel):
    """
    Affinity, order and counters; never text.
    """

    session_id: TaskId
    ttl_ms_remaining: Annotated[int, Field(ge=0, le=600000)]
    turns: Annotated[int, Field(ge=0, le=8)]
    kv_bytes: Annotated[int | None, Field(ge=0)] = None
    """
    Key-value memory held for it between tasks; absent where it is not known.
    """
    kv_warmth: Literal['cold', 'warm'] | None = None
    """
    Absent where it is not known.
    """


class Error(BaseModel):
    """
    The envelope of every error answer.
    """

    code: ErrorCode
    message: Annotated[str, Field(min_length=1)]
    engine: Engine | None = None
    retriable: bool
    """
    The same request may succeed later.
    """
    retry_after_ms: Annotated[int | None, Field(ge=0)] = None
    policy_label: PolicyLabel | None = None
    reason: Annotated[str | None, Field(pattern='^[a-z][a-z0-9_]*$')] = None
    """
    Refines the code.
    """
    hint: str | None = None
    """
    What to do.
    """
    correlation_id: str


class ErrorEvent(BaseModel):
    """
    The terminal `error` of a stream, and the error of a task that ended with one.
    """

    code: ErrorCode
    message: Annotated[str, Field(min_length=1)]
    engine: Engine | None = None
    retriable: bool
    retry_after_ms: Annotated[int | None, Field(ge=0)] = None
    policy_label: PolicyLabel | None = None
    reason: Annotated[str | None, Field(pattern='^[a-z][a-z0-9_]*$')] = None
    hint: str | None = None
    correlation_id: str | None = None


class StartedEvent(BaseModel):
    task_id: TaskId
    queue_position: Annotated[int, Field(ge=0)]
    predicted_start_ms: Annotated[int | None, Field(ge=0)] = None
    """
    Absent until the pool has served something.
    """
    determinism: Determinism
    replica_set: Digest | None = None
    """
    The identity; absent while no replica has been chosen.
    """
    resumed_from: Annotated[int | None, Field(ge=0)] = None
    """
    The stream goes on after this many bytes of output.
    """


class TokenEvent(BaseModel):
    t: Annotated[str, Field(min_length=1)]
    """
    The text, cut at UTF-8 boundaries.
    """
    i: Annotated[int, Field(ge=0)]
    """
    Numbers the events of this stream.
    """
    c: Literal[1, 2] | None = None
    """
    The channel: 1 reasoning, 2 tool-call JSON; omitted for text.
    """


class MetricsEvent(BaseModel):
    """
    Once a second while the task waits or runs.
    """

    queue_depth: Annotated[int | None, Field(ge=0)] = None
    kv_warmth: Literal['cold', 'warm'] | None = None
    on_time_probability: Annotated[float | None, Field(ge=0.0, le=1.0)] = None
    """
    Null without a deadline.
    """
    tokens_per_s: Annotated[float | None, Field(ge=0.0)] = None


class ReplicaSetIdentity(BaseModel):
    """
    The fields whose sha256 over JCS is the identity of a replica set.
    """

    engine: Engine
    build: str
    model_digest: str
    quant: str
    ctx: Annotated[int, Field(ge=1)]
    sampler_profile_version: str
    device_class: str
    flags: dict[str, Any]


class ReceiptAttempt(BaseModel):
    replica_id: str
    outcome: str


TokenId = TypeAliasType("TokenId", Annotated[int, Field(ge=0)])


class ReceiptTimes(BaseModel):
    """
    Unix times.
    """

    received_ms: Annotated[int, Field(ge=0)]
    started_ms: Annotated[int | None, Field(ge=0)] = None
    first_token_ms: Annotated[int | None, Field(ge=0)] = None
    ended_ms: Annotated[int, Field(ge=0)]


class ReceiptKey(BaseModel):
    key_id: str
    algorithm: Literal['Ed25519']
    public_hex: Digest
    active: bool


class ReceiptKeyList(BaseModel):
    keys: list[ReceiptKey]


class StreamOptions(BaseModel):
    include_usage: bool | None = None


Stop1 = TypeAliasType("Stop1", Annotated[str, Field(max_length=256, min_length=1)])


Prompt = TypeAliasType("Prompt", Annotated[str, Field(min_length=1)])


Prompt1Item = TypeAliasType("Prompt1Item", Annotated[str, Field(min_length=1)])


Prompt1 = TypeAliasType(
    "Prompt1", Annotated[list[Prompt1Item], Field(max_length=1, min_length=1)]
)


class CompletionRequest(BaseModel):
    """
    As ChatCompletionRequest, with a `prompt`.
    """

    model_config = ConfigDict(
        extra='forbid',
    )
    model: Annotated[
        str,
        Field(
            pattern='^(sha256:[0-9a-f]{64}|repo:[A-Za-z0-9._-]{1,128}/[A-Za-z0-9._-]{1,128}|[A-Za-z0-9._-]{1,128}(/[A-Za-z0-9._-]{1,128})?)$'
        ),
    ]
    prompt: Prompt | Prompt1
    max_tokens: Annotated[int | None, Field(ge=1, le=2147483647)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=2147483647)] = None
    """
    The same limit under its new name.
    """
    stream: bool | None = None
    stream_options: Annotated[StreamOptions | None, Field(title='StreamOptions')] = None
    seed: Annotated[int | None, Field(ge=0, le=2147483647)] = None
    temperature: Annotated[float | None, Field(ge=0.0, le=2.0)] = None
    top_k: Annotated[int | None, Field(ge=0, le=2147483647)] = None
    top_p: Annotated[float | None, Field(ge=0.0, le=1.0)] = None
    min_p: Annotated[float | None, Field(ge=0.0, le=1.0)] = None
    typical_p: Annotated[float | None, Field(ge=0.0, le=1.0)] = None
    repeat_penalty: Annotated[float | None, Field(ge=0.01, le=2.0)] = None
    repeat_last_n: Annotated[int | None, Field(ge=0, le=2147483647)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2.0, le=2.0)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2.0, le=2.0)] = None
    ignore_eos: bool | None = None
    stop: Stop1 | Stop | None = None
    logit_bias: LogitBias | None = None
    tools: Annotated[list[Any] | None, Field(max_length=0)] = None
    tool_choice: Literal['auto', 'none'] | None = None
    response_format: ResponseFormat | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    modalities: list[str] | None = None
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    user: Any | None = None
    """
    Ignored.
    """
    metadata: Any | None = None
    """
    Ignored.
    """
    store: Any | None = None
    """
    Ignored.
    """
    service_tier: Any | None = None
    """
    Ignored.
    """
    parallel_tool_calls: Any | None = None
    """
    Ignored.
    """
    prompt_cache_key: Any | None = None
    """
    Ignored.
    """
    prompt_cache_retention: Any | None = None
    """
    Ignored.
    """
    safety_identifier: Any | None = None
    """
    Ignored.
    """


class OpenAiTextPart(BaseModel):
    type: Literal['text']
    text: str


class OpenAiToolCall(BaseModel):
    model_config = ConfigDict(
        extra='forbid',
    )
    index: Any | None = None
    """
    Ignored.
    """
    id: str
    type: Literal['function']
    function: Annotated[FunctionCall, Field(title='FunctionCall')]


class PromptTokensDetails(BaseModel):
    cached_tokens: Annotated[int | None, Field(ge=0)] = None


class OpenAiUsage(BaseModel):
    prompt_tokens: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(ge=0)]
    total_tokens: Annotated[int, Field(ge=0)]
    prompt_tokens_details: Annotated[
        PromptTokensDetails | None, Field(title='PromptTokensDetails')
    ] = None


class ChatCompletionMessage(BaseModel):
    role: Literal['assistant']
    content: str | None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChatChoice(BaseModel):
    index: Literal[0]
    message: Annotated[ChatCompletionMessage, Field(title='ChatCompletionMessage')]
    logprobs: Annotated[None, Field(None)] = None
    finish_reason: FinishReason


class ChatCompletion(BaseModel):
    id: str
    object: Literal['chat.completion']
    created: Annotated[int, Field(ge=0)]
    model: str
    choices: Annotated[list[ChatChoice], Field(max_length=1, min_length=1)]
    usage: OpenAiUsage


class CompletionChoice(BaseModel):
    index: Literal[0]
    text: str
    logprobs: Annotated[None, Field(None)] = None
    finish_reason: FinishReason | None = None


class Completion(BaseModel):
    """
    A whole completion; in a stream one piece of it, with a `finish_reason` in the last.
    """

    id: str
    object: Literal['text_completion']
    created: Annotated[int, Field(ge=0)]
    model: str
    choices: Annotated[list[CompletionChoice], Field(max_length=1)]
    usage: OpenAiUsage | None = None


class ChatDelta(BaseModel):
    role: Literal['assistant'] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChatChunkChoice(BaseModel):
    index: Literal[0]
    delta: Annotated[ChatDelta, Field(title='ChatDelta')]
    logprobs: Annotated[None, Field(None)] = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(BaseModel):
    id: str
    object: Literal['chat.completion.chunk']
    created: Annotated[int, Field(ge=0)]
    model: str
    choices: Annotated[list[ChatChunkChoice], Field(max_length=1)]
    usage: OpenAiUsage | None = None


class Model(BaseModel):
    id: str
    object: Literal['model']
    created: Annotated[int, Field(ge=0)]
    owned_by: str


class OpenAiErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: ErrorCode
    correlation_id: str | None = None


class OpenAiErrorBody(BaseModel):
    error: Annotated[OpenAiErrorDetail, Field(title='OpenAiErrorDetail')]


class Liveness(BaseModel):
    status: Literal['ok']
    version: str | None = None


class Readiness(BaseModel):
    status: Literal['ready', 'starting', 'draining']


PoolState = TypeAliasType("PoolState", Literal['starting', 'ready', 'draining', 'failed'])


ReplicaState = TypeAliasType("ReplicaState", Literal['starting', 'ready', 'unready', 'reclaiming'])


class Slo(BaseModel):
    """
    What was measured lately, 95th percentiles; absent until there is something to measure.
    """

    first_token_p95_ms: Annotated[float | None, Field(ge=0.0)] = None
    decode_p95_ms: Annotated[float | None, Field(ge=0.0)] = None


class Replica(BaseModel):
    id: str
    pool_id: str
    replicaset_id: Digest | None = None
    """
    Absent until it has been probed.
    """
    engine: Engine
    engine_version: str | None = None
    model_digest: Annotated[str | None, Field(pattern='^(sha256:)?[0-9a-f]{64}$')] = (
        None
    )
    state: ReplicaState
    managed: bool | None = None
    """
    Started by this daemon.
    """
    slots_total: Annotated[int, Field(ge=0)]
    in_flight: Annotated[int, Field(ge=0)]
    pid: Annotated[int | None, Field(ge=1)] = None
    """
    The process of a managed replica.
    """
    restarts: Annotated[int | None, Field(ge=0)] = None
    """
    Times that it was started again.
    """
    reproducible: bool | None = None
    """
    It keeps the promise of determinism; absent until it has been probed.
    """
    not_reproducible_because: str | None = None
    last_error: str | None = None


class ReplicaList(BaseModel):
    replicas: list[Replica]


class PoolMetrics(BaseModel):
    queue_depth: Annotated[int, Field(ge=0)]
    slots_total: Annotated[int, Field(ge=0)]
    slots_free: Annotated[int, Field(ge=0)]


Feature = TypeAliasType("Feature", Annotated[str, Field(pattern='^[a-z][a-z0-9_]*$')])


class ClassLimits(BaseModel):
    name: ClassName
    capacity: Annotated[int, Field(ge=1)]
    full_policy: PolicyLabel


class ChatMessage(BaseModel):
    """
    Only the assistant may say nothing, where it calls tools.
    """

    model_config = ConfigDict(
        extra='forbid',
    )
    role: Literal['system', 'user', 'assistant', 'tool']
    content: str | None = None
    name: Annotated[str | None, Field(max_length=64, min_length=1)] = None
    tool_call_id: Annotated[str | None, Field(min_length=1)] = None
    tool_calls: list[ToolCall] | None = None


class TaskSummary(BaseModel):
    """
    A task without its output.
    """

    task_id: TaskId
    state: TaskState
    priority: ClassName
    pool_id: str | None = None
    error: ErrorEvent | None = None
    created_ms: Annotated[int, Field(ge=0)]
    ended_ms: Annotated[int | None, Field(ge=0)] = None


class TaskList(BaseModel):
    tasks: list[TaskSummary]
    next: str | None = None
    """
    `after` of the next page; absent on the last one.
    """


class Receipt(BaseModel):
    """
    What was decoded, and where. Unsigned where `signature` is absent.
    """

    task_id: TaskId
    request_digest: Digest
    """
    R
    """
    output_digest: Digest
    """
    D(end)
    """
    output_bytes: Annotated[int, Field(ge=0)]
    identity: Digest
    identity_fields: ReplicaSetIdentity
    seed: Annotated[int, Field(ge=0, le=2147483647)]
    usage: Usage
    finish_reason: FinishReason
    determinism: Determinism
    attempts: list[ReceiptAttempt]
    token_ids: list[TokenId] | None = None
    """
    Where the engine gives all of them.
    """
    times: ReceiptTimes
    queue_position: Annotated[int | None, Field(ge=0)] = None
    key_id: str | None = None
    signature: str | None = None
    """
    Ed25519 over the JCS of the receipt without this field.
    """


class SignedReceipt(Receipt):
    key_id: str
    signature: str
    """
    Ed25519 over the JCS of the receipt without this field.
    """


class OpenAiMessage(BaseModel):
    """
    Only the assistant may say nothing, where it calls tools.
    """

    model_config = ConfigDict(
        extra='forbid',
    )
    role: Literal['system', 'developer', 'user', 'assistant', 'tool']
    content: str | list[OpenAiTextPart] | None = None
    name: Annotated[str | None, Field(max_length=64, min_length=1)] = None
    tool_call_id: Annotated[str | None, Field(min_length=1)] = None
    tool_calls: list[OpenAiToolCall] | None = None
    refusal: Any | None = None
    """
    Ignored.
    """
    annotations: Any | None = None
    """
    Ignored.
    """


class ModelList(BaseModel):
    object: Literal['list']
    data: list[Model]


class ReplicaSet(BaseModel):
    id: Digest
    """
    The identity.
    """
    pool_id: str
    engine: Engine
    engine_version: str
    model_digest: Annotated[str, Field(pattern='^(sha256:)?[0-9a-f]{64}$')]
    reproducible: bool
    """
    Tasks that ask for `strict` may be placed here.
    """
    load: Annotated[float, Field(ge=0.0, le=1.0)]
    """
    Share of the slots in use.
    """
    slots_total: Annotated[int, Field(ge=0)]
    slots_free: Annotated[int, Field(ge=0)]
    slo: Slo | None = None
    identity: ReplicaSetIdentity | None = None


class ReplicaSetList(BaseModel):
    replicasets: list[ReplicaSet]


class PoolHealth(BaseModel):
    pool_id: str
    state: PoolState
    live: bool
    """
    At least one replica answers.
    """
    ready: bool
    """
    At least one replica can be placed upon.
    """
    draining: bool
    last_error: str | None
    metrics: PoolMetrics


class PoolList(BaseModel):
    pools: list[PoolHealth]


class Limits(BaseModel):
    max_body_bytes: Annotated[int, Field(ge=1)]
    session_ttl_ms: Annotated[int, Field(ge=1)]
    session_max_turns: Annotated[int, Field(ge=1)]
    classes: list[ClassLimits] | None = None


class TaskRequest(BaseModel):
    """
    What a client asks for. `completion` takes `prompt`, `chat` takes `messages` and `tools`, `embedding` and `rerank` take `inputs`. `reuse` needs a `seed`.
    """

    model_config = ConfigDict(
        extra='forbid',
    )
    task_id: Uuid | None = None
    """
    Made by the server if omitted. Ids are scoped to the tenant.
    """
    session_id: Uuid | None = None
    workload: Workload | None = None
    """
    Default: `chat` with `messages`, else `completion`.
    """
    model_ref: Annotated[
        str | None,
        Field(
            pattern='^(sha256:[0-9a-f]{64}|repo:[A-Za-z0-9._-]{1,128}/[A-Za-z0-9._-]{1,128}|[A-Za-z0-9._-]{1,128})$'
        ),
    ] = None
    """
    A catalog name, `sha256:…` or `repo:owner/name`.
    """
    engine: Engine | None = None
    ctx: Annotated[int | None, Field(ge=1, le=4294967295)] = None
    """
    The context that the task needs; refused when the model has less.
    """
    priority: ClassName | None = 'interactive'
    prompt: Annotated[str | None, Field(min_length=1)] = None
    messages: Annotated[list[ChatMessage] | None, Field(min_length=1)] = None
    inputs: Annotated[list[Input] | None, Field(min_length=1)] = None
    max_tokens: Annotated[int | None, Field(ge=1, le=2147483647)] = 256
    expected_tokens: Annotated[int | None, Field(ge=1, le=2147483647)] = None
    """
    The client's own estimate of the output; used for forecasts only.
    """
    deadline_ms: Annotated[int | None, Field(ge=1, le=604800000)] = None
    """
    Milliseconds after receipt.
    """
    on_disconnect: Literal['keep', 'cancel'] | None = None
    """
    What a lost client does to the task. Default: `keep` with 202, `cancel` for the one-trip stream.
    """
    kv_hint: Literal['reuse', 'cold'] | None = 'reuse'
    reuse: Literal['none', 'coalesce', 'cache'] | None = 'none'
    receipt: Literal['unsigned', 'signed'] | None = 'unsigned'
    wait: bool | None = False
    """
    Answer with the finished task.
    """
    determinism: Determinism | None = None
    """
    Where it is omitted the pool decides.
    """
    seed: Annotated[int | None, Field(ge=0, le=2147483647)] = None
    """
    Derived from the task id if omitted.
    """
    sampler_profile_version: Literal['v1'] = 'v1'
    temperature: Annotated[float | None, Field(ge=0.0, le=2.0)] = None
    top_k: Annotated[int | None, Field(ge=0, le=2147483647)] = None
    top_p: Annotated[float | None, Field(ge=0.0, le=1.0)] = None
    min_p: Annotated[float | None, Field(ge=0.0, le=1.0)] = None
    typical_p: Annotated[float | None, Field(ge=0.0, le=1.0)] = None
    repeat_penalty: Annotated[float | None, Field(ge=0.01, le=2.0)] = None
    repeat_last_n: Annotated[int | None, Field(ge=0, le=2147483647)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2.0, le=2.0)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2.0, le=2.0)] = None
    stop: Stop | None = None
    ignore_eos: bool | None = None
    logit_bias: LogitBias | None = None
    tools: list[Tool] | None = None
    response_format: ResponseFormat | None = None
    n: Literal[1] | None = None
    """
    One output per task.
    """


class Task(BaseModel):
    task_id: TaskId
    state: TaskState
    priority: ClassName
    pool_id: str | None = None
    queue_position: Annotated[int | None, Field(ge=0)] = None
    """
    While it is queued.
    """
    predicted_start_ms: Annotated[int | None, Field(ge=0)] = None
    """
    While it is queued.
    """
    attempts: list[Attempt]
    output: Output | None = None
    error: ErrorEvent | None = None
    receipt: Receipt | None = None
    created_ms: Annotated[int, Field(ge=0)]
    """
    Unix time.
    """
    ended_ms: Annotated[int | None, Field(ge=0)] = None
    """
    Unix time.
    """


class EndEvent(BaseModel):
    tokens_out: Annotated[int, Field(ge=0)]
    decode_ms: Annotated[int, Field(ge=0)]
    finish_reason: FinishReason
    usage: Usage
    output: dict[str, Any] | None = None
    """
    The result of workloads that stream no text.
    """
    receipt: Receipt


class ChatCompletionRequest(BaseModel):
    """
    As OpenAI's clients write it, where `null` means absent. What could change the output and is not supported is refused; what cannot is ignored.
    """

    model_config = ConfigDict(
        extra='forbid',
    )
    model: Annotated[
        str,
        Field(
            pattern='^(sha256:[0-9a-f]{64}|repo:[A-Za-z0-9._-]{1,128}/[A-Za-z0-9._-]{1,128}|[A-Za-z0-9._-]{1,128}(/[A-Za-z0-9._-]{1,128})?)$'
        ),
    ]
    messages: Annotated[list[OpenAiMessage], Field(min_length=1)]
    max_tokens: Annotated[int | None, Field(ge=1, le=2147483647)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=2147483647)] = None
    """
    The same limit under its new name.
    """
    stream: bool | None = None
    stream_options: Annotated[StreamOptions | None, Field(title='StreamOptions')] = None
    seed: Annotated[int | None, Field(ge=0, le=2147483647)] = None
    temperature: Annotated[float | None, Field(ge=0.0, le=2.0)] = None
    top_k: Annotated[int | None, Field(ge=0, le=2147483647)] = None
    top_p: Annotated[float | None, Field(ge=0.0, le=1.0)] = None
    min_p: Annotated[float | None, Field(ge=0.0, le=1.0)] = None
    typical_p: Annotated[float | None, Field(ge=0.0, le=1.0)] = None
    repeat_penalty: Annotated[float | None, Field(ge=0.01, le=2.0)] = None
    repeat_last_n: Annotated[int | None, Field(ge=0, le=2147483647)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2.0, le=2.0)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2.0, le=2.0)] = None
    ignore_eos: bool | None = None
    stop: Stop1 | Stop | None = None
    logit_bias: LogitBias | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal['auto', 'none'] | None = None
    response_format: ResponseFormat | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    modalities: list[str] | None = None
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    user: Any | None = None
    """
    Ignored.
    """
    metadata: Any | None = None
    """
    Ignored.
    """
    store: Any | None = None
    """
    Ignored.
    """
    service_tier: Any | None = None
    """
    Ignored.
    """
    parallel_tool_calls: Any | None = None
    """
    Ignored.
    """
    prompt_cache_key: Any | None = None
    """
    Ignored.
    """
    prompt_cache_retention: Any | None = None
    """
    Ignored.
    """
    safety_identifier: Any | None = None
    """
    Ignored.
    """


class Capabilities(BaseModel):
    api_version: Literal['v1']
    version: str
    """
    Of the daemon.
    """
    engines: list[Engine]
    ctx_max: Annotated[int, Field(ge=0)]
    """
    The largest context of any pool.
    """
    workloads: list[Workload]
    features: list[Feature]
    limits: Limits
