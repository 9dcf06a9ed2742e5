"""A cold start: from the command ``wpa dev``, with nothing there, to the end of a first workflow."""

from __future__ import annotations

import asyncio
import compileall
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from processes import process
from workloads import WORKLOADS

import wpa
from wpa.cli.common import URL_FILE
from wpa.client import Client
from wpa.errors import PlatformError, TaskRejected

LOOK_EVERY_S = 0.005
GIVE_UP_S = 30.0


async def first_workflow(sync: str, scale: float) -> dict[str, Any]:
    """Start ``wpa dev`` with a definition; start that as soon as somebody answers; wait for its end.

    Python may be told not to keep what it compiles (PYTHONDONTWRITEBYTECODE), and would compile a checkout's
    modules anew here (half a second); whoever has installed wpa has them compiled, by pip.
    """
    compileall.compile_dir(Path(wpa.__file__).parent, quiet=1)
    with tempfile.TemporaryDirectory(prefix="wpa-bench-") as folder:
        data, definitions = Path(folder) / "data", Path(folder) / "definitions"
        definitions.mkdir()
        seq3 = {"id": "seq3", "version": "1", "steps": WORKLOADS["seq3"]}
        (definitions / "seq3.json").write_text(json.dumps(seq3))
        command = ["-c", "from wpa.cli import main; main()", "dev", "--port", "0", "--sync", sync]
        command += ["--data-dir", str(data), "--definitions", str(definitions)]
        began = time.perf_counter()
        running = process(*command)
        ready = asyncio.create_task(running.__aenter__())
        try:
            marks = await _run_one(data / URL_FILE, began)
        finally:
            await ready
            await running.__aexit__(None, None, None)
    return marks


async def _run_one(address: Path, began: float) -> dict[str, Any]:
    async with asyncio.timeout(GIVE_UP_S):
        while not address.exists() or not (text := address.read_text()):
            await asyncio.sleep(LOOK_EVERY_S)
        server = time.perf_counter() - began
        async with await Client.connect(json.loads(text)["url"]) as client:
            while True:
                try:
                    started = await client.start("seq3", {})
                    break
                except (PlatformError, TaskRejected):  # no worker answers yet, or none knows the definition
                    await asyncio.sleep(LOOK_EVERY_S)
            accepted = time.perf_counter() - began
            await client.result(started.execution_id, timeout_s=GIVE_UP_S)
    took = time.perf_counter() - began
    return {"s": round(took, 2), "server_s": round(server, 2), "accepted_s": round(accepted, 2)}
