"""A place where chaos is: one server, any number of workers, and a ledger of what steps did."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import signal
from pathlib import Path
from typing import Self

from tests.chaos import worker
from tests.e2e.processes import Wpa, environment
from tests.servers import NatsServer
from tests.waiting import wait_for

ACK_WAIT_S = 1.0
FLOWS = str(Path(__file__).with_name("flows.py"))


class CrashWorker:
    """``tests.chaos.worker``: dies by itself at point ``at``; -1: never.

    Forked from a server that has imported it, for there are many of them.
    """

    def __init__(self, url: str, log: Path, env: dict[str, str], at: int, points: Path | None = None) -> None:
        self.log = log
        log.touch()
        more = {"WPA_CRASH_AT": str(at), "WPA_CRASH_LOG": str(points or "")}
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload([worker.__name__])
        self.process = forks.Process(target=worker.serve, args=(url, log, environment({**env, **more})))
        self.process.start()

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def wait_ready(self) -> None:
        wait_for(lambda: "ready" in self.log.read_text() or not self.alive, within_s=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(20)


class Site:
    """Ends all that it started. Its methods block: call them in threads.

    Args:
        folder: for data, logs and the ledger.
        cluster: the URLs of servers that somebody else looks after; empty: one server of its own.
        store: where that one keeps what it stores; by default in ``folder``.
    """

    def __init__(self, folder: Path, cluster: str = "", store: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.server = NatsServer(folder / "nats")
        if store is not None:
            self.server.jetstream = {"store_dir": str(store)}
        self._cluster = cluster
        self.ledger = folder / "ledger.jsonl"
        self.env = {
            "WPA_E2E_LEDGER": str(self.ledger),
            "WPA_ACK_WAIT_S": str(ACK_WAIT_S),
            "WPA_GRACE_S": "1",
            "WPA_FLOWS": FLOWS,
        }
        if cluster:
            self.env["WPA_REPLICAS"] = "3"
        self.workers: list[Wpa] = []
        self._crashing: list[CrashWorker] = []
        self._numbers = itertools.count()

    @property
    def url(self) -> str:
        return self._cluster or self.server.url

    @property
    def replicated(self) -> bool:
        """Whether it is on a cluster."""
        return bool(self._cluster)

    async def __aenter__(self) -> Self:
        if not self._cluster:
            self.server.start()  # not in a thread: whoever is cancelled meanwhile would leave it running
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        for crashing in self._crashing:
            crashing.kill()
        for process in [started.process for started in self.workers]:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait(20)
        self.server.kill()

    def start_worker(
        self,
        url: str = "",
        place: int | None = None,
        arguments: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ) -> Wpa:
        """A worker as users start it, ready; in the place of another, if one is named."""
        log = self.folder / f"worker-{next(self._numbers)}.log"
        started = Wpa(
            "worker", "--nats", url or self.url, *arguments, log=log, env={**self.env, **(env or {})}
        )
        if place is None:
            self.workers.append(started)
        else:
            self.workers[place] = started
        return started.wait_ready()

    def start_crashing(
        self, at: int = -1, points: Path | None = None, env: dict[str, str] | None = None
    ) -> CrashWorker:
        """A worker that dies at a point; -1: at none."""
        log = self.folder / f"crash-{next(self._numbers)}.log"
        crashing = CrashWorker(self.url, log, {**self.env, **(env or {})}, at, points)
        self._crashing.append(crashing)
        crashing.wait_ready()
        return crashing
