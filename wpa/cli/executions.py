"""``wpa start``, ``status``, ``history``, ``list``, ``watch``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from wpa.cli.common import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    AsJson,
    NatsUrl,
    Tenant,
    console,
    err,
    print_json,
    run_client,
)
from wpa.settings import DEFAULT_TENANT

__all__ = ["register"]

ExecutionId = Annotated[str, typer.Argument(metavar="ID", help="the execution's id")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(start)
    app.command()(status)
    app.command()(history)
    app.command("list")(list_executions)
    app.command()(watch)


def read_json(text: str, what: str) -> Any:
    """JSON given as text, as ``@file``, or as ``-`` for standard input."""
    try:
        if text == "-":
            return json.loads(sys.stdin.read())
        if text.startswith("@"):
            return json.loads(Path(text[1:]).read_text(encoding="utf-8"))
        return json.loads(text)
    except OSError as error:
        err.print(f"[red]{what}:[/] {text[1:]} can't be read: {error.strerror}")
    except ValueError as error:
        err.print(f"[red]{what}:[/] not JSON: {error}")
    raise typer.Exit(EXIT_BAD_INPUT)


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
            metadata={"source": "cli"},
        )
        if not wait:
            if as_json:
                print_json({"execution_id": result.execution_id, "duplicate": result.duplicate})
            else:
                known = " (it was started before)" if result.duplicate else ""
                console.print(f"{result.execution_id}{known}", highlight=False, soft_wrap=True)
            return
        ended = await _follow(client, result.execution_id, quiet=as_json)
        if as_json:
            print_json(ended)
        else:
            from wpa.cli.render import status_view

            console.print(status_view(ended))
        if ended["status"] != "COMPLETED":
            raise typer.Exit(EXIT_FAILED)

    run_client(nats, tenant, main)


def _variable(item: str) -> tuple[str, Any]:
    name, equals, text = item.partition("=")
    if not equals or not name:
        err.print(f"[red]--var:[/] {item!r} must look like NAME=JSON")
        raise typer.Exit(EXIT_BAD_INPUT)
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text


async def _follow(client: Any, execution_id: str, *, quiet: bool) -> Any:
    """Show an execution live up to its end; its status document."""
    if quiet:
        return await client.result(execution_id)
    from wpa.cli.render import Watcher

    with Watcher(console) as watcher:
        async for event in client.watch(execution_id):
            watcher.show(event)
    return await client.result(execution_id)


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
        from wpa.cli.render import history_view

        console.print(history_view(events, full=full))

    run_client(nats, tenant, main)


def list_executions(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000)] = 20,
    status: Annotated[str, typer.Option("--status", help="RUNNING, COMPLETED, FAILED, ROLLED_BACK ...")] = "",
    workflow: Annotated[str, typer.Option("--workflow", help="only this workflow's")] = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """The most recently active executions."""

    async def main(client: Any) -> None:
        rows = await client.executions(limit=limit, status=status, workflow=workflow)
        if as_json:
            print_json(rows)
            return
        from wpa.cli.render import executions_view

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
            async for event in client.watch(execution or None):
                typer.echo(json.dumps(event, ensure_ascii=False))
            return
        from wpa.cli.render import Watcher, status_view

        if execution:
            ended = await _follow(client, execution, quiet=False)
            console.print(status_view(ended))
            if ended["status"] != "COMPLETED":
                raise typer.Exit(EXIT_FAILED)
            return
        with Watcher(console, many=True) as watcher:
            async for event in client.watch():
                watcher.show(event)

    run_client(nats, tenant, main)
