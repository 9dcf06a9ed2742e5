from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.servers import NatsServer

# Machines are noisy: how long an example takes says nothing. In CI the examples are the same each time, so a
# red run is the change's fault; whoever runs the tests at home looks at new ones.
hypothesis.settings.register_profile("wpa", deadline=None, derandomize=os.environ.get("CI") == "true")
hypothesis.settings.load_profile("wpa")


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A real nats-server, shared by all tests of this process: use a ``tenant`` of your own."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A real nats-server of one's own, to be killed and restarted."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def tenant() -> str:
    """A tenant that nobody else uses."""
    return f"t-{uuid.uuid4().hex[:16]}"
