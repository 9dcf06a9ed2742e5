"""Messages in users' streams: one durable pull consumer for each inlet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from wpa.adapters.nats.api import CONSUMER_EXISTS, NO_SUCH, STREAM_MISSING, ApiError, api
from wpa.adapters.nats.pull import Held, Pull
from wpa.adapters.nats.transport import Message, Transport
from wpa.errors import PlatformError
from wpa.model.times import parse_ms, rfc3339
from wpa.ports.inlets import Drawn, Inlet, UserStream
from wpa.ports.tasks import Feed

__all__ = ["NatsInlets"]

MAX_ACK_PENDING: Final = 4_096
"""So many of an inlet's messages may be in the hands of all workers together."""
PULL_EXPIRES_S: Final = 10.0
"""Short: the stream is its owner's, who may delete it at any time."""


class NatsDrawn(Held):
    """See :class:`wpa.ports.inlets.Drawn`."""

    __slots__ = ()

    @property
    def stored(self) -> str:
        return f"{self.stored_ns:x}"


class NatsInlets:
    """See :class:`wpa.ports.inlets.Inlets`."""

    def __init__(self, transport: Transport, ack_wait_s: float) -> None:
        self._transport = transport
        self._ack_wait_s = ack_wait_s

    async def stream(self, name: str) -> UserStream | None:
        try:
            config = (await api(self._transport, f"STREAM.INFO.{name}"))["config"]
        except ApiError as error:
            if error.code == NO_SUCH:
                return None
            raise
        return UserStream(
            subjects=tuple(config.get("subjects") or ()),
            any_subject=any(config.get(key) for key in ("mirror", "sources", "subject_transform")),
            work_queue=config.get("retention") == "workqueue",
        )

    async def capturing(self, pattern: str) -> list[str]:
        found = await api(self._transport, "STREAM.NAMES", {"subject": pattern})
        return sorted(found.get("streams") or ())

    async def add(self, inlet: Inlet, since_ms: int | None) -> None:
        config = {
            "durable_name": inlet.name,
            "description": f"triggers of {inlet.tenant}.{inlet.workflow} on {inlet.subject}",
            "ack_policy": "explicit",
            "ack_wait": int(self._ack_wait_s * 1e9),
            "max_deliver": -1,
            "filter_subject": inlet.filter,
            "max_ack_pending": MAX_ACK_PENDING,
            "replay_policy": "instant",
        }
        try:
            config.update(await self._beginning(inlet.stream, since_ms))
            # To create is all it may do: where the inlet is there, it must not be sent back to its beginning.
            body = {"stream_name": inlet.stream, "config": config, "action": "create"}
            await api(self._transport, f"CONSUMER.CREATE.{inlet.stream}.{inlet.name}", body)
        except ApiError as error:
            if error.err_code == STREAM_MISSING:
                raise PlatformError(f"there is no stream {inlet.stream}") from error
            if error.err_code != CONSUMER_EXISTS:
                raise

    async def _beginning(self, stream: str, since_ms: int | None) -> dict[str, Any]:
        if since_ms is None:
            return {"deliver_policy": "all"}
        # The moment is a worker's; in the server's future, it would leave out what comes until then.
        now_ms = parse_ms((await api(self._transport, f"STREAM.INFO.{stream}"))["ts"])
        if since_ms >= now_ms:
            return {"deliver_policy": "new"}
        return {"deliver_policy": "by_start_time", "opt_start_time": rfc3339(since_ms)}

    async def open(self, inlet: Inlet, deliver: Callable[[Drawn], None], lost: Callable[[], None]) -> Feed:
        def take(message: Message) -> None:
            deliver(NatsDrawn(self._transport, message))

        pull = Pull(self._transport, inlet.stream, inlet.name, take, lost, PULL_EXPIRES_S)
        await pull.start()
        return pull

    async def remove(self, inlet: Inlet) -> None:
        try:
            await api(self._transport, f"CONSUMER.DELETE.{inlet.stream}.{inlet.name}")
        except ApiError as error:
            if error.code != NO_SUCH:
                raise
