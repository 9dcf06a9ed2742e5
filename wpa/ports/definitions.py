"""The definitions port: immutable documents under tenant, workflow and version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

__all__ = ["Definitions", "StoredDefinition"]


class StoredDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A deployed definition as it is kept."""

    workflow: str
    version: str
    hash: str
    kind: str
    document: msgspec.Raw
    deployed_at: str
    deployed_by: str = ""


class Definitions(Protocol):
    async def get(self, tenant: str, workflow: str, version: str) -> StoredDefinition | None: ...

    async def latest(self, tenant: str, workflow: str) -> str | None:
        """The version deployed last, or None where the workflow is unknown."""
        ...

    async def put(self, tenant: str, definition: StoredDefinition) -> bool:
        """Store a new version and make it the latest. False where the version is there already."""
        ...

    async def list(self, tenant: str) -> list[StoredDefinition]: ...

    async def tenants(self) -> set[str]:
        """The tenants that have deployed anything."""
        ...

    async def workflows(self) -> set[tuple[str, str]]:
        """Every (tenant, workflow) of which a version is deployed."""
        ...

    def on_change(self, callback: Callable[[str, str], None]) -> None:
        """Call back with (tenant, workflow) when a definition may have changed, ("", "") for all."""
        ...
