"""What can go wrong, as one tree. A code of `contracts/errors.yaml` is one class.

    OrchqueueError
    ├── TransportError            the daemon was not heard, or not understood
    │   ├── DaemonUnreachable       no connection, or none in time
    │   ├── StreamInterrupted       a stream broke before its `end` or `error`
    │   └── ProtocolError           the answer is not OrchQueue v1
    └── ServerError               the daemon answered with a code
        ├── RequestError            the request itself has to change
        │   ├── InvalidParams         INVALID_PARAMS
        │   ├── Unauthenticated       UNAUTHENTICATED
        │   ├── Forbidden             FORBIDDEN
        │   ├── NotFound              NOT_FOUND
        │   ├── Conflict              CONFLICT
        │   ├── ModelDeprecated       MODEL_DEPRECATED
        │   └── UntrustedArtifact     UNTRUSTED_ARTIFACT
        ├── RefusedError            the task was not admitted, or gave way while it waited
        │   ├── AdmissionReject       ADMISSION_REJECT
        │   ├── QueueFullDropLru      QUEUE_FULL_DROP_LRU
        │   ├── QuotaExceeded         QUOTA_EXCEEDED
        │   ├── DeadlineUnmet         DEADLINE_UNMET
        │   ├── PoolUnready           POOL_UNREADY
        │   └── PoolUnavailable       POOL_UNAVAILABLE
        ├── AttemptError            the task ran and its replica failed it
        │   ├── ReplicaExhausted      REPLICA_EXHAUSTED
        │   ├── DecodeTimeout         DECODE_TIMEOUT
        │   ├── WorkerReset           WORKER_RESET
        │   └── DeterminismDiverged   DETERMINISM_DIVERGED
        ├── Canceled                CANCELED
        └── InternalError           INTERNAL

A code that this version does not know becomes a plain `ServerError`: `retriable` still says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


class OrchqueueError(Exception):
    """The root: catch it to catch everything that this package raises on purpose."""

    #: What the reader can do about it; printed as a `hint:` line by the command line.
    hint: str | None = None


class TransportError(OrchqueueError):
    """The daemon was not heard, or not understood."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class DaemonUnreachable(TransportError):
    """No connection to the daemon could be made, or it did not answer in time."""


