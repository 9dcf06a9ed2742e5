"""The main job, on real input, from nothing: what ``make demo`` runs.

Starts ``wpa dev`` (a real nats-server, a worker with the first-party plugins) on a free port with its data in
a temporary folder, and then does, as an outside client over NATS, what a user would. Every outcome is
checked; the exit status is 1 if anything is not as it should be.

    python examples/demo.py [--picture FILE.svg]
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.terminal_theme import SVG_EXPORT_THEME
from sample_pdf import PAGES, sample_pdf
from wpa_orders import inspect, seed

from wpa.cli.render import Watcher, status_view
from wpa.client import Client

HERE = Path(__file__).parent
READY_WITHIN_S = 30.0
ENDED_WITHIN_S = 60.0

PICTURE_COLUMNS = 130


def _columns() -> int | None:
    if len(sys.argv) == 3 and sys.argv[1] == "--picture":
        return PICTURE_COLUMNS
    return None if sys.stdout.isatty() else 110


console = Console(emoji=False, width=_columns(), record=True)


class Checks:
    """What should be, beside what is."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.count = 0

    def equal(self, what: str, found: Any, wanted: Any) -> None:
        self.count += 1
        if found == wanted:
            console.print(f"  [green]ok[/]  {what}: {_short(found)}", highlight=False)
        else:
            self.failed.append(what)
            console.print(f"  [red]NO[/]  {what}: {found!r}, but it should be {wanted!r}", highlight=False)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) < 90 else text[:87] + "..."


@contextlib.asynccontextmanager
async def wpa_dev(folder: Path) -> AsyncIterator[str]:
    """A running ``wpa dev``; its NATS URL."""
    command = [
        str(Path(sys.executable).parent / "wpa"),
        "dev",
        "--port",
        "0",
        "--data-dir",
        str(folder / "data"),
    ]
    log = (folder / "dev.log").open("w")
    process = await asyncio.create_subprocess_exec(
        *command, "--definitions", str(HERE), stdout=log, stderr=log, start_new_session=True
    )
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while "ready" not in (folder / "dev.log").read_text():
            if process.returncode is not None or time.monotonic() > deadline:
                console.print((folder / "dev.log").read_text(), highlight=False)
                raise SystemExit("wpa dev did not start")
            await asyncio.sleep(0.05)
        yield json.loads((folder / "data" / "wpa.json").read_text())["url"]
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            try:
                async with asyncio.timeout(15):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        log.close()


async def run(client: Client, workflow: str, data: Any) -> dict[str, Any]:
    """Start an execution as any service would, with a plain message, and follow it to its end."""
    execution = f"{workflow}-{uuid.uuid4().hex[:8]}"
    await client.publish_start(
        {
            "type": "workflow_start",
            "workflow_id": workflow,
            "execution_id": execution,
            "payload": {"input_data": data},
        }
    )
    async with asyncio.timeout(ENDED_WITHIN_S):
        with Watcher(console) as watcher:
            async for event in client.watch(execution):
                watcher.show(event)
        status = await client.result(execution)
    console.print()
    console.print(status_view(status))
    return status


def shop_view(title: str, shop: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 3, 0, 0), header_style="dim")
    row = []
    for name, value in shop.items():
        table.add_column(name)
        row.append(_short(value))
    table.add_row(*row)
    return table


async def order_completes(client: Client, shop: Path, checks: Checks) -> None:
    console.print(Rule("1  order saga: reserve, charge, ship, notify", align="left"))
    before = inspect(shop)
    console.print(shop_view("the shop before", before))
    status = await run(client, "order", json.loads((HERE / "order.input.json").read_text()))
    after = inspect(shop)
    console.print(shop_view("the shop after", after))
    checks.equal("status", status["status"], "COMPLETED")
    checks.equal("tea in stock", after["stock"]["tea"], before["stock"]["tea"] - 2)
    checks.equal("pots in stock", after["stock"]["pot"], before["stock"]["pot"] - 1)
    checks.equal("charged, cents", after["charged_cents"], 2 * 895 + 4990)
    checks.equal("shipped and notified", (after["shipped"], after["notified"]), (1, 1))


