"""The show: all scenes, one after another, and whether everything was as it should be."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path

import main_job
import waits
from rich.console import Console
from rich.rule import Rule
from rich.terminal_theme import SVG_EXPORT_THEME
from stage import Checks, Dev, Stage
from wpa_orders import seed

from wpa.client import Client

__all__ = ["main"]

PICTURE_COLUMNS = 130
ACK_WAIT_S = "1"
"""How soon the tasks of a killed worker move on: sooner than by default, so that nobody has to wait."""


async def main(picture: Path | None = None) -> int:
    """Play all scenes; the exit status."""
    began = time.monotonic()
    width = PICTURE_COLUMNS if picture else None if sys.stdout.isatty() else 110
    console = Console(emoji=False, width=width, record=True)
    checks = Checks(console)
    with tempfile.TemporaryDirectory(prefix="wpa-demo-") as name:
        folder = Path(name)
        shop = folder / "shop.db"
        seed(shop)
        os.environ.update(WPA_SHOP_DB=str(shop), WPA_ACK_WAIT_S=ACK_WAIT_S)
        os.environ.pop("WPA_NATS_URL", None)
        dev = Dev(folder)
        try:
            await dev.start()
            took = f"{time.monotonic() - began:.1f} s"
            console.print(f"wpa dev is up at [bold]{dev.url}[/] after {took}\n", highlight=False)
            async with await Client.connect(dev.url) as client:
                stage = Stage(console, client, dev, shop, checks)
                await play(stage, picture)
        finally:
            await dev.stop()
    console.print(Rule())
    if checks.failed:
        failed = ", ".join(checks.failed)
        console.print(f"[red]{len(checks.failed)} of {checks.count} checks failed:[/] {failed}")
        return 1
    took = f"{stage.executions} executions, {time.monotonic() - began:.1f} s"
    console.print(
        f"[green]All {checks.count} checks hold[/]: {took}. Next: `.venv/bin/wpa dev`", highlight=False
    )
    return 0


async def play(stage: Stage, picture: Path | None) -> None:
    await main_job.order_completes(stage)
    stage.console.export_text()  # what is recorded so far is not for the picture
    await main_job.order_rolls_back(stage)
    if picture:
        draw(stage.console, picture)
    await main_job.document(stage)
    await main_job.decision(stage)
    asked = await waits.approval_waits(stage)
    await waits.killed_in_mid_flow(stage)
    await waits.approval_is_given(stage, asked)
    await waits.paused_and_resumed(stage)


def draw(console: Console, path: Path) -> None:
    """The picture in the README."""
    svg = console.export_svg(title="make demo: an order that the carrier refuses", theme=SVG_EXPORT_THEME)
    # Fonts from the reader's own machine: a picture fetches nothing. And no viewer is to trim spaces.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    path.write_text(svg.replace("<svg ", '<svg xml:space="preserve" ', 1), encoding="utf-8")
