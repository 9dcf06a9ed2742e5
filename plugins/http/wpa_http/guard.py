"""Where a request may go: public addresses only, unless allowed, and never another than was checked.

A name is resolved here, every address it has is checked, and the request is sent to a checked address, with
the name in the Host header and in TLS. So a name that resolves differently the second time (DNS rebinding)
gains nothing. Redirects come through here again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import NamedTuple

import httpx

from wpa.sdk import StepFailed

__all__ = ["Target", "check"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Target(NamedTuple):
    """A checked destination: the URL with an address for its host, and the name it stands for."""

    url: httpx.URL
    host_header: str
    name: str


async def check(url: str, *, allow_private: bool) -> Target:
    """The destination of ``url``. Raises StepFailed, not retryable where it may never be reached."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise StepFailed(f"not a URL: {error}", type="BadUrl", retryable=False) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise StepFailed(f"only http and https URLs: {shown(parsed)}", type="BadUrl", retryable=False)
    if parsed.userinfo:
        message = f"no user names or passwords in URLs ({shown(parsed)}); use a header"
        raise StepFailed(message, type="BadUrl", retryable=False)
    addresses = await _resolve(parsed.host, parsed.port or (443 if parsed.scheme == "https" else 80))
    if not allow_private:
        for address in addresses:
            if not _is_public(address):
                raise StepFailed(
                    f"{parsed.host} is {address}, a private address; WPA_HTTP_ALLOW_PRIVATE=1 allows it",
                    type="PrivateAddress",
                    retryable=False,
                )
    chosen = addresses[0]
    pinned = parsed.copy_with(host=str(chosen))
    return Target(pinned, parsed.netloc.decode("ascii"), parsed.host)


def shown(url: httpx.URL) -> str:
    """A URL for messages: without credentials and query, which may be secret."""
    return str(url.copy_with(username=None, password=None, query=None, fragment=None))[:300]


async def _resolve(host: str, port: int) -> list[Address]:
    try:
        return [ipaddress.ip_address(host.strip("[]"))]
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise StepFailed(f"{host} can't be resolved: {error}", type="ConnectError") from None
    addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found]
    if not addresses:
        raise StepFailed(f"{host} has no address", type="ConnectError")
    return list(dict.fromkeys(addresses))


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        # An IPv4 address in IPv6 clothes is judged as what it is.
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
    return address.is_global and not address.is_multicast
