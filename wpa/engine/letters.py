"""Dead letters: what was rejected, kept as it came, and why.

A letter holds the original bytes and the reason beside them. Where the server takes a message that is nearly
as large as it takes at all, there is no room for the reason: then the bytes go to the object store, and the
letter says under which key.
"""

from __future__ import annotations

import hashlib
from typing import Final

from wpa.engine.services import Services
from wpa.errors import TooLarge
from wpa.ports.blobs import Blobs

__all__ = ["PAYLOAD_HEADER", "REJECTED_HEADER", "SIZE_HEADER", "bury", "original"]

PAYLOAD_HEADER: Final = "Wpa-Payload"
"""On a letter without bytes: where the original ones are."""
SIZE_HEADER: Final = "Wpa-Size"
"""Beside it: how many they are."""
REJECTED_HEADER: Final = "Wpa-Rejected-At"
HEADER_CHARS_MAX: Final = 16_384
"""Of those that a letter has that is too large: longer ones are the publisher's, and left out."""


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


async def original(blobs: Blobs, data: bytes, headers: dict[str, str]) -> bytes:
    """The original bytes of a letter. Raises NotFound where they are gone, or Unavailable."""
    key = headers.get(PAYLOAD_HEADER)
    return data if key is None else await blobs.get(key)
