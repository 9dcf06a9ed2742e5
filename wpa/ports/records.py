"""The records port: small things kept beside definitions and executions, replaced by compare-and-set."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Records"]


class Records(Protocol):
    """One record for each (tenant, kind, name), all three of them checked tokens. Kept for ever."""

    async def get(self, tenant: str, kind: str, name: str) -> tuple[bytes, int] | None:
        """The stored bytes and their revision, or None."""
        ...

    async def put(self, tenant: str, kind: str, name: str, data: bytes, revision: int) -> int:
        """Replace revision ``revision`` (0: none yet) and return the new one.

        Raises Conflict where another revision is stored, Unavailable when the outcome is unknown.
        """
        ...

    async def list(self, tenant: str, kind: str) -> list[tuple[str, bytes]]:
        """Name and bytes of every record of a kind. May lag by a moment."""
        ...
