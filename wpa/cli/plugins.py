"""``wpa plugins`` and ``wpa plugin new``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.markup import escape

from wpa.cli.common import EXIT_BAD_INPUT, EXIT_FAILED, AsJson, console, err, print_json

__all__ = ["plugin_app", "register"]

plugin_app = typer.Typer(help="Write plugins.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(plugins)


def plugins(as_json: AsJson = False) -> None:
    """The installed plugins, the engine's own steps first: from where, with which hooks, steps and flows."""
    from wpa import wire
    from wpa.hooks.host import PluginInfo
    from wpa.plan import SIGNATURES

    host = wire.plugin_host()
    found = [
        PluginInfo(name="engine", distribution="wpa-engine", location="wpa.plan", steps=sorted(SIGNATURES)),
        *host.plugins(),
    ]
    if as_json:
        print_json([msgspec.to_builtins(plugin) for plugin in found])
    else:
        signatures = {**SIGNATURES, **host.signatures()}
        for plugin in found:
            origin = f"{plugin.distribution} {plugin.version}".strip()
            console.print(
                f"[bold]{plugin.name}[/]  {origin}  [dim]{escape(plugin.location)}[/]", soft_wrap=True
            )
            if plugin.hooks:
                console.print(f"  hooks  {', '.join(plugin.hooks)}", highlight=False, soft_wrap=True)
            for name in plugin.steps:
                about = signatures[name].description
                about = about.partition("\n")[0]
                console.print(f"  [green]{name:<22}[/] {escape(about)}", highlight=False, soft_wrap=True)
            for name in plugin.flows:
                console.print(f"  [cyan]{name:<22}[/] flow", highlight=False, soft_wrap=True)
            if plugin.error:
                console.print(f"  [red]{escape(plugin.error)}[/]", soft_wrap=True)
    if any(plugin.error for plugin in found):
        raise typer.Exit(EXIT_FAILED)


@plugin_app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="the plugin's name, e.g. payments")],
    directory: Annotated[
        Path | None, typer.Option("--dir", help="where to write it; wpa-NAME by default")
    ] = None,
) -> None:
    """Write the skeleton of a plugin, with its test."""
    from wpa.cli.plugin_template import write_skeleton

    target = directory or Path(f"wpa-{name}")
    try:
        files = write_skeleton(target, name)
    except (ValueError, FileExistsError) as error:
        err.print(f"[red]{escape(str(error))}[/]", soft_wrap=True)
        raise typer.Exit(EXIT_BAD_INPUT) from None
    for path in files:
        console.print(f"  {escape(str(path))}", highlight=False, soft_wrap=True)
    console.print(
        f"next: pip install -e {escape(str(target))} pytest && pytest {escape(str(target))}",
        highlight=False,
        soft_wrap=True,
    )
