"""Real wpa processes for tests, started as a user starts them, ended by their pid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from wpa.cli.app import app
from wpa.cli.common import console

WPA = str(Path(sys.executable).parent / "wpa")
EXAMPLES = Path(__file__).parents[2] / "examples"
PLUGIN = Path(__file__).parent / "plugin"
"""On the path, it is found as any installed plugin: see its ``.dist-info``."""


class Wpa:
    """One long-running ``wpa`` command; ready when it says so."""

    def __init__(self, *arguments: str, log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [WPA, *arguments],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env=environment({"COLUMNS": "200", **(env or {})}),
                start_new_session=True,
            )

    def wait_ready(self, word: str = "ready", within_s: float = 60.0) -> Wpa:
        deadline = time.monotonic() + within_s
        while word not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"not ready: {self.log.read_text()}")
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        """As a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def stop(self, number: int = signal.SIGTERM, within_s: float = 30.0) -> int:
        """As an operator would; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, without what would lead a test to the developer's own server, with ``more`` and the tests' plugin."""
    ours = {"WPA_NATS_URL", "WPA_NATS_CREDS", "WPA_TENANT", "WPA_REPLICAS"}
    env = {name: value for name, value in os.environ.items() if name not in ours} | dict(more or {})
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(PLUGIN)]))
    return env


def run_wpa(
    *arguments: str, url: str = "", cwd: Path | None = None, tenant: str = "", stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """A short ``wpa`` command, run to its end, as a process of its own."""
    env = environment({"COLUMNS": "200", "NO_COLOR": "1"})
    if url:
        env["WPA_NATS_URL"] = url
    if tenant:
        env["WPA_TENANT"] = tenant
    return subprocess.run(
        [WPA, *arguments],
        input=stdin, capture_output=True, text=True, env=env, cwd=cwd, timeout=90, check=False,
    )  # fmt: skip


def invoke_wpa(*arguments: str, url: str = "", tenant: str = "") -> subprocess.CompletedProcess[str]:
    """The same in this process, ten times as fast: for tests of what commands do, not of how they are started."""
    env = {"WPA_NATS_URL": url or None, "WPA_TENANT": tenant or None, "WPA_NATS_CREDS": None}
    width, console.width = console.width, 200
    try:
        done = CliRunner(env=env).invoke(app, list(arguments))
    finally:
        console.width = width
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def ledger(path: Path, **wanted: Any) -> list[dict[str, Any]]:
    """The lines that steps left, those that have what is ``wanted``."""
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if all(line[key] == value for key, value in wanted.items())]
