"""What can go wrong with the store itself. Every message says what to do.

StoreError
├── StoreUrlError     the address cannot be used
├── StoreOwned        another daemon holds the store
├── StoreFenced       this process held the store once and no longer does
├── StoreTooNew       the tables were made by a later version
├── BadCursor         a page was asked for with a cursor that this store never gave
├── UnknownKey        no API key has this id
└── LastKey           revoking it would open the daemon to everybody on this host
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of everything below."""


class StoreUrlError(StoreError, ValueError):
    """The address cannot be used as a store."""


class StoreOwned(StoreError):
    """Another daemon holds the store; `holder` says which, as far as it is known."""

    def __init__(self, store: str, holder: str) -> None:
        super().__init__(
            f"store `{store}` is owned by {holder}\n"
            "hint: stop that daemon, or give this one a `store.url` of its own"
        )
        self.store = store
        self.holder = holder


class StoreFenced(StoreError):
    """Somebody took the store with a higher fence; what this process would write is stale."""

    def __init__(self, mine: int, current: int) -> None:
        super().__init__(
            f"the store was taken over: own fence: {mine}, current fence: {current}\n"
            "hint: stop this daemon; the other one has the store"
        )
        self.mine = mine
        self.current = current


class StoreTooNew(StoreError):
    """The tables are of a revision that this version does not know."""

    def __init__(self, store: str, revision: str) -> None:
        super().__init__(
            f"store `{store}` has revision: {revision}, which this version does not know\n"
            "hint: start the version of orchqueue that wrote it, or a later one"
        )
        self.revision = revision


class BadCursor(StoreError, ValueError):
    """Not a cursor that `tasks` gave out."""

    def __init__(self) -> None:
        super().__init__("`cursor` is not one that this list gave out; leave it away to start over")


class UnknownKey(StoreError, LookupError):
    """No API key has this id, or it was revoked before."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no active key has the id: `{key_id}`\nhint: `orchqueue key list` shows the ids")


class LastKey(StoreError):
    """Without any key a daemon on loopback is open, so the last one is not revoked by accident."""

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"`{key_id}` is the last key; without one, everybody on this host may use the daemon\n"
            "hint: create another key first, or say `--reopen`"
        )
