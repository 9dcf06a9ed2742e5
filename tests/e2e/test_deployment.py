"""The shipped server configurations, run: what docker-compose and an operator would start."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
import pytest

from tests.e2e.processes import Wpa, free_port, wait_for
from wpa.adapters.nats.server import find_binary
from wpa.client import Client
from wpa.errors import Unavailable

ROOT = Path(__file__).parents[2]
HELLO = {"id": "hello", "version": "1", "steps": [{"id": "a", "uses": "core.echo", "with": {"n": 1}}]}


@contextmanager
def serving(config: str, folder: Path, **replace: str) -> Iterator[tuple[int, int]]:
    """A nats-server on a shipped configuration, with its ports and folder moved; client and monitoring port."""
    client, monitoring = free_port(), free_port()
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
        yield client, monitoring
    finally:
        process.kill()
        process.wait(20)


def healthy(monitoring: int) -> bool:
    """What the container's health check asks."""
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{monitoring}/healthz?js-enabled-only=true", timeout=2
        ) as answer:
            return bool(json.load(answer)["status"] == "ok")
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.parametrize("config", ["dev.conf", "durable.conf"])
async def test_a_single_node_is_healthy_and_runs_workflows(config: str, tmp_path: Path) -> None:
    with serving(config, tmp_path) as (port, monitoring):
        await asyncio.to_thread(wait_for, lambda: healthy(monitoring))
        url = f"nats://127.0.0.1:{port}"
        worker = Wpa("worker", "--nats", url, log=tmp_path / "worker.log")
        try:
            await asyncio.to_thread(worker.wait_ready)
            async with await Client.connect(url) as client:
                await client.deploy(HELLO)
                started = await client.start("hello")
                assert (await client.result(started.execution_id, timeout_s=10))["status"] == "COMPLETED"
        finally:
            assert worker.stop() == 0


async def test_the_three_nodes_of_the_cluster_find_each_other(tmp_path: Path) -> None:
    routes = {f"wpa-n{n}:6222": f"127.0.0.1:{free_port()}" for n in (1, 2, 3)}

    def own(n: int) -> dict[str, str]:
        listen = routes[f"wpa-n{n}:6222"].rpartition(":")[2]
        return {**routes, "port: 6222": f"port: {listen}"}

    with (
        serving("cluster/n1.conf", tmp_path, **own(1)) as (port, first),
        serving("cluster/n2.conf", tmp_path, **own(2)) as (_, second),
        serving("cluster/n3.conf", tmp_path, **own(3)) as (_, third),
    ):
        for monitoring in (first, second, third):
            await asyncio.to_thread(wait_for, lambda monitoring=monitoring: healthy(monitoring), 30)
        nc = await nats.connect(f"nats://127.0.0.1:{port}")

        async def replicated() -> bool:
            try:
                info = await nc.jetstream().add_stream(name="R3", subjects=["r3"], num_replicas=3)
            except Exception:  # until the three have elected a leader
                return False
            return info.cluster is not None and len(info.cluster.replicas or ()) == 2

        for _ in range(60):
            if await replicated():
                break
            await asyncio.sleep(0.25)
        else:
            pytest.fail("no stream of three replicas within 15 s")
        await nc.close()


async def test_with_accounts_a_tenant_does_its_own_work_and_reaches_nothing_else(tmp_path: Path) -> None:
    with serving("accounts.conf", tmp_path) as (port, _):
        worker = Wpa(
            "worker", "--nats", f"nats://wpa-worker:worker-secret@127.0.0.1:{port}", log=tmp_path / "w.log"
        )
        url = f"nats://acme:acme-secret@127.0.0.1:{port}"
        try:
            await asyncio.to_thread(worker.wait_ready)
            async with await Client.connect(url, "acme") as client:
                await client.deploy(HELLO)
                started = await client.start("hello")
                assert (await client.result(started.execution_id, timeout_s=10))["status"] == "COMPLETED"
                await own_events_and_nothing_else(url)
            async with await Client.connect(url, "other") as client:
                with pytest.raises(Unavailable):
                    await client.executions()
        finally:
            assert worker.stop() == 0
        # A stranger is told so, and doesn't wait for ever.
        with pytest.raises(Unavailable):
            await asyncio.wait_for(Client.connect(f"nats://acme:wrong@127.0.0.1:{port}", "acme"), 20)


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
        message = await events.next_msg(timeout=10)
        if not message.subject.endswith(".live"):
            names.append(json.loads(message.data)["event"])
    assert names == ["workflow_started", "workflow_step_completed", "workflow_completed"]
    for subject in ("$JS.API.STREAM.PURGE.WPA_EVENTS", "$JS.API.STREAM.DELETE.KV_wpa_executions"):
        answer = json.loads((await nc.request(subject, b"", timeout=5)).data)
        assert answer["error"]["code"] == 503, subject  # JetStream is not for this account
    await nc.publish("$KV.wpa_executions.acme.x1", b"forged")
    await nc.publish("workflow.tasks.other", b"forged")
    for subject in ("workflow.api.other.list", "$SRV.PING"):
        with pytest.raises(nats.errors.NoRespondersError):
            await nc.request(subject, b"", timeout=2)
    reply = json.loads((await nc.request("workflow.api.acme.status", b'{"execution_id": "x1"}')).data)
    assert reply["execution"]["status"] == "COMPLETED"
    assert others.pending_msgs == 0
    await nc.close()
