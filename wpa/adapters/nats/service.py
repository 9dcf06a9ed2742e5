"""``workflow.api.<tenant>.<verb>``: requests over NATS, as a discoverable NATS micro service.

Every worker answers, in one queue group. The handlers know nothing of NATS: tenant, verb and bytes
in, bytes out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import msgspec
import nats.errors
import nats.micro
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, Service, ServiceConfig

from wpa.adapters.nats.places import Places
from wpa.adapters.nats.seldom import Seldom
from wpa.adapters.nats.transport import Transport
from wpa.model.subjects import may_be_answered

__all__ = ["ApiHandler", "ApiService", "serve_api"]

ApiHandler = Callable[[str, str, bytes], Awaitable[bytes]]
"""(tenant, verb, body) -> reply. Never raises: an error is a reply, too."""

SIDE_BY_SIDE: Final = 64
"""So many requests are worked on at a time."""
PATIENCE_S: Final = 5.0
"""As long as a client waits before it asks again."""
FINISH_WITHIN_S: Final = 2.0

log = logging.getLogger("wpa.nats")


async def serve_api(
    transport: Transport, verbs: Iterable[str], handler: ApiHandler, version: str
) -> ApiService:
    """Start answering. ``await service.stop()`` ends it."""
    config = ServiceConfig(
        name="wpa",
        version=version,
        description="durable workflows: start, status, history, list, deploy and more",
        queue_group="wpa",
    )
    service = ApiService(
        await nats.micro.add_service(transport.nc, config), handler, transport.nc.max_payload
    )
    for verb in verbs:
        await service.add(verb)
    return service


class ApiService:
    """Answers requests side by side, in the order in which they came; tenants take turns.

    A request whose answer would go anywhere but to an inbox is not looked at
    (:func:`wpa.model.subjects.may_be_answered`). What has waited for longer than its asker does is refused
    without being looked at: the same was asked again by then, and a worker that goes on with what nobody
    listens for any more never catches up.
    """

    def __init__(self, service: Service, handler: ApiHandler, most: int) -> None:
        self._service = service
        self._handler = handler
        self._most = most
        """Bytes that an answer may have."""
        self._places = Places(SIDE_BY_SIDE)
        self._answering: set[asyncio.Task[None]] = set()
        self._clock = asyncio.get_running_loop().time
        self._warnings = Seldom()
        """That a request names no inbox is said now and then."""

    async def add(self, verb: str) -> None:
        """Answer a verb."""

        async def take(request: Request) -> None:
            if not self._may_answer(request):
                return
            task = asyncio.create_task(self._answer(verb, request, self._clock()))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

        endpoint = EndpointConfig(name=verb.replace("_", "-"), subject=f"workflow.api.*.{verb}", handler=take)
        await self._service.add_endpoint(endpoint)

    async def stop(self) -> None:
        """Take no more requests, and finish those that are under way, if that doesn't take long."""
        try:
            async with asyncio.timeout(FINISH_WITHIN_S):
                await self._service.stop()
        except (nats.errors.Error, OSError) as error:
            log.debug("the service ends with its connection: %s", error)  # without it, nothing comes anyway
        if self._answering:
            _, left = await asyncio.wait(self._answering, timeout=FINISH_WITHIN_S)
            for task in left:
                task.cancel()

    def _may_answer(self, request: Request) -> bool:
        """Whether an answer may go where the request says, or none is wanted. If not, the log says so."""
        reply = _reply_of(request)
        if not reply or may_be_answered(reply):
            return True
        if self._warnings.is_due():
            log.warning(
                "a request on %s is not looked at, for its answer would go to %s: only an inbox is answered, "
                "a subject that begins with '_'",
                request.subject, ascii(reply[:80]),
            )  # fmt: skip
        return False

    async def _answer(self, verb: str, request: Request, came_at: float) -> None:
        tenant = request.subject.split(".")[2]
        async with self._places.of(tenant):
            if self._clock() - came_at > PATIENCE_S:
                answer = _refusal(
                    "unavailable", f"more is asked than can be answered within {PATIENCE_S:g} s; try again"
                )
            else:
                answer = await self._handler(tenant, verb, request.data)
            if len(answer) > self._most:
                answer = _refusal(
                    "too_large", f"the answer has {len(answer)} bytes; the most is {self._most}"
                )
        if not _reply_of(request):
            return
        try:
            await request.respond(answer)
        except (nats.errors.Error, OSError) as error:
            # Where the connection is lost, so is the answer: it is asked again.
            log.debug("an answer on %s is lost: %s", request.subject, error)


def _reply_of(request: Request) -> str:
    """Where the answer is to go; empty where none is wanted."""
    return request._msg.reply  # noqa: SLF001  # nats.micro does not show it


def _refusal(code: str, message: str) -> bytes:
    return msgspec.json.encode({"ok": False, "error": {"code": code, "message": message}})
