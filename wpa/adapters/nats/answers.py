"""What a server answers: to a publish, that it is stored, or why not; to a request, a status at times."""

from __future__ import annotations

from typing import Final

import msgspec

from wpa.adapters.nats.wire_parser import Message
from wpa.errors import Conflict, Unavailable

__all__ = ["NoAnswer", "Refused", "sequence_of", "status_of"]

WRONG_LAST_SEQUENCE: Final = 10071
WRITE_IN_FLIGHT: Final = 10164
STORE_IS_FULL: Final = {10023, 10047}
WHEN_FULL: Final = (
    "the server's store is full, by its max_file_store, or without one by three quarters of what was free "
    "when it was started; make room there, then restart it"
)


class Refused(Unavailable):
    """The server answered that it did not store a message, and why.

    It is Unavailable, too: most reasons (a full disk, no quorum) pass.
    """

    def __init__(self, message: str, err_code: int) -> None:
        self.err_code = err_code
        super().__init__(f"{message} ({err_code})")


class NoAnswer(Unavailable):
    """Nobody has answered in time, over a connection that is up: the outcome is unknown."""


class _ApiError(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _PubAck(msgspec.Struct):
    seq: int = 0
    error: _ApiError | None = None


_PUB_ACK = msgspec.json.Decoder(_PubAck)


def sequence_of(subject: str, data: bytes, head: bytes) -> int | None:
    """The sequence that an answer to a publish gives; None where the write is to be tried again.

    Raises Conflict, Refused, or Unavailable where no stream has answered.
    """
    try:
        ack = _PUB_ACK.decode(data)
    except msgspec.DecodeError:
        status = status_of(Message(subject, "", data, head))
        raise Unavailable(f"no stream took the message on {subject}: {status}") from None
    error = ack.error
    if error is None:
        return ack.seq
    if error.err_code == WRONG_LAST_SEQUENCE:
        raise Conflict(f"{subject}: {error.description}")
    if error.err_code != WRITE_IN_FLIGHT:
        hint = f"; {WHEN_FULL}" if error.err_code in STORE_IS_FULL else ""
        raise Refused(f"{subject}: {error.description}{hint}", error.err_code)
    return None


def status_of(message: Message) -> str:
    """The status that the server gave a message; "" for everybody else's."""
    return message.headers.get("Status", "")
