"""The registry of adapters: everything that is known of an engine stands in the module of its name."""

from __future__ import annotations

from orchqueue.adapters.base import Adapter
from orchqueue.adapters.llamacpp import LLAMACPP

__all__ = ["ENGINES", "Adapter", "adapter_for"]

_ADAPTERS: dict[str, Adapter] = {adapter.engine: adapter for adapter in (LLAMACPP,)}

#: Names of the engines, as the configuration writes them.
ENGINES = tuple(_ADAPTERS)


def adapter_for(engine: str) -> Adapter:
    """The adapter of an engine that the configuration has accepted."""
    return _ADAPTERS[engine]
