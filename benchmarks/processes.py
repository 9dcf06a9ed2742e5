"""The processes of a benchmark: started, waited for, measured, stopped. Measuring reads ``/proc``: Linux only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from wpa import wire
from wpa.adapters.nats.server import EmbeddedServer
from wpa.settings import Settings

HERE = Path(__file__).parent
FLOWS = HERE / "flows.py"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def process(*command: str, ends: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that says ``ready``; one that ``ends`` by itself is waited for, another is told to stop."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert started.stdout is not None
    try:
        while b"ready" not in (line := await started.stdout.readline()):
            if not line:
                raise RuntimeError(f"{command} ended before it was ready")
        yield started
    finally:
        if started.returncode is None and not ends:
            started.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20):
                await started.communicate()
        if started.returncode is None:
            started.kill()


@contextlib.asynccontextmanager
async def server(sync: str) -> AsyncIterator[EmbeddedServer]:
    """An embedded server with nothing in it."""
    with tempfile.TemporaryDirectory(prefix="wpa-bench-") as folder:
        embedded = wire.embedded_server(Settings(), data_dir=Path(folder), port=0, sync=sync)
        await embedded.start()
        try:
            yield embedded
        finally:
            await embedded.stop()


@contextlib.asynccontextmanager
async def worker(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker of its own process, as an operator starts it, with the flows of the benchmarks."""
    command = ["-c", "from wpa.cli import main; main()", "worker", "--nats", url, "--flows", str(FLOWS)]
    async with process(*command) as started:
        yield started


@dataclass(frozen=True)
class Usage:
    """What a process has used of the machine until now."""

    cpu_s: float
    rss_mb: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Read it. ``cpu_s`` is user and system time, ``rss_mb`` the resident memory in 10^6 bytes."""
        # The command's name, in parentheses, may hold anything; the fields after it are numbers.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        ticks = int(fields[11]) + int(fields[12])
        return cls(ticks / TICKS_PER_S, pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
