"""``wpa approvals``: what waits for somebody, and the answers."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from wpa.cli.common import (
    AsJson,
    AsUser,
    NatsUrl,
    Tenant,
    console,
    err,
    login_name,
    looking,
    print_json,
    run_client,
    shown,
)
from wpa.cli.executions import ExecutionId
from wpa.model.ids import DEFAULT_TENANT

__all__ = ["app"]

app = typer.Typer(help="Approvals: what waits for somebody, and the answers.", no_args_is_help=True)

Step = Annotated[str, typer.Argument(metavar="STEP", help="the step that waits, from `wpa approvals list`")]
Roles = Annotated[list[str] | None, typer.Option("--role", help="a role of yours; may be repeated")]
Comment = Annotated[str, typer.Option("--comment", "-m", help="why; it is recorded")]


@app.command("list")
def list_approvals(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 100,
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """What waits for an approval, the oldest first."""

    async def main(client: Any) -> None:
        with looking() as looked:
            found = await client.approvals(limit=None, looked=looked)
        rows = found[:limit]
        if len(found) > limit:
            err.print(f"[yellow]{limit} of {len(found)}; --limit for more[/]", soft_wrap=True)
        if as_json:
            print_json(rows)
        elif not rows:
            console.print("[dim]nothing waits for an approval[/]")
        else:
            console.print(_table(rows))

    run_client(nats, tenant, main)


def _table(rows: list[dict[str, Any]]) -> Table:
    from wpa.cli.render import ID_KEPT_WHOLE, asked_by, when

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    # What `wpa approvals approve` wants to be given has to be copied whole: the others give way first.
    whole = {"since", "until"}
    for column, key in (("execution", "execution_id"), ("step", "slot")):
        if max(len(row[key]) for row in rows) <= ID_KEPT_WHOLE:
            whole.add(column)
    for column in ("execution", "workflow", "step", "who may", "answers", "since", "until", "message"):
        table.add_column(column, overflow="fold", no_wrap=column in whole)
    for row in rows:
        approval = row["approval"]
        who = [*approval["users"], *(f"role {role}" for role in approval["roles"])]
        given = ", ".join(asked_by(answer["by"]) or "somebody" for answer in approval["answers"])
        unknown = approval.get("unknown")
        wanted = "?" if unknown else approval["count"]
        answers = f"{len(approval['answers'])} of {wanted}{f' ({given})' if given else ''}"
        table.add_row(
            row["execution_id"],
            row["workflow_id"],
            row["slot"],
            shown("whom its code names" if unknown else ", ".join(who) or "anybody"),
            shown(answers),
            when(row["since"]),
            when(row.get("until", "")),
            shown(approval["message"]),
        )
    return table


@app.command()
def approve(
    execution: ExecutionId,
    step: Step,
    user: AsUser = "",
    roles: Roles = None,
    comment: Comment = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """Approve what a step waits for."""

    async def main(client: Any) -> None:
        who = user or login_name()
        done = await client.approve(execution, step, user=who, roles=roles or [], comment=comment)
        _show(done, "approved", who, step, as_json)

    run_client(nats, tenant, main)


@app.command()
def reject(
    execution: ExecutionId,
    step: Step,
    user: AsUser = "",
    roles: Roles = None,
    comment: Comment = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """Reject what a step waits for. One rejection decides."""

    async def main(client: Any) -> None:
        who = user or login_name()
        done = await client.reject(execution, step, user=who, roles=roles or [], comment=comment)
        _show(done, "rejected", who, step, as_json)

    run_client(nats, tenant, main)


def _show(done: Any, verdict: str, who: str, step: str, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(done))
    elif done.duplicate:
        console.print(f"{shown(who)} has answered {shown(step)} before; the first answer counts")
    else:
        text = f"{done.execution_id}: {step} is {verdict} by {who}"
        console.print(shown(text), highlight=False, soft_wrap=True)
