"""Requests to JetStream's own API: streams, consumers, and single messages from a stream's leader."""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec

from wpa.adapters.nats.headers import read_head
from wpa.adapters.nats.transport import Transport
from wpa.errors import PlatformError, Unavailable

__all__ = [
    "CONSUMER_EXISTS",
    "CONSUMER_MISSING",
    "NOT_READY",
    "NO_SUCH",
    "STREAM_MISSING",
    "STREAM_NAME_IN_USE",
    "ApiError",
    "StreamMissing",
    "api",
    "stored_headers",
    "stored_message",
]

STREAM_NAME_IN_USE: Final = 10058
NO_SUCH: Final = 404
STREAM_MISSING: Final = 10059
CONSUMER_MISSING: Final = 10014
CONSUMER_EXISTS: Final = 10148
NOT_READY: Final = {10005, 10008, 10009, 10118}
"""What a cluster answers that has too few nodes up as yet: no peers for the replicas, unavailable, no leader,
stream offline."""
NOT_READY_HINT: Final = ": too few of the cluster's nodes are up, or they are about to elect a leader"


async def api(
    transport: Transport, verb: str, body: dict[str, Any] | None = None, *, reads: bool = False
) -> dict[str, Any]:
    """One JetStream API request; ``reads``: one that changes nothing. Raises PlatformError with the server's
    own words, and what they mean where few would know."""
    asked = msgspec.json.encode(body) if body else b""
    reply = await transport.request(f"$JS.API.{verb}", asked, reads=reads)
    answer: dict[str, Any] = msgspec.json.decode(reply.data)
    if "error" in answer:
        error = answer["error"]
        hint = NOT_READY_HINT if error.get("err_code") in NOT_READY else ""
        failed = ApiError(f"$JS.API.{verb}: {error.get('description')} ({error.get('err_code')}){hint}")
        failed.code, failed.err_code = error.get("code", 0), error.get("err_code", 0)
        raise failed
    return answer


async def stored_message(transport: Transport, stream: str, **which: Any) -> dict[str, Any] | None:
    """One message of a stream, as its leader has it; None where there is none.

    Raises StreamMissing where there is no such stream, which says nothing of what it held, and PlatformError.

    Unlike a direct get, which any replica answers, it is not behind what was acknowledged before.
    ``which`` is ``seq=``, alone or as the least with ``next_by_subj=``, or ``last_by_subj=``.
    """
    try:
        found = await api(transport, f"STREAM.MSG.GET.{stream}", which, reads=True)
    except ApiError as error:
        if error.err_code == STREAM_MISSING:
            raise StreamMissing(
                f"stream {stream} is missing; restore a backup, or start a worker, which makes it, empty"
            ) from None
        if error.code == NO_SUCH:
            return None
        raise
    message: dict[str, Any] = found["message"]
    return message


def stored_headers(message: dict[str, Any]) -> dict[str, str]:
    """The headers of a :func:`stored_message`, those of the server among them."""
    return read_head(base64.b64decode(message.get("hdrs", "")))


class ApiError(PlatformError):
    """The server refused a JetStream API request."""

    code: int = 0
    err_code: int = 0


class StreamMissing(Unavailable):
    """There is no such stream: somebody has deleted it, and may restore it."""
