from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.unit.cli.fakes import FakeClient
from wpa.cli import common
from wpa.cli.app import app
from wpa.client import Client


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The client that every command gets, wherever it connects to."""
    fake = FakeClient()

    async def connect(url: str, tenant: str, creds: Any = None, letters_only: bool = False) -> FakeClient:
        fake.calls.append(("connect", (url, tenant)))
        return fake

    monkeypatch.setattr(Client, "connect", connect)
    return fake


@pytest.fixture
def wpa(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command in this process. A traceback in it is an error of the test."""
    for name in ("WPA_NATS_URL", "WPA_TENANT", "WPA_DATA_DIR", "WPA_NATS_CREDS", "WPA_USER"):
        monkeypatch.delenv(name, raising=False)

    monkeypatch.setattr(common.console, "width", 200)

    def run(*arguments: str, input: str | None = None) -> Result:
        result = CliRunner().invoke(app, list(arguments), input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
