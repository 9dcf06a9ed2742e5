"""``wpa schedule``: what starts by itself; ``wpa workers``: who works."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from wpa.cli.common import AsJson, NatsUrl, Tenant, console, print_json, run_client, shown
from wpa.model.ids import DEFAULT_TENANT

__all__ = ["app", "register"]

UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))

app = typer.Typer(help="Schedules: executions that start by themselves.", no_args_is_help=True)

Workflow = Annotated[str, typer.Argument(metavar="WORKFLOW", help="the workflow that is started")]


def register(app: typer.Typer) -> None:
    """Add the commands that stand alone."""
    app.command()(workers)


@app.command("list")
def list_schedules(nats: NatsUrl = "", tenant: Tenant = DEFAULT_TENANT, as_json: AsJson = False) -> None:
    """Every schedule: when, whether it is paused, and what it has started."""

    async def main(client: Any) -> None:
        rows = await client.schedules()
        if as_json:
            print_json(rows)
        elif not rows:
            console.print("[dim]nothing is scheduled; give a definition a `schedule`, and deploy it[/]")
        else:
            console.print(_schedules(rows))

    run_client(nats, tenant, main)


def _schedules(rows: list[dict[str, Any]]) -> Table:
    from wpa.cli.render import when

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("workflow", "version", "schedule", "next", "last", "started", "skipped", "missed"):
        table.add_column(column, overflow="fold")
    for row in rows:
        zone = f" {row['time_zone']}" if row["time_zone"] else ""
        upcoming = "[yellow]paused[/]" if row["paused"] else when(row["next_at"] or "")
        last = (
            f"{when(row['last_fired_at'])} {row['last_execution_id'] or ''}" if row["last_fired_at"] else ""
        )
        table.add_row(
            row["workflow_id"],
            row["version"],
            shown(_as_written(row["schedule"]) + zone),
            upcoming,
            last.strip(),
            *(str(row[count]) for count in ("started", "skipped", "missed")),
        )
    return table


def _as_written(schedule: str) -> str:
    """An interval in the largest unit that it is a whole number of: the server is told of seconds."""
    found = re.fullmatch(r"(@every |every )(\d+)s", schedule)
    if found is None:
        return schedule
    seconds = int(found[2])
    size, unit = next(each for each in UNITS if seconds % each[0] == 0)
    return f"{found[1]}{seconds // size}{unit}"


@app.command()
def pause(
    workflow: Workflow, nats: NatsUrl = "", tenant: Tenant = DEFAULT_TENANT, as_json: AsJson = False
) -> None:
    """Start nothing by itself until `wpa schedule resume`."""
    _change("pause_schedule", workflow, "is paused", (nats, tenant, as_json))


@app.command()
def resume(
    workflow: Workflow, nats: NatsUrl = "", tenant: Tenant = DEFAULT_TENANT, as_json: AsJson = False
) -> None:
    """End a schedule's pause."""
    _change("resume_schedule", workflow, "goes on", (nats, tenant, as_json))


@app.command()
def delete(
    workflow: Workflow, nats: NatsUrl = "", tenant: Tenant = DEFAULT_TENANT, as_json: AsJson = False
) -> None:
    """Forget a schedule. Deploying a new version that has one brings it back."""
    _change("delete_schedule", workflow, "is deleted", (nats, tenant, as_json))


def _change(how: str, workflow: str, news: str, where: tuple[str, str, bool]) -> None:
    nats, tenant, as_json = where

    async def main(client: Any) -> None:
        row = await getattr(client, how)(workflow)
        if as_json:
            print_json(row)
        else:
            console.print(f"the schedule of {shown(workflow)} {news}", highlight=False, soft_wrap=True)

    run_client(nats, tenant, main)


@app.command()
def trigger(
    workflow: Workflow,
    new_id: Annotated[
        str, typer.Option("--id", help="of the new execution; the same again changes nothing")
    ] = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """Start what is scheduled now, paused or not. Twice within a second is once, where no id is given."""

    async def main(client: Any) -> None:
        execution = await client.trigger_schedule(workflow, new_execution_id=new_id)
        if as_json:
            print_json({"workflow_id": workflow, "execution_id": execution})
        else:
            console.print(execution, highlight=False, soft_wrap=True)

    run_client(nats, tenant, main)


def workers(
    steps: Annotated[bool, typer.Option("--steps", help="every step type, in place of how many")] = False,
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """The workers that are there: where, since when, and what they can do."""

    async def main(client: Any) -> None:
        rows = await client.workers()
        if as_json:
            print_json(rows)
            return
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("worker", "host", "pid", "version", "since", "queues", "flows", "step types"):
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(
                *(shown(str(row[key])) for key in ("worker", "host", "pid", "version", "started_at")),
                shown(", ".join(row.get("queues", ()))),
                shown(", ".join(row.get("flows", ()))),
                shown(", ".join(row["step_types"] if steps else _counted(row["step_types"]))),
            )
        console.print(table)

    run_client(nats, tenant, main)


def _counted(step_types: list[str]) -> list[str]:
    """How many step types of each plugin."""
    counts = Counter(name.partition(".")[0] for name in step_types)
    return [f"{plugin} {count}" for plugin, count in sorted(counts.items())]
