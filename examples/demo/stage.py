"""What the scenes of the demo share: a screen, checks, and a ``wpa dev`` that may be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule

from wpa.cli.render import status_view
from wpa.cli.watching import Watcher
from wpa.client import Client

__all__ = ["EXAMPLES", "Checks", "Dev", "Stage", "short"]

EXAMPLES = Path(__file__).parents[1]
WPA = str(Path(sys.executable).parent / "wpa")
READY_WITHIN_S = 30.0
STOPPED_WITHIN_S = 15.0
ENDED_WITHIN_S = 60.0


def short(value: Any) -> str:
    """A value on one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) < 90 else text[:87] + "..."


class Checks:
    """What should be, beside what is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.failed: list[str] = []
        self.count = 0

    def equal(self, what: str, found: Any, wanted: Any) -> None:
        self.count += 1
        if found == wanted:
            self._console.print(f"  [green]ok[/]  {what}: {short(found)}", highlight=False)
        else:
            self.failed.append(what)
            self._console.print(
                f"  [red]NO[/]  {what}: {found!r}, but it should be {wanted!r}", highlight=False
            )


class Dev:
    """A running ``wpa dev``: a worker, and a nats-server that dies with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "dev.log"
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, on the port it had before if it had one. Raises SystemExit where it does not come up."""
        command = ["dev", "--port", str(self.port), "--data-dir", str(self._folder / "data")]
        command += ["--definitions", str(EXAMPLES), "--flows", str(EXAMPLES / "flows" / "order.py")]
        with self._log.open("w") as log:
            self._process = await asyncio.create_subprocess_exec(
                WPA, *command, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + READY_WITHIN_S
        while "ready" not in self._log.read_text():
            if self._process.returncode is not None or time.monotonic() > deadline:
                raise SystemExit(f"wpa dev did not start:\n{self._log.read_text()}")
            await asyncio.sleep(0.05)
        found = json.loads((self._folder / "data" / "wpa.json").read_text())
        self.port = int(found["url"].rpartition(":")[2])

    async def kill(self) -> int:
        """``kill -9``; which process it was."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        return self._process.pid

    async def stop(self) -> None:
        """As Ctrl-C does."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(STOPPED_WITHIN_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


class Stage:
    """Where a scene plays: a client like any other, the shop's database, the screen."""

    def __init__(self, console: Console, client: Client, dev: Dev, shop: Path, checks: Checks) -> None:
        self.console, self.client, self.dev, self.shop, self.checks = console, client, dev, shop, checks
        self.executions = 0
        self._shown: dict[str, int] = {}

    def title(self, text: str) -> None:
        self.console.print(Rule(text, align="left"))

    def say(self, text: str) -> None:
        self.console.print(f"  [bold]{text}[/]", highlight=False)

    async def begin(self, workflow: str, data: Any) -> str:
        """Start an execution as any service would, with a plain message; its id."""
        execution = f"{workflow}-{uuid.uuid4().hex[:8]}"
        self.executions += 1
        await self.client.publish_start(
            {
                "type": "workflow_start",
                "workflow_id": workflow,
                "execution_id": execution,
                "payload": {"input_data": data},
            }
        )
        return execution

    async def follow(self, execution: str, until: str = "") -> None:
        """Show its events as they come, each once, to its end, or to the first of a kind."""
        async with asyncio.timeout(ENDED_WITHIN_S):
            with Watcher(self.console) as watcher:
                async for event in self.client.watch(execution):
                    seq = event.get("seq", 0)  # what is told live, but not recorded, has none
                    if 0 < seq <= self._shown.get(execution, 0):
                        continue
                    watcher.show(event)
                    self._shown[execution] = max(seq, self._shown.get(execution, 0))
                    if until and event["event"] == until:
                        return

    async def end(self, execution: str) -> dict[str, Any]:
        """How it ended; shown."""
        status = await self.client.result(execution, timeout_s=ENDED_WITHIN_S)
        self.console.print()
        self.console.print(status_view(status))
        return status

    async def run(self, workflow: str, data: Any) -> dict[str, Any]:
        """Start an execution, follow it to its end, and show how it ended."""
        execution = await self.begin(workflow, data)
        await self.follow(execution)
        return await self.end(execution)

    async def command(self, *arguments: str) -> tuple[int, str]:
        """A ``wpa`` command as a user types it, shown with what it prints; its exit status and its words."""
        self.console.print(
            f"  [dim]$[/] wpa {escape(shlex.join(arguments))}", highlight=False, soft_wrap=True
        )
        process = await asyncio.create_subprocess_exec(
            WPA, *arguments, "--nats", self.dev.url,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "COLUMNS": str(self.console.width), "NO_COLOR": "1"},
        )  # fmt: skip
        try:
            out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        text = out.decode()
        for line in text.splitlines():
            self.console.print(f"  {line.rstrip()}", highlight=False, markup=False, soft_wrap=True)
        return process.returncode or 0, text
