"""The inlet port: messages in streams that belong to users, read durably.

An inlet is a place in a stream, kept by the server under a name: it goes on where it was when all who read
through it were away. Whoever has opened it shares its messages with the others, each of them leased to one
until it is acked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

import msgspec

from wpa.ports.tasks import Feed

__all__ = ["Drawn", "Inlet", "Inlets", "UserStream"]


class Inlet(msgspec.Struct, frozen=True, kw_only=True):
    """What a workflow reads of a stream."""

    tenant: str
    workflow: str
    stream: str
    subject: str
    """As the workflow writes it; with the three above, it tells inlets apart."""
    filter: str
    """The subject of the messages that it holds; may have wildcards."""

    @property
    def name(self) -> str:
        """The same for everybody, and another for every other inlet; plain, whatever the parts hold."""
        parts = "\n".join((self.tenant, self.workflow, self.stream, self.subject))
        return f"wpa-{hashlib.blake2b(parts.encode(), digest_size=10).hexdigest()}"


class UserStream(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know of a stream before it is read."""

    subjects: tuple[str, ...] = ()
    """What it captures."""
    any_subject: bool = False
    """Its messages may have other subjects, too: it copies other streams, or renames what it captures."""
    work_queue: bool = False
    """A message is gone when it is acked: only one inlet may hold it, and that begins with the first."""


class Drawn(Protocol):
    """A message in hand. Until it is acked, or its time runs out, nobody else gets it through this inlet.

    ``ack``, ``nak`` and ``extend`` are sent, not awaited: a lost one is healed by redelivery.
    """

    @property
    def subject(self) -> str:
        """What it was published on."""
        ...

    @property
    def data(self) -> bytes: ...
    @property
    def headers(self) -> dict[str, str]: ...
    @property
    def sequence(self) -> int:
        """Its place in the stream."""
        ...

    @property
    def stored(self) -> str:
        """When it was stored. With the sequence and the stream's name, it names the message for ever: the
        sequence alone comes again where a stream is deleted and made anew."""
        ...

    @property
    def delivered(self) -> int:
        """1 at the first delivery."""
        ...

    def ack(self) -> None: ...
    def nak(self, delay_s: float = 0.0) -> None: ...
    def extend(self) -> None: ...


class Inlets(Protocol):
    """Every call raises Unavailable without a server, and PlatformError where the server refuses."""

    async def stream(self, name: str) -> UserStream | None:
        """What a stream is, or None where there is none of that name."""
        ...

    async def capturing(self, pattern: str) -> list[str]:
        """The names of the streams that capture any of the subjects."""
        ...

    async def add(self, inlet: Inlet, since_ms: int | None) -> None:
        """Make the inlet; one that is there stays as it is, wherever it has come to.

        Args:
            inlet: its stream must be there.
            since_ms: begin with what was stored since then (milliseconds since the Unix epoch), or from
                now on where that moment is yet to come; None: with the first message that the stream holds.
        """
        ...

    async def open(self, inlet: Inlet, deliver: Callable[[Drawn], None], lost: Callable[[], None]) -> Feed:
        """Start feeding what the inlet holds to ``deliver``.

        ``lost`` is called when nothing may come any more, since the inlet is not there, or its stream. It may
        be called more than once, and without need (while the server is away): add the inlet again, and open
        it anew.
        """
        ...

    async def remove(self, inlet: Inlet) -> None:
        """Forget the inlet; it may be gone already. The stream keeps its messages."""
        ...
