"""The snapshot port: the folded state of an execution, replaced only by compare-and-set."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Snapshots"]


class Snapshots(Protocol):
    async def get(self, tenant: str, execution: str) -> tuple[bytes, int] | None:
        """The stored bytes and their revision, or None."""
        ...

    async def put(self, tenant: str, execution: str, data: bytes, revision: int) -> int:
        """Replace revision ``revision`` (0: none yet) and return the new one.

        Raises Conflict where another revision is stored, Unavailable when the outcome is unknown.
        """
        ...
