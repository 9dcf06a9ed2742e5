"""The processes of a benchmark: started, waited for, measured, stopped. Linux only: it reads ``/proc``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wpa import wire
from wpa.adapters.nats.server import EmbeddedServer, find_binary
from wpa.settings import Settings

HERE = Path(__file__).parent
FLOWS = HERE / "flows.py"


@contextlib.asynccontextmanager
async def process(
    *command: str, env: Mapping[str, str] | None = None, stderr: int | None = None
) -> AsyncIterator[int]:
    """A Python process that says ``ready``: its id. It is told to stop in the end, if it is there still."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, **(env or {})},
    )
    assert started.stdout is not None
    try:
        while b"ready" not in (line := await started.stdout.readline()):
            if not line:
                raise RuntimeError(f"{command} ended before it was ready")
        yield started.pid
    finally:
        if started.returncode is None:
            with contextlib.suppress(ProcessLookupError):
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


def server_version() -> str:
    """Which nats-server the embedded one is."""
    told = subprocess.run([find_binary(), "--version"], capture_output=True, check=True, text=True)
    return told.stdout.strip().rpartition(" ")[2].removeprefix("v")


@contextlib.asynccontextmanager
async def worker(url: str, env: Mapping[str, str] | None = None) -> AsyncIterator[int]:
    """A worker as an operator starts it, with the flows of the benchmarks and settings by ``env``: its id."""
    command = ["-c", "from wpa.cli import main; main()", "worker", "--nats", url, "--flows", str(FLOWS)]
    async with process(*command, env=env, stderr=subprocess.DEVNULL) as pid:
        yield pid


@dataclass(frozen=True)
class Usage:
    """What a process has used of the machine until now."""

    cpu_s: float
    rss_mb: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Read it. ``cpu_s`` is user and system time, ``rss_mb`` the resident memory in 10^6 bytes."""
        # What clock_getcpuclockid(3) gives: nanoseconds, where /proc counts hundredths of a second.
        cpu_s = time.clock_gettime((~pid << 3) | 2)
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return cls(cpu_s, pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
