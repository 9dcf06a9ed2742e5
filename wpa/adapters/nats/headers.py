"""Message headers: as they are sent, and without what the server added."""

from __future__ import annotations

__all__ = ["header_lines", "own_headers"]


def header_lines(headers: dict[str, str]) -> bytes:
    """Headers as they are sent; anything that could end a line early is taken out of values."""
    return "".join(f"{name}: {' '.join(value.split())}\r\n" for name, value in headers.items()).encode()


def own_headers(headers: dict[str, str]) -> dict[str, str]:
    """The publisher's own: those that begin with ``Nats-`` speak to the server, or are its own."""
    return {name: value for name, value in headers.items() if not name.startswith("Nats-")}
