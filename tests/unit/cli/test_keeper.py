from __future__ import annotations

import asyncio
import contextlib

import pytest

from wpa.cli import keeper

FULL = "JetStream stream '$G > [WPA_EVENTS]' write error: write 1.blk: no space left on device"


class Server:
    """Meets a write error at once, lacks room for a few looks, and is looked at until ``enough``."""

    def __init__(self, error: str, lacking: int, looks: int = 10) -> None:
        self.error = error
        self.lacking = lacking
        self.ended = 0
        self.looks = looks
        self.enough = asyncio.Event()

    async def wait(self) -> int:
        return 0

    async def restart(self) -> None: ...

    async def end(self) -> None:
        self.ended += 1
        self.error = ""

    async def write_error(self) -> str:
        self.looks -= 1
        if not self.looks:
            self.enough.set()
        return self.error

    def lacks_room(self) -> str:
        self.lacking -= 1
        return "the disk of [/data] has 0 MB left" if self.lacking >= 0 else ""


async def looked_after(server: Server) -> None:
    """Run until it was looked at often enough."""
    keeping = asyncio.create_task(keeper.keep_writable(server))
    async with asyncio.timeout(30):
        await server.enough.wait()
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOOK_EVERY_S", 0.001)


async def test_a_server_whose_disk_was_full_is_ended_as_soon_as_there_is_room(
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = Server(FULL, lacking=3)
    await looked_after(server)
    assert server.ended == 1
    assert server.lacking < 0
    told = capsys.readouterr().err
    assert told.count(FULL) == 1
    assert "the disk of [/data] has 0 MB left" in told
    assert "started again by itself" in told


async def test_room_that_is_there_already_is_no_trouble_of_anybodys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = Server(FULL, lacking=0)
    await looked_after(server)
    assert server.ended == 1
    assert "there is room by now" in capsys.readouterr().err


async def test_a_broken_disk_is_told_of_and_left_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server("JetStream stream 'x' write error: input/output error", lacking=0)
    await looked_after(server)
    assert server.ended == 0
    told = capsys.readouterr().err
    assert told.count("input/output error") == 1
    assert "see to the disk" in told


async def test_a_server_that_writes_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server("", lacking=0)
    await looked_after(server)
    assert server.ended == 0
    assert capsys.readouterr().err == ""
