from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import metadata

import pytest
from click.testing import Result

COMMANDS = [
    *("dev", "server", "worker", "deploy", "validate", "graph", "schema", "start", "status", "history"),
    *("list", "watch", "plugins", "plugin", "dlq", "version", "definitions", "workers", "schedule"),
    "doctor",
    *("signal", "approvals", "pause", "resume", "cancel", "terminate", "retry", "rerun", "migrate"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_is_for(wpa: Callable[..., Result], command: str) -> None:
    assert command in wpa("--help").stdout
    result = wpa(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_the_version_is_an_option_and_a_command(wpa: Callable[..., Result]) -> None:
    expected = f"wpa {metadata.version('wpa-engine')}\n"
    assert wpa("--version").stdout == expected
    assert wpa("version").stdout == expected


def test_an_unknown_command_is_bad_usage(wpa: Callable[..., Result]) -> None:
    result = wpa("strat")
    assert result.exit_code == 2
    assert "No such command" in result.stderr


def test_a_client_command_does_not_pay_for_what_it_does_not_use() -> None:
    """Each of these costs a start more than the start itself."""
    code = (
        "import sys, wpa.cli.app, wpa.client\n"
        "heavy = ('pydantic', 'jsonschema', 'cel_expr_python', 'opentelemetry', 'uvloop', 'yaml', 'pluggy')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
