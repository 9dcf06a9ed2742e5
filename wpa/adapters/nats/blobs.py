"""Large payloads, in the object store, as any client of it reads and writes them.

An object is a message of metadata and, on a subject of its own, its content in chunks. nats-py joins the
chunks as they come, each time copying all that came before, and waits for ever for one that does not come.
Here they are asked for some at a time (a direct get: no consumer to make and to delete), joined once, and
given up when they don't come.

nats-py can't write them safely either: where it hears no answer to the metadata, it removes the chunks, and
the metadata, which are stored all the same, or are sent when the connection is back, replace what was whole.
Here chunks are removed only where nothing can refer to them. So metadata never do before all is stored, and
an object that is whole stays so. What is whole already is not written again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
from typing import Final

import msgspec

from wpa.adapters.nats import streams
from wpa.adapters.nats.api import ApiError, api, stored_message
from wpa.adapters.nats.pages import read_page, sequence_in
from wpa.adapters.nats.seldom import Seldom
from wpa.adapters.nats.transport import Refused, Transport
from wpa.errors import NotFound, PlatformError, Unavailable

__all__ = ["NatsBlobs"]

STREAM: Final = f"OBJ_{streams.PAYLOADS_BUCKET}"
CHUNK_BYTES: Final = 128 * 1024
BATCH: Final = 16
"""Chunks of that size: what others wait for on the connection behind them is a few milliseconds' worth."""
LOOKS_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses between looks for chunks that are missing: a replica lags behind, or they were written anew."""
DIGEST: Final = "SHA-256="
ROLL_UP: Final = b"Nats-Rollup: sub\r\n"

log = logging.getLogger("wpa.nats")


class _Options(msgspec.Struct):
    max_chunk_size: int = CHUNK_BYTES


class _Info(msgspec.Struct):
    """An object's metadata, as far as they are needed here."""

    name: str = ""
    bucket: str = ""
    nuid: str = ""
    size: int = 0
    chunks: int = 0
    digest: str = ""
    deleted: bool = False
    options: _Options | None = None


class _Incomplete(Exception):
    """Not all of an object is there. Never leaves this module."""


class NatsBlobs:
    """See :class:`wpa.ports.blobs.Blobs`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._complaints = Seldom()
        """Whoever needs a payload tries again, and says nothing of it."""

    async def put(self, key: str, data: bytes) -> None:
        try:
            await self._put(key, data)
        except PlatformError as error:
            raise self._trouble(f"payload {key} can't be stored: {error}") from error

    async def _put(self, key: str, data: bytes) -> None:
        digest = _told(await asyncio.to_thread(hashlib.sha256, data))
        try:
            there = await self._found(key)
        except msgspec.DecodeError:
            there = None  # it is of no use to anybody
        is_same = there is not None and there.size == len(data) and _is(there.digest, digest)
        if there is not None and is_same and await self._is_whole(there):
            return
        nuid = self._transport.new_inbox().rpartition(".")[2]
        subject = _chunks_of(nuid)
        try:
            for start in range(0, len(data), CHUNK_BYTES):
                await self._transport.publish_acked(subject, data[start : start + CHUNK_BYTES])
        except Unavailable:
            await self._remove(nuid)  # nothing refers to them, and nothing will
            raise
        info = _Info(
            name=key,
            bucket=streams.PAYLOADS_BUCKET,
            nuid=nuid,
            size=len(data),
            chunks=-(-len(data) // CHUNK_BYTES),
            digest=digest,
            options=_Options(),
        )
        try:
            await self._transport.publish_acked(_metadata_of(key), msgspec.json.encode(info), ROLL_UP)
        except Refused:
            await self._remove(nuid)
            raise
        if there is not None:
            await self._remove(there.nuid)

    async def _is_whole(self, info: _Info) -> bool:
        """Whether all chunks are there, as the stream's leader has it."""
        subject = _chunks_of(info.nuid)
        found = await api(self._transport, f"STREAM.INFO.{STREAM}", {"subjects_filter": subject}, reads=True)
        count: int = (found["state"].get("subjects") or {}).get(subject, 0)
        return count == info.chunks

    async def _remove(self, nuid: str) -> None:
        """Remove chunks that nothing refers to; those that can't be removed just now stay, and cost room."""
        try:
            await api(self._transport, f"STREAM.PURGE.{STREAM}", {"filter": _chunks_of(nuid)})
        except PlatformError as error:
            log.debug("chunks of no object stay in %s: %s", STREAM, error)

    async def get(self, key: str) -> bytes:
        try:
            for pause_s in LOOKS_S:
                with contextlib.suppress(_Incomplete):
                    return await self._read(key)
                # Put once more, content has other chunks: the metadata are to be read again, too.
                await asyncio.sleep(pause_s)
            return await self._read(key)
        except (_Incomplete, Unavailable) as error:
            raise self._trouble(f"payload {key} can't be read: {error}") from error

    def _trouble(self, what: str) -> Unavailable:
        if self._complaints.is_due():
            log.warning("%s; it is tried again", what)
        return Unavailable(what)

    async def _read(self, key: str) -> bytes:
        info = await self._info(key)
        chunks: list[bytes] = []
        digest = hashlib.sha256()
        size, start = 0, 1
        subject = _chunks_of(info.nuid)
        while size < info.size:
            messages, _ = await read_page(self._transport, STREAM, subject, start, BATCH)
            if not messages:
                raise _Incomplete(f"{size} of {info.size} bytes are there")
            for message in messages:
                chunks.append(message.data)
                digest.update(message.data)
                size += len(message.data)
            start = sequence_in(messages[-1]) + 1
        if info.size and (size != info.size or not _is(info.digest, _told(digest))):
            raise Unavailable("its content is not what was stored")
        return b"".join(chunks)

    async def _info(self, key: str) -> _Info:
        try:
            info = await self._found(key)
        except ApiError as error:
            raise Unavailable(str(error)) from error
        except msgspec.DecodeError as error:
            raise Unavailable(f"its metadata: {error}") from error
        if info is None:
            raise NotFound("unknown_payload", f"payload {key} is not in {streams.PAYLOADS_BUCKET}")
        return info

    async def _found(self, key: str) -> _Info | None:
        """The metadata, from the stream's leader; None where there is no such object."""
        message = await stored_message(self._transport, STREAM, last_by_subj=_metadata_of(key))
        if message is None:
            return None
        info = msgspec.json.decode(base64.b64decode(message.get("data", "")), type=_Info)
        return None if info.deleted else info


def _chunks_of(nuid: str) -> str:
    return f"$O.{streams.PAYLOADS_BUCKET}.C.{nuid}"


def _metadata_of(key: str) -> str:
    return f"$O.{streams.PAYLOADS_BUCKET}.M.{base64.urlsafe_b64encode(key.encode()).decode()}"


def _told(digest: hashlib._Hash) -> str:
    """A digest as metadata tell it: ``SHA-256=<URL-safe base64>``."""
    return DIGEST + base64.urlsafe_b64encode(digest.digest()).decode()


def _is(told: str, digest: str) -> bool:
    """Whether metadata tell this digest; not every client writes them alike."""
    prefix, content = told[: len(DIGEST)], told[len(DIGEST) :]
    return prefix.upper() == DIGEST and content.rstrip("=") == digest[len(DIGEST) :].rstrip("=")
