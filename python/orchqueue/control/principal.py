"""Who asks. The front door verified the key and says so in headers that no client can set."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from orchqueue.control.errors import ApiError

TENANT_HEADER = "x-orchqueue-tenant"
ROLES_HEADER = "x-orchqueue-roles"

_READERS = frozenset({"admin", "operator", "approver", "viewer"})


@dataclass(frozen=True, slots=True)
class Principal:
    """A tenant and what it may do here."""

    tenant: str
    roles: frozenset[str]

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles


def reader(request: Request) -> Principal:
    """Whoever may read. Without the front door's headers nobody may, whatever the configuration says."""
    tenant = request.headers.get(TENANT_HEADER)
    if not tenant:
        raise ApiError(
            "UNAUTHENTICATED",
            "an API key is needed",
            hint="send `Authorization: Bearer oq_…`; `orchqueue key create`",
        )
    roles = frozenset(role.strip() for role in request.headers.get(ROLES_HEADER, "").split(","))
    if not roles & _READERS:
        raise ApiError(
            "FORBIDDEN", "this key has no role that may read", hint="ask for a key with the role `viewer`"
        )
    return Principal(tenant, roles)
