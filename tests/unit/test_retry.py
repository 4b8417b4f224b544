"""When a client tries again and how long it waits."""

import pytest
from orchqueue.errors import DaemonUnreachable, OrchqueueError, ProtocolError, from_envelope
from orchqueue.retry import NEVER, Retry, retry_after_ms


def coded(retriable: bool, retry_after_ms: int | None = None) -> OrchqueueError:
    body: dict[str, object] = {"code": "ADMISSION_REJECT", "message": "full", "retriable": retriable}
    if retry_after_ms is not None:
        body["retry_after_ms"] = retry_after_ms
    return from_envelope(body)


# req: ORCH-4072
def test_the_servers_word_comes_first() -> None:
    assert Retry().wait_s(coded(True, 750), tried=1, waited_s=0) == 0.75


def test_without_a_word_the_wait_doubles() -> None:
    retry = Retry(base_s=0.5)
    assert [retry.wait_s(coded(True), tried=n, waited_s=0) for n in (1, 2, 3)] == [0.5, 1.0, 2.0]


def test_what_is_not_retriable_is_final() -> None:
    assert Retry().wait_s(coded(False, 100), tried=1, waited_s=0) is None
    assert Retry().wait_s(ProtocolError("strange"), tried=1, waited_s=0) is None


def test_a_daemon_that_is_away_is_tried_again() -> None:
    assert Retry().wait_s(DaemonUnreachable("away"), tried=1, waited_s=0) == 0.2


def test_attempts_and_time_are_bounded() -> None:
    assert Retry(attempts=2).wait_s(coded(True), tried=2, waited_s=0) is None
    assert Retry(max_wait_s=1).wait_s(coded(True, 600), tried=1, waited_s=0.5) is None
    assert NEVER.wait_s(coded(True), tried=1, waited_s=0) is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-backoff-ms": "150", "retry-after": "1"}, 150),
        ({"retry-after": "2"}, 2000),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:00 GMT"}, None),
        ({"x-backoff-ms": "-5"}, None),
        ({}, None),
    ],
)
def test_wait_from_headers(headers: dict[str, str], expected: int | None) -> None:
    assert retry_after_ms(headers) == expected
