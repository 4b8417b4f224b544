"""Where two decodes of one request differ, and what is needed to see it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchqueue.determinism.cases import Case


@dataclass(frozen=True, slots=True)
class Decode:
    """One decode of a case."""

    task_id: str
    replica_id: str
    text: str
    request_digest: str
    output_digest: str
    identity: str
    identity_fields: Mapping[str, Any] = field(default_factory=dict)
    tokens_out: int = 0
    #: The text as the engine sent it, event by event; read only where it is needed.
    pieces: tuple[str, ...] = ()

    @property
    def output(self) -> bytes:
        return self.text.encode()

    def to_dict(self) -> dict[str, Any]:
        return {
            "task_id": self.task_id,
            "replica_id": self.replica_id,
            "request_digest": self.request_digest,
            "output_digest": self.output_digest,
            "identity": self.identity,
            "text": self.text,
            "pieces": list(self.pieces),
        }


@dataclass(frozen=True, slots=True)
class Divergence:
    """Two decodes of one case that are not the same."""

    case: Case
    left: Decode
    right: Decode

    @property
    def byte_offset(self) -> int:
        """The first byte in which they differ; the length of the shorter one where it is a prefix."""
        return first_difference(self.left.output, self.right.output)

    @property
    def reason(self) -> str:
        if self.left.identity != self.right.identity:
            return "they come from two replica sets"
        if self.left.request_digest != self.right.request_digest:
            return "their request digests differ"
        if self.left.output != self.right.output:
            return f"their bytes differ from offset {self.byte_offset}"
        return "their bytes are the same and their output digests differ"

    def to_dict(self) -> dict[str, Any]:
        flags = self.left.identity_fields.get("flags")
        return {
            "reason": self.reason,
            "prompt": self.case.prompt,
            "seed": self.case.seed,
            "temperature": self.case.temperature,
            "max_tokens": self.case.tokens,
            "byte_offset": self.byte_offset,
            "flags": flags if flags is not None else {},
            "identity_fields": dict(self.left.identity_fields),
            "left": self.left.to_dict(),
            "right": self.right.to_dict(),
        }


def first_difference(left: bytes, right: bytes) -> int:
    """The first offset at which two texts differ."""
    for offset, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return offset
    return min(len(left), len(right))


def differ(left: Decode, right: Decode) -> bool:
    """Whether two decodes of one case break the promise."""
    return (
        left.output != right.output
        or left.output_digest != right.output_digest
        or left.request_digest != right.request_digest
        or left.identity != right.identity
    )
