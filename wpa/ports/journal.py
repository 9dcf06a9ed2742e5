"""The journal port: one append-only, compare-and-set sequence of events for each execution.

The shell's duties, whoever implements it:

* ``append`` returns only when the event is stored, or raises. ``Conflict``: certainly not stored,
  somebody else's event is there. ``Unavailable``: not known; the caller reads back.
* An adapter may answer an ambiguous append itself, by reading back and comparing event ids.
"""

from __future__ import annotations

from typing import Final, Protocol

from wpa.model.events import Event

__all__ = ["EVERY", "Journal", "Stored"]

EVERY: Final = "*"
"""In the place of an execution: all of the tenant's."""

Stored = tuple[int, Event]
"""A stored event with its position: strictly increasing over all journals."""


class Journal(Protocol):
    async def append(self, event: Event, after: int) -> int:
        """Store ``event`` if the execution's last position is ``after`` (0: none yet).

        Returns the new position. Raises Conflict, or Unavailable when the outcome is unknown.
        """
        ...

    async def read(
        self, tenant: str, execution: str, after: int = 0, most: int | None = None
    ) -> list[Stored]:
        """The events of one execution, or of ``EVERY`` one, past position ``after``, in order.

        All, or the first ``most``.
        """
        ...

    async def latest(self, tenant: str, execution: str) -> int:
        """The position of the last event (0: none) of an execution, or of ``EVERY`` one, asked of whoever
        stores what is appended.

        Not behind what was acknowledged before it was asked, as a :meth:`read` may be (``Ports.lags``).
        """
        ...

    async def recent(self, tenant: str, most: int, before: int = 0) -> tuple[list[Stored], int]:
        """Who was active, looking back from position ``before`` (0: from now): first who was so last.

        Returns the last event before there of each execution that is met, ``most`` of them or fewer, and the
        position before which to look on: 0 where nothing is left. As one look is of bounded effort, it may
        find none and still not be the last. Who was active after ``before``, too, is met again.
        """
        ...
