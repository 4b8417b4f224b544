"""Makes python/orchqueue/wire_models.py from the OpenAPI documents.

The documents are merged into one, and what a pydantic class cannot say is left out first: rules between
fields, SSE framing, extensions. The contract stays the authority; the classes are its typed view.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from contracts import openapi_documents

HEADER = '''"""The data of OrchQueue v1 as pydantic models.

Generated from contracts/openapi by `ci/generate`: change the contract, not this file.
Responses may gain fields, so unknown ones are ignored; requests are strict.
"""
'''

# Framing is not data: these describe an event of the stream, whose `data` has a model of its own.
FRAMING = {"TaskStreamItem", "ChatStreamItem"}
# Beside `properties` these say how fields go together.
BETWEEN_FIELDS = {"oneOf", "anyOf", "if", "then"}

OPTIONS = [
    "--input-file-type=openapi",
    "--output-model-type=pydantic_v2.BaseModel",
    "--target-python-version=3.11",
    "--enum-field-as-literal=all",
    "--use-annotated",
    "--use-type-alias",
    "--use-schema-description",
    "--use-field-description",
    "--use-title-as-name",
    "--type-mappings=uuid=string",
    "--disable-timestamp",
    "--formatters=builtin",
]


def render() -> str:
    """The module's text."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "merged.yaml"), Path(folder, "wire_models.py")
        header = Path(folder, "header.py")
        source.write_text(yaml.safe_dump(merged(), sort_keys=False))
        header.write_text(HEADER)
        command = [sys.executable, "-m", "datamodel_code_generator", *OPTIONS]
        paths = [f"--input={source}", f"--output={target}", f"--custom-file-header-path={header}"]
        # The folder is the working directory, so that no configuration of the project is read.
        subprocess.run([*command, *paths], check=True, cwd=folder)  # noqa: S603
        return target.read_text()


def merged() -> dict[str, Any]:
    """One document with the schemas of all."""
    schemas: dict[str, Any] = {}
    for name, document in openapi_documents().items():
        for schema_name, schema in document["components"]["schemas"].items():
            if schema_name in schemas:
                raise ValueError(f"schema `{schema_name}` of `{name}` is defined in another document too")
            if schema_name not in FRAMING:
                schemas[schema_name] = _plain(schema)
    info = {"title": "OrchQueue v1", "version": "1.0.0"}
    return {"openapi": "3.1.0", "info": info, "paths": {}, "components": {"schemas": schemas}}


def _plain(node: Any) -> Any:
    """The schema without extensions, file names in references, and rules between fields."""
    if isinstance(node, list):
        return [_plain(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _plain(value) for key, value in node.items() if not str(key).startswith("x-")}
    if isinstance(plain.get("$ref"), str):
        plain["$ref"] = "#" + plain["$ref"].partition("#")[2]
    if "properties" in plain:
        plain = {key: value for key, value in plain.items() if key not in BETWEEN_FIELDS}
    return plain
