"""The shipped server configurations, run: what docker-compose and an operator would start."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
import pytest

from tests.e2e.processes import Wpa
from tests.servers import free_ports, ready_for_replicas
from tests.waiting import until, wait_for
from wpa.adapters.nats.server import find_binary
from wpa.client import Client
from wpa.errors import DefinitionError, Unavailable

ROOT = Path(__file__).parents[2]
HELLO = {"id": "hello", "version": "1", "steps": [{"id": "a", "uses": "core.echo", "with": {"n": 1}}]}


@contextmanager
def serving(config: str, folder: Path, ports: list[int], **replace: str) -> Iterator[tuple[int, int]]:
    """A nats-server on a shipped configuration, with its folder and its client and monitoring port moved."""
    client, monitoring = ports
    text = (ROOT / "nats" / config).read_text()
    for old, new in replace.items():
        text = text.replace(old, new)
    text = re.sub(r"^port: 4222$", f"port: {client}", text, flags=re.MULTILINE)
    text = text.replace("127.0.0.1:8222", f"127.0.0.1:{monitoring}").replace("0.0.0.0", "127.0.0.1")
    text = re.sub(r'store_dir: ".*"', f'store_dir: "{folder}/{Path(config).stem}"', text)
    moved = folder / Path(config).name
    moved.write_text(text)
    env = {**os.environ, "WPA_WORKER_PASSWORD": "worker-secret", "ACME_PASSWORD": "acme-secret"}
    with (folder / f"{Path(config).stem}.log").open("w") as log:
        process = subprocess.Popen([find_binary(), "-c", str(moved)], env=env, stdout=log, stderr=log)
    try:
        wait_for(lambda: process.poll() is not None or listens(client))
        yield client, monitoring
    finally:
        process.kill()
        process.wait(20)


def listens(port: int) -> bool:
    """Whether anybody does, on that port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def healthy(monitoring: int) -> bool:
    """What the container's health check asks."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{monitoring}/healthz", timeout=10) as answer:
            return bool(json.load(answer)["status"] == "ok")
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.parametrize("config", ["dev.conf", "durable.conf"])
async def test_a_single_node_is_healthy_and_runs_workflows(config: str, tmp_path: Path) -> None:
    with serving(config, tmp_path, free_ports(2)) as (port, monitoring):
        await asyncio.to_thread(wait_for, lambda: healthy(monitoring))
        url = f"nats://127.0.0.1:{port}"
        worker = Wpa("worker", "--nats", url, log=tmp_path / "worker.log")
        try:
            await asyncio.to_thread(worker.wait_ready)
            async with await Client.connect(url) as client:
                await client.deploy(HELLO)
                started = await client.start("hello")
                assert (await client.result(started.execution_id, timeout_s=30))["status"] == "COMPLETED"
        finally:
            assert worker.stop() == 0


async def test_the_three_nodes_of_the_cluster_find_each_other(tmp_path: Path) -> None:
    ports = free_ports(9)
    routes = {f"wpa-n{n}:6222": f"127.0.0.1:{port}" for n, port in enumerate(ports[6:], start=1)}

    def own(n: int) -> dict[str, str]:
        listen = routes[f"wpa-n{n}:6222"].rpartition(":")[2]
        return {**routes, "port: 6222": f"port: {listen}"}

    with (
        serving("cluster/n1.conf", tmp_path, ports[0:2], **own(1)) as (port, first),
        serving("cluster/n2.conf", tmp_path, ports[2:4], **own(2)) as (_, second),
        serving("cluster/n3.conf", tmp_path, ports[4:6], **own(3)) as (_, third),
    ):
        for monitoring in (first, second, third):
            await asyncio.to_thread(wait_for, lambda monitoring=monitoring: healthy(monitoring))
        await ready_for_replicas([f"nats://127.0.0.1:{port}"])


async def test_with_accounts_a_tenant_does_its_own_work_and_reaches_nothing_else(tmp_path: Path) -> None:
    with serving("accounts.conf", tmp_path, free_ports(2)) as (port, _):
        worker = Wpa(
            "worker", "--nats", f"nats://wpa-worker:worker-secret@127.0.0.1:{port}", log=tmp_path / "w.log"
        )
        url = f"nats://acme:acme-secret@127.0.0.1:{port}"
        try:
            await asyncio.to_thread(worker.wait_ready)
            async with await Client.connect(url, "acme") as client:
                await client.deploy(HELLO)
                started = await client.start("hello")
                assert (await client.result(started.execution_id, timeout_s=30))["status"] == "COMPLETED"
                await own_events_and_nothing_else(url)
                await nobody_hears_answers(client, worker, port)
            async with await Client.connect(url, "other") as client:
                with pytest.raises(Unavailable):
                    await client.executions()
        finally:
            assert worker.stop() == 0
        # A stranger is told so, and doesn't wait for ever.
        with pytest.raises(Unavailable):
            await asyncio.wait_for(Client.connect(f"nats://acme:wrong@127.0.0.1:{port}", "acme"), 60)


async def own_events_and_nothing_else(url: str) -> None:
    nc = await nats.connect(url)
    events = await nc.subscribe("workflow.events.acme.>")
    others = await nc.subscribe("workflow.events.other.>")
    # Through JetStream: the acknowledgement comes back over the account's border.
    stored = await nc.jetstream().publish(
        "workflow.tasks.acme", b'{"type": "workflow_start", "workflow_id": "hello", "execution_id": "x1"}'
    )
    assert stored.stream == "WPA_TASKS"
    names: list[str] = []
    while not names or names[-1] != "workflow_completed":
        message = await events.next_msg(timeout=30)
        if not message.subject.endswith(".live"):
            names.append(json.loads(message.data)["event"])
    assert names == ["workflow_started", "workflow_step_completed", "workflow_completed"]
    for subject in ("$JS.API.STREAM.PURGE.WPA_EVENTS", "$JS.API.STREAM.DELETE.KV_wpa_executions"):
        answer = json.loads((await nc.request(subject, b"", timeout=30)).data)
        assert answer["error"]["code"] == 503, subject  # JetStream is not for this account
    await nc.publish("$KV.wpa_executions.acme.x1", b"forged")
    await nc.publish("workflow.tasks.other", b"forged")
    for subject in ("workflow.api.other.list", "$SRV.PING"):
        with pytest.raises(nats.errors.NoRespondersError):
            await nc.request(subject, b"", timeout=30)
    reply = json.loads(
        (await nc.request("workflow.api.acme.status", b'{"execution_id": "x1"}', timeout=30)).data
    )
    assert reply["execution"]["status"] == "COMPLETED"
    assert others.pending_msgs == 0
    await nc.close()


async def nobody_hears_answers(client: Client, worker: Wpa, port: int) -> None:
    """What is answered over an account's border goes by ``_R_.`` in the workers' account."""
    spy = {**HELLO, "id": "spy", "triggers": [{"subject": "_R_.>", "start": {}}]}
    with pytest.raises(DefinitionError, match="belongs to the engine or the server"):
        await client.deploy(spy)
    owner = await nats.connect(f"nats://wpa-worker:worker-secret@127.0.0.1:{port}")
    replies = await owner.subscribe("_R_.>")
    stored = {
        "workflow": "spy",
        "version": "1",
        "hash": "",
        "kind": "plan",
        "document": spy,
        "deployed_at": "",
    }
    for key, value in (("acme.spy.1", stored), ("acme.spy", {"version": "1"})):  # as it was deployed before
        await owner.jetstream().publish(f"$KV.wpa_definitions.{key}", json.dumps(value).encode())
    await until(lambda: "spy 1 is not in force: $.triggers[0].subject" in worker.log.read_text())
    before = {row["execution_id"] for row in await client.executions()}
    answer = await replies.next_msg(timeout=20)
    assert b'"executions"' in answer.data
    await asyncio.sleep(1)
    assert {row["execution_id"] for row in await client.executions()} == before
    await owner.close()
