"""Dead letters: what was rejected, kept as it came, and why.

A letter holds the original bytes and the reason beside them. Where the server takes a message that is nearly
as large as it takes at all, there is no room for the reason: then the bytes go to the object store, and the
letter says under which key.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Final

import msgspec

from wpa.engine.door import answer, dead_letter_headers, refusal
from wpa.engine.services import Services
from wpa.errors import TaskRejected, TooLarge, Unavailable
from wpa.ports.blobs import Blobs
from wpa.ports.tasks import Lease

__all__ = ["HAND_BACK_S", "PAYLOAD_HEADER", "REJECTED_HEADER", "SIZE_HEADER", "bury", "original", "reject"]

PAYLOAD_HEADER: Final = "Wpa-Payload"
"""On a letter without bytes: where the original ones are."""
SIZE_HEADER: Final = "Wpa-Size"
"""Beside it: how many they are."""
REJECTED_HEADER: Final = "Wpa-Rejected-At"
HEADER_CHARS_MAX: Final = 16_384
"""Of those that a letter has that is too large: longer ones are the publisher's, and left out."""

HAND_BACK_S: Final = 1.0
"""How long a task rests, in seconds, before it is tried again after trouble that is nobody's fault."""

log = logging.getLogger("wpa.worker")


async def bury(services: Services, tenant: str, data: bytes, headers: dict[str, str]) -> None:
    """Keep ``data`` as a dead letter of ``tenant``; ``headers`` say why. Raises Unavailable.

    At least once: repeated after an unknown outcome, it may make a second letter.
    """
    ports = services.ports
    try:
        await ports.tasks.bury(tenant, data, headers)
    except TooLarge:
        key = f"{tenant}/letters/{hashlib.sha256(data).hexdigest()[:32]}"
        await ports.blobs.put(key, data)
        kept = {name: value for name, value in headers.items() if len(value) <= HEADER_CHARS_MAX}
        await ports.tasks.bury(tenant, b"", {**kept, PAYLOAD_HEADER: key, SIZE_HEADER: str(len(data))})


async def reject(services: Services, lease: Lease, error: TaskRejected) -> None:
    """To the dead-letter subject: the original bytes, and why. Only then is the task acked.

    Where it is the start of a child, its parent is told, which would wait for ever.
    """
    log.warning(
        "task %d of %s is rejected: %s; `wpa dlq list` says why",
        lease.sequence, lease.source.subject, error.outline,
    )  # fmt: skip
    headers = dead_letter_headers(lease, error, services.worker, services.clock.now_ms())
    try:
        if (told := refusal(lease, error)) is not None:
            await services.ports.tasks.publish(lease.tenant, msgspec.json.encode(told), {})
        await bury(services, lease.tenant, lease.data, headers)
    except Unavailable as trouble:
        log.warning("the rejected task %d can't be buried yet: %s", lease.sequence, trouble)
        lease.nak(HAND_BACK_S)
        return
    answer(services.ports.live, lease, {"ok": False, "error": error.as_dict()})
    lease.ack()


async def original(blobs: Blobs, data: bytes, headers: dict[str, str]) -> bytes:
    """The original bytes of a letter. Raises NotFound where they are gone, or Unavailable."""
    key = headers.get(PAYLOAD_HEADER)
    return data if key is None else await blobs.get(key)
