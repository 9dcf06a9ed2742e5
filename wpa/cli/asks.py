"""``wpa signal``, ``pause``, ``resume``, ``cancel``, ``terminate``, ``retry``, ``rerun``, ``migrate``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.progress import Progress

from wpa.cli.common import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    AsJson,
    AsUser,
    NatsUrl,
    Tenant,
    console,
    err,
    looking,
    print_json,
    read_json,
    requester,
    run_client,
    shown,
)
from wpa.cli.executions import ExecutionId, wait_for_end
from wpa.errors import TaskRejected
from wpa.model.ids import DEFAULT_TENANT

__all__ = ["register"]

TAKEN_UP_WITHIN_S: Final = 5.0
"""So long it is looked whether what is queued is done."""
LOOK_EVERY_S: Final = 0.1

ExecutionIds = Annotated[list[str], typer.Argument(metavar="ID...", help="the executions' ids")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="why; it is recorded")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(signal)
    app.command()(pause)
    app.command()(resume)
    app.command()(cancel)
    app.command()(terminate)
    app.command()(retry)
    app.command()(rerun)
    app.command()(migrate)


def signal(
    execution: ExecutionId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="the signal's name")],
    payload: Annotated[
        str, typer.Option("--payload", "-p", help="JSON, @FILE, or - for standard input")
    ] = "null",
    id: Annotated[str, typer.Option("--id", help="the same id twice counts once")] = "",
    user: AsUser = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """Tell an execution something. It is kept until a step waits for it."""
    data = read_json(payload, "--payload")

    async def main(client: Any) -> None:
        done = await client.signal(execution, name, data, id=id, metadata=requester(user))
        if as_json:
            print_json(msgspec.to_builtins(done))
        else:
            news = "was told that before" if done.duplicate else f"is told: {name}"
            console.print(f"{execution} {news}", highlight=False, soft_wrap=True)

    run_client(nats, tenant, main)


def pause(
    executions: ExecutionIds,
    reason: Reason = "",
    user: AsUser = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """Begin nothing new until `wpa resume`; steps that run may end."""
    _each(
        executions,
        lambda client, one: client.pause(one, reason=reason, metadata=requester(user)),
        ("is paused", "was paused before"),
        (nats, tenant, as_json),
    )


def resume(
    executions: ExecutionIds,
    reason: Reason = "",
    user: AsUser = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """End a pause; or try again now what is blocked."""
    _each(
        executions,
        lambda client, one: client.resume(one, reason=reason, metadata=requester(user)),
        ("goes on", "is neither paused nor blocked"),
        (nats, tenant, as_json),
    )


def cancel(
    executions: ExecutionIds,
    compensate: Annotated[
        bool, typer.Option("--compensate/--no-compensate", help="whether completed steps are undone")
    ] = True,
    reason: Reason = "",
    user: AsUser = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """Stop what runs, let a flow clean up, undo what was done, and end."""
    _each(
        executions,
        lambda client, one: client.cancel(
            one, reason=reason, compensate=compensate, metadata=requester(user)
        ),
        ("is being cancelled", "was cancelled before"),
        (nats, tenant, as_json),
    )


def terminate(
    executions: ExecutionIds,
    reason: Reason = "",
    user: AsUser = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """End it now, as it is: nothing is undone. Prefer `wpa cancel`."""
    _each(
        executions,
        lambda client, one: client.terminate(one, reason=reason, metadata=requester(user)),
        ("is being terminated", "had been cancelled before"),
        (nats, tenant, as_json),
    )


def retry(
    executions: ExecutionIds,
    reason: Reason = "",
    user: AsUser = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """Try a failed execution again, in place, from what had failed."""
    _each(
        executions,
        lambda client, one: client.retry(one, reason=reason, metadata=requester(user)),
        ("is tried again", "has not failed: it is under way"),
        (nats, tenant, as_json),
    )


def _each(
    executions: list[str],
    ask: Callable[[Any, str], Awaitable[Any]],
    words: tuple[str, str],
    how: tuple[str, str, bool],
) -> None:
    """Ask the same of several executions: what one refuses doesn't keep the others from it.

    Args:
        ask: asks it of one execution, given the client and its id.
        words: what is then true of it, and what was true of it before where that is no news.
        how: the server, the tenant, and whether the answer is JSON.
    """
    nats, tenant, as_json = how

    async def main(client: Any) -> None:
        answers = []
        for execution in dict.fromkeys(executions):
            try:
                done = await ask(client, execution)
            except TaskRejected as error:
                answers.append({"execution_id": execution, "ok": False, "error": error.as_dict()})
                if not as_json:
                    err.print(f"[red]{shown(error.code)}:[/] {shown(error.message)}", soft_wrap=True)
                continue
            answers.append({"ok": True, **msgspec.to_builtins(done)})
            if not as_json:
                console.print(f"{execution} {words[done.duplicate]}", highlight=False, soft_wrap=True)
        if as_json:
            print_json(answers)
        if not all(answer["ok"] for answer in answers):
            raise typer.Exit(EXIT_BAD_INPUT)

    run_client(nats, tenant, main)


def rerun(
    execution: ExecutionId,
    from_step: Annotated[
        str, typer.Option("--from", metavar="STEP", help="the first step to run again; all by default")
    ] = "",
    input: Annotated[
        str, typer.Option("--input", "-i", help="another input: JSON, @FILE, or - for standard input")
    ] = "",
    new_id: Annotated[
        str, typer.Option("--id", help="of the new execution; the same rerun again changes nothing")
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="follow it to its end; exit 1 if it failed")
    ] = False,
    user: AsUser = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """Start a new execution from an old one: what was settled before a step is taken over."""
    options = {"input": read_json(input, "--input")} if input else {}

    async def main(client: Any) -> None:
        done = await client.rerun(
            execution, from_step=from_step, new_execution_id=new_id, metadata=requester(user), **options
        )
        if wait:
            await wait_for_end(client, done.execution_id, as_json=as_json)
        elif as_json:
            print_json(msgspec.to_builtins(done))
        else:
            known = " (it was started before)" if done.duplicate else ""
            console.print(f"{done.execution_id}{known}", highlight=False, soft_wrap=True)

    run_client(nats, tenant, main)


def migrate(
    to: Annotated[str, typer.Option("--to", metavar="VERSION", help="the version to go on with")],
    executions: Annotated[
        list[str] | None, typer.Argument(metavar="[ID...]", help="the executions' ids")
    ] = None,
    workflow: Annotated[
        str, typer.Option("--workflow", help="all waiting and paused executions of this workflow")
    ] = "",
    version: Annotated[
        str, typer.Option("--from", metavar="VERSION", help="with --workflow: only those of this version")
    ] = "",
    user: AsUser = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """Move waiting executions to another version, where what is settled fits it; say why where not."""
    if bool(executions) == bool(workflow):
        err.print("[red]migrate:[/] give the executions' ids, or --workflow", soft_wrap=True)
        raise typer.Exit(EXIT_BAD_INPUT)
    if version and not workflow:
        err.print("[red]--from:[/] goes with --workflow", soft_wrap=True)
        raise typer.Exit(EXIT_BAD_INPUT)

    async def main(client: Any) -> None:
        ids = list(dict.fromkeys(executions or ()))
        if workflow:
            await client.definition(workflow, to)  # a version that isn't there is one error, not a thousand
            ids = await _candidates(client, workflow, version, to)
        outcome = await _migrate_all(client, ids, to, requester(user))
        if as_json:
            print_json(msgspec.to_builtins(outcome))
        else:
            _show_migrated(to, outcome)
        if outcome.refused:
            raise typer.Exit(EXIT_FAILED)

    run_client(nats, tenant, main)


async def _candidates(client: Any, workflow: str, version: str, to: str) -> list[str]:
    """The executions of a workflow that are at rest, of ``version`` where one is given."""
    with looking() as looked:
        rows = await client.executions(
            limit=None, status="WAITING,PAUSED,RUNNING", workflow=workflow, looked=looked
        )
    ids = [row["execution_id"] for row in rows if row["status"] != "RUNNING"]
    if busy := len(rows) - len(ids):
        err.print(f"{busy} are running and stay: pause them first, or wait", soft_wrap=True)
    if version:
        ids = [one for one in ids if (await client.status(one))["version"] == version]
    return ids


class _Migrated(msgspec.Struct):
    """What became of those that were asked to go on as another version, by their ids."""

    moved: list[str] = []
    queued: list[str] = []
    """They were not seen to have moved. One that goes on by itself just then can't be moved any more."""
    there_already: list[str] = []
    refused: list[dict[str, Any]] = []


