"""``wpa dlq``: tasks that could not be understood or may not run, with the reason."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from wpa.cli.common import AsJson, NatsUrl, Tenant, console, print_json, run_client, shown
from wpa.model.ids import DEFAULT_TENANT

__all__ = ["app"]

app = typer.Typer(help="Dead letters: rejected tasks, kept as they came.", no_args_is_help=True)

Sequence = Annotated[int, typer.Argument(metavar="NUMBER", help="the letter's number, from `wpa dlq list`")]


@app.command("list")
def list_letters(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 50,
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """The newest dead letters."""

    async def main(client: Any) -> None:
        rows = await client.dlq_list(limit)
        if as_json:
            print_json(rows)
            return
        if not rows:
            console.print("[dim]no dead letters[/]")
            return
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("number", "at", "code", "bytes", "reason"):
            table.add_column(column, overflow="fold", no_wrap=column == "at")
        for row in rows:
            table.add_row(
                str(row["sequence"]), row["timestamp"], row["code"], str(row["size"]), shown(row["message"])
            )
        console.print(table)

    run_client(nats, tenant, main, letters_only=True)


@app.command()
def show(
    sequence: Sequence, nats: NatsUrl = "", tenant: Tenant = DEFAULT_TENANT, as_json: AsJson = False
) -> None:
    """One dead letter: why, and the original bytes."""

    async def main(client: Any) -> None:
        letter = await client.dlq_show(sequence)
        if as_json:
            print_json(letter)
            return
        console.print(f"[red]{shown(letter['code'])}[/]  {shown(letter['message'])}", soft_wrap=True)
        for problem in letter.get("problems", ()):
            console.print(f"  [cyan]{shown(problem['path'])}[/]  {shown(problem['message'])}", soft_wrap=True)
        console.print(f"[dim]{letter['subject']}, {letter['size']} bytes, rejected {letter['timestamp']}[/]")
        console.print(shown(letter["text"][:10_000]), soft_wrap=True, highlight=False)

    run_client(nats, tenant, main, letters_only=True)


@app.command()
def retry(sequence: Sequence, nats: NatsUrl = "", tenant: Tenant = DEFAULT_TENANT) -> None:
    """Queue a dead letter's task again, as it came, and remove the letter."""

    async def main(client: Any) -> None:
        task = await client.dlq_retry(sequence)
        console.print(f"letter {sequence} is queued again, as task {task}", highlight=False)

    run_client(nats, tenant, main)
