"""``wpa deploy``, ``validate``, ``graph``, ``schema``, ``definitions``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from wpa.cli.common import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    AsJson,
    NatsUrl,
    Tenant,
    console,
    err,
    fail,
    login_name,
    print_json,
    print_problems,
    run_client,
    shown,
)
from wpa.errors import DefinitionError, Problem, TaskRejected
from wpa.model.ids import DEFAULT_TENANT

__all__ = ["read_definition", "register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(deploy)
    app.command()(validate)
    app.command()(graph)
    app.command()(schema)
    app.command()(definitions)


Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="definitions, JSON or YAML")]


def read_definition(path: Path) -> Any:
    """The document in a file. Raises DefinitionError."""
    from wpa.plan.text import parse

    try:
        return parse(path.read_text(encoding="utf-8"), path.name)
    except OSError as error:
        raise DefinitionError([Problem("$", f"{path} can't be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise DefinitionError([Problem("$", f"{path} is not UTF-8: {error}")]) from None


def deploy(
    files: Files, nats: NatsUrl = "", tenant: Tenant = DEFAULT_TENANT, as_json: AsJson = False
) -> None:
    """Deploy definitions. A version that is there already, unchanged, is left as it is.

    What can't be deployed doesn't keep the other files from it. With --json, a list: what became of each.
    """
    answers: list[dict[str, Any]] = []
    refused: list[Path] = []

    async def main(client: Any) -> None:
        for path in files:
            try:
                done = await client.deploy(read_definition(path), deployed_by=login_name())
            except DefinitionError as error:
                print_problems(error.problems, f"[red]{shown(str(path))}[/] is not deployed:")
                refusal = TaskRejected("invalid_definition", str(error.problems[0]), error.problems)
            except TaskRejected as error:
                title = (
                    f"[red]{shown(str(path))}[/] is not deployed: {shown(error.code)}: {shown(error.message)}"
                )
                err.print(title, soft_wrap=True)
                refusal = error
            else:
                _show_deployed(done, as_json)
                about = {key: done[key] for key in ("workflow_id", "version", "hash", "created")}
                answers.append({"file": str(path), "ok": True, **about})
                continue
            refused.append(path)
            answers.append({"file": str(path), "ok": False, "error": refusal.as_dict()})

    run_client(nats, tenant, main)
    if as_json:
        print_json(answers)
    if refused:
        if len(files) > 1:
            names = ", ".join(shown(str(path)) for path in refused)
            err.print(f"[red]{len(refused)} of {len(files)} files not deployed:[/] {names}", soft_wrap=True)
        raise typer.Exit(EXIT_BAD_INPUT)


def _show_deployed(done: dict[str, Any], as_json: bool) -> None:
    workflow = done["workflow_id"]
    if not as_json:
        news = "deployed" if done["created"] else "is there already, unchanged"
        console.print(f"{workflow} {done['version']} {news}", highlight=False)
    if done.get("hides_flow"):
        hint = f"`wpa start {workflow}` starts the plan; give one of them another name"
        err.print(f"[yellow]{workflow} hides the flow of the same name:[/] {hint}", soft_wrap=True)


def validate(
    files: Files,
    any_step: Annotated[
        bool, typer.Option("--any-step", help="don't ask whether step types are installed here")
    ] = False,
    flows: Annotated[
        list[str] | None,
        typer.Option("--flows", help="know the steps of a Python file, or of a module, too; once for each"),
    ] = None,
) -> None:
    """Check definitions without a server, against the plugins installed here."""
    from wpa import plan, wire
    from wpa.hooks.modules import ModuleRefused

    try:
        catalog = None if any_step else wire.plugin_host(flows or ()).signatures()
    except ModuleRefused as error:
        err.print(f"[red]--flows:[/] {shown(str(error))}", soft_wrap=True)
        raise typer.Exit(EXIT_BAD_INPUT) from None
    bad = 0
    for path in files:
        try:
            problems = plan.check(read_definition(path), catalog)
        except DefinitionError as error:
            problems = error.problems
        if problems:
            bad += 1
            print_problems(problems, f"[red]{shown(str(path))}[/]")
        else:
            console.print(f"[green]{shown(str(path))}[/] is fine", highlight=False, soft_wrap=True)
    if bad:
        raise typer.Exit(EXIT_BAD_INPUT)


def graph(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a definition, JSON or YAML")],
    format: Annotated[
        str, typer.Option("--format", "-f", help="mermaid or svg; by default as --output ends")
    ] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="write it to this file")] = None,
    execution: Annotated[str, typer.Option("--execution", help="colour it by this execution's state")] = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """A picture of a definition: Mermaid text, or SVG."""
    from wpa import plan

    kind = format or ("svg" if output is not None and output.suffix == ".svg" else "mermaid")
    if kind not in ("mermaid", "svg"):
        err.print(f"[red]--format:[/] {shown(repr(kind))} is neither mermaid nor svg")
        raise typer.Exit(EXIT_BAD_INPUT)
    try:
        document = read_definition(file)
        problems = plan.check(document)
    except DefinitionError as error:
        fail(error)
    if problems:
        fail(DefinitionError(problems))
    states: dict[str, str] = {}
    if execution:

        async def ask(client: Any) -> Any:
            return await client.status(execution)

        found = run_client(nats, tenant, ask)
        states = {step["step"]: step["status"] for step in found["steps"]}
        states |= dict.fromkeys(found["undone"], "compensated")
    text = plan.svg(document, states) if kind == "svg" else plan.mermaid(document, states)
    if output is None:
        typer.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            err.print(
                f"[red]--output:[/] {shown(str(output))} can't be written: {error.strerror}", soft_wrap=True
            )
            raise typer.Exit(EXIT_BAD_INPUT) from None
        console.print(f"{shown(str(output))} written", highlight=False, soft_wrap=True)


def schema(
    name: Annotated[str, typer.Argument(help="definition, task, event or asyncapi")] = "definition",
    out_dir: Annotated[
        Path | None, typer.Option("--out-dir", help="write all of them into this folder")
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="compare with --out-dir (schemas, if not given); exit 1 where they differ"
        ),
    ] = False,
) -> None:
    """The JSON Schemas of definitions, tasks and events, and the AsyncAPI document."""
    from wpa.cli.schema_files import render_all

    files = render_all()
    if check and out_dir is None:
        out_dir = Path("schemas")
    if out_dir is None:
        wanted = [text for file, text in files.items() if file.partition(".")[0] == name]
        if not wanted:
            err.print(f"[red]{shown(name)}[/] is none of definition, task, event, asyncapi")
            raise typer.Exit(EXIT_BAD_INPUT)
        typer.echo(wanted[0], nl=False)
        return
    stale = [file for file, text in files.items() if _read(out_dir / file) != text]
    if check:
        if stale:
            remedy = f"write them with `wpa schema --out-dir {shown(str(out_dir))}`"
            err.print(f"[red]{', '.join(stale)}[/] differ; {remedy}", soft_wrap=True)
            raise typer.Exit(EXIT_FAILED)
        console.print("the schemas are up to date")
        return
    out_dir.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (out_dir / file).write_text(text, encoding="utf-8")
    console.print(f"{len(files)} files in {shown(str(out_dir))}, {len(stale)} changed", highlight=False)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def definitions(
    workflow: Annotated[str, typer.Argument(metavar="[WORKFLOW]", help="show this one's document")] = "",
    version: Annotated[str, typer.Option("--version", help="a version other than the latest")] = "",
    nats: NatsUrl = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """What is deployed; with WORKFLOW, the document itself."""

    async def main(client: Any) -> None:
        if workflow:
            print_json((await client.definition(workflow, version))["document"])
            return
        rows = await client.definitions()
        if as_json:
            print_json(rows)
            return
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("workflow", "version", "kind", "latest", "deployed at", "by", "hash"):
            table.add_column(column)
        plans = {row["workflow_id"] for row in rows if row.get("kind", "plan") == "plan"}
        for row in rows:
            latest = "yes" if row["latest"] else ""
            kind = row.get("kind", "plan")
            if kind != "plan" and row["workflow_id"] in plans:
                kind += ", hidden by the plan"
            table.add_row(
                row["workflow_id"],
                row["version"],
                kind,
                latest,
                row["deployed_at"],
                shown(row["deployed_by"]),
                row["hash"][:12],
            )
        console.print(table if rows else "[dim]nothing is deployed yet; deploy with `wpa deploy FILE`[/]")

    run_client(nats, tenant, main)
