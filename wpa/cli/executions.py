"""``wpa start``, ``status``, ``history``, ``list``, ``watch``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import msgspec
import typer

from wpa.cli.common import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    AsJson,
    AsUser,
    NatsUrl,
    Tenant,
    console,
    err,
    json_text,
    load_json,
    looking,
    print_json,
    read_json,
    requester,
    run_client,
    shown,
)
from wpa.model.events import COMPLETED
from wpa.model.ids import DEFAULT_TENANT
from wpa.model.state import Status
from wpa.model.times import parse_ms

__all__ = ["ExecutionId", "register", "wait_for_end"]

STATUSES: Final = get_args(Status)

ExecutionId = Annotated[str, typer.Argument(metavar="ID", help="the execution's id")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(start)
    app.command()(status)
    app.command()(history)
    app.command("list")(list_executions)
    app.command()(watch)
    app.command()(payload)


def start(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="the workflow's id")],
    input: Annotated[str, typer.Option("--input", "-i", help="JSON, @FILE, or - for standard input")] = "{}",
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="follow it to its end; exit 1 if it failed")
    ] = False,
    execution_id: Annotated[
        str,
        typer.Option("--execution-id", "--id", help="idempotency key; the same start again changes nothing"),
    ] = "",
    version: Annotated[str, typer.Option("--version", help="a version other than the latest")] = "",
    var: Annotated[
        list[str] | None, typer.Option("--var", help="a variable, NAME=JSON; may be repeated")
    ] = None,
    priority: Annotated[int, typer.Option("--priority", min=0, max=9)] = 5,
    start_at: Annotated[
        str, typer.Option("--start-at", metavar="TIME", help="begin then, e.g. 2026-11-20T10:00:00Z")
    ] = "",
    user: AsUser = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """Start an execution."""
    data = read_json(input, "--input")
    variables = dict(_variable(item) for item in var or ())

    async def main(client: Any) -> None:
        result = await client.start(
            workflow,
            data,
            execution_id=execution_id or None,
            version=version,
            variables=variables,
            priority=priority,
            start_at=start_at,
            metadata=requester(user),
        )
        if _is_past(start_at):
            err.print(f"[yellow]--start-at:[/] {shown(start_at)} is past: it begins at once", soft_wrap=True)
        if not wait:
            if as_json:
                print_json(msgspec.to_builtins(result))
            else:
                known = " (it was started before)" if result.duplicate else ""
                console.print(f"{result.execution_id}{known}", highlight=False, soft_wrap=True)
            return
        # Whoever stops waiting has to know what for.
        err.print(f"[dim]{result.execution_id}[/]", highlight=False, soft_wrap=True)
        await wait_for_end(client, result.execution_id, as_json=as_json)

    run_client(nats, tenant, main)


def _is_past(moment: str) -> bool:
    """Whether a moment that was accepted was over by then."""
    return bool(moment) and parse_ms(moment) < time.time() * 1000


def _variable(item: str) -> tuple[str, Any]:
    name, equals, text = item.partition("=")
    if not equals or not name:
        err.print(f"[red]--var:[/] {shown(repr(item))} must look like NAME=JSON", soft_wrap=True)
        raise typer.Exit(EXIT_BAD_INPUT)
    try:
        return name, load_json(text)
    except (ValueError, RecursionError):
        return name, text  # a plain string needs no quotes


async def wait_for_end(client: Any, execution_id: str, *, as_json: bool) -> None:
    """Follow an execution to its end, show how it ended, and leave with 1 where it did not succeed."""
    if as_json:
        ended = await client.result(execution_id)
        print_json(ended)
    else:
        from wpa.cli.render import status_view
        from wpa.cli.watching import Watcher

        with Watcher(console) as watcher:
            async for event in client.watch(execution_id):
                watcher.show(event)
        ended = await client.result(execution_id)
        console.print(status_view(ended))
    if ended["status"] != "COMPLETED":
        raise typer.Exit(EXIT_FAILED)


def status(
    execution: ExecutionId, nats: NatsUrl = "", tenant: Tenant = DEFAULT_TENANT, as_json: AsJson = False
) -> None:
    """The state of an execution: progress, steps, errors, output."""

    async def main(client: Any) -> None:
        found = await client.status(execution)
        if as_json:
            print_json(found)
            return
        from wpa.cli.render import status_view

        console.print(status_view(found))

    run_client(nats, tenant, main)


def history(
    execution: ExecutionId,
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
    full: Annotated[bool, typer.Option("--full", help="each event's data, too")] = False,
) -> None:
    """The journal of an execution: every event, in order."""

    async def main(client: Any) -> None:
        events = await client.history(execution)
        if as_json:
            print_json(events)
            return
        from wpa.cli.watching import history_view

        console.print(history_view(events, full=full))

    run_client(nats, tenant, main)


def list_executions(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 20,
    status: Annotated[
        str, typer.Option("--status", help="WAITING, RUNNING, FAILED ...; or several, with commas between")
    ] = "",
    workflow: Annotated[str, typer.Option("--workflow", help="only this workflow's")] = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """The most recently active executions."""
    for one in filter(None, status.split(",")):
        if one.strip().upper() not in STATUSES:
            err.print(f"[red]--status:[/] {shown(one)} is none of {', '.join(STATUSES)}", soft_wrap=True)
            raise typer.Exit(EXIT_BAD_INPUT)

    async def main(client: Any) -> None:
        with looking() as looked:
            rows = await client.executions(limit=limit, status=status, workflow=workflow, looked=looked)
        if as_json:
            print_json(rows)
            return
        from wpa.cli.render import executions_view

        if not rows and (status or workflow):
            console.print("[dim]no execution is like that[/]")
            return
        console.print(executions_view(rows))

    run_client(nats, tenant, main)


def watch(
    execution: Annotated[str, typer.Argument(metavar="[ID]", help="one execution; all of them without")] = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """Follow one execution live, or the whole tenant."""

    async def main(client: Any) -> None:
        if as_json:
            name = ""
            async for event in client.watch(execution or None):
                name = event["event"]
                typer.echo(json_text(event))
            if name != COMPLETED:
                raise typer.Exit(EXIT_FAILED)
            return
        from wpa.cli.watching import Watcher

        if execution:
            await wait_for_end(client, execution, as_json=False)
            return
        with Watcher(console, many=True) as watcher:
            async for event in client.watch():
                watcher.show(event)

    run_client(nats, tenant, main)


def payload(
    key: Annotated[str, typer.Argument(metavar="KEY", help='the key in a {"$blob": ...} reference')],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="write it to this file")] = None,
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """A payload too large to be shown inline, as JSON."""

    async def main(client: Any) -> None:
        data = await client.payload(key)
        if output is None:
            typer.echo(data.decode())
        else:
            output.write_bytes(data)
            console.print(f"{output}: {len(data)} bytes", highlight=False)

    run_client(nats, tenant, main)
