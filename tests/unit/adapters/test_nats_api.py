"""What is said where the server refuses a request of JetStream's API."""

from __future__ import annotations

from typing import Any

import pytest

from wpa.adapters.nats.api import ApiError, api
from wpa.adapters.nats.wire_parser import Message


class Refusing:
    """Answers each request with an error."""

    def __init__(self, code: int, words: str) -> None:
        self._answer = b'{"error": {"code": 503, "err_code": %d, "description": "%s"}}' % (
            code,
            words.encode(),
        )

    async def request(self, subject: str, data: bytes, *, reads: bool) -> Message:
        return Message(subject, "", self._answer, b"")


async def refused(code: int, words: str) -> str:
    transport: Any = Refusing(code, words)
    with pytest.raises(ApiError) as raised:
        await api(transport, "INFO")
    return str(raised.value)


async def test_a_cluster_without_a_leader_is_called_one() -> None:
    told = await refused(10008, "JetStream system temporarily unavailable")
    assert told.startswith("$JS.API.INFO: JetStream system temporarily unavailable (10008)")
    assert told.endswith("too few of the cluster's nodes are up, or they are about to elect a leader")


async def test_anything_else_is_told_in_the_servers_words() -> None:
    assert await refused(10023, "insufficient resources") == "$JS.API.INFO: insufficient resources (10023)"
