"""Message headers: as they are sent, as they come, and without what the server added."""

from __future__ import annotations

__all__ = ["header_lines", "own_headers", "read_head", "read_headers"]


def header_lines(headers: dict[str, str]) -> bytes:
    """Headers as they are sent; anything that could end a line early is taken out of values."""
    return "".join(f"{name}: {' '.join(value.split())}\r\n" for name, value in headers.items()).encode()


def own_headers(headers: dict[str, str]) -> dict[str, str]:
    """The publisher's own: those that begin with ``Nats-`` speak to the server, or are its own."""
    return {name: value for name, value in headers.items() if not name.startswith("Nats-")}


def read_headers(lines: bytes) -> dict[str, str]:
    """Headers as they come, ``Name: value`` lines; of a name that comes twice, the last value.

    What nats-py makes of them, at a third of the price: it looks at each character of each name, and that was
    most of what loading a long journal cost. A line without a name, or with one that can't be a name, is
    skipped; what is no UTF-8 in a value is replaced.
    """
    headers = {}
    for line in lines.decode(errors="replace").split("\r\n"):
        name, colon, value = line.partition(":")
        words = name.split()
        if colon and len(words) == 1 and name.isascii():
            headers[words[0]] = value.strip()
    return headers


def read_head(head: bytes) -> dict[str, str]:
    """A message's header block: its headers, and the server's status as ``Status`` and ``Description``.

    ``NATS/1.0[ <status>[ <description>]]``, then the headers, line by line.
    """
    first, _, lines = head.partition(b"\r\n")
    headers = read_headers(lines)
    status = first[8:].decode(errors="replace").strip()
    if status:
        code, _, description = status.partition(" ")
        if code.isdigit():
            headers["Status"] = code
        if description:
            headers["Description"] = description
    return headers
