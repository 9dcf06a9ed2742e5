"""``http.request``: the service invoker.

One attempt is one logical request: redirects are followed here, each hop checked again. Whether it is
tried again is the step's retry policy's business; this says which failures are worth it. A host that
keeps failing is left alone for a while (a circuit breaker for each host, in each worker).
"""

from __future__ import annotations

import json as codec
import os
import time
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal
from urllib.parse import urljoin

import httpx
import msgspec
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState

from wpa.sdk import StepContext, StepFailed, hookimpl, step
from wpa_http.guard import check, shown

__all__ = ["Response", "request", "wpa_steps"]

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

RETRY_STATUSES = (408, 425, 429, 500, 502, 503, 504)
REDIRECTS_MAX = 5
FAILURES_TO_OPEN = 5
OPEN_FOR_S = 15.0
SENSITIVE = frozenset({"authorization", "cookie", "proxy-authorization"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Response(msgspec.Struct, kw_only=True):
    """What came back. ``json`` where the answer is JSON, ``text`` otherwise."""

    status: int
    url: str
    headers: dict[str, str]
    elapsed_ms: int
    json: Any = None
    text: str | None = None


class _HostFailed(Exception):
    """Counts against the host's circuit breaker; carries what the step reports."""

    def __init__(self, failure: StepFailed) -> None:
        self.failure = failure


# The breakers are the one thing that outlives a step: what a worker knows of its hosts.
_BREAKERS = AsyncCircuitBreakerFactory(
    default_threshold=FAILURES_TO_OPEN, default_ttl=OPEN_FOR_S, exclude=[StepFailed]
)


@step("http.request")
async def request(
    ctx: StepContext,
    url: str,
    method: Method = "GET",
    headers: dict[str, str] = {},  # noqa: B006  read only
    query: dict[str, str | int | float | bool] = {},  # noqa: B006
    json: Any = None,
    body: str | None = None,
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0,
    retry_statuses: list[int] = list(RETRY_STATUSES),  # noqa: B006
    accept_statuses: list[int] = [],  # noqa: B006
    max_bytes: Annotated[int, msgspec.Meta(ge=0, le=268_435_456)] = 10_485_760,
) -> Response:
    """Make an HTTP request; statuses of 400 and more fail, some of them worth a retry."""
    content, sent = _content(ctx, method, headers, json, body)
    target = str(httpx.URL(url).copy_merge_params(query)) if query else url
    started = time.monotonic()
    limits = _Limits(timeout_s, max_bytes, frozenset(retry_statuses), frozenset(accept_statuses))
    for _ in range(REDIRECTS_MAX + 1):
        answer, location = await _hop(target, method, sent, content, limits)
        if location is None:
            answer.elapsed_ms = round((time.monotonic() - started) * 1000)
            return answer
        following = urljoin(target, location)
        if httpx.URL(following).host != httpx.URL(target).host:
            sent = {name: value for name, value in sent.items() if name.lower() not in SENSITIVE}
        if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
            method, content = "GET", None
        target = following
    raise StepFailed(f"more than {REDIRECTS_MAX} redirects", type="TooManyRedirects", retryable=False)


class _Limits(msgspec.Struct, frozen=True):
    timeout_s: float
    max_bytes: int
    retry_statuses: frozenset[int]
    accept_statuses: frozenset[int]


def _content(
    ctx: StepContext, method: str, headers: dict[str, str], json: Any, body: str | None
) -> tuple[bytes | None, dict[str, str]]:
    if json is not None and body is not None:
        raise StepFailed("give json or body, not both", type="InvalidInput", retryable=False)
    names = {name.lower() for name in headers}
    if "host" in names:
        raise StepFailed("the Host header is the URL's", type="InvalidInput", retryable=False)
    sent = dict(headers)
    content = None if body is None else body.encode()
    if json is not None:
        content = msgspec.json.encode(json)
        if "content-type" not in names:
            sent["Content-Type"] = "application/json"
    if method not in SAFE and "idempotency-key" not in names:
        # Whoever is asked may serve several tenants, whose executions may have one id.
        sent["Idempotency-Key"] = f"{ctx.tenant}:{ctx.idempotency_key}"
    return content, sent


async def _hop(
    url: str, method: str, headers: dict[str, str], content: bytes | None, limits: _Limits
) -> tuple[Response, str | None]:
    """One request to one host, under the host's circuit breaker; the answer, and where it redirects to."""
    allow_private = os.environ.get("WPA_HTTP_ALLOW_PRIVATE", "").lower() in ("1", "true", "yes")
    target = await check(url, allow_private=allow_private)
    breaker = await _BREAKERS.get_breaker(target.name)
    try:
        async with breaker:
            return await _send(target, url, method, headers, content, limits)
    except OpenedState:
        message = f"{target.name} failed {FAILURES_TO_OPEN} times in a row; not asked again for a moment"
        raise StepFailed(message, type="CircuitOpen") from None
    except _HostFailed as failed:
        raise failed.failure from None


async def _send(
    target: Any, url: str, method: str, headers: dict[str, str], content: bytes | None, limits: _Limits
) -> tuple[Response, str | None]:
    where = f"{method} {shown(httpx.URL(url))}"
    try:
        async with (
            httpx.AsyncClient(timeout=limits.timeout_s, follow_redirects=False, trust_env=False) as client,
            client.stream(
                method,
                target.url,
                headers={**headers, "Host": target.host_header},
                content=content,
                extensions={"sni_hostname": target.name},
            ) as answer,
        ):
            data = bytearray()
            async for chunk in answer.aiter_bytes():
                data += chunk
                if len(data) > limits.max_bytes:
                    message = f"{where}: the answer has more than {limits.max_bytes} bytes"
                    raise StepFailed(message, type="TooLarge", retryable=False)
            response = _response(answer, url, bytes(data))
            location = answer.headers.get("location") if answer.is_redirect else None
    except httpx.TimeoutException:
        failure = StepFailed(f"{where}: no answer within {limits.timeout_s:g} s", type="HttpTimeout")
        raise _HostFailed(failure) from None
    except httpx.TransportError as error:
        message = f"{where}: {error or type(error).__name__}"
        raise _HostFailed(StepFailed(message, type="ConnectError")) from None
    _judge(response, where, limits)
    return response, location


def _response(answer: httpx.Response, url: str, data: bytes) -> Response:
    response = Response(
        status=answer.status_code, url=url, headers=dict(answer.headers.items()), elapsed_ms=0
    )
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    if kind == "application/json" or kind.endswith("+json"):
        try:
            response.json = codec.loads(data)
        except (ValueError, RecursionError):
            response.text = data.decode(errors="replace")
    else:
        response.text = data.decode(answer.charset_encoding or "utf-8", errors="replace")
    return response


def _judge(response: Response, where: str, limits: _Limits) -> None:
    """Raise for a status that is a failure; a server's own trouble counts against its host."""
    status = response.status
    if status < 400 or status in limits.accept_statuses:
        return
    retryable = status in limits.retry_statuses
    excerpt = response.text or (codec.dumps(response.json) if response.json is not None else "")
    failure = StepFailed(
        f"{where}: status {status}",
        type="HttpStatus",
        retryable=retryable,
        details={"status": status, "body": excerpt[:500]},
    )
    if status >= 500:
        raise _HostFailed(failure)
    raise failure


@hookimpl
def wpa_steps() -> Iterable[Callable[..., Any]]:
    return [request]
