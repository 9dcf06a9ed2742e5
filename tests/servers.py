"""A real nats-server for tests: loopback, any free port, its own data directory, ended by its pid."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from wpa.adapters.nats.server import find_binary

__all__ = ["NatsServer"]

READY_WITHIN_S = 20.0


class NatsServer:
    """Synchronous on purpose: it outlives the event loops of the tests that use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = -1
        self.jetstream: dict[str, Any] = {"store_dir": str(folder / "data")}
        """Its configuration, as of the next start."""

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the port it had before if it had one, and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        ports = self._folder / "ports"
        ports.mkdir(exist_ok=True)
        config = self._folder / "server.conf"
        # A configuration in JSON is one that nats-server reads.
        config.write_text(
            json.dumps(
                {
                    "server_name": "wpa-test",
                    "host": "127.0.0.1",
                    "port": self.port,
                    "ports_file_dir": str(ports),
                    "log_file": str(self._folder / "server.log"),
                    "max_payload": 8 * 1024 * 1024,
                    "jetstream": self.jetstream,
                }
            )
        )
        self._process = subprocess.Popen(
            [find_binary(), "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._answers(ports):
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self._folder / "server.log"
                raise RuntimeError(
                    f"nats-server is not ready: {log.read_text() if log.exists() else 'no log'}"
                )
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

    def _end(self, how: str) -> None:
        process, self._process = self._process, None
        if process is not None:
            getattr(process, how)()
            process.wait(timeout=20)

    def _answers(self, ports: Path) -> bool:
        assert self._process is not None
        for path in ports.glob(f"*_{self._process.pid}.ports"):
            try:
                found: dict[str, Any] = json.loads(path.read_text())
                port = int(found["nats"][0].rpartition(":")[2])
                with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                    if connection.recv(4) != b"INFO":
                        return False
            except (OSError, ValueError, KeyError):
                return False  # being written, or not listening yet
            self.port = port
            return True
        return False
