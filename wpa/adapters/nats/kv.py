"""The smallest key-value client the engine needs: get and compare-and-set, by revision.

A bucket is a stream; a value's revision is its stream sequence. Written here instead of through
nats-py's KeyValue so that snapshots take the same publish path, with the same answers, as appends.
"""

from __future__ import annotations

import base64
from collections.abc import Coroutine
from typing import Any

from wpa.adapters.nats.api import stored_message
from wpa.adapters.nats.pages import pages
from wpa.adapters.nats.transport import Transport
from wpa.errors import Conflict

__all__ = ["Bucket"]


class Bucket:
    """One bucket. Keys are made of checked tokens, joined by dots."""

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self.name = name

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """The value and its revision, read from the stream's leader; None where there is none."""
        value, revision = await self.last(key)
        return None if value is None else (value, revision)

    async def last(self, key: str) -> tuple[bytes | None, int]:
        """As :meth:`get`; without a value, with the revision that a new one replaces: a deletion's, or 0."""
        subject = f"$KV.{self.name}.{key}"
        message = await stored_message(self._transport, f"KV_{self.name}", last_by_subj=subject)
        if message is None:
            return None, 0
        if "hdrs" in message and b"KV-Operation" in base64.b64decode(message["hdrs"]):
            return None, message["seq"]
        return base64.b64decode(message.get("data", "")), message["seq"]

    def put(self, key: str, value: bytes, revision: int) -> Coroutine[Any, Any, int]:
        """Replace ``revision`` (0: there is none, or none any more). Raises Conflict, or Unavailable if it
        isn't known."""
        return self._replace(key, value, revision) if revision else self._create(key, value)

    def _replace(self, key: str, value: bytes, revision: int) -> Coroutine[Any, Any, int]:
        header = b"Nats-Expected-Last-Subject-Sequence: %d\r\n" % revision
        return self._transport.publish_acked(f"$KV.{self.name}.{key}", value, header)

    async def _create(self, key: str, value: bytes) -> int:
        try:
            return await self._replace(key, value, 0)
        except Conflict:
            there, revision = await self.last(key)
            if there is not None or not revision:
                raise
            return await self._replace(key, value, revision)  # what was there, somebody has deleted

    async def set(self, key: str, value: bytes) -> int:
        """Write whatever was there before."""
        return await self._transport.publish_acked(f"$KV.{self.name}.{key}", value)

    async def replace(self, key: str, value: bytes) -> int:
        """Write by compare-and-set on what is there now, until it succeeds."""
        while True:
            _, revision = await self.last(key)
            try:
                return await self.put(key, value, revision)
            except Conflict:
                continue

    async def values(self, prefix: str) -> list[tuple[str, bytes]]:
        """Every key under ``prefix`` (dot-joined tokens, may be empty), with its value."""
        subject = f"$KV.{self.name}.{prefix}.>" if prefix else f"$KV.{self.name}.>"
        found: list[tuple[str, bytes]] = []
        async for messages in pages(self._transport, f"KV_{self.name}", subject):
            for message in messages:
                headers = message.headers
                if "KV-Operation" not in headers:
                    key = headers["Nats-Subject"].removeprefix(f"$KV.{self.name}.")
                    found.append((key, message.data))
        return found
