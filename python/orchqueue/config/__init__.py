"""The configuration: one YAML document, environment overrides, a complete frozen result.

`load` is the way in. A value comes from the environment (`ORCHQUEUE_SERVER__PORT=9000`), else from the file,
else from the default; `Config.origins` tells which. Unknown keys are refused, all faults are told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchqueue.config.errors import ConfigError, Problem, show_path
from orchqueue.config.faults import refuse
from orchqueue.config.file import ConfigFile
from orchqueue.config.read import leaves, read_document
from orchqueue.config.resolve import resolve
from orchqueue.config.runtime import (
    AttachedReplica,
    ClassConfig,
    Config,
    ManagedReplica,
    PoolConfig,
    ReplicaConfig,
    ServerConfig,
    StoreConfig,
    Timeouts,
    runtime_document,
)

__all__ = [
    "AttachedReplica",
    "ClassConfig",
    "Config",
    "ConfigError",
    "ManagedReplica",
    "PoolConfig",
    "Problem",
    "ReplicaConfig",
    "ServerConfig",
    "StoreConfig",
    "Timeouts",
    "effective_values",
    "load",
    "runtime_document",
    "schema",
]


def load(path: Path | str | None, env: Mapping[str, str]) -> Config:
    """Reads `path` (no file: the defaults) and `env`; raises `ConfigError` and nothing else."""
    document = read_document(None if path is None else Path(path), env, frozenset(ConfigFile.model_fields))
    try:
        file = ConfigFile.model_validate(document.tree)
    except ValidationError as error:
        raise refuse(ConfigFile, document, error) from None
    return resolve(file, document, env)


def effective_values(config: Config) -> list[tuple[str, Any, str]]:
    """Path, value and origin of every single value, for `config show`."""
    return [
        (show_path(path), value, config.origins[show_path(path)])
        for path, value in leaves(dict(config.effective))
    ]


def schema() -> dict[str, Any]:
    """JSON Schema of the file form."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ConfigFile.model_json_schema(),
        "title": "orchqueue configuration",
    }
