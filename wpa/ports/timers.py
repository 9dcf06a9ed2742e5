"""The timer port: alarms that the server keeps, so that waiting needs no process.

What rings is delivered as a message on its tenant's due feed (:class:`wpa.ports.tasks.Source`, kind
``due``), leased and redelivered like any task.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Timers"]


class Timers(Protocol):
    """One alarm for each (tenant, name). Names are two checked tokens, as ``<execution>.wake-2``.

    Guarantees:

    * Never early; late by at most a quarter of a second on a healthy server.
    * At least once: a crash of the server while it fires may deliver an alarm twice.
    * What was due while the server was away rings once when it is back.

    An alarm that is replaced or cleared while it rings may still be delivered, and the *new* alarm may
    be lost with it. The delivery then comes after the change, so whoever handles one checks what is due
    and sets the next alarm anew; nobody who does can oversleep.
    """

    async def set(
        self, tenant: str, name: str, at_ms: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        """Deliver ``body`` and ``headers`` at ``at_ms``; at once, where that moment has passed.

        Args:
            tenant: whose due feed it is delivered on.
            name: the alarm; one that was set before under this name is replaced.
            at_ms: the moment, in milliseconds since the Unix epoch.
            body: what is delivered.
            headers: delivered with it, without those that begin with ``Nats-``.

        Setting the same alarm again changes nothing. Raises Unavailable when the outcome is unknown.
        """
        ...

    async def clear(self, tenant: str, name: str) -> None:
        """Forget the alarm, if there is one. Raises Unavailable."""
        ...
