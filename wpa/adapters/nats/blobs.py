"""Large payloads, in the object store: written by nats-py, read here.

An object is a message of metadata and, on a subject of its own, its content in chunks. nats-py joins the
chunks as they come, each time copying all that came before, and waits for ever for one that does not come.
Here they are asked for some at a time (a direct get: no consumer to make and to delete), joined once, and
given up when they don't come.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Final

import msgspec
import nats.errors
from nats.js.object_store import ObjectStore

from wpa.adapters.nats import streams
from wpa.adapters.nats.api import ApiError, stored_message
from wpa.adapters.nats.pages import read_page, sequence_in
from wpa.adapters.nats.transport import Transport
from wpa.errors import NotFound, Unavailable

__all__ = ["NatsBlobs"]

STREAM: Final = f"OBJ_{streams.PAYLOADS_BUCKET}"
BATCH: Final = 16
"""Chunks of 128 KiB: what others wait for on the connection behind them is a few milliseconds' worth."""
LOOKS_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses between looks for chunks that are missing: a replica lags behind, or they were written anew."""
DIGEST: Final = "sha-256="


class _Info(msgspec.Struct):
    """An object's metadata, as far as a reader needs it."""

    nuid: str = ""
    size: int = 0
    digest: str = ""
    deleted: bool = False


class _Incomplete(Exception):
    """Not all of an object is there. Never leaves this module."""


class NatsBlobs:
    """See :class:`wpa.ports.blobs.Blobs`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._store: ObjectStore | None = None

    async def _open(self) -> ObjectStore:
        if self._store is None:
            self._store = await self._transport.nc.jetstream().object_store(streams.PAYLOADS_BUCKET)
        return self._store

    async def put(self, key: str, data: bytes) -> None:
        try:
            await (await self._open()).put(key, data)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise Unavailable(f"payload {key} can't be stored: {error or type(error).__name__}") from error

    async def get(self, key: str) -> bytes:
        for pause_s in LOOKS_S:
            try:
                return await self._read(key)
            except _Incomplete:
                # Put once more, content has other chunks: the metadata are to be read again, too.
                await asyncio.sleep(pause_s)
        try:
            return await self._read(key)
        except _Incomplete as error:
            raise Unavailable(f"payload {key} can't be read: {error}") from None

    async def _read(self, key: str) -> bytes:
        info = await self._info(key)
        chunks: list[bytes] = []
        digest = hashlib.sha256()
        size, start = 0, 1
        subject = f"$O.{streams.PAYLOADS_BUCKET}.C.{info.nuid}"
        while size < info.size:
            messages, _ = await read_page(self._transport, STREAM, subject, start, BATCH)
            if not messages:
                raise _Incomplete(f"{size} of {info.size} bytes are there")
            for message in messages:
                chunks.append(message.data)
                digest.update(message.data)
                size += len(message.data)
            start = sequence_in(messages[-1]) + 1
        if info.size and (size != info.size or not _is(info.digest, digest.digest())):
            raise Unavailable(f"payload {key} can't be read: its content is not what was stored")
        return b"".join(chunks)

    async def _info(self, key: str) -> _Info:
        """The metadata, from the stream's leader."""
        name = base64.urlsafe_b64encode(key.encode()).decode()
        subject = f"$O.{streams.PAYLOADS_BUCKET}.M.{name}"
        info: _Info | None = None
        try:
            message = await stored_message(self._transport, STREAM, last_by_subj=subject)
            if message is not None:
                info = msgspec.json.decode(base64.b64decode(message.get("data", "")), type=_Info)
        except ApiError as error:
            raise Unavailable(f"payload {key} can't be read: {error}") from error
        except msgspec.DecodeError as error:
            raise Unavailable(f"payload {key} can't be read: its metadata: {error}") from error
        if info is None or info.deleted:
            raise NotFound("unknown_payload", f"payload {key} is not in {streams.PAYLOADS_BUCKET}")
        return info


def _is(told: str, digest: bytes) -> bool:
    """Whether a digest is the one that metadata tell, as ``SHA-256=<URL-safe base64>``."""
    if not told.lower().startswith(DIGEST):
        return False
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") == told[len(DIGEST) :].rstrip("=")
