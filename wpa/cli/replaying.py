"""``wpa replay``: journals against the code that is here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
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
    print_problems,
    run_client,
    shown,
)
from wpa.cli.definitions import read_definition
from wpa.errors import DefinitionError, WpaError
from wpa.kernel.program import Program
from wpa.model.events import Event
from wpa.model.ids import DEFAULT_TENANT

__all__ = ["register"]

Journals = Annotated[
    list[str],
    typer.Argument(metavar="JOURNAL...", help="files of wpa history --json, folders of them, or executions"),
]
Flows = Annotated[
    list[str] | None,
    typer.Option("--flows", help="the flows of a Python file, or of a module[:flow]; once for each"),
]
Definitions = Annotated[
    list[Path] | None, typer.Option("--definition", help="a definition, JSON or YAML; once for each")
]


class Stored(msgspec.Struct, frozen=True):
    """A journal, and the large payloads that it refers to."""

    events: list[Event]
    payloads: Mapping[str, Any] = {}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    journals: Journals,
    flows: Flows = None,
    definition: Definitions = None,
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """Check journals against the flows and definitions that are here: would these executions go on?"""
    from wpa.testing.errors import TestKitError
    from wpa.testing.replaying import replay

    rows = []
    try:
        programs = _programs(flows or (), definition or ())
        for stored in _stored(journals, nats, tenant):
            first = stored.events[0]
            divergence = replay(_program(programs, first), stored.events, payloads=stored.payloads)
            rows.append(
                {
                    "execution_id": first.execution_id,
                    "workflow_id": first.workflow_id,
                    "events": len(stored.events),
                    "diverges_at": None if divergence is None else divergence.event.seq,
                    "reason": "" if divergence is None else divergence.reason,
                }
            )
    except TestKitError as error:
        err.print(f"[red]replay:[/] {shown(str(error))}", soft_wrap=True)
        raise typer.Exit(EXIT_BAD_INPUT) from None
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            _show(row)
    if any(row["reason"] for row in rows):
        raise typer.Exit(EXIT_FAILED)


def _show(row: Mapping[str, Any]) -> None:
    name = f"{shown(row['execution_id'])}  {shown(row['workflow_id'])}  {row['events']} events"
    if not row["reason"]:
        console.print(f"{name}  [green]replays[/]", highlight=False, soft_wrap=True)
        return
    console.print(f"{name}  [red]diverges[/] at event {row['diverges_at']}", highlight=False, soft_wrap=True)
    console.print(f"  {shown(row['reason'])}".replace("\n", "\n  "), highlight=False, soft_wrap=True)


# -- what is here ----------------------------------------------------------------------------


def _programs(flows: Iterable[str], definitions: Iterable[Path]) -> dict[str, Program]:
    """The workflows that are here, by id: flows, those of plugins too, and the definitions that are given."""
    from wpa import wire
    from wpa.testing.workflows import program_of

    try:
        known: dict[str, Program] = dict(wire.plugin_host(flows).flows())
    except WpaError as error:
        err.print(f"[red]--flows:[/] {shown(str(error))}", soft_wrap=True)
        raise typer.Exit(EXIT_BAD_INPUT) from None
    for path in definitions:
        try:
            program = program_of(read_definition(path))
        except DefinitionError as error:
            print_problems(error.problems, shown(str(path)))
            raise typer.Exit(EXIT_BAD_INPUT) from None
        known[program.id] = program
    return known


def _program(known: Mapping[str, Program], first: Event) -> Program:
    from wpa.testing.errors import TestKitError

    found = known.get(first.workflow_id)
    if found is None:
        raise TestKitError(
            f"{first.execution_id} ran workflow {first.workflow_id}, which is not here; give it with --flows "
            f"or --definition; known are: {', '.join(sorted(known)) or 'none'}"
        )
    return found


# -- what is recorded ------------------------------------------------------------------------


def _stored(journals: Iterable[str], nats: str, tenant: str) -> Iterator[Stored]:
    """Every journal: of files first, then of executions on the server."""
    from wpa.testing import replaying

    executions = []
    for given in journals:
        path = Path(given)
        if path.is_dir():
            yield from (Stored(replaying.events_of(found)) for found in replaying.journals(path))
        elif path.exists() or path.suffix == ".json":
            yield Stored(replaying.events_of(path))
        else:
            executions.append(given)
    if executions:
        for events, payloads in run_client(nats, tenant, lambda client: _fetched(client, executions)):
            yield Stored(replaying.events_of(events), payloads)


async def _fetched(client: Any, executions: Iterable[str]) -> list[tuple[list[Any], dict[str, Any]]]:
    """The journals, each with the large payloads that it refers to."""
    found = []
    for execution in executions:
        recorded = await client.history(execution)
        keys = sorted({key for event in recorded for key in _payload_keys(event["data"])})
        payloads = {key: msgspec.json.decode(await client.payload(key)) for key in keys}
        found.append((recorded, payloads))
    return found


def _payload_keys(data: dict[str, Any]) -> Iterator[str]:
    """The keys of the large payloads that the data of an event refer to. Of what else looks like a reference,
    in an input as in a signal's payload, nothing was stored."""
    from wpa.engine.payloads import reference

    taken_over = (slot.get("output") for slot in data.get("settled", ()))
    for value in (data.get("input"), data.get("output"), *taken_over):
        key = reference(value)
        if key is not None:
            yield key
