"""All hooks that a plugin can implement. Each is documented in ``docs/plugins.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pluggy

from wpa.ports.steps import StepType

__all__ = ["hookimpl", "hookspec"]

hookspec = pluggy.HookspecMarker("wpa")
hookimpl = pluggy.HookimplMarker("wpa")


@hookspec
def wpa_steps() -> Iterable[StepType | Callable[..., Any]]:  # type: ignore[empty-body]
    """The plugin's step types: functions declared with ``@step``. Called once, at discovery."""


@hookspec
def wpa_flows() -> Iterable[Callable[..., Any]]:  # type: ignore[empty-body]
    """The plugin's flows: functions declared with ``@flow``. Called once, at discovery."""


@hookspec
def wpa_worker_started(worker: str) -> None:
    """A worker has begun to take tasks. For clients and caches that live as long as it does."""


@hookspec
def wpa_worker_stopping(worker: str) -> None:
    """A worker has drained and is about to end."""
