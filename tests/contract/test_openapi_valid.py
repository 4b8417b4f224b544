"""The OpenAPI documents are valid, strict where they must be, and their examples are what they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from contracts import CONTRACTS, OPENAPI_DOCUMENTS, load, openapi_documents, walk

METHODS = {"get", "post", "put", "patch", "delete"}
#: Objects of a request that are the client's own: JSON Schemas, and a map by token id.
OPEN_OBJECTS = {"parameters", "json_schema", "LogitBias"}
REQUESTS = ("TaskRequest", "ChatMessage", "Tool", "ToolCall", "ResponseFormat", "ChatCompletionRequest")
REQUESTS += ("CompletionRequest", "OpenAiMessage", "OpenAiToolCall")
SCHEMAS = {
    name: schema
    for document in openapi_documents().values()
    for name, schema in document["components"]["schemas"].items()
}

REGISTRY: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(document, default_specification=DRAFT202012))
    for name, document in openapi_documents().items()
)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every operation as document, label and definition."""
    for name, document in openapi_documents().items():
        for path, item in document["paths"].items():
            for method in METHODS & item.keys():
                yield name, f"{method.upper()} {path}", item[method]


def resolve(document: str, node: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a reference points to, with the document that it stands in."""
    while "$ref" in node:
        target, _, pointer = node["$ref"].partition("#/")
        document, node = target or document, load(f"openapi/{target or document}")
        for key in pointer.split("/"):
            node = node[key]
    return document, node


def examples() -> Iterator[Any]:
    """Every example of a media type: the schema's document and pointer, and the value."""
    for name, document in openapi_documents().items():
        for path, node in walk(document):
            if "examples" in node and "schema" in node:
                pointer = "/".join(key.replace("~", "~0").replace("/", "~1") for key in path)
                for label, example in node["examples"].items():
                    _, example = resolve(name, example)
                    yield pytest.param(f"{name}#/{pointer}/schema", example["value"], id=f"{name}-{label}")


@pytest.mark.parametrize("name", OPENAPI_DOCUMENTS)
def test_the_document_is_openapi_3_1(name: str) -> None:
    validator = OpenAPIV31SpecValidator(
        load(f"openapi/{name}"), base_uri=(CONTRACTS / "openapi" / name).as_uri()
    )
    assert [error.message for error in validator.iter_errors()] == []


@pytest.mark.parametrize(("reference", "value"), list(examples()))
def test_an_example_is_valid(reference: str, value: Any) -> None:
    validator = Draft202012Validator({"$ref": reference}, registry=REGISTRY)
    assert [error.message for error in validator.iter_errors(value)] == []


@pytest.mark.parametrize(
    "task",
    [
        {},
        {"prompt": ""},
        {"prompt": "x", "max_token": 1},
        {"prompt": "x", "messages": [{"role": "user"}]},
        {"workload": "chat", "prompt": "x"},
        {"prompt": "x", "tools": []},
        {"prompt": "x", "seed": 2**31},
        {"prompt": "x", "n": 2},
        {"prompt": "x", "reuse": "cache"},
        {"prompt": "x", "response_format": {"type": "json_schema"}},
        {"messages": [{"role": "user", "text": "x"}]},
        {"messages": [{"role": "user"}]},
    ],
)
def test_the_schema_refuses_a_bad_task(task: dict[str, Any]) -> None:
    validator = Draft202012Validator({"$ref": "data.yaml#/components/schemas/TaskRequest"}, registry=REGISTRY)
    assert not validator.is_valid(task)


def test_every_operation_has_a_name_of_its_own_and_known_requirements() -> None:
    known = {row["id"] for row in load("requirements.yaml")["requirements"]}
    names = []
    for _, label, operation in operations():
        names.append(operation["operationId"])
        ids = operation["x-req-id"]
        assert set([ids] if isinstance(ids, str) else ids) <= known, label
    assert len(names) == len(set(names))


def test_requirement_ids_are_unique() -> None:
    ids = [row["id"] for row in load("requirements.yaml")["requirements"]]
    assert len(ids) == len(set(ids))


def test_links_name_operations_that_exist() -> None:
    names = {operation["operationId"] for _, _, operation in operations()}
    linked = {
        node["operationId"]
        for document in openapi_documents().values()
        for path, node in walk(document)
        if len(path) > 1 and path[-2] == "links"
    }
    assert linked and linked <= names


@pytest.mark.req("ORCH-4008")
def test_requests_have_no_room_for_unknown_fields() -> None:
    for top in REQUESTS:
        for path, node in walk(SCHEMAS[top], (top,)):
            if node.get("type") == "object" and path[-1] not in OPEN_OBJECTS:
                assert node.get("additionalProperties") is False, "/".join(path)


def test_every_error_answer_has_the_envelope() -> None:
    envelopes = {"Error", "OpenAiErrorBody"}
    for name, label, operation in operations():
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")) and status != "431" and "readyz" not in label:
                _, found = resolve(name, response)
                schema = found["content"]["application/json"]["schema"]
                assert schema["$ref"].rpartition("/")[2] in envelopes, f"{label} {status}"


@pytest.mark.req("ORCH-4010")
def test_every_answer_but_the_probes_carries_the_correlation_id() -> None:
    for name, label, operation in operations():
        for status, response in operation["responses"].items():
            if status != "431" and "z" not in label.rpartition("/")[2][-1:]:
                _, found = resolve(name, response)
                assert "X-Correlation-Id" in found["headers"], f"{label} {status}"
