"""The commands, put together."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from wpa.cli import (
    approvals,
    asks,
    definitions,
    dlq,
    doctor,
    executions,
    fleet,
    plugins,
    processes,
    replaying,
)

__all__ = ["app"]

app = typer.Typer(
    name="wpa",
    help="Durable workflows on NATS JetStream. Start with `wpa dev`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"wpa {metadata.version('wpa-engine')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and leave")
    ] = False,
) -> None:
    """Durable workflows on NATS JetStream."""


@app.command()
def version() -> None:
    """Print the version."""
    _version(asked=True)


processes.register(app)
definitions.register(app)
executions.register(app)
replaying.register(app)
asks.register(app)
app.add_typer(approvals.app, name="approvals")
app.add_typer(fleet.app, name="schedule")
fleet.register(app)
doctor.register(app)
app.add_typer(dlq.app, name="dlq")
app.add_typer(plugins.plugin_app, name="plugin")
plugins.register(app)
