"""``workflow.api.<tenant>.<verb>``: requests over NATS, as a discoverable NATS micro service.

Every worker answers, in one queue group. The handlers know nothing of NATS: tenant, verb and bytes
in, bytes out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec
import nats.micro
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, Service, ServiceConfig

from wpa.adapters.nats.transport import Transport

__all__ = ["ApiHandler", "serve_api"]

ApiHandler = Callable[[str, str, bytes], Awaitable[bytes]]
"""(tenant, verb, body) -> reply. Never raises: an error is a reply, too."""


async def serve_api(transport: Transport, verbs: Iterable[str], handler: ApiHandler, version: str) -> Service:
    """Start answering. ``await service.stop()`` ends it."""
    config = ServiceConfig(
        name="wpa",
        version=version,
        description="durable workflows: start, status, history, list, deploy and more",
        queue_group="wpa",
    )
    service = await nats.micro.add_service(transport.nc, config)
    for verb in verbs:
        await service.add_endpoint(_endpoint(verb, handler, transport.nc.max_payload))
    return service


def _endpoint(verb: str, handler: ApiHandler, most: int) -> EndpointConfig:
    async def handle(request: Request) -> None:
        tenant = request.subject.split(".")[2]
        answer = await handler(tenant, verb, request.data)
        if len(answer) > most:
            error = {
                "code": "too_large",
                "message": f"the answer has {len(answer)} bytes; the most is {most}",
            }
            answer = msgspec.json.encode({"ok": False, "error": error})
        await request.respond(answer)

    return EndpointConfig(name=verb.replace("_", "-"), subject=f"workflow.api.*.{verb}", handler=handle)
