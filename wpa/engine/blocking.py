"""Blocked executions: code that can't go on with what is recorded, and how it is found out that it can again.

Where it is the code, or what it needs, that is not there, it is looked again every half a minute. What ends
its workers is left alone until somebody asks for it: then it is tried first (:mod:`wpa.engine.trials`).
"""

from __future__ import annotations

import logging
from typing import Final

from wpa.engine.commit import commit
from wpa.engine.door import Request
from wpa.engine.drive import Drive
from wpa.engine.effects import Effects
from wpa.engine.loading import folded, revive
from wpa.engine.services import Services
from wpa.errors import NotFound, PoisonMessage, TaskRejected
from wpa.kernel.draft import Draft, seal
from wpa.kernel.execution import Diverged
from wpa.kernel.requests import blocked
from wpa.kernel.telling import takeover_data
from wpa.model import events as ev
from wpa.model.events import Failure
from wpa.model.state import State, decode_state, encode_state
from wpa.model.tasks import CANCEL, MIGRATE, RESUME, RETRY
from wpa.model.times import rfc3339

__all__ = ["Blocking"]

BLOCKED_RETRY_MS: Final = 30_000
CODE_TRIES: Final = 30
"""So often an execution is left to workers that have other code, before it is blocked."""
GOES_ON: Final = frozenset({CANCEL, MIGRATE, RESUME, RETRY})
"""The tasks of somebody who means an execution to go on, be it to its end."""

log = logging.getLogger("wpa.engine")


class Blocking:
    """Of the execution that a request is for; ``drive`` and ``effects`` are its driver's."""

    def __init__(self, services: Services, request: Request, drive: Drive, effects: Effects) -> None:
        self._services = services
        self._request = request
        self._drive = drive
        self._effects = effects

    async def block(self, state: State, error: Diverged | TaskRejected) -> bool:
        """The execution can't go on: say so, and look again later. False: there is nothing to drive."""
        await self.leave_to_other_code(state, error)
        log.error("%s.%s is blocked: %s", state.tenant, state.execution, error)
        now = self._services.clock.now_ms()
        retry_ms = None if isinstance(error, PoisonMessage) else now + BLOCKED_RETRY_MS
        state = await self._append(state, blocked(state, _failure(error), now, retry_ms))
        await self._drive.settle_down(state)
        return False

    async def take_over(self, state: State) -> State:
        """Take an execution over without a look at its code: what ran in its worker, or ran here, is lost."""
        now, delivered = self._services.clock.now_ms(), self._request.lease.delivered
        reason = f"the task was delivered again ({delivered})" if delivered > 1 else "it can't go on"
        return await self._append(state, Draft(ev.RECOVERED, takeover_data(state, {}, reason, now), now))

    async def _append(self, state: State, draft: Draft) -> State:
        services = self._services
        event = seal(draft, state, id=services.next_id(), worker=services.worker, epoch=state.epoch + 1)
        position = await commit(services.ports.journal, event, state.position)
        return folded(state, [(position, event)])

    async def is_still(self, state: State) -> bool:
        """Whether a blocked execution can't go on yet. Nothing is recorded of trying in vain."""
        if state.blocked is None or not state.at_rest:
            return False
        if state.ends_workers:
            return True
        services = self._services
        try:
            program = await services.library.program(state.tenant, state.workflow, state.version)
            copy = decode_state(encode_state(state))
            await revive(program, copy, services.limits, services.payloads)
        except (Diverged, NotFound) as error:
            await self.leave_to_other_code(state, error)
            state.wake_at = rfc3339(services.clock.now_ms() + BLOCKED_RETRY_MS)
            await self._effects.set_alarm(state)
            return True
        return False

    async def leave_to_other_code(self, state: State, error: Diverged | TaskRejected) -> None:
        """Raise CodeDiffers where another worker may be able to go on; not for ever, for maybe none is."""
        services = self._services
        if isinstance(error, Diverged) and self._request.lease.delivered <= CODE_TRIES:
            program = await services.library.program(state.tenant, state.workflow, state.version)
            await services.crew.check_code(program)

    async def try_again(self, state: State) -> PoisonMessage | None:
        """Of an execution that ended its workers, why it has to stay blocked; None for any other.

        Who tells it something need not know of that; who wants it to go on has it tried once more. Raises
        PoisonMessage where what is asked can't even be recorded.
        """
        trials, task = self._services.trials, self._request.task
        if not state.ends_workers or state.blocked is None:
            return None
        still = PoisonMessage(state.blocked.message)
        if task.type not in GOES_ON:
            return still
        if trials is None or await trials.attend(self._request.lease) is None:
            return None
        if task.type == MIGRATE:
            raise still  # whether its other version fits, only a look at it tells
        return still


def _failure(error: Diverged | TaskRejected) -> Failure:
    if isinstance(error, Diverged):
        return Failure(type="NonDeterminism", message=str(error))
    if isinstance(error, PoisonMessage):
        return Failure(type=ev.WORKER_LOST, message=error.message)
    return Failure(type=error.code, message=str(error))
