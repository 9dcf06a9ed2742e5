"""The parser of our own against nats-py's: the same messages out, however the bytes are cut."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import ProtocolError

from wpa.adapters.nats.headers import read_head
from wpa.adapters.nats.wire_parser import Direct, Message, WireParser

INBOX = "_INBOX.me"
REPLIES, OURS, THEIRS, GONE = 1, 2, 3, 9
"""Subscriptions: our replies, a handler of ours, one of nats-py's own, and one that has ended."""

Seen = tuple[Any, ...]


class Connection(Client):
    """A client without a server, which writes down what its parser tells it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Seen] = []
        self._pending_data_size = 0

    async def _process_ping(self) -> None:
        self.seen.append(("ping",))

    async def _process_pong(self) -> None:
        self.seen.append(("pong",))

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        self.seen.append(("info", info))

    async def _process_err(self, err_msg: str) -> None:
        self.seen.append(("err", err_msg))
        if "stale" in err_msg:
            self._ps.reset()

    def subscribe_as(self, sid: int) -> asyncio.Queue[Any]:
        self._subs[sid] = Subscription(self, sid, f"subject.{sid}")
        return self._subs[sid]._pending_queue


class Queue(asyncio.Queue[Any]):
    """Writes down what nats-py puts into a subscription's queue."""

    def __init__(self, seen: list[Seen], sid: int) -> None:
        super().__init__()
        self._seen, self._sid = seen, sid

    def put_nowait(self, item: Any) -> None:
        self._seen.append(told(self._sid, item))


def told(sid: int, message: Any) -> Seen:
    if sid == REPLIES and not message.headers:
        with contextlib.suppress(ValueError):
            answer = json.loads(message.data)
            if isinstance(answer, dict) and answer.keys() == {"stream", "seq"}:
                return ("stored", message.subject, answer["seq"])
    return ("message", sid, message.subject, message.reply, message.data, message.headers or {})


async def theirs(chunks: list[bytes]) -> tuple[list[Seen], str]:
    """What nats-py makes of the bytes, and how it ended."""
    nc = Connection()
    for sid in (REPLIES, OURS, THEIRS):
        nc.subscribe_as(sid)
        nc._subs[sid]._pending_queue = Queue(nc.seen, sid)
    return nc.seen, await fed(nc, chunks)


async def ours(chunks: list[bytes]) -> tuple[list[Seen], str]:
    """The same for our own parser."""
    nc = Connection()
    parser = WireParser(nc)
    nc._ps = parser  # type: ignore[assignment]
    nc.subscribe_as(THEIRS)
    nc._subs[THEIRS]._pending_queue = Queue(nc.seen, THEIRS)
    nc.subscribe_as(OURS)
    nc._subs[OURS]._pending_queue = Direct(lambda message: nc.seen.append(told(OURS, message)))

    def on_reply(subject: bytes, data: bytes, head: bytes) -> None:
        nc.seen.append(told(REPLIES, Message(subject.decode(), "", data, head)))

    def on_stored(subject: bytes, sequence: bytes) -> None:
        nc.seen.append(("stored", subject.decode(), int(sequence)))

    parser.expect_replies(INBOX, REPLIES, on_reply, on_stored)
    return nc.seen, await fed(nc, chunks)


async def fed(nc: Client, chunks: list[bytes]) -> str:
    try:
        for chunk in chunks:
            await nc._ps.parse(chunk)
    except ProtocolError:
        return "protocol error"
    return ""


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def message(subject: str, sid: int, reply: str, data: bytes) -> bytes:
    return f"MSG {subject} {sid} {f'{reply} ' if reply else ''}{len(data)}\r\n".encode() + data + b"\r\n"


def message_with(subject: str, sid: int, reply: str, head: bytes, data: bytes) -> bytes:
    sizes = f"{len(head)} {len(head) + len(data)}"
    line = f"HMSG {subject} {sid} {f'{reply} ' if reply else ''}{sizes}\r\n"
    return line.encode() + head + data + b"\r\n"


SUBJECTS = st.sampled_from(["a", "workflow.events.t.e", f"{INBOX}.1f", "$KV.b.k"])
SIDS = st.sampled_from([OURS, THEIRS, GONE])
ANSWERS = st.sampled_from(["", "$JS.ACK.S.c.1.2.3.4.5", "r"])
DATA = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"", b"\r\n", b"MSG a 2 3\r\nabc\r\n", b"PING\r\n", b"x" * 5000, b"+OK\r\n-ERR 'x'\r\n"]
    ),
)
HEADS = st.sampled_from(
    [
        b"NATS/1.0\r\nName: value\r\n\r\n",
        b"NATS/1.0\r\nNats-Sequence: 7\r\nce-id: w-1\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0 404 No Messages\r\n\r\n",
        b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\nNats-Pending-Bytes: 0\r\n\r\n",
    ]
)
ACKS = st.integers(0, 2**63).map(lambda seq: b'{"stream":"WPA_EVENTS","seq":%d}' % seq)
REFUSALS = st.sampled_from(
    [
        b'{"error":{"code":400,"err_code":10071}}',
        b'{"stream":"S","seq":3,"duplicate":true}',
        b'{"seq":1}',
        b"{}",
    ]
)
TOKENS = st.integers(0, 4096).map(lambda number: f"{INBOX}.{number:x}")
LINES = st.sampled_from(
    [
        b"PING\r\n",
        b"PONG\r\n",
        b"+OK\r\n",
        b"-ERR 'Permissions Violation'\r\n",
        b'INFO {"version":"2.15.1","connect_urls":["a:1"]}\r\n',
        b"MSG  a   2\t3\r\nabc\r\n",  # as no server writes it, and nats-py reads it all the same
        b"HMSG a 3 12 12\r\nNATS/1.0\r\n\r\n\r\n",
    ]
)
WITHOUT_HEADERS = st.one_of(
    st.builds(message, SUBJECTS, SIDS, ANSWERS, DATA),
    st.builds(message, TOKENS, st.just(REPLIES), st.just(""), st.one_of(ACKS, REFUSALS, DATA)),
    LINES,
)
PARTS = st.one_of(
    WITHOUT_HEADERS,
    st.builds(message_with, SUBJECTS, SIDS, ANSWERS, HEADS, DATA),
    st.builds(message_with, TOKENS, st.just(REPLIES), st.just(""), HEADS, DATA),
)
# No white space: nats-py takes any for the one space that the server writes, ours leaves such lines to it.
WRONG = st.integers(0, 255).filter(lambda byte: not bytes([byte]).isspace())
GARBLED_AT = st.tuples(st.integers(0, 10_000), WRONG)
PLACES = st.lists(st.integers(0, 20_000), max_size=12)


