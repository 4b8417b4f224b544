"""The exception tree and how an error envelope becomes one of its classes."""

import re

import pytest
from orchqueue import errors
from orchqueue.errors import BY_CODE, Envelope, ProtocolError, ServerError, from_envelope

GROUPS = (errors.RequestError, errors.RefusedError, errors.AttemptError)


@pytest.mark.parametrize("code", BY_CODE)
def test_envelope_becomes_the_class_of_its_code(code: str) -> None:
    error = from_envelope({"code": code, "message": "why", "retriable": True}, http_status=400)
    assert type(error) is BY_CODE[code]
    assert (error.code, error.message, error.retriable, error.http_status) == (code, "why", True, 400)
    assert str(error) == f"{code}: why"


def test_all_fields_of_the_envelope_are_readable() -> None:
    error = from_envelope(
        {
            "code": "ADMISSION_REJECT",
            "message": "the queue is full",
            "retriable": True,
            "engine": "llamacpp",
            "retry_after_ms": 250,
            "policy_label": "reject",
            "reason": "queue_full",
            "hint": "try again later",
            "correlation_id": "c-1",
            "added_later": 1,
        }
    )
    assert error.engine == "llamacpp"
    assert error.retry_after_ms == 250
    assert error.policy_label == "reject"
    assert error.reason == "queue_full"
    assert error.hint == "try again later"
    assert error.correlation_id == "c-1"


def test_unknown_code_is_a_plain_server_error_that_keeps_retriable() -> None:
    error = from_envelope({"code": "BRAND_NEW", "message": "m", "retriable": True})
    assert type(error) is ServerError
    assert error.retriable


def test_envelope_without_code_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="without a `code`"):
        Envelope.from_wire({"message": "no code"})


def test_fields_of_a_wrong_type_are_left_out() -> None:
    envelope = Envelope.from_wire({"code": "INTERNAL", "message": 3, "retriable": "yes", "hint": []})
    assert envelope == Envelope(code="INTERNAL", message="INTERNAL")


def test_every_class_is_drawn_in_the_tree_and_every_code_beside_it() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.OrchqueueError)
    }
    assert drawn | {"OrchqueueError"} == defined
    for code, cls in BY_CODE.items():
        assert re.search(rf"── {cls.__name__} +{code}\b", errors.__doc__ or "")


def test_a_code_has_one_class_and_a_group_has_none() -> None:
    assert len(set(BY_CODE.values())) == len(BY_CODE) == 19
    assert all(group.CODE is None for group in GROUPS)
