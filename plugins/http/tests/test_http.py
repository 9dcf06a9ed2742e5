from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
import wpa_http
from wpa_http import request
from wpa_http.guard import check

from wpa.sdk import StepFailed, fake_context


class Handler(BaseHTTPRequestHandler):
    seen: ClassVar[list[dict[str, Any]]] = []

    def answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length).decode()
        self.seen.append(
            {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}
        )
        path, _, query = self.path.partition("?")
        if path.startswith("/status/"):
            self.reply(int(path.rpartition("/")[2]), b"trouble")
        elif path == "/redirect":
            self.reply(302, b"", location=query)
        elif path == "/loop":
            self.reply(302, b"", location="/loop")
        elif path == "/slow":
            time.sleep(1.0)
            self.reply(200, b"late")
        elif path == "/large":
            self.reply(200, b"x" * 100_000)
        else:
            echo = {"method": self.command, "path": self.path, "body": body}
            self.reply(200, json.dumps(echo).encode(), kind="application/json")

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def reply(self, status: int, body: bytes, *, location: str = "", kind: str = "text/plain") -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("WPA_HTTP_ALLOW_PRIVATE", "1")
    monkeypatch.setattr(
        wpa_http,
        "_BREAKERS",
        wpa_http.AsyncCircuitBreakerFactory(default_threshold=3, default_ttl=0.3, exclude=[StepFailed]),
    )
    Handler.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_get_gives_status_headers_and_json(base: str) -> None:
    got = await request(fake_context(), f"{base}/things", query={"a": 1, "b": "x y"})
    assert got.status == 200
    assert got.json["path"] == "/things?a=1&b=x+y"
    assert got.headers["content-type"] == "application/json"
    assert "Idempotency-Key" not in Handler.seen[0]["headers"]


async def test_a_post_carries_the_idempotency_key_and_the_name_as_host(base: str) -> None:
    ctx = fake_context(tenant="acme", idempotency_key="e1:pay:1")
    await request(ctx, f"{base}/pay", "POST", json={"cents": 5})
    seen = Handler.seen[0]
    assert seen["headers"]["Idempotency-Key"] == "acme:e1:pay:1"
    assert seen["headers"]["Host"] == base.removeprefix("http://")
    assert json.loads(seen["body"]) == {"cents": 5}


async def test_the_callers_own_idempotency_key_wins(base: str) -> None:
    await request(fake_context(), base, "PUT", headers={"idempotency-key": "mine"})
    assert Handler.seen[0]["headers"]["idempotency-key"] == "mine"


@pytest.mark.parametrize(
    ("status", "retryable"), [(404, False), (400, False), (429, True), (503, True), (501, False)]
)
async def test_which_statuses_are_worth_a_retry(base: str, status: int, retryable: bool) -> None:
    with pytest.raises(StepFailed) as caught:
        await request(fake_context(), f"{base}/status/{status}")
    assert (caught.value.type, caught.value.retryable) == ("HttpStatus", retryable)
    assert caught.value.details == {"status": status, "body": "trouble"}


async def test_an_accepted_status_is_an_answer(base: str) -> None:
    assert (await request(fake_context(), f"{base}/status/404", accept_statuses=[404])).status == 404


async def test_a_host_that_keeps_failing_is_left_alone_and_tried_again_later(base: str) -> None:
    for _ in range(3):
        with pytest.raises(StepFailed, match="status 500"):
            await request(fake_context(), f"{base}/status/500")
    asked = len(Handler.seen)
    with pytest.raises(StepFailed) as caught:
        await request(fake_context(), f"{base}/fine")
    assert (caught.value.type, caught.value.retryable) == ("CircuitOpen", True)
    assert len(Handler.seen) == asked
    time.sleep(0.35)
    assert (await request(fake_context(), f"{base}/fine")).status == 200


async def test_a_clients_mistake_does_not_open_the_circuit(base: str) -> None:
    for _ in range(6):
        with pytest.raises(StepFailed, match="status 404"):
            await request(fake_context(), f"{base}/status/404")


async def test_time_outs_large_answers_and_redirect_loops(base: str) -> None:
    for path, options, kind in [
        ("/slow", {"timeout_s": 0.1}, "HttpTimeout"),
        ("/large", {"max_bytes": 1_000}, "TooLarge"),
        ("/loop", {}, "TooManyRedirects"),
    ]:
        with pytest.raises(StepFailed) as caught:
            await request(fake_context(), base + path, **options)
        assert caught.value.type == kind


async def test_redirects_are_followed_and_keep_credentials_to_their_host(base: str) -> None:
    other = base.replace("127.0.0.1", "localhost")
    await request(
        fake_context(), f"{base}/redirect?{other}/there", headers={"Authorization": "secret", "X-A": "1"}
    )
    there = Handler.seen[-1]
    assert there["path"] == "/there"
    assert "Authorization" not in there["headers"]
    assert there["headers"]["X-A"] == "1"


async def test_private_addresses_are_refused_also_behind_a_name(
    base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WPA_HTTP_ALLOW_PRIVATE")
    for url in (base, base.replace("127.0.0.1", "localhost")):
        with pytest.raises(StepFailed) as caught:
            await request(fake_context(), url)
        assert (caught.value.type, caught.value.retryable) == ("PrivateAddress", False)
    assert Handler.seen == []


async def test_a_redirect_to_a_private_address_is_refused(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = wpa_http.check

    async def first_hop_is_allowed(url: str, *, allow_private: bool) -> Any:
        return await real(url, allow_private=url.startswith(base))

    monkeypatch.delenv("WPA_HTTP_ALLOW_PRIVATE")
    monkeypatch.setattr(wpa_http, "check", first_hop_is_allowed)
    with pytest.raises(StepFailed) as caught:
        await request(fake_context(), f"{base}/redirect?http://169.254.169.254/latest/meta-data")
    assert caught.value.type == "PrivateAddress"


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/", "http://192.168.1.1/", "http://172.16.0.1/", "http://169.254.169.254/", "http://0.0.0.0/",
        "http://[::1]/", "http://[::ffff:10.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[fd00::1]/",
        "http://[2002:7f00:1::]/", "http://100.64.0.1/", "http://224.0.0.1/",
    ],
)  # fmt: skip
async def test_every_way_to_write_a_private_address_is_refused(url: str) -> None:
    with pytest.raises(StepFailed) as caught:
        await check(url, allow_private=False)
    assert caught.value.type == "PrivateAddress"


async def test_a_public_address_passes_and_is_pinned() -> None:
    target = await check("https://93.184.216.34:8443/x?y=1", allow_private=False)
    assert str(target.url) == "https://93.184.216.34:8443/x?y=1"


@pytest.mark.parametrize(
    "url", ["ftp://example.org/", "file:///etc/passwd", "http://", "nonsense", "http://u:p@h/"]
)
async def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(StepFailed) as caught:
        await check(url, allow_private=False)
    assert (caught.value.type, caught.value.retryable) == ("BadUrl", False)
    assert "u:p" not in caught.value.message
