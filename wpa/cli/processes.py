"""``wpa dev``, ``wpa server``, ``wpa worker``: what runs until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.logging import RichHandler

from wpa.cli.common import (
    EXIT_BAD_INPUT,
    URL_FILE,
    NatsUrl,
    Tenant,
    console,
    err,
    fail,
    find_url,
    print_problems,
    shown,
)
from wpa.cli.keeper import keep_alive, keep_writable
from wpa.errors import DefinitionError, TaskRejected, WpaError
from wpa.model.ids import DEFAULT_TENANT

if TYPE_CHECKING:
    from wpa import wire
    from wpa.hooks.host import PluginHost
    from wpa.settings import Settings

__all__ = ["register"]

DataDir = Annotated[Path, typer.Option("--data-dir", envvar="WPA_DATA_DIR", help="where the data is kept")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="the server's port; 0 = any free one")]


def _sync(value: str) -> str:
    if not re.fullmatch(r"always|\d+(ms|s|m)", value):
        raise typer.BadParameter("a duration such as 100ms or 1s, or always")
    return value


Sync = Annotated[
    str, typer.Option("--sync", callback=_sync, help="how often to sync to disk: 100ms, or always")
]
LogLevel = Annotated[str, typer.Option("--log-level", envvar="WPA_LOG_LEVEL")]

Queues = Annotated[
    list[str] | None,
    typer.Option("--queue", help="run the steps of this queue, too; give it once for each"),
]
Flows = Annotated[
    list[str] | None,
    typer.Option(
        "--flows", help="register the flows and steps of a Python file, or of a module[:flow]; once for each"
    ),
]

GC_THRESHOLDS = (50_000, 20, 20)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(dev)
    app.command()(server)
    app.command()(worker)


def dev(
    data_dir: DataDir = Path(".wpa"),
    port: Port = 4222,
    definitions: Annotated[
        Path | None,
        typer.Option(
            "--definitions", exists=True, file_okay=False, help="deploy every definition in this folder"
        ),
    ] = None,
    sync: Sync = "100ms",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    queue: Queues = None,
    flows: Flows = None,
    log_level: LogLevel = "WARNING",
) -> None:
    """An embedded server and a worker, from one command. Ctrl-C stops both cleanly."""
    from wpa import wire

    given = _given(queues=_joined(queue), flows=_joined(flows))
    if sync == "always" and not nats:
        given["group_appends"] = True
    settings = _settings(log_level, **given)
    host = _plugins(settings)

    async def main() -> None:
        async with _stop_signals() as stop, _server(settings, data_dir, port, sync, nats, stop) as url:
            first = f"tenant       {tenant}\n" + ("" if nats else f"data         {data_dir.absolute()}\n")
            await _work(settings, url, stop, host=host, banner=first, tenant=tenant, definitions=definitions)

    _run(wire.run, main())


def server(
    data_dir: DataDir = Path(".wpa"), port: Port = 4222, sync: Sync = "100ms", log_level: LogLevel = "INFO"
) -> None:
    """The embedded NATS server alone."""
    from wpa import wire

    settings = _settings(log_level)

    async def main() -> None:
        async with _stop_signals() as stop, _server(settings, data_dir, port, sync, "", stop) as url:
            console.print(f"NATS server  {url}", highlight=False, soft_wrap=True)
            console.print(f"data         {data_dir.absolute()}", highlight=False, soft_wrap=True)
            await stop.wait()

    _run(wire.run, main())


def worker(
    nats: NatsUrl = "",
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, help="executions driven at a time")
    ] = None,
    ack_wait: Annotated[
        float | None,
        typer.Option("--ack-wait", min=0.2, help="seconds until a silent worker's tasks move on"),
    ] = None,
    grace: Annotated[float | None, typer.Option("--grace", min=0, help="seconds to finish at a stop")] = None,
    queue: Queues = None,
    flows: Flows = None,
    log_level: LogLevel = "INFO",
) -> None:
    """A worker alone, on a server that is already there."""
    from wpa import wire

    given = _given(
        concurrency=concurrency,
        ack_wait_s=ack_wait,
        grace_s=grace,
        queues=_joined(queue),
        flows=_joined(flows),
    )
    settings = _settings(log_level, **given)
    host = _plugins(settings)

    async def main() -> None:
        async with _stop_signals() as stop:
            await _work(settings, find_url(nats), stop, host=host)

    _run(wire.run, main())


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given; the others are left to the environment."""
    return {name: value for name, value in options.items() if value is not None}


def _joined(values: list[str] | None) -> str | None:
    return ",".join(values) if values else None


def _plugins(settings: Settings) -> PluginHost:
    """Import the plugins and the flows: before anything is started, so that a typo costs nothing."""
    from wpa import wire

    try:
        return wire.plugin_host(settings.flow_modules)
    except WpaError as error:
        err.print(f"[red]--flows:[/] {shown(str(error))}", soft_wrap=True)
        raise typer.Exit(EXIT_BAD_INPUT) from None


def _settings(log_level: str, **given: Any) -> Settings:
    # Late, with pydantic: the client commands, and --help, do without.
    from pydantic import ValidationError

    from wpa.settings import Settings

    level = logging.getLevelName(log_level.upper())
    if not isinstance(level, int):
        err.print(f"[red]--log-level:[/] {shown(repr(log_level))} is none of DEBUG, INFO, WARNING, ERROR")
        raise typer.Exit(2)
    logging.basicConfig(level=level, handlers=[_log_handler()], force=True)
    # nats-py logs every reconnect attempt with a traceback; the transport says it in one line.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        return Settings(**given)
    except ValidationError as error:
        for item in error.errors():
            name = "_".join(str(part) for part in item["loc"]).upper()
            err.print(
                f"[red]WPA_{name}:[/] {shown(item['msg'])} (it is {shown(repr(item['input']))})",
                soft_wrap=True,
            )
        raise typer.Exit(2) from None


