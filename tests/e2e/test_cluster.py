"""Three nodes on loopback, R3: the leader is killed under load, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest

from tests.e2e.processes import Wpa
from tests.servers import NatsServer, free_ports, ready_for_replicas
from tests.waiting import until
from wpa.adapters.nats import open_ports
from wpa.adapters.nats.server import find_binary
from wpa.client import Client
from wpa.errors import Unavailable


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = free_ports(6)
        self.ports = ports[:3]
        self.routes = [f"nats://127.0.0.1:{port}" for port in ports[3:]]
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.url = ",".join(f"nats://127.0.0.1:{port}" for port in self.ports)

    def start_next(self) -> None:
        """Start one more of the three nodes."""
        number = len(self.nodes)
        config = self.folder / f"n{number}.json"
        own = int(self.routes[number].rpartition(":")[2])
        config.write_text(
            json.dumps(
                {
                    "server_name": f"n{number}",
                    "host": "127.0.0.1",
                    "port": self.ports[number],
                    "max_payload": 8 * 1024 * 1024,
                    "jetstream": {"store_dir": str(self.folder / f"n{number}")},
                    "cluster": {"name": "wpa", "host": "127.0.0.1", "port": own, "routes": self.routes},
                }
            )
        )
        command = [find_binary(), "-c", str(config)]
        node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.nodes.append(node)

    def end(self) -> None:
        for node in self.nodes:
            node.kill()
            node.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.end()


async def all_seen(client: Client, executions: int) -> list[tuple[str, int]]:
    """The stored events that who watches all is shown, in order, up to the last end."""
    seen: list[tuple[str, int]] = []
    async for event in client.watch():
        if "seq" in event:
            seen.append((event["execution_id"], event["seq"]))
            executions -= event["event"] == "workflow_completed"
            if not executions:
                break
    return sorted(seen, key=lambda one: (int(one[0][1:]), one[1]))


async def test_a_killed_leader_of_three_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    for _ in range(3):
        cluster.start_next()
    await ready_for_replicas(cluster.url.split(","))
    worker = Wpa("worker", "--nats", cluster.url, log=tmp_path / "worker.log", env={"WPA_REPLICAS": "3"})
    try:
        await asyncio.to_thread(worker.wait_ready, within_s=60)
        steps = [{"id": "a", "uses": "e2e.work", "with": {"seconds": 0.2}}]
        steps += [{"id": name, "uses": "core.noop", "needs": ["a"]} for name in "bc"]
        async with await Client.connect(cluster.url) as client:
            await client.deploy({"id": "w", "version": "1", "steps": steps})
            watching = asyncio.create_task(all_seen(client, executions=100))
            await asyncio.sleep(0.5)
            running = [asyncio.create_task(one(client, number)) for number in range(100)]
            await asyncio.sleep(0.5)
            victim = await leader(cluster.url)
            cluster.nodes[victim].kill()
            results = await asyncio.gather(*running)
            assert {result["status"] for result in results} == {"COMPLETED"}
            for number in range(0, 100, 10):
                events = [event["event"] for event in await client.history(f"x{number}")]
                assert events.count("workflow_step_completed") == 3
            async with asyncio.timeout(60):
                seen = await watching
            assert seen == [(f"x{number}", seq) for number in range(100) for seq in range(1, 6)]
        assert worker.stop() == 0
    finally:
        if worker.process.poll() is None:
            worker.kill()


async def test_where_a_stream_may_be_given_replicas_reads_may_lag(
    cluster: Cluster, server: NatsServer
) -> None:
    """A worker that had asked once, at its start, took a replica's word for the last, and lost a child's end."""
    for _ in range(3):
        cluster.start_next()
    await ready_for_replicas(cluster.url.split(","))
    for url, lags in ((cluster.url, True), (server.url, False)):
        ports = await open_ports(url, worker="w", replicas=1)
        assert ports.lags() is lags
        await ports.close()


async def test_a_worker_waits_for_a_cluster_that_has_no_leader_yet(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_next()
    log = tmp_path / "worker.log"
    worker = Wpa("worker", "--nats", cluster.url, log=log, env={"WPA_REPLICAS": "3"})
    try:
        await until(lambda: log.read_text().count("waiting for JetStream and its leader") >= 2)
        cluster.start_next()
        await asyncio.sleep(1)
        cluster.start_next()
        await asyncio.to_thread(worker.wait_ready, within_s=60)
        assert "3 replicas" in log.read_text()
        assert worker.stop() == 0
    finally:
        if worker.process.poll() is None:
            worker.kill()


async def test_a_worker_that_waits_for_a_leader_can_be_stopped(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_next()
    worker = Wpa("worker", "--nats", cluster.url, log=tmp_path / "worker.log")
    try:
        await asyncio.to_thread(worker.wait_ready, "waiting for JetStream and its leader")
        assert worker.stop(within_s=20) == 0
    finally:
        if worker.process.poll() is None:
            worker.kill()


async def one(client: Client, number: int) -> dict[str, Any]:
    await asyncio.sleep(number * 0.02)
    for _ in range(5):
        with contextlib.suppress(Unavailable):
            await client.start("w", execution_id=f"x{number}")
            break
    return await client.result(f"x{number}", timeout_s=60)


async def leader(url: str) -> int:
    nc = await nats.connect(url.split(","))
    info = json.loads((await nc.request("$JS.API.STREAM.INFO.WPA_EVENTS", b"", timeout=20)).data)
    await nc.close()
    return int(info["cluster"]["leader"].removeprefix("n"))
