"""One registry of error codes: contracts/errors.yaml, and everything that is held equal to it (ORCH-2006)."""

from __future__ import annotations

import re
from typing import Any, get_args

import error_table
import pytest
from orchqueue import errors, wire_models

from contracts import CONTRACTS, ROOT, load, openapi_documents

pytestmark = pytest.mark.req("ORCH-2006")

Row = tuple[str, int, bool]
#: A reason where it is given as an argument, and where the wire crate names it.
GIVEN = re.compile(r'(?:with_reason\(|reason=)"([a-z0-9_]+)"')
NAMED = re.compile(r'pub const [A-Z_]+: &str = "([a-z0-9_]+)"')


def registry() -> list[Row]:
    return [(error["code"], error["status"], error["retriable"]) for error in load("errors.yaml")["errors"]]


def differences(have: list[Row], want: list[Row]) -> list[str]:
    """What of `have` is not as in `want`, and what is missing, by code."""
    have_rows, want_rows = {row[0]: row for row in have}, {row[0]: row for row in want}
    codes = sorted(have_rows.keys() | want_rows.keys())
    return [code for code in codes if have_rows.get(code) != want_rows.get(code)]


def all_subclasses(cls: type[errors.ServerError]) -> list[type[errors.ServerError]]:
    return [cls, *(deeper for sub in cls.__subclasses__() for deeper in all_subclasses(sub))]


def test_the_rust_enum_and_its_http_table_are_the_registry() -> None:
    from orchqueue import _core

    assert differences(list(_core.error_registry()), registry()) == []


def test_the_openapi_enum_is_the_registry_in_its_order() -> None:
    enum = load("openapi/data.yaml")["components"]["schemas"]["ErrorCode"]["enum"]
    assert enum == [code for code, _, _ in registry()]


def test_the_generated_model_has_the_codes_of_the_registry() -> None:
    assert list(get_args(wire_models.ErrorCode.__value__)) == [code for code, _, _ in registry()]


def test_every_code_has_one_exception_class_and_no_class_has_another_code() -> None:
    codes = [code for code, _, _ in registry()]
    assert sorted(errors.BY_CODE) == sorted(codes)
    own = [cls.__dict__["CODE"] for cls in all_subclasses(errors.ServerError) if cls.__dict__.get("CODE")]
    assert sorted(own) == sorted(codes)
    assert all(errors.BY_CODE[cls.CODE] is cls for cls in errors.BY_CODE.values() if cls.CODE)


def test_the_exception_tree_in_the_docstring_names_every_code() -> None:
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b|\b[A-Z]{5,}\b", errors.__doc__ or ""))
    assert {code for code, _, _ in registry()} <= named


def test_the_table_for_people_has_every_code_status_and_reason() -> None:
    text = (CONTRACTS / "errors.md").read_text()
    assert text == error_table.render()
    for code, status, _ in registry():
        assert re.search(rf"^\| `{code}` \| {status}\b", text, re.MULTILINE), code


def test_every_status_is_documented_by_an_operation() -> None:
    documented = {
        int(status)
        for document in openapi_documents().values()
        for path in document["paths"].values()
        for name, operation in path.items()
        if name in {"get", "post", "delete"}
        for status in operation["responses"]
    }
    used = {status for error in load("errors.yaml")["errors"] for status in _statuses(error)}
    # 405 belongs to the path, not to an operation of it.
    assert used - documented == {405}


def _statuses(error: dict[str, Any]) -> list[int]:
    return [error["status"], *(other["status"] for other in error.get("also", []))]


def test_every_reason_that_is_given_is_in_the_registry() -> None:
    listed = {
        reason["reason"]
        for error in load("errors.yaml")["errors"]
        for reason in [*error.get("also", []), *error.get("reasons", [])]
    }
    given = {
        reason
        for folder, suffix in (
            ("rust/server/src", ".rs"),
            ("rust/wire/src", ".rs"),
            ("python/orchqueue/control", ".py"),
        )
        for path in (ROOT / folder).rglob(f"*{suffix}")
        for pattern in (GIVEN, NAMED if path.name == "errors.rs" else GIVEN)
        for reason in pattern.findall(path.read_text())
    }
    assert len(given) > 10
    assert given - listed == set()


def test_a_row_that_is_off_is_found() -> None:
    rows = registry()
    code, status, retriable = rows[0]
    assert differences([(code, status + 1, retriable), *rows[1:]], rows) == [code]
    assert differences([(code, status, not retriable), *rows[1:]], rows) == [code]
    assert differences(rows[1:], rows) == [code]
    assert differences([*rows, ("NEW_CODE", 400, False)], rows) == ["NEW_CODE"]