class StreamInterrupted(TransportError):
    """A stream broke before its terminal event. The task itself goes on: ask for it by its id."""

    def __init__(self, message: str, *, last_event_id: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        #: Id of the last event that arrived whole; a resumed stream continues after it.
        self.last_event_id = last_event_id


class ProtocolError(TransportError):
    """What answered does not speak OrchQueue v1."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The error envelope of the contract, as it came over the wire."""

    code: str
    message: str
    retriable: bool = False
    engine: str | None = None
    retry_after_ms: int | None = None
    policy_label: str | None = None
    reason: str | None = None
    hint: str | None = None
    correlation_id: str | None = None

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Envelope:
        """Reads the fields that are known and leaves the others alone."""
        code = data.get("code")
        if not isinstance(code, str):
            raise ProtocolError("an error without a `code` arrived")
        message = data.get("message")
        retry_after = data.get("retry_after_ms")
        return cls(
            code=code,
            message=message if isinstance(message, str) else code,
            retriable=data.get("retriable") is True,
            engine=_text(data, "engine"),
            retry_after_ms=int(retry_after) if isinstance(retry_after, (int, float)) else None,
            policy_label=_text(data, "policy_label"),
            reason=_text(data, "reason"),
            hint=_text(data, "hint"),
            correlation_id=_text(data, "correlation_id"),
        )


def _text(data: Mapping[str, Any], key: str) -> str | None:
    value = data.get(key)
    return value if isinstance(value, str) else None


class ServerError(OrchqueueError):
    """The daemon answered with a code. The fields are those of the error envelope."""

    #: The one code of this class; None on the classes that only group.
    CODE: ClassVar[str | None] = None

    def __init__(self, envelope: Envelope, *, http_status: int | None = None) -> None:
        super().__init__(f"{envelope.code}: {envelope.message}")
        self.envelope = envelope
        #: Status of the answer; None when the error came as the last event of a stream.
        self.http_status = http_status
        self.hint = envelope.hint

    @property
    def code(self) -> str:
        return self.envelope.code

    @property
    def message(self) -> str:
        return self.envelope.message

    @property
    def engine(self) -> str | None:
        return self.envelope.engine

    @property
    def retriable(self) -> bool:
        """The same request may succeed later; `retry_after_ms` says when, if the daemon knows."""
        return self.envelope.retriable

    @property
    def retry_after_ms(self) -> int | None:
        return self.envelope.retry_after_ms

    @property
    def policy_label(self) -> str | None:
        return self.envelope.policy_label

    @property
    def reason(self) -> str | None:
        return self.envelope.reason

    @property
    def correlation_id(self) -> str | None:
        """Finds this failure in the daemon's log."""
        return self.envelope.correlation_id


class RequestError(ServerError):
    """The request itself has to change; sending it again will not help."""


class InvalidParams(RequestError):
    """A field is missing, unknown, of the wrong type or out of bounds."""

    CODE = "INVALID_PARAMS"


class Unauthenticated(RequestError):
    """The daemon wants an API key and got none, or one that it does not know."""

    CODE = "UNAUTHENTICATED"


class Forbidden(RequestError):
    """The API key is known but its roles do not allow this."""

    CODE = "FORBIDDEN"


class NotFound(RequestError):
    """No such thing, or it is past its retention."""

    CODE = "NOT_FOUND"


class Conflict(RequestError):
    """The id is taken by a task with another body, or the state does not allow this."""

    CODE = "CONFLICT"


class ModelDeprecated(RequestError):
    """The model is on its way out and takes no new tasks."""

    CODE = "MODEL_DEPRECATED"


class UntrustedArtifact(RequestError):
    """The model's files are not what the catalog says."""

    CODE = "UNTRUSTED_ARTIFACT"


class RefusedError(ServerError):
    """The task was not admitted, or gave way while it waited. Nothing of it ran."""


class AdmissionReject(RefusedError):
    """The queue of this class is full."""

    CODE = "ADMISSION_REJECT"


class QueueFullDropLru(RefusedError):
    """The task waited longest in a full queue and gave way to a newer one."""

    CODE = "QUEUE_FULL_DROP_LRU"


class QuotaExceeded(RefusedError):
    """The tenant's quota is used up for now."""

    CODE = "QUOTA_EXCEEDED"


class DeadlineUnmet(RefusedError):
    """The task could not have ended before its `deadline_ms`."""

    CODE = "DEADLINE_UNMET"


class PoolUnready(RefusedError):
    """The pool is draining or has failed."""

    CODE = "POOL_UNREADY"


class PoolUnavailable(RefusedError):
    """No pool can serve the task now."""

    CODE = "POOL_UNAVAILABLE"


class AttemptError(ServerError):
    """The task ran and its replica failed it."""


class ReplicaExhausted(AttemptError):
    """Every attempt that the task may have has failed."""

    CODE = "REPLICA_EXHAUSTED"


class DecodeTimeout(AttemptError):
    """The replica was silent, or busy with the task, for too long."""

    CODE = "DECODE_TIMEOUT"


class WorkerReset(AttemptError):
    """The replica died or broke its stream while it decoded."""

    CODE = "WORKER_RESET"


class DeterminismDiverged(AttemptError):
    """Two decodes of the same task differ."""

    CODE = "DETERMINISM_DIVERGED"


class Canceled(ServerError):
    """The task was canceled."""

    CODE = "CANCELED"


class InternalError(ServerError):
    """A fault of the daemon; its log has the cause under the correlation id."""

    CODE = "INTERNAL"


#: Every code of the registry and its class.
BY_CODE: Mapping[str, type[ServerError]] = {
    cls.CODE: cls
    for cls in (
        AdmissionReject,
        QueueFullDropLru,
        InvalidParams,
        PoolUnready,
        PoolUnavailable,
        ReplicaExhausted,
        DecodeTimeout,
        WorkerReset,
        InternalError,
        DeadlineUnmet,
        ModelDeprecated,
        UntrustedArtifact,
        QuotaExceeded,
        Unauthenticated,
        Forbidden,
        NotFound,
        Conflict,
        Canceled,
        DeterminismDiverged,
    )
    if cls.CODE is not None
}


def from_envelope(data: Mapping[str, Any], *, http_status: int | None = None) -> ServerError:
    """The exception for an error envelope."""
    envelope = Envelope.from_wire(data)
    return BY_CODE.get(envelope.code, ServerError)(envelope, http_status=http_status)
