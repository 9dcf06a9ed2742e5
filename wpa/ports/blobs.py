"""The blob port: payloads too large to travel inline."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Blobs"]


class Blobs(Protocol):
    async def put(self, key: str, data: bytes) -> None:
        """Store ``data`` under ``key``. Idempotent: keys name their content."""
        ...

    async def get(self, key: str) -> bytes:
        """The stored bytes. Raises NotFound, or Unavailable."""
        ...
