"""A place where chaos is: one server, any number of workers, and a ledger of what steps did."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.e2e.processes import Wpa, environment, wait_for
from tests.servers import NatsServer

ROOT = Path(__file__).parents[2]
ACK_WAIT_S = 1.0


class CrashWorker:
    """``tests.chaos.worker``: dies by itself at point ``at``; -1: never."""

    def __init__(self, url: str, log: Path, env: dict[str, str], at: int, points: Path | None = None) -> None:
        self.log = log
        more = {"WPA_CRASH_AT": str(at), "WPA_CRASH_LOG": str(points or "")}
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.worker", url],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**environment(), **env, **more},
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait_ready(self) -> None:
        wait_for(lambda: "ready" in self.log.read_text() or not self.alive)


class Site:
    """Ends all that it started. Its methods block: call them in threads.

    Args:
        folder: for data, logs and the ledger.
        cluster: the URLs of servers that somebody else looks after; empty: one server of its own.
    """

    def __init__(self, folder: Path, cluster: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.server = NatsServer(folder / "nats")
        self._cluster = cluster
        self.ledger = folder / "ledger.jsonl"
        self.env = {"WPA_E2E_LEDGER": str(self.ledger), "WPA_ACK_WAIT_S": str(ACK_WAIT_S), "WPA_GRACE_S": "1"}
        if cluster:
            self.env["WPA_REPLICAS"] = "3"
        self.workers: list[Wpa] = []
        self._crashing: list[CrashWorker] = []

    @property
    def url(self) -> str:
        return self._cluster or self.server.url

    async def __aenter__(self) -> Self:
        if not self._cluster:
            await asyncio.to_thread(self.server.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        for process in [worker.process for worker in (*self.workers, *self._crashing)]:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait(20)
        self.server.kill()

    def start_worker(self, url: str = "", place: int | None = None, arguments: tuple[str, ...] = ()) -> Wpa:
        """A worker as users start it, ready; in the place of another, if one is named."""
        log = self.folder / f"worker-{len(list(self.folder.glob('worker-*')))}.log"
        worker = Wpa("worker", "--nats", url or self.url, *arguments, log=log, env=self.env)
        if place is None:
            self.workers.append(worker)
        else:
            self.workers[place] = worker
        return worker.wait_ready(within_s=60)

    def start_crashing(self, at: int, points: Path | None = None) -> CrashWorker:
        """A worker that dies at a point."""
        log = self.folder / f"crash-{len(self._crashing)}.log"
        worker = CrashWorker(self.url, log, self.env, at, points)
        self._crashing.append(worker)
        worker.wait_ready()
        return worker