async def order_rolls_back(client: Client, shop: Path, checks: Checks) -> None:
    console.print(Rule("2  the same, to an address that the carrier refuses", align="left"))
    before = inspect(shop)
    data = json.loads((HERE / "order.input.json").read_text())
    data["order_id"] = "o-4712"
    data["address"] = {"name": "Plato", "street": "Temple of Poseidon", "city": "Atlantis", "country": "XA"}
    status = await run(client, "order", data)
    checks.equal("status", status["status"], "ROLLED_BACK")
    checks.equal(
        "failed step and error", (status["failed_step"], status["error"]["type"]), ("ship", "AddressRefused")
    )
    checks.equal("undone, in this order", status["undone"], ["charge", "reserve"])
    checks.equal("the shop is as before", inspect(shop), before)


async def document(client: Client, checks: Checks) -> None:
    console.print(Rule("3  document pipeline: a PDF in base64, text and metadata side by side", align="left"))
    reported: list[dict[str, Any]] = []
    data = {
        "base64": base64.b64encode(sample_pdf()).decode(),
        "mime": "application/pdf",
        "nombre_documento": "contract-4711.pdf",
        "uuid_proceso": str(uuid.uuid4()),
        "manual": False,
    }
    listening = asyncio.create_task(_collect_progress(client, reported))
    await asyncio.sleep(0.1)
    status = await run(client, "document", data)
    await asyncio.sleep(0.2)
    listening.cancel()
    output = status["output"] or {}
    words = sum(len(" ".join(page).split()) for page in PAGES)
    checks.equal("status", status["status"], "COMPLETED")
    checks.equal("pages and words", (output.get("pages"), output.get("words")), (len(PAGES), words))
    checks.equal("title and author", (output.get("title"), output.get("author")), ("Contract 4711", "Ada"))
    checks.equal("the document's name and process", output.get("uuid_proceso"), data["uuid_proceso"])
    last = max((event["percentage"] for event in reported if event["step"] == "text"), default=0)
    checks.equal("progress was reported, up to", last, 100.0)


async def _collect_progress(client: Client, reported: list[dict[str, Any]]) -> None:
    async for event in client.watch():
        if event["event"] == "step_progress":
            reported.append(event)  # noqa: PERF401  it never ends; it is cancelled


async def decision(client: Client, checks: Checks) -> None:
    console.print(Rule("4  a decision: amounts over the limit take another branch", align="left"))
    for amount, branch, other in ((250_000, "review", "approve"), (99_00, "approve", "review")):
        status = await run(client, "decision", {"amount_cents": amount})
        steps = {step["step"]: step["status"] for step in status["steps"]}
        checks.equal("status", status["status"], "COMPLETED")
        checks.equal(f"{amount} cents take", status["output"], {"taken": branch})
        checks.equal("the other branch", steps[other], "skipped")


def draw(path: Path) -> None:
    """The picture in the README: ``demo.py --picture docs/run.svg``."""
    svg = console.export_svg(title="make demo: an order that the carrier refuses", theme=SVG_EXPORT_THEME)
    # Fonts from the reader's own machine: a picture fetches nothing. And no viewer is to trim spaces.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    path.write_text(svg.replace("<svg ", '<svg xml:space="preserve" ', 1), encoding="utf-8")


async def main() -> int:
    began = time.monotonic()
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="wpa-demo-") as name:
        folder = Path(name)
        shop = folder / "shop.db"
        seed(shop)
        os.environ["WPA_SHOP_DB"] = str(shop)
        os.environ.pop("WPA_NATS_URL", None)
        async with wpa_dev(folder) as url, await Client.connect(url) as client:
            console.print(
                f"wpa dev is up at [bold]{url}[/] after {time.monotonic() - began:.1f} s\n", highlight=False
            )
            await order_completes(client, shop, checks)
            console.export_text()  # what is recorded so far is not for the picture
            await order_rolls_back(client, shop, checks)
            if len(sys.argv) == 3 and sys.argv[1] == "--picture":
                draw(Path(sys.argv[2]))
            await document(client, checks)
            await decision(client, checks)
    console.print(Rule())
    took = f"{time.monotonic() - began:.1f} s"
    if checks.failed:
        console.print(
            f"[red]{len(checks.failed)} of {checks.count} checks failed:[/] {', '.join(checks.failed)}"
        )
        return 1
    console.print(
        f"[green]All {checks.count} checks hold[/]: 5 executions, {took}. Next: `.venv/bin/wpa dev`",
        highlight=False,
    )
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(main()))
    sys.exit(130)
