"""Snapshots, records and definitions, in NATS key-value buckets."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal

import msgspec

from wpa.adapters.nats import streams
from wpa.adapters.nats.api import StreamMissing, api
from wpa.adapters.nats.kv import Bucket
from wpa.adapters.nats.transport import Message, Transport
from wpa.errors import Broken, Conflict
from wpa.ports.definitions import StoredDefinition, decode_definition, decode_definitions

__all__ = ["NatsDefinitions", "NatsRecords", "NatsSnapshots"]


class NatsSnapshots:
    """See :class:`wpa.ports.snapshots.Snapshots`."""

    def __init__(self, transport: Transport) -> None:
        self._bucket = Bucket(transport, streams.EXECUTIONS_BUCKET)

    async def get(self, tenant: str, execution: str) -> tuple[bytes, int] | None:
        try:
            return await self._bucket.get(f"{tenant}.{execution}")
        except StreamMissing:
            return None  # the journal is the truth

    def put(self, tenant: str, execution: str, data: bytes, revision: int) -> Coroutine[Any, Any, int]:
        return self._bucket.put(f"{tenant}.{execution}", data, revision)


class NatsRecords:
    """See :class:`wpa.ports.records.Records`."""

    def __init__(self, transport: Transport) -> None:
        self._bucket = Bucket(transport, streams.RECORDS_BUCKET)

    async def get(self, tenant: str, kind: str, name: str) -> tuple[bytes, int] | None:
        return await self._bucket.get(f"{tenant}.{kind}.{name}")

    async def put(self, tenant: str, kind: str, name: str, data: bytes, revision: int) -> int:
        return await self._bucket.put(f"{tenant}.{kind}.{name}", data, revision)

    async def list(self, tenant: str, kind: str) -> list[tuple[str, bytes]]:
        prefix = f"{tenant}.{kind}"
        found = await self._bucket.values(prefix)
        return [(key.removeprefix(f"{prefix}."), value) for key, value in found]


_Found = Literal["none", "broken", "readable"]


class _Pointer(msgspec.Struct):
    version: str


class NatsDefinitions:
    """See :class:`wpa.ports.definitions.Definitions`.

    Under ``<tenant>.<workflow>`` stands which version was deployed last, under
    ``<tenant>.<workflow>.<version>`` the document. A put is an ordinary message, so a core
    subscription to the bucket's subjects hears of every change as it happens.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._bucket = Bucket(transport, streams.DEFINITIONS_BUCKET)
        self._callbacks: list[Callable[[str, str], None]] = []

    async def start(self) -> None:
        """Listen for changes; a reconnect may have missed some, so it counts as a change of all."""
        await self._transport.subscribe(f"$KV.{self._bucket.name}.>", self._on_put)
        self._transport.on_reconnect(lambda: self._tell("", ""))

    async def get(self, tenant: str, workflow: str, version: str) -> StoredDefinition | None:
        key = f"{tenant}.{workflow}.{version}"
        found = await self._bucket.get(key)
        return decode_definition(key, found[0]) if found else None

    async def latest(self, tenant: str, workflow: str) -> str | None:
        key = f"{tenant}.{workflow}"
        found = await self._bucket.get(key)
        try:
            return msgspec.json.decode(found[0], type=_Pointer).version if found else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            remedy = "deploy the version once more that is to be the latest"
            raise Broken(key, str(error), remedy) from None

    async def put(self, tenant: str, definition: StoredDefinition) -> bool:
        workflow = f"{tenant}.{definition.workflow}"
        pointer = msgspec.json.encode(_Pointer(definition.version))
        found, revision = await self._put(f"{workflow}.{definition.version}", definition)
        if found == "none":
            await self._bucket.replace(workflow, pointer)
            return True
        while True:
            latest, pointed = await self._bucket.last(workflow)
            if latest is not None and _is_pointer(latest):
                if pointed > revision:
                    return False  # what was deployed last, was so after this version
                if found == "broken":
                    pointer = latest  # written once more, it was not deployed anew: keep the order
            # Without a pointer, or with an older one, a deploy ended between the two writes: finish it.
            try:
                await self._bucket.put(workflow, pointer, pointed)
                return False
            except Conflict:
                continue

    async def _put(self, key: str, definition: StoredDefinition) -> tuple[_Found, int]:
        """Store a version, where there is none that can be read. What was found, and the revision that is
        stored by then."""
        while True:
            value, revision = await self._bucket.last(key)
            if value is not None and _is_readable(key, value):
                return "readable", revision
            try:
                stored = await self._bucket.put(key, msgspec.json.encode(definition), revision)
            except Conflict:
                continue
            return ("none" if value is None else "broken"), stored

    async def list(self, tenant: str) -> list[StoredDefinition]:
        found = await self._bucket.values(tenant)
        return decode_definitions((key, value) for key, value in found if key.count(".") >= 2)

    async def tenants(self) -> set[str]:
        return {tenant for tenant, _ in await self.workflows()}

    async def workflows(self) -> set[tuple[str, str]]:
        info = await api(
            self._transport,
            f"STREAM.INFO.KV_{self._bucket.name}",
            {"subjects_filter": f"$KV.{self._bucket.name}.*.*"},
        )
        keys = [subject.split(".") for subject in info["state"].get("subjects") or {}]
        return {(tenant, workflow) for _, _, tenant, workflow in keys}

    def on_change(self, callback: Callable[[str, str], None]) -> None:
        self._callbacks.append(callback)

    def _on_put(self, message: Message) -> None:
        tokens = message.subject.split(".")
        if len(tokens) >= 4:
            self._tell(tokens[2], tokens[3])

    def _tell(self, tenant: str, workflow: str) -> None:
        for callback in self._callbacks:
            callback(tenant, workflow)


def _is_pointer(value: bytes) -> bool:
    try:
        msgspec.json.decode(value, type=_Pointer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _is_readable(key: str, value: bytes) -> bool:
    try:
        decode_definition(key, value)
    except Broken:
        return False
    return True
