"""Nodes of a cluster, on loopback, with nothing in them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from wpa.adapters.nats import streams
from wpa.adapters.nats.api import api
from wpa.adapters.nats.server import find_binary
from wpa.adapters.nats.transport import Transport
from wpa.errors import PlatformError

READY_WITHIN_S = 30.0


class Cluster:
    """Nodes that run; :meth:`of` starts and ends them."""

    def __init__(self, folder: Path, count: int, sync: str) -> None:
        self._folder, self._sync = folder, sync
        free = _free_ports(2 * count)
        self._ports, self._routes = free[:count], free[count:]
        self._nodes: list[subprocess.Popen[bytes]] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, count: int, sync: str) -> AsyncIterator[Cluster]:
        """So many nodes, each syncing its writes as ``sync`` says; they have found each other."""
        with tempfile.TemporaryDirectory(prefix="wpa-bench-") as folder:
            cluster = cls(Path(folder), count, sync)
            try:
                cluster._nodes = [cluster._start(node) for node in range(count)]
                await cluster._ready()
                yield cluster
            finally:
                for process in cluster._nodes:
                    process.kill()
                    await asyncio.to_thread(process.wait)

    @property
    def url(self) -> str:
        """The addresses of all nodes."""
        return ",".join(f"nats://127.0.0.1:{port}" for port in self._ports)

    @property
    def pids(self) -> list[int]:
        """The nodes' process ids."""
        return [node.pid for node in self._nodes]

    async def leader(self) -> int:
        """The node that leads the journals."""
        transport = await Transport.connect(self.url, name="bench")
        try:
            info = await api(transport, f"STREAM.INFO.{streams.EVENTS}")
        finally:
            await transport.close()
        return int(info["cluster"]["leader"].removeprefix("n"))

    async def kill(self, node: int) -> None:
        """Kill a node; it stays away."""
        self._nodes[node].kill()
        await asyncio.to_thread(self._nodes[node].wait)

    def _start(self, node: int) -> subprocess.Popen[bytes]:
        config = self._folder / f"n{node}.json"
        config.write_text(
            json.dumps(
                {
                    "server_name": f"n{node}",
                    "host": "127.0.0.1",
                    "port": self._ports[node],
                    "max_payload": 8 * 1024 * 1024,
                    "log_file": str(self._folder / f"n{node}.log"),
                    "jetstream": {"store_dir": str(self._folder / f"n{node}"), "sync_interval": self._sync},
                    "cluster": {
                        "name": "wpa",
                        "host": "127.0.0.1",
                        "port": self._routes[node],
                        "routes": [f"nats://127.0.0.1:{port}" for port in self._routes],
                    },
                }
            )
        )
        command = [find_binary(), "-c", str(config)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async def _ready(self) -> None:
        """Wait until they have a leader among them."""
        async with asyncio.timeout(READY_WITHIN_S):
            while True:
                try:
                    transport = await Transport.connect(self.url, name="bench")
                    try:
                        await api(transport, "INFO")
                        return
                    finally:
                        await transport.close()
                except PlatformError:
                    await asyncio.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now, all of them different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
