"""Large payloads: out of the journal, into the object store, and back.

A value over the inline limit is stored under a key that names its content and is replaced by a
reference, ``{"$blob": {"key", "size", "sha256"}}``. Storing comes before the append that refers to
it, and storing twice changes nothing, so a crash in between leaves at most an unused object.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from wpa.errors import OverLimit
from wpa.model.limits import Limits
from wpa.ports.blobs import Blobs

__all__ = ["Payloads", "reference", "stored_size"]

_ENCODER = msgspec.json.Encoder()
_LIKE_REFERENCE: Final = b'{"$blob":'


def reference(value: Any) -> str | None:
    """The key that ``value`` refers to, or None where it is no reference."""
    if type(value) is dict and len(value) == 1:
        blob = value.get("$blob")
        if type(blob) is dict and isinstance(blob.get("key"), str):
            return str(blob["key"])
    return None


def stored_size(value: Any) -> int:
    """How many bytes the payload has that ``value`` refers to; 0 where it is no reference."""
    return 0 if reference(value) is None else int(value["$blob"].get("size", 0))


class Payloads:
    """Stores and loads payloads of any size up to ``blob_bytes_max``."""

    def __init__(self, blobs: Blobs, limits: Limits) -> None:
        self._blobs = blobs
        self._limits = limits

    async def store(self, tenant: str, execution: str, value: Any, raw: bytes | None = None) -> Any:
        """``value`` as the journal keeps it.

        Args:
            value: JSON-ready data.
            raw: ``value`` encoded, where the caller has it already.

        Raises OverLimit where it is too large even for the object store.
        """
        if raw is None:
            raw = _ENCODER.encode(value)
        if (inline := self.inline(value, raw)) is not None:
            return inline
        size = len(raw)
        if size > self._limits.blob_bytes_max:
            raise OverLimit(f"a payload of {size} bytes; the most is {self._limits.blob_bytes_max}")
        digest = hashlib.sha256(raw).hexdigest()
        key = f"{tenant}/{execution}/{digest[:32]}"
        await self._blobs.put(key, raw)
        return {"$blob": {"key": key, "size": size, "sha256": digest}}

    def inline(self, value: Any, raw: bytes | None = None) -> msgspec.Raw | None:
        """``value`` as the journal keeps it, as :meth:`store`; None for what has to be stored apart."""
        if raw is None:
            raw = _ENCODER.encode(value)
        # What looks like a reference is stored, however small: in the journal, every reference is ours.
        # Otherwise an input could name somebody else's object, and be given it.
        if len(raw) > self._limits.inline_bytes_max or (raw.startswith(_LIKE_REFERENCE) and reference(value)):
            return None
        return msgspec.Raw(raw)

    def check_inline(self, path: str, value: dict[str, Any]) -> None:
        """Raise OverLimit for what has to travel inline and is too large for it."""
        if value and (size := len(_ENCODER.encode(value))) > self._limits.inline_bytes_max:
            most = self._limits.inline_bytes_max
            raise OverLimit(f"{path} has {size} bytes; the most is {most}: put large data into input_data")

    async def load(self, key: str) -> Any:
        """The payload that is stored under ``key``. Raises NotFound, or Unavailable."""
        return msgspec.json.decode(await self._blobs.get(key))