@given(st.lists(PARTS, max_size=12), PLACES)
def test_the_same_messages_come_out_however_the_bytes_are_cut(parts: list[bytes], places: list[int]) -> None:
    data = b"".join(parts)
    wanted = asyncio.run(theirs([data]))
    assert asyncio.run(ours([data])) == wanted
    assert asyncio.run(ours(cut(data, places))) == wanted


@given(st.lists(PARTS, min_size=1, max_size=4))
def test_the_same_messages_come_out_byte_by_byte(parts: list[bytes]) -> None:
    data = b"".join(part for part in parts if len(part) < 500)
    wanted = asyncio.run(theirs([data]))
    assert asyncio.run(ours([data[at : at + 1] for at in range(len(data))])) == wanted


GARBLED = [
    b"MSG\r\n",
    b"MSG a\r\n",
    b"MSG a 2\r\n",
    b"MSG a 2 x\r\n",
    b"MSG a 2 -3\r\n",
    b"MSG a two 3\r\nabc\r\n",
    b"MSG a 2 r r 3\r\nabc\r\n",
    b"HMSG a 2 3\r\nabc\r\n",
    b"HMSG a 2 x 3\r\nabc\r\n",
    b"msg a 2 3\r\nabc\r\n",
    b"NONSENSE\r\n",
    b"\r\n",
]


@pytest.mark.parametrize("line", GARBLED)
def test_what_no_server_sends_is_refused_as_nats_py_refuses_it(line: bytes) -> None:
    before = message("a", OURS, "", b"before")
    found = asyncio.run(ours([before + line + b"PING\r\n"]))
    assert found == asyncio.run(theirs([before + line + b"PING\r\n"]))
    assert found[0][0] == ("message", OURS, "a", "", b"before", {})


# With more than 4096 bytes in its buffer, nats-py waits for the rest of what no rest can mend.
@given(
    st.lists(WITHOUT_HEADERS, min_size=1, max_size=1).map(b"".join).filter(lambda data: len(data) < 4096),
    GARBLED_AT,
)
@example(b"MSG _INBOX.me.0 1 1\r\n0\r\n", (19, 0))
@example(b"MSG _INBOX.me.0 1 1\r\n0\r\n", (15, 0))
def test_a_wrong_byte_is_refused_or_means_what_it_means_to_nats_py(
    data: bytes, garbled_at: tuple[int, int]
) -> None:
    garbled = bytearray(data)
    garbled[garbled_at[0] % len(data)] = garbled_at[1]
    try:
        wanted = asyncio.run(theirs([bytes(garbled)]))
    except Exception:  # nats-py does not survive, say, a subject that is no UTF-8
        return
    found = asyncio.run(ours([bytes(garbled)]))
    # nats-py reads a message's line across line ends where that makes sense of it; ours does not.
    assert found == wanted or found[1] == "protocol error"


def test_a_reset_forgets_what_came_over_the_connection_that_is_gone() -> None:
    async def play() -> list[Seen]:
        nc = Connection()
        parser = WireParser(nc)
        nc._ps = parser  # type: ignore[assignment]
        nc.subscribe_as(OURS)
        nc._subs[OURS]._pending_queue = Direct(lambda message: nc.seen.append(told(OURS, message)))
        await parser.parse(message("a", OURS, "", b"half of it")[:-6])
        parser.reset()
        await parser.parse(message("a", OURS, "", b"anew"))
        await parser.parse(b"-ERR 'stale connection'\r\n" + message("a", OURS, "", b"too late"))
        await parser.parse(message("a", OURS, "", b"and on"))
        return nc.seen

    data = [seen[4] if seen[0] == "message" else seen[1] for seen in asyncio.run(play())]
    assert data == [b"anew", "'stale connection'", b"and on"]


def test_a_handler_that_fails_harms_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> list[bytes]:
        nc = Connection()
        parser = WireParser(nc)
        heard: list[bytes] = []

        def handle(message: Message) -> None:
            heard.append(message.data)
            if message.data == b"1":
                raise RuntimeError("no")

        nc.subscribe_as(OURS)
        nc._subs[OURS]._pending_queue = Direct(handle)
        await parser.parse(
            message("a", OURS, "", b"1") + b"MSG \xff 2 1\r\n2\r\n" + message("a", OURS, "", b"3")
        )
        return heard

    assert asyncio.run(play()) == [b"1", b"2", b"3"]
    assert caplog.text.count("a message handler failed") == 1


@given(st.one_of(HEADS, st.lists(st.sampled_from([b"A: 1", b"B:2", b"C"]), max_size=3).map(
    lambda lines: b"NATS/1.0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
)))  # fmt: skip
def test_a_header_block_is_read_as_nats_py_reads_it(head: bytes) -> None:
    assert read_head(head) == (asyncio.run(Client()._process_headers(head)) or {})