async def _migrate_all(client: Any, ids: list[str], to: str, metadata: dict[str, str]) -> _Migrated:
    outcome = _Migrated()
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        for execution in progress.track(ids, description="migrating"):
            try:
                done = await client.migrate(execution, to, metadata=metadata)
            except TaskRejected as error:
                outcome.refused.append({"execution_id": execution, "error": error.as_dict()})
            else:
                found = outcome.there_already if done.duplicate else outcome.moved
                (outcome.queued if done.queued else found).append(execution)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TAKEN_UP_WITHIN_S):
            await _see_moved(client, outcome, to)
    return outcome


async def _see_moved(client: Any, outcome: _Migrated, to: str) -> None:
    """Look at those that are queued until all have moved."""
    while outcome.queued:
        for execution in tuple(outcome.queued):
            if (await client.status(execution))["version"] == to:
                outcome.queued.remove(execution)
                outcome.moved.append(execution)
        if outcome.queued:
            await asyncio.sleep(LOOK_EVERY_S)


def _show_migrated(to: str, outcome: _Migrated) -> None:
    for one in outcome.refused:
        why = one["error"]
        name = f"[cyan]{shown(one['execution_id'])}[/]"
        err.print(f"{name}  [red]{shown(why['code'])}:[/] {shown(why['message'])}", soft_wrap=True)
    for execution in outcome.queued:
        told = "queued: see `wpa status`; what can't be moved any more is in `wpa dlq list`"
        err.print(f"[cyan]{shown(execution)}[/]  {told}", soft_wrap=True)
    already = f", {len(outcome.there_already)} there already" if outcome.there_already else ""
    queued = f", {len(outcome.queued)} queued" if outcome.queued else ""
    left = f", [red]{len(outcome.refused)} not[/]" if outcome.refused else ""
    console.print(f"{len(outcome.moved)} moved to {shown(to)}{already}{queued}{left}", highlight=False)
