"""The store: what outlives the daemon beside its journal. SQLAlchemy is loaded with the first use of `Store`.

from orchqueue.store import Store

with Store.open("sqlite:///orchqueue.db", owner=False) as store:
    page = store.tasks("default", limit=10)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchqueue.store.errors import (
    BadCursor,
    LastKey,
    StoreError,
    StoreFenced,
    StoreOwned,
    StoreTooNew,
    StoreUrlError,
    UnknownKey,
)
from orchqueue.store.files import StoreFiles, files_beside
from orchqueue.store.rows import ApiKey, JournalRecord, Retention, TaskPage, TaskRow, TaskState

if TYPE_CHECKING:
    from orchqueue.store.store import Store

__all__ = [
    "ApiKey",
    "BadCursor",
    "JournalRecord",
    "LastKey",
    "Retention",
    "Store",
    "StoreError",
    "StoreFenced",
    "StoreFiles",
    "StoreOwned",
    "StoreTooNew",
    "StoreUrlError",
    "TaskPage",
    "TaskRow",
    "TaskState",
    "UnknownKey",
    "files_beside",
]


def __getattr__(name: str) -> Any:
    if name == "Store":
        from orchqueue.store.store import Store

        return Store
    raise AttributeError(f"module `{__name__}` has no attribute: `{name}`")
