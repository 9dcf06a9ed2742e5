"""The definitions port: immutable documents under tenant, workflow and version."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from wpa.errors import Broken

__all__ = ["Definitions", "StoredDefinition", "decode_definition", "decode_definitions"]

log = logging.getLogger("wpa.definitions")


class StoredDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A deployed definition as it is kept."""

    workflow: str
    version: str
    hash: str
    kind: str
    document: msgspec.Raw
    deployed_at: str
    deployed_by: str = ""


def decode_definition(key: str, data: bytes) -> StoredDefinition:
    """What is stored under ``key``. Raises Broken."""
    try:
        return msgspec.json.decode(data, type=StoredDefinition)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        remedy = "deploy it once more, under the same version"
        raise Broken(key, str(error), remedy) from None


def decode_definitions(found: Iterable[tuple[str, bytes]]) -> list[StoredDefinition]:
    """As many as can be read of what is stored, under which keys; the log tells of the others."""
    definitions = []
    for key, data in found:
        try:
            definitions.append(decode_definition(key, data))
        except Broken as error:
            log.error("%s", error)
    return definitions


class Definitions(Protocol):
    async def get(self, tenant: str, workflow: str, version: str) -> StoredDefinition | None:
        """A version, or None where it is not there. Raises Broken."""
        ...

    async def latest(self, tenant: str, workflow: str) -> str | None:
        """The version deployed last, or None where the workflow is unknown. Raises Broken."""
        ...

    async def put(self, tenant: str, definition: StoredDefinition) -> bool:
        """Store a new version and make it the latest. False where the version is there already.

        What is there and can't be read is replaced.
        """
        ...

    async def list(self, tenant: str) -> list[StoredDefinition]:
        """All that can be read."""
        ...

    async def tenants(self) -> set[str]:
        """The tenants that have deployed anything."""
        ...

    async def workflows(self) -> set[tuple[str, str]]:
        """Every (tenant, workflow) of which a version is deployed."""
        ...

    def on_change(self, callback: Callable[[str, str], None]) -> None:
        """Call back with (tenant, workflow) when a definition may have changed, ("", "") for all."""
        ...
