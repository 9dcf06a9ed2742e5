"""Suspects: tasks that were handed out so often that they may be what ends their workers.

Each is tried (:mod:`wpa.engine.trials`) before a worker even reads it. What comes through is taken as ever:
most were only in hand when something else ended their worker. What this worker itself has handed back alive
is none, however often it comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from wpa.engine.letters import HAND_BACK_S
from wpa.engine.services import Services
from wpa.engine.trials import Death
from wpa.errors import PlatformError, PoisonMessage
from wpa.ports.tasks import Lease

__all__ = ["TRIED_FROM", "Suspects", "poison"]

TRIED_FROM: Final = 4
"""The delivery from which on a task is tried: the first three workers may have ended by chance."""
VOUCHED_MAX: Final = 10_000

log = logging.getLogger("wpa.worker")


class Suspects:
    """One worker's.

    Args:
        services: what tries them; where there is nothing that does, nothing is suspected.
        tried: called with the lease, and with why its task may not be run; None: it may.
        handed_back: called with a lease that could not be tried.
    """

    def __init__(
        self,
        services: Services,
        tried: Callable[[Lease, PoisonMessage | None], None],
        handed_back: Callable[[Lease], None],
    ) -> None:
        self._services = services
        self._tried = tried
        self._handed_back = handed_back
        self._leases: dict[tuple[str, str], Lease] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._vouched: OrderedDict[str, None] = OrderedDict()
        """What was handed back here, by the lease's identity; the latest last."""

    def holds(self, lease: Lease) -> bool:
        """Whether it is being tried: then, the newest lease counts."""
        key = (lease.tenant, lease.identity)
        if key not in self._leases:
            return False
        self._leases[key] = lease
        return True

    def takes(self, lease: Lease) -> bool:
        """Begin to try a task, if it has to be; ``tried`` is called in the end."""
        trials = self._services.trials
        if lease.delivered < TRIED_FROM or trials is None or lease.identity in self._vouched:
            return False
        self._leases[lease.tenant, lease.identity] = lease
        task = asyncio.create_task(self._try(lease), name="wpa-trial")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def vouch(self, lease: Lease) -> None:
        """It is handed back, and did no harm."""
        if self._services.trials is not None:
            self._vouched[lease.identity] = None
            if len(self._vouched) > VOUCHED_MAX:
                self._vouched.popitem(last=False)

    def extend(self) -> None:
        """Keep the leases of what is being tried alive."""
        for lease in self._leases.values():
            lease.extend()

    def close(self) -> None:
        """Try nothing more, and hand back what is being tried."""
        for task in self._tasks:
            task.cancel()
        for lease in self._leases.values():
            lease.nak()
        self._leases.clear()

    async def _try(self, lease: Lease) -> None:
        trials, death = self._services.trials, None
        assert trials is not None  # noqa: S101  see ``takes``
        try:
            death = await trials.attend(lease)
        except PlatformError as error:
            log.warning("task %d of %s can't be tried yet: %s", lease.sequence, lease.source.subject, error)
            self._leases.pop((lease.tenant, lease.identity)).nak(HAND_BACK_S)
            self._handed_back(lease)
            return
        except Exception:
            log.exception("a trial failed by an error of the engine's own; please report it")
        lease = self._leases.pop((lease.tenant, lease.identity), lease)
        self._tried(lease, poison(death, lease.delivered, self._services.worker) if death else None)


def poison(death: Death, delivered: int, worker: str) -> PoisonMessage:
    """Why a task, or the execution that it is for, is not run again."""
    return PoisonMessage(
        f"workers end at it: it was handed out {delivered} times, and tried in two processes of its "
        f"own, which it ended, too ({death.how}); the log of worker {worker} says where",
        readable=death.admitted,
    )
