from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Wpa
from tests.servers import NatsServer
from wpa.client import Client

ACK_WAIT_S = 2.0


@pytest.fixture
def ledger_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the e2e steps leave a line for each run."""
    path = tmp_path / "ledger.jsonl"
    monkeypatch.setenv("WPA_E2E_LEDGER", str(path))
    return path


@pytest.fixture
def start_worker(server: NatsServer, tmp_path: Path, ledger_file: Path) -> Iterator[Callable[..., Wpa]]:
    """Start real worker processes on the test's own server."""
    started: list[Wpa] = []

    def start(*arguments: str, ack_wait: float = ACK_WAIT_S) -> Wpa:
        log = tmp_path / f"worker-{len(started)}.log"
        worker = Wpa("worker", "--nats", server.url, "--ack-wait", str(ack_wait), *arguments, log=log)
        started.append(worker)
        return worker.wait_ready()

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.kill()


@pytest.fixture
async def client(server: NatsServer) -> AsyncIterator[Client]:
    async with await Client.connect(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def worker(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wpa]:
    """A worker on the shared server; it must still be well when the module's tests are done."""
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    worker = Wpa("worker", "--nats", nats_server.url, "--grace", "1", log=log).wait_ready()
    yield worker
    assert worker.stop() == 0
