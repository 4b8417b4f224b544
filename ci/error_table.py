"""Makes contracts/errors.md, the table that people read, from the error registry."""

from __future__ import annotations

from typing import Any

from contracts import load

HEAD = """# Error codes

Generated from [errors.yaml](errors.yaml) by `ci/generate`: change the registry, not this file.

Every error answer has one envelope: `code`, `message`, `retriable`, `correlation_id`, and where they apply
`engine`, `retry_after_ms`, `policy_label`, `reason` and `hint`. In a stream it is the data of the last event,
`error`. `retriable` in the envelope is the final word; the table has the default.

| code | status | retriable | meaning | what to do |
|---|---|---|---|---|
"""

REASONS_HEAD = """
## Reasons

`reason` refines a code where a client may want to tell cases apart. Others may appear.

| code | reason | status | retriable | meaning |
|---|---|---|---|---|
"""


def render() -> str:
    """The document's text."""
    errors = load("errors.yaml")["errors"]
    rows = "".join(_row(error) for error in errors)
    reasons = "".join(_reason_row(error, reason) for error in errors for reason in _reasons(error))
    return HEAD + rows + REASONS_HEAD + reasons


def _row(error: dict[str, Any]) -> str:
    statuses = [error["status"], *(other["status"] for other in error.get("also", []))]
    cells = [
        f"`{error['code']}`",
        " ".join(map(str, statuses)),
        _yes(error["retriable"]),
        error["meaning"],
        error["do"],
    ]
    return f"| {' | '.join(cells)} |\n"


def _reasons(error: dict[str, Any]) -> list[dict[str, Any]]:
    return [*error.get("also", []), *error.get("reasons", [])]


def _reason_row(error: dict[str, Any], reason: dict[str, Any]) -> str:
    status = str(reason.get("status", error["status"]))
    retriable = _yes(reason.get("retriable", error["retriable"]))
    cells = [f"`{error['code']}`", f"`{reason['reason']}`", status, retriable, reason["meaning"]]
    return f"| {' | '.join(cells)} |\n"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
