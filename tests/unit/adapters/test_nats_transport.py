"""What is sent, in which order, and what is not sent any more."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from wpa.adapters.nats import transport as module
from wpa.adapters.nats.transport import Transport
from wpa.errors import TooLarge, Unavailable


class Socket(TcpTransport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.written: list[bytes] = []

    def write(self, payload: bytes) -> None:
        self.written.append(payload)


def connected() -> tuple[Transport, Socket]:
    transport, socket = Transport(), Socket()
    transport.nc._transport = socket
    transport.nc._status = Client.CONNECTED
    return transport, socket


async def turn() -> None:
    """Let the loop come round."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_what_is_sent_in_a_turn_is_written_at_once_behind_nats_pys_own_commands() -> None:
    transport, socket = connected()
    transport.send("a", b"1", reply="r")
    transport.nc._pending.append(b"SUB r 1\r\n")
    transport.send("b", b"2", headers=b"N: v\r\n")
    assert socket.written == []
    await turn()
    assert socket.written == [b"SUB r 1\r\nPUB a r 1\r\n1\r\nHPUB b 18 19\r\nNATS/1.0\r\nN: v\r\n\r\n2\r\n"]
    assert transport.nc._pending == []
    transport.send("c", b"")
    await turn()
    assert socket.written[1:] == [b"PUB c 0\r\n\r\n"]


async def test_what_could_not_be_sent_does_not_come_back_to_life() -> None:
    transport, socket = connected()
    publishing = asyncio.create_task(transport.publish_acked("a", b"1"))
    await asyncio.sleep(0)  # sent, and not written yet
    transport.nc._status = Client.RECONNECTING
    await turn()
    await transport._on_disconnected()
    with pytest.raises(Unavailable):
        await publishing
    with pytest.raises(Unavailable):
        transport.send("a", b"2")
    transport.nc._status = Client.CONNECTED
    transport.send("a", b"3")
    await turn()
    assert socket.written == [b"PUB a 1\r\n3\r\n"]
    assert transport.nc._pending == []


async def test_what_is_sent_in_a_turn_in_which_the_connection_is_lost_fails() -> None:
    transport, socket = connected()
    first = asyncio.create_task(transport.publish_acked("a", b"1"))
    await asyncio.sleep(0)
    transport.nc._status = Client.RECONNECTING
    second = transport._ask("b", b"2")  # in the same turn
    await transport._on_disconnected()
    with pytest.raises(Unavailable):
        transport.send("c", b"3")
    for asked in (first, second):
        with pytest.raises(Unavailable):
            await asked
    assert socket.written == []


async def test_what_is_too_large_keeps_nothing_else_from_being_sent() -> None:
    transport, socket = connected()
    transport.send("a", b"1")
    with pytest.raises(TooLarge):
        transport.send("b", b"x" * transport.nc.max_payload, headers=b"N: v\r\n")
    transport.send("c", b"x")
    await turn()
    assert socket.written == [b"PUB a 1\r\n1\r\nPUB c 1\r\nx\r\n"]


async def test_an_answer_that_does_not_come_is_waited_for_only_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ACK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(module, "SWEEP_EVERY_S", 0.01)
    transport, _ = connected()
    loop = asyncio.get_running_loop()
    sweeping = loop.create_task(transport._sweep())
    try:
        for _ in range(2):
            began = loop.time()
            with pytest.raises(Unavailable, match="no answer within"):
                await transport.publish_acked("a", b"1")
            assert loop.time() - began >= 0.2
        assert not transport._pending
    finally:
        sweeping.cancel()


async def test_what_only_reads_is_asked_again_until_somebody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0.05)
    transport, socket = connected()
    asking = asyncio.create_task(transport.request("a", b"1", reads=True))
    while len(socket.written) < 3:
        await asyncio.sleep(0.01)
    assert len(set(socket.written)) == 1  # under one reply subject: the first answer counts
    token = socket.written[0].split()[2]
    transport._on_reply(token, b"2", b"")
    assert (await asking).data == b"2"
    transport._on_reply(token, b"3", b"")
    count = len(socket.written)
    await asyncio.sleep(0.2)
    assert len(socket.written) == count


async def test_what_may_change_something_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0.01)
    transport, socket = connected()
    asking = asyncio.create_task(transport.request("a", b"1"))
    await asyncio.sleep(0.1)
    assert len(socket.written) == 1
    asking.cancel()
