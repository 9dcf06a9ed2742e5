"""Headers on their way out and in."""

from __future__ import annotations

import pytest
from nats.aio.client import Client

from wpa.adapters.nats.headers import header_lines, own_headers, read_headers

RAW = [
    b"",
    b"\r\n",
    b"ce-id: w-1\r\nNats-Sequence: 17\r\n\r\n",
    b"Bare:1\r\nTab:\t2 \r\n  Padded  : 3\r\n",
    b"Url: nats://host:4222\r\nEmpty:\r\n",
    b"no colon\r\nTwo words: 1\r\nTab\tin: 1\r\nKept: 1\r\n",
    b"Twice: 1\r\nTwice: 2\r\n",
    "Caf\u00e9: 1\r\nName: Caf\u00e9\r\n".encode(),
    b"Broken: \xff\xfe\r\nAfter: 1\r\n",
]


@pytest.mark.parametrize("raw", RAW)
def test_headers_are_read_as_nats_py_reads_them(raw: bytes) -> None:
    """Its own function, which the transport replaces, is the oracle; it also has to be there to be replaced."""
    assert read_headers(raw) == Client._parse_header_lines(raw)


def test_a_value_can_not_end_its_line_early() -> None:
    lines = header_lines({"Wpa-Reason": "a\r\nNats-Rollup: all", "Other": "1"})
    assert read_headers(lines) == {"Wpa-Reason": "a Nats-Rollup: all", "Other": "1"}


def test_what_the_server_added_is_not_the_publishers() -> None:
    assert own_headers({"Nats-Sequence": "1", "Mine": "2"}) == {"Mine": "2"}
