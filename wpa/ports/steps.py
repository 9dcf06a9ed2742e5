"""Steps as the engine sees them: a type that can be looked up, and a context it is called with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec

from wpa.model.steptype import StepSignature

__all__ = ["Isolation", "StepCatalog", "StepContext", "StepType"]

Isolation = Literal["async", "thread", "process"]


class StepContext(Protocol):
    """What a running step knows and may do. The engine makes one for each attempt.

    ``idempotency_key`` is the same at every attempt of the same slot: pass it to whatever the step
    changes, so that a second run (steps run at least once) changes nothing. It is unique within the tenant:
    executions of two tenants may have one id. Combine it with ``tenant`` where one account serves several.
    """

    @property
    def tenant(self) -> str: ...
    @property
    def workflow(self) -> str: ...
    @property
    def execution(self) -> str: ...
    @property
    def step(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def idempotency_key(self) -> str: ...
    @property
    def metadata(self) -> dict[str, Any]: ...
    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for this attempt any more: it timed out, or was cancelled.

        For steps in threads, which can't be stopped: look at it now and then, and return. Async steps get
        asyncio's cancellation, processes are ended.
        """
        ...

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]: ...

    async def progress(self, percentage: float, message: str = "", **data: Any) -> None:
        """Publish a ``step_progress`` live event (best effort, not stored)."""
        ...

    def progress_sync(self, percentage: float, message: str = "", **data: Any) -> None:
        """The same from a step that isn't async (a thread or a process)."""
        ...

    async def emit(self, subject: str, data: Any) -> str:
        """Publish ``data`` under the tenant's own prefix, ``workflow.emit.<tenant>.``.

        Returns the whole subject. At most once: core NATS keeps nothing for absent subscribers.
        """
        ...

    def heartbeat(self) -> None:
        """Say that a long step is alive. Leases are kept by the engine; this is for watchers."""
        ...


class StepType(msgspec.Struct, frozen=True, kw_only=True):
    """A registered step type.

    ``bind`` turns decoded JSON inputs into the keyword arguments of ``fn`` (validated from its type
    hints; raises :class:`wpa.errors.StepFailed`, not retryable, where they don't fit). ``dump``
    turns what ``fn`` returned into plain JSON-ready data (and raises likewise).
    """

    name: str
    fn: Callable[..., Any]
    isolation: Isolation
    takes_context: bool
    bind: Callable[[Any], dict[str, Any]]
    dump: Callable[[Any], Any]
    signature: StepSignature
    source: str = ""
    """Where it comes from: ``distribution version (module)``."""


class StepCatalog(Protocol):
    """The step types of this worker."""

    def get(self, name: str) -> StepType | None: ...

    def names(self) -> list[str]: ...
