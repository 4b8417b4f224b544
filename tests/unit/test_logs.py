"""What a log line carries, and what it never carries."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from orchqueue import logs


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logs.configure("info", secrets=["hush-hush", ""], stream=stream)
    yield stream
    logging.getLogger().removeHandler(handler)


def last(lines: io.StringIO) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(lines.getvalue().splitlines()[-1])
    return line


def test_line_is_json_with_the_contract_s_fields(lines: io.StringIO) -> None:
    extra = {"pool_id": "tiny", "replica_id": "tiny-0", "restarts": 2, "cause": None}
    logging.getLogger("orchqueue.pools").warning("replica lost", extra=extra)
    line = last(lines)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "logger": "orchqueue.pools", "message": "replica lost", **extra}


# req: ORCH-3027
def test_prompts_and_outputs_do_not_get_out(lines: io.StringIO) -> None:
    extra = {"prompt": "my secret diary", "output": "my answer", "messages": ["x"], "task_id": "t"}
    logging.getLogger("orchqueue").info("task ended", extra=extra)
    assert last(lines).keys() == {"time", "level", "logger", "message", "task_id"}
    assert "diary" not in lines.getvalue()


@pytest.mark.parametrize(
    ("said", "kept", "gone"),
    [
        ("key oq_0123456789ab_AAAAAAAAAAAAAAAAAAAAAAAAAAAA", "oq_0123456789ab_***", "AAAA"),
        ("Authorization: Bearer abc.def-123", "Bearer ***", "abc.def"),
        ("postgresql://me:pw12@db/x", "postgresql://me:***@db/x", "pw12"),
        ('{"secret_hex": "deadbeef"}', "secret_hex", "deadbeef"),
        ("the engine said hush-hush", "the engine said ***", "hush"),
    ],
)
def test_secrets_are_blotted_out(lines: io.StringIO, said: str, kept: str, gone: str) -> None:
    log = logging.getLogger("orchqueue")
    log.info(said)
    log.info("failed", extra={"cause": said})
    try:
        raise ValueError(said)
    except ValueError:
        log.exception("failed")
    assert json.dumps(kept)[1:-1] in lines.getvalue()
    assert gone not in lines.getvalue()


def test_line_is_bounded(lines: io.StringIO) -> None:
    logging.getLogger("orchqueue").info("x" * 100_000)
    assert len(lines.getvalue()) < 3_000


def test_libraries_are_kept_to_warnings(lines: io.StringIO) -> None:
    logging.getLogger("httpx").info("HTTP Request: GET http://127.0.0.1/health")
    logging.getLogger("orchqueue").debug("not asked for")
    assert lines.getvalue() == ""
