"""What workers that died have left behind is handed out at once where nobody else could be holding it.

A lease ends when its time is over, for the server can't know that its holder is dead. But it does know who
is connected: a request to a worker that is gone is answered at once, "no responders". So a worker that
starts and finds itself the only one there lets all leases end. Should another be there all the same, cut off
just now, nothing is lost: it is taken over from, as after any lease that ran out (the epoch sees to that).
Nobody is there, then, either whom shorter leases than before could surprise.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from wpa.adapters.nats.api import api
from wpa.adapters.nats.consumers import shared
from wpa.adapters.nats.transport import Transport
from wpa.errors import PlatformError, Unavailable

__all__ = ["is_connected", "release"]

ANSWERS_WITHIN_S: Final = 0.5
"""A worker that is connected and doesn't answer for so long is busy: it is there."""
EXPIRED_AFTER_S: Final = 0.15
"""A server looks for leases that are over a tenth of a second after their length was changed."""
SHORT_S: Final = 0.4
"""How long a lease is for that moment: those of a worker that has begun since we looked are younger."""

log = logging.getLogger("wpa.nats")


async def is_connected(transport: Transport, worker: str) -> bool:
    """Whether a worker has a connection to the server. In doubt, it has."""
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            await transport.request(f"workflow.nudge.{worker}", b"")
    except Unavailable:
        return False
    except TimeoutError:
        pass
    return True


async def release(transport: Transport, ack_wait_s: float) -> int:
    """Let all leases of tasks, steps and alarms end now; later ones last ``ack_wait_s``. How many there were.

    Only for a worker that is alone, before it takes its first message.
    """
    consumers = await shared(transport)
    holding = [consumer for consumer in consumers if consumer["num_ack_pending"]]
    lasting = [consumer for consumer in consumers if consumer["config"]["ack_wait"] > int(ack_wait_s * 1e9)]
    await asyncio.gather(*(_update(transport, one, SHORT_S) for one in holding))
    try:
        if holding:
            await asyncio.sleep(EXPIRED_AFTER_S)
    finally:
        # Not what it was before: another that starts just now may have shortened it, too.
        changed = {(one["stream_name"], one["name"]): one for one in [*holding, *lasting]}
        await asyncio.gather(*(_update(transport, one, ack_wait_s) for one in changed.values()))
    return sum(one["num_ack_pending"] for one in holding)


async def _update(transport: Transport, consumer: dict[str, Any], ack_wait_s: float) -> None:
    """Give a consumer's leases another length."""
    stream = consumer["stream_name"]
    config = {**consumer["config"], "ack_wait": int(ack_wait_s * 1e9)}
    verb = f"CONSUMER.CREATE.{stream}.{consumer['name']}.{config['filter_subject']}"
    try:
        await api(transport, verb, {"stream_name": stream, "config": config})
    except PlatformError as error:
        log.debug("the leases of %s can't be changed: %s", consumer["name"], error)
