"""Snapshots, definitions and large payloads in memory."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from wpa.adapters.memory.server import Connection
from wpa.errors import Broken, NotFound
from wpa.ports.definitions import StoredDefinition, decode_definition, decode_definitions

__all__ = ["MemoryBlobs", "MemoryDefinitions", "MemoryRecords", "MemorySnapshots"]


class MemorySnapshots:
    """See :class:`wpa.ports.snapshots.Snapshots`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._bucket = connection.server.executions

    async def get(self, tenant: str, execution: str) -> tuple[bytes, int] | None:
        await self._connection.turn()
        return self._bucket.get(f"{tenant}.{execution}")

    async def put(self, tenant: str, execution: str, data: bytes, revision: int) -> int:
        await self._connection.turn()
        return self._bucket.put(f"{tenant}.{execution}", bytes(data), revision)


class MemoryRecords:
    """See :class:`wpa.ports.records.Records`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._bucket = connection.server.records

    async def get(self, tenant: str, kind: str, name: str) -> tuple[bytes, int] | None:
        await self._connection.turn()
        return self._bucket.get(f"{tenant}.{kind}.{name}")

    async def put(self, tenant: str, kind: str, name: str, data: bytes, revision: int) -> int:
        await self._connection.turn()
        return self._bucket.put(f"{tenant}.{kind}.{name}", bytes(data), revision)

    async def list(self, tenant: str, kind: str) -> list[tuple[str, bytes]]:
        await self._connection.turn()
        prefix = f"{tenant}.{kind}."
        return [
            (key.removeprefix(prefix), found[0])
            for key in self._bucket.keys
            if key.startswith(prefix) and (found := self._bucket.get(key))
        ]


class MemoryDefinitions:
    """See :class:`wpa.ports.definitions.Definitions`; the keys are those of the real bucket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._bucket = connection.server.definitions
        self._callbacks: list[Callable[[str, str], None]] = []
        connection.subscribe("$KV.wpa_definitions.>", self._on_put)

    async def get(self, tenant: str, workflow: str, version: str) -> StoredDefinition | None:
        await self._connection.turn()
        key = f"{tenant}.{workflow}.{version}"
        found = self._bucket.get(key)
        return decode_definition(key, found[0]) if found else None

    async def latest(self, tenant: str, workflow: str) -> str | None:
        await self._connection.turn()
        found = self._bucket.get(f"{tenant}.{workflow}")
        return found[0].decode() if found else None

    async def put(self, tenant: str, definition: StoredDefinition) -> bool:
        data = msgspec.json.encode(definition)
        await self._connection.turn()
        key = f"{tenant}.{definition.workflow}"
        version = f"{key}.{definition.version}"
        if found := self._bucket.get(version):
            try:
                decode_definition(version, found[0])
            except Broken:
                self._bucket.put(version, data)
            return False
        self._bucket.put(version, data, 0)
        self._bucket.put(key, definition.version.encode())
        self._connection.server.publish(f"$KV.wpa_definitions.{key}", b"")
        return True

    async def list(self, tenant: str) -> list[StoredDefinition]:
        await self._connection.turn()
        return decode_definitions(
            (key, found[0])
            for key in self._bucket.keys
            if key.startswith(f"{tenant}.") and key.count(".") >= 2 and (found := self._bucket.get(key))
        )

    async def tenants(self) -> set[str]:
        return {tenant for tenant, _ in await self.workflows()}

    async def workflows(self) -> set[tuple[str, str]]:
        await self._connection.turn()
        keys = [key.split(".", 1) for key in self._bucket.keys if key.count(".") == 1]
        return {(tenant, workflow) for tenant, workflow in keys}

    def on_change(self, callback: Callable[[str, str], None]) -> None:
        self._callbacks.append(callback)

    def _on_put(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        _, _, tenant, workflow = subject.split(".")
        for callback in self._callbacks:
            callback(tenant, workflow)


class MemoryBlobs:
    """See :class:`wpa.ports.blobs.Blobs`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put(self, key: str, data: bytes) -> None:
        await self._connection.turn()
        self._connection.server.blobs[key] = bytes(data)

    async def get(self, key: str) -> bytes:
        await self._connection.turn()
        try:
            return self._connection.server.blobs[key]
        except KeyError:
            raise NotFound("unknown_payload", f"payload {key} is not stored") from None
