"""A real worker, a process of its own, that dies at a numbered point.

The points are the moments between two things that the world outside can tell apart: before and after each
append, snapshot, alarm, task, and ack. ``WPA_CRASH_AT=n`` kills the process, with SIGKILL, at the n-th of
them from 0; ``WPA_CRASH_LOG`` names a file in which each point passed is a line.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from wpa import wire
from wpa.settings import Settings
from wpa.testing.faults import Faults, mortal


class Crash(Faults):
    """Dies for good: nothing is handed back, nobody is told."""

    def __init__(self, at: int, log: str) -> None:
        super().__init__(at)
        self._number = 0
        self._at_number = at
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if log else -1

    def hit(self, point: str) -> bool:
        if self._log >= 0:
            os.write(self._log, f"{point}\n".encode())
        if self._number == self._at_number:
            os.kill(os.getpid(), signal.SIGKILL)
        self._number += 1
        return False


async def main(url: str) -> None:
    crash = Crash(int(os.environ["WPA_CRASH_AT"]), os.environ["WPA_CRASH_LOG"])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await wire.serve_worker(
        Settings(),
        url,
        stop=stop,
        ready=lambda info: print("ready", info.id, flush=True),
        around=lambda ports: mortal(ports, crash),
    )


def serve(url: str, log: Path, env: dict[str, str]) -> None:
    """Be that worker: all this process is for.

    Args:
        url: of the server.
        log: where to print.
        env: instead of the environment that this process was forked with.
    """
    os.environ.clear()
    os.environ.update(env)
    with log.open("a") as out:
        os.dup2(out.fileno(), sys.stdout.fileno())
        os.dup2(out.fileno(), sys.stderr.fileno())
    wire.run(main(url))
