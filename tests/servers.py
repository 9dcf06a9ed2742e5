"""A real nats-server for tests: loopback, any free port, its own data directory, ended by its pid."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import nats
import nats.errors
import nats.js.errors

from tests.waiting import until
from wpa.adapters.nats.server import find_binary

__all__ = ["NatsServer", "free_ports", "ready_for_replicas"]

READY_WITHIN_S = 60.0
PORTS = range(10_000, 32_000)
"""Below those that a system gives to whoever asks for any, or connects: nobody takes them while a server is
away for a moment."""


def free_ports(count: int) -> list[int]:
    """So many ports of the loopback that nobody listens on just now."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if len(found) == count:
            break
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found


async def ready_for_replicas(urls: list[str]) -> None:
    """Wait until three nodes have found each other and elected a leader: until a stream of three is made."""
    async with contextlib.AsyncExitStack() as stack:
        connection = await until(lambda: _connected(urls))
        stack.push_async_callback(connection.close)
        js = connection.jetstream(timeout=10)

        async def made() -> bool:
            with contextlib.suppress(nats.errors.Error, nats.js.errors.Error):
                info = await js.add_stream(name="READY", subjects=["ready"], num_replicas=3)
                return info.cluster is not None and len(info.cluster.replicas or ()) == 2
            return False

        await until(made, within_s=2 * READY_WITHIN_S)
        await js.delete_stream("READY")


async def _connected(urls: list[str]) -> nats.NATS | None:
    try:
        return await nats.connect(urls, connect_timeout=5, max_reconnect_attempts=1)
    except (nats.errors.Error, OSError):
        return None


class NatsServer:
    """Synchronous on purpose: it outlives the event loops of the tests that use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        (self.port,) = free_ports(1)
        self.jetstream: dict[str, Any] = {"store_dir": str(folder / "data")}
        """Its configuration, as of the next start."""
        self.max_payload = 8 * 1024 * 1024
        """Bytes of a message that it takes, as of its next start."""
        self.authorization: dict[str, Any] | None = None
        """Whom it lets in; None for everybody."""

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the same port each time, and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [find_binary(), "-c", str(self._configure())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self._folder / "server.log"
                raise RuntimeError(
                    f"nats-server is not ready: {log.read_text() if log.exists() else 'no log'}"
                )
            time.sleep(0.01)

    def reload(self, authorization: dict[str, Any] | None) -> None:
        """Have it let in others from now on, while it runs: whom it would not let in any more is thrown out."""
        assert self._process is not None
        self.authorization = authorization
        self._configure()
        reloads = self._reloads()
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + READY_WITHIN_S
        while self._reloads() == reloads:
            assert time.monotonic() < deadline, "nats-server has not read its configuration again"
            time.sleep(0.01)

    def kill(self) -> None:
        """What a crash does."""
        self._end("kill")

    def stop(self) -> None:
        self._end("terminate")

    def restart(self) -> None:
        """Crash, and come back on the same port with the same data."""
        self.kill()
        self.start()

    def _configure(self) -> Path:
        config = self._folder / "server.conf"
        # A configuration in JSON is one that nats-server reads.
        config.write_text(
            json.dumps(
                {
                    "server_name": "wpa-test",
                    "host": "127.0.0.1",
                    "port": self.port,
                    "log_file": str(self._folder / "server.log"),
                    "max_payload": self.max_payload,
                    "jetstream": self.jetstream,
                    **({"authorization": self.authorization} if self.authorization else {}),
                }
            )
        )
        return config

    def _reloads(self) -> int:
        return (self._folder / "server.log").read_text().count("Reloaded server configuration")

    def _end(self, how: str) -> None:
        process, self._process = self._process, None
        if process is not None:
            getattr(process, how)()
            process.wait(timeout=20)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False  # not listening yet
