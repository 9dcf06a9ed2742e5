"""The command line. Imports are late, so that ``wpa --help`` and the client commands start fast."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """The ``wpa`` command."""
    from wpa.cli.app import app

    app()