def _log_handler() -> logging.Handler:
    """For people on a terminal; elsewhere, one line a record, with its time in UTC."""
    if err.is_terminal:
        handler: logging.Handler = RichHandler(console=err, show_path=False, log_time_format="%H:%M:%S")
        handler.setFormatter(logging.Formatter("%(message)s"))
        return handler
    handler = logging.StreamHandler()
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    return handler


def _run(runner: Any, main: Any) -> None:
    try:
        runner(main)
    except WpaError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@contextlib.asynccontextmanager
async def _stop_signals() -> AsyncIterator[asyncio.Event]:
    """An event that SIGINT and SIGTERM set; at a second one the process is gone at once.

    Nothing is lost by that: it is what a crash does, and the journal is made for crashes. The server
    follows its parent (see :class:`EmbeddedServer`).
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        if stop.is_set():
            err.print("[dim]stopped at once[/]")
            sys.stdout.flush()
            os._exit(130)
        stop.set()
        err.print("[dim]stopping: finishing what is under way (Ctrl-C again to stop at once)[/]")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _server(
    settings: Settings, data_dir: Path, port: int, sync: str, nats: str, stop: asyncio.Event
) -> AsyncIterator[str]:
    """The embedded server, kept alive, or the one that is there already."""
    if nats:
        yield nats
        return
    from wpa import wire

    embedded = wire.embedded_server(settings, data_dir=data_dir, port=port, sync=sync)
    url = await embedded.start()
    address = data_dir / URL_FILE
    keepers = [asyncio.create_task(keep_alive(embedded, stop)), asyncio.create_task(keep_writable(embedded))]
    try:
        address.write_text(json.dumps({"url": url, "pid": os.getpid()}))
        yield url
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        address.unlink(missing_ok=True)
        await embedded.stop()


async def _work(
    settings: Settings,
    url: str,
    stop: asyncio.Event,
    *,
    host: PluginHost,
    banner: str = "",
    tenant: str = DEFAULT_TENANT,
    definitions: Path | None = None,
) -> None:
    """Run a worker until ``stop``; with a ``banner``, say all that a newcomer wants to know."""
    from wpa import wire

    ready: asyncio.Future[wire.WorkerInfo] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        wire.serve_worker(settings, url, stop=stop, ready=ready.set_result, host=host)
    )
    stopping = asyncio.create_task(stop.wait())
    either: set[asyncio.Future[Any]] = {serving, ready, stopping}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if ready.done():
        await _introduce(settings, ready.result(), banner, tenant, definitions)
        _spare_the_collector()
    elif stop.is_set():
        # It is still looking for a server, perhaps for ever; it holds nothing that could be lost.
        serving.cancel()
        await asyncio.wait({serving})
        return
    await serving


def _spare_the_collector() -> None:
    """Look for garbage cycles more rarely, and never in what is loaded by now.

    A worker makes some hundred containers for each execution, and reference counts free nearly all of them.
    With Python's own thresholds, looking through them took up to a quarter of a worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _introduce(
    settings: Settings, info: wire.WorkerInfo, banner: str, tenant: str, definitions: Path | None
) -> None:
    from wpa import wire
    from wpa.client import without_password

    console.print(f"[bold]wpa[/] {wire.version()}  worker {info.id}", highlight=False, soft_wrap=True)
    console.print(f"NATS         {without_password(info.url)}", highlight=False, soft_wrap=True)
    console.print(shown(banner), end="", highlight=False, soft_wrap=True)
    console.print(f"step types   {', '.join(info.step_types)}", highlight=False, soft_wrap=True)
    if info.flows:
        console.print(f"flows        {', '.join(info.flows)}", highlight=False, soft_wrap=True)
    if info.queues:
        console.print(f"queues       {', '.join(info.queues)}", highlight=False, soft_wrap=True)
    for broken in info.broken:
        err.print(f"[red]plugin {shown(broken)}[/]", soft_wrap=True)
    if definitions is not None:
        try:
            await _deploy_all(settings, info.url, tenant, definitions)
        except WpaError as error:
            err.print(
                f"[red]not all of {shown(str(definitions))} is deployed:[/] {shown(str(error))}",
                soft_wrap=True,
            )
    if banner:
        console.print(f"durability   {info.durability}", highlight=False, soft_wrap=True)
        console.print("[green]ready[/]: wpa deploy FILE, wpa start WORKFLOW, wpa watch; Ctrl-C stops")
    else:
        console.print("[green]ready[/]")


async def _deploy_all(settings: Settings, url: str, tenant: str, folder: Path) -> None:
    """Deploy what is in a folder; what is wrong with one file doesn't keep the others out."""
    from wpa.cli.definitions import read_definition
    from wpa.client import Client

    async with await Client.connect(url, tenant, creds=settings.nats_creds) as client:
        for path in _definition_files(folder):
            try:
                document = read_definition(path)
                if not isinstance(document, dict) or "steps" not in document:
                    continue  # an input, or something else that happens to be JSON
                done = await client.deploy(document, deployed_by="wpa dev")
            except DefinitionError as error:
                print_problems(error.problems, f"[red]{shown(path.name)}[/] is not deployed:")
            except TaskRejected as error:
                why = shown(error.message)
                err.print(f"[red]{shown(path.name)}[/] is not deployed: {why}", soft_wrap=True)
            else:
                news = "deployed" if done["created"] else "there already"
                console.print(f"definition   {done['workflow_id']} {done['version']} {news}", highlight=False)


def _definition_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in (".json", ".yaml", ".yml"))
