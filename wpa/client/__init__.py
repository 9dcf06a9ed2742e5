"""The outside client: start executions, ask about them and of them, wait for them, follow them.

It needs nothing but a connection: all it does, any NATS client in any language can do. A start is given
its execution id here, so a start that is repeated after a time-out is the same start.
"""

from __future__ import annotations

from wpa.client.asks import AskResult, RerunResult
from wpa.client.client import Client, StartResult
from wpa.connection import without_password

__all__ = ["AskResult", "Client", "RerunResult", "StartResult", "without_password"]
