"""How one journal record changes one task of the history. Pure: no clock, no SQL (ORCH-4051).

absent, any state --admitted--> queued       an id may be admitted again after a retriable end
queued, started --started--> started
queued, started --ended--> finished | failed | canceled
final state --started, ended--> unchanged    the first end counts
absent --started, ended--> absent            the admission is past retention, and so is the task
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchqueue.store.rows import FINAL_STATES, JournalRecord, TaskRow, TaskState

# A signed 64-bit column holds no more.
_MAX_INT = 2**63 - 1
_MAX_TEXT = 512
# The class of a task that names none.
_DEFAULT_CLASS = "interactive"
# The workload of a body that names none, where the door it came through decides.
_DEFAULT_WORKLOADS = {"openai_chat": "chat"}
# Names of a transcript's channels in `output`, by their numbers.
_CHANNELS = ("text", "reasoning", "tool_calls")


class UnreadableRecord(ValueError):
    """The record is not one that this version writes; the history goes on without it."""


def apply(row: TaskRow | None, record: JournalRecord) -> TaskRow | None:
    """The row after the record; None while the task is not known."""
    data = _data(record)
    match record.kind:
        case "admitted":
            return _admitted(record, data)
        case "started":
            return _started(row, record, data) if row else None
        case "ended":
            return _ended(row, record, data) if row else None
        case _:
            raise UnreadableRecord(f"kind: `{record.kind}`")


def _data(record: JournalRecord) -> dict[str, Any]:
    try:
        data = json.loads(record.data)
    except (ValueError, RecursionError) as error:
        raise UnreadableRecord("`data` is not JSON") from error
    if not isinstance(data, dict):
        raise UnreadableRecord("`data` is not a JSON object")
    return data


def _admitted(record: JournalRecord, data: Mapping[str, Any]) -> TaskRow:
    body = _object(data, "body") or {}
    return TaskRow(
        tenant=record.tenant,
        task_id=record.task_id,
        admitted_seq=record.seq,
        state=TaskState.QUEUED,
        created_ms=record.at_ms,
        workload=_text(body, "workload") or _DEFAULT_WORKLOADS.get(_text(data, "door") or "", "completion"),
        priority=_text(data, "priority") or _DEFAULT_CLASS,
        pool_id=_text(data, "pool_id"),
        engine=_text(body, "engine"),
        # The OpenAI door says `model`.
        model_ref=_text(body, "model_ref") or _text(body, "model"),
        session_id=_text(data, "session_id"),
        determinism=_text(body, "determinism"),
        size_bytes=len(record.data),
    )


def _started(row: TaskRow, record: JournalRecord, data: Mapping[str, Any]) -> TaskRow:
    if row.state in FINAL_STATES:
        return row
    attempts = list(row.attempts or [])
    number = _int(data, "attempt") or len(attempts) + 1
    attempts.append({"attempt": number, "replica_id": _text(data, "replica")})
    return replace(
        row,
        state=TaskState.STARTED,
        started_ms=row.started_ms if row.started_ms is not None else record.at_ms,
        pool_id=_text(data, "pool_id") or row.pool_id,
        attempts=attempts,
        size_bytes=row.size_bytes + len(record.data),
    )


def _ended(row: TaskRow, record: JournalRecord, data: Mapping[str, Any]) -> TaskRow:
    if row.state in FINAL_STATES:
        return row
    end, error = _object(data, "end"), _object(data, "error")
    output = _output(data, end) if end is not None else None
    usage = _object(end or {}, "usage") or {}
    return replace(
        row,
        state=_end_state(data, error),
        ended_ms=record.at_ms,
        pool_id=_text(data, "pool_id") or row.pool_id,
        tokens_in=_int(usage, "tokens_in"),
        tokens_out=_int(usage, "tokens_out"),
        finish_reason=_text(end or {}, "finish_reason"),
        error_code=_text(error or {}, "code"),
        attempts=_objects(data, "attempts") or row.attempts,
        output=output,
        error=error,
        receipt=_object(end or {}, "receipt"),
        size_bytes=row.size_bytes + len(record.data),
    )


def _output(data: Mapping[str, Any], end: Mapping[str, Any]) -> dict[str, Any]:
    """The `output` of `GET /v1/tasks/{id}`, put together from the transcript's segments."""
    texts = {name: "" for name in _CHANNELS}
    segments = data.get("segments")
    for segment in segments if isinstance(segments, list) else []:
        match segment:
            case [int(channel), str(text)] if 0 <= channel < len(_CHANNELS):
                texts[_CHANNELS[channel]] += text
    spoken = {name: text for name, text in texts.items() if text or name == "text"}
    return {**spoken, "finish_reason": end.get("finish_reason"), "usage": end.get("usage")}


def _end_state(data: Mapping[str, Any], error: Mapping[str, Any] | None) -> TaskState:
    state = _text(data, "state")
    if state in FINAL_STATES:
        return TaskState(state)
    if error is None:
        return TaskState.FINISHED
    return TaskState.CANCELED if error.get("code") == "CANCELED" else TaskState.FAILED


def _text(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    # PostgreSQL holds no NUL in a text column.
    return value[:_MAX_TEXT].replace("\0", "") if isinstance(value, str) else None


def _int(data: Mapping[str, Any], name: str) -> int | None:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MAX_INT else None


def _object(data: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    value = data.get(name)
    return value if isinstance(value, dict) else None


def _objects(data: Mapping[str, Any], name: str) -> list[dict[str, Any]] | None:
    value = data.get(name)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else None
