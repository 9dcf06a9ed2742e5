"""Three nodes on loopback. Their routes go through proxies, so that a node can be cut off from the others."""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any, Self

import nats

from tests.chaos.proxy import Proxy
from tests.servers import free_ports
from wpa.adapters.nats.server import find_binary

NODES = range(3)
BACK_WITHIN_S = 60.0


class Cluster:
    """Starts all nodes; ends them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ports = free_ports(3 * len(NODES))
        self._ports, self._routes, self._monitors = ports[0::3], ports[1::3], ports[2::3]
        self._proxies: dict[tuple[int, int], Proxy] = {}
        """The line from one node to another."""
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return ",".join(f"nats://127.0.0.1:{port}" for port in self._ports)

    async def __aenter__(self) -> Self:
        for here in NODES:
            for there in NODES:
                if here != there:
                    self._proxies[here, there] = await Proxy(self._routes[there]).__aenter__()
        self._processes = [self._start(node) for node in NODES]
        await self._ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            await asyncio.to_thread(process.wait, 20)
        for proxy in self._proxies.values():
            await proxy.__aexit__()

    def _start(self, node: int) -> subprocess.Popen[bytes]:
        lines = [proxy.url for (here, _), proxy in self._proxies.items() if here == node]
        config = self._folder / f"n{node}.json"
        config.write_text(
            json.dumps(
                {
                    "server_name": f"n{node}",
                    "host": "127.0.0.1",
                    "port": self._ports[node],
                    "http": f"127.0.0.1:{self._monitors[node]}",
                    "max_payload": 8 * 1024 * 1024,
                    "log_file": str(self._folder / f"n{node}.log"),
                    "jetstream": {"store_dir": str(self._folder / f"n{node}")},
                    "cluster": {
                        "name": "wpa",
                        "host": "127.0.0.1",
                        "port": self._routes[node],
                        "routes": lines,
                        # Nobody may learn of a way around the proxies.
                        "no_advertise": True,
                        "pool_size": -1,
                        "ping_interval": "1s",
                    },
                }
            )
        )
        return subprocess.Popen(
            [find_binary(), "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    async def _ready(self) -> None:
        """Wait until the nodes have a leader among them."""
        async with asyncio.timeout(30):
            while True:
                try:
                    await self._ask("INFO")
                except Exception:
                    await asyncio.sleep(0.2)
                else:
                    return

    async def _ask(self, what: str) -> dict[str, Any]:
        nc = await nats.connect(self.url.split(","), connect_timeout=1, max_reconnect_attempts=1)
        try:
            reply: dict[str, Any] = json.loads((await nc.request(f"$JS.API.{what}", b"", timeout=2)).data)
        finally:
            await nc.close()
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply

    async def leader(self) -> int:
        """The node that leads the journal."""
        trouble: Exception | None = None
        try:
            async with asyncio.timeout(BACK_WITHIN_S):
                while True:
                    try:
                        info = await self._ask("STREAM.INFO.WPA_EVENTS")
                        return int(info["cluster"]["leader"].removeprefix("n"))
                    except Exception as error:
                        trouble = error
                        await asyncio.sleep(0.2)
        except TimeoutError:
            raise TimeoutError(f"nobody leads the journal within {BACK_WITHIN_S:g} s: {trouble!r}") from None

    async def restart(self, node: int, away_s: float) -> None:
        """Kill a node; start it again after a while."""
        self._processes[node].kill()
        await asyncio.to_thread(self._processes[node].wait, 20)
        await asyncio.sleep(away_s)
        self._processes[node] = self._start(node)

    async def back(self, node: int) -> None:
        """Wait until a node has all that the others have: every stream has a leader, and is current."""
        url = f"http://127.0.0.1:{self._monitors[node]}/healthz"
        try:
            async with asyncio.timeout(BACK_WITHIN_S):
                while not await asyncio.to_thread(_answers, url):
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise TimeoutError(f"node {node} is not back within {BACK_WITHIN_S:g} s") from None

    async def isolate(self, node: int, for_s: float) -> None:
        """Cut a node off from the other two; clients still reach it."""
        lines = [proxy for ends, proxy in self._proxies.items() if node in ends]
        for line in lines:
            line.half_open()
        await asyncio.sleep(for_s)
        for line in lines:
            line.cut()
            line.heal()


def _answers(url: str) -> bool:
    """Whether a page is there, and says that all is well."""
    try:
        with urllib.request.urlopen(url, timeout=2) as page:
            return bool(page.status == 200)
    except OSError:
        return False
