"""``wpa doctor``: whether a server will do."""

from __future__ import annotations

import os

import typer

from wpa.cli.common import EXIT_FAILED, NatsUrl, console, err, find_url, run_async, shown

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(nats: NatsUrl = "") -> None:
    """Look at a server, its streams and consumers: would a worker refuse them, or get nothing, and why?

    Asks as a worker: with its credentials, as whoever owns the streams. Nothing is changed.
    """
    from wpa import wire

    faults = run_async(wire.examine(find_url(nats), os.environ.get("WPA_NATS_CREDS")))
    for fault in faults:
        err.print(f"[red]fault:[/] {shown(fault)}", soft_wrap=True)
    if faults:
        raise typer.Exit(EXIT_FAILED)
    console.print("[green]ok:[/] the server, and what is there of streams and buckets, will do")
