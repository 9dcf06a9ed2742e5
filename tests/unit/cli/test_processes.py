from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from wpa.cli import keeper
from wpa.errors import PlatformError

Wpa = Callable[..., Result]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dev", "--sync", "sometimes"), "--sync"),
        (("dev", "--port", "70000"), "--port"),
        (("dev", "--definitions", "nowhere"), "does not exist"),
        (("dev", "--log-level", "[/loud]"), "is none of DEBUG"),
        (("worker", "--concurrency", "0"), "--concurrency"),
    ],
)
def test_bad_flags_start_nothing(
    wpa: Wpa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = wpa(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_bad_variable_is_named(wpa: Wpa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WPA_THREADS", "many")
    result = wpa("worker")
    assert result.exit_code == 2
    assert "WPA_THREADS" in result.stderr
    assert "'many'" in result.stderr


class DyingServer:
    """Dies at once, twice; can't be started the first time."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.stop = stop
        self.restarts = 0

    async def wait(self) -> int:
        if self.restarts == 2:
            self.stop.set()
        return -9

    async def restart(self) -> None:
        self.restarts += 1
        if self.restarts == 1:
            raise PlatformError("the port is [/taken]")


async def test_a_dead_server_is_started_again_until_the_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keeper, "RESTART_FIRST_S", 0.001)
    stop = asyncio.Event()
    server = DyingServer(stop)
    async with asyncio.timeout(30):
        await keeper.keep_alive(server, stop)
    assert server.restarts == 2
    told = capsys.readouterr().err
    assert told.count("starting it again") == 2
    assert "the port is [/taken]" in told
