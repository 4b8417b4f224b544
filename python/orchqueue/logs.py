"""JSON lines on standard error, in the field names of the contract (ORCH-3027).

A log call says what happened in a few fixed words and hands facts over as `extra` fields. Only the fields
listed here get out, so a prompt or an output cannot slip in; whatever looks like a secret is blotted out.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

FIELDS = frozenset(
    """
    task_id session_id tenant_id engine pool_id replica_id model_id quant ctx engine_version
    sampler_profile_version seed kv_warmth queue_time_ms decode_time_ms tokens_in tokens_out
    cause reason restarts state url pid failures retry_s correlation_id method path status version host
    elapsed_ms signal key_id records
    """.split()
)

_MAX_CHARS = 2_000
_SECRETS = (
    # Our API keys keep their id: it is public and tells whose key it was.
    (re.compile(r"\boq_([0-9a-f]{12})_[A-Za-z0-9_-]{16,}"), r"oq_\1_***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{4,}"), r"\1 ***"),
    (re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*(?=@)"), r"\1:***"),
    (
        re.compile(r"(?i)\b(secret|password|pepper|api_key)(_hex)?([\"']?\s*[:=]\s*[\"']?)[^\s\"',}]+"),
        r"\1\2\3***",
    ),
)


def redact(text: str) -> str:
    """`text` without anything that looks like a secret, bounded in length."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}…"


def _utc(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonLines(logging.Formatter):
    """One JSON object per record."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = [secret for secret in secrets if len(secret) >= 4]

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._clean(record.getMessage()),
        }
        for name in FIELDS.intersection(record.__dict__):
            line[name] = self._plain(record.__dict__[name])
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["traceback"] = self._clean(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)

    def _plain(self, value: object) -> object:
        return value if value is None or isinstance(value, bool | int | float) else self._clean(str(value))

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return redact(text)


def configure(level: str, secrets: Iterable[str] = (), stream: TextIO | None = None) -> logging.Handler:
    """Sends the package's log to `stream` and keeps libraries to warnings; returns the handler to remove."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(secrets))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("orchqueue").setLevel(level.upper())
    return handler
