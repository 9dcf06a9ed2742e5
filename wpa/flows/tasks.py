"""Tasks and futures of a flow: they wait for nothing that is not its own, and have their order.

Sets of tasks and futures, as ``asyncio.wait`` returns them, have to iterate alike in each replay, so each
hashes by its number in the run and not by its address.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from wpa.flows.errors import Discarded, NotDeterministic
from wpa.flows.sites import suspended_site

if TYPE_CHECKING:
    from wpa.flows.loop import FlowLoop

__all__ = ["FlowFuture", "FlowTask", "Gathering", "Guarded", "Steadfast", "refusal"]

T = TypeVar("T")

CLOSING_TRIES: Final = 100
"""How often a coroutine that is thrown away may await once more in its ``finally`` blocks."""

log = logging.getLogger("wpa.flows")


def refusal(site: str, does: str) -> NotDeterministic:
    """The error for what a flow may not do: ``does`` reads as in "opens a file (open)"."""
    return NotDeterministic(
        f"{site}: the flow {does}. A flow is run again from its journal and may only await its own calls, "
        'timers and signals; move this into a step (a function with @step("<plugin>.<verb>")) and write '
        'await call("<plugin>.<verb>", ...) in its place'
    )


class Guarded(Coroutine[Any, Any, Any]):
    """A coroutine that may only await what belongs to its own loop."""

    __slots__ = ("__name__", "__qualname__", "_coro", "_loop")

    def __init__(self, coro: Coroutine[Any, Any, Any], loop: FlowLoop) -> None:
        self._coro = coro
        self._loop = loop
        self.__name__: str = getattr(coro, "__name__", type(coro).__name__)
        self.__qualname__: str = getattr(coro, "__qualname__", self.__name__)

    def send(self, value: Any) -> Any:
        return self._ours(self._coro.send(value))

    def throw(self, *error: Any) -> Any:
        return self._ours(self._coro.throw(*error))

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coro.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coro, name)  # cr_frame, cr_await ...: what tracebacks and debuggers look at

    def _ours(self, awaited: Any) -> Any:
        while awaited is not None:
            try:
                if awaited.get_loop() is self._loop:
                    return awaited
                awaited._asyncio_future_blocking = False  # noqa: SLF001  as if nobody had awaited it
            except AttributeError:
                pass
            site = suspended_site(self._coro, self._loop.root)
            does = f"awaits what no slot settles ({type(awaited).__module__}.{type(awaited).__qualname__})"
            awaited = self._coro.throw(refusal(site, does))
        return None

    def discard(self) -> None:
        """End the coroutine without letting it wait for anything any more."""
        for _ in range(CLOSING_TRIES):
            try:
                self._coro.throw(Discarded())
            except KeyboardInterrupt:
                raise
            except BaseException:
                return
        log.warning("%s goes on awaiting though its run is over; it is left behind", self.__qualname__)


class FlowTask(asyncio.Task[T]):
    """A task whose place in a set is the same in each replay of an execution."""

    def __init__(self, coro: Guarded, order: int, **options: Any) -> None:
        self._order = order
        super().__init__(coro, **options)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._order

    @property
    def awaits(self) -> Future[Any] | None:
        """What the task waits for."""
        return getattr(self, "_fut_waiter", None)


class FlowFuture(asyncio.Future[T]):
    """A future whose place in a set is the same in each replay, too."""

    def __init__(self, order: int, loop: FlowLoop) -> None:
        self._order = order
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._order


class Steadfast(asyncio.Future[T]):
    """A future that can not be cancelled: a task that is cancelled while it awaits one hears of it after."""

    def cancel(self, msg: Any = None) -> bool:
        return False


class Gathering(asyncio.tasks._GatheringFuture):  # type: ignore[name-defined,misc]  # noqa: SLF001
    """What ``asyncio.gather`` returns, likewise."""

    _order: int

    def __hash__(self) -> int:
        return self._order
