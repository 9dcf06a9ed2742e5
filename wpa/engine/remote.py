"""Steps that other workers drive and this one runs: those of the queues that it serves.

The step's message is the lease, exactly as for a task: it is kept alive while the attempt is made, and acked
only when its result is stored as a task for the driver. A worker that dies loses the lease, and the next one
of its group makes the attempt again, under the same idempotency key; a result that comes twice counts once.
A result that can't be stored, because the server is away, is held until it can, and not worked out again.

A step may lie in its queue for long, and its driver sends it once more when it isn't sure that it did. So
before the attempt the journal is asked whether anybody still waits for it, and now and then while it is made.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any, Final

import msgspec

from wpa.engine.letters import HAND_BACK_S
from wpa.engine.loading import load
from wpa.engine.outcome import encode
from wpa.engine.patience import until_done
from wpa.engine.payloads import reference
from wpa.engine.runner import StepCall, StepResult
from wpa.engine.services import Services
from wpa.errors import Conflict, NotFound, OverLimit, PlatformError, Unavailable
from wpa.model.events import WORKER_LOST, Failure
from wpa.model.state import is_terminal
from wpa.model.tasks import STEP_RESULT, StepResultPayload, StepResultTask, StepTask
from wpa.model.times import parse_ms, rfc3339
from wpa.ports.live import Unsubscribe
from wpa.ports.tasks import Feed, Lease, Source

__all__ = ["RemoteSteps"]

log = logging.getLogger("wpa.worker")

AT_A_TIME: Final = 64
"""Of each queue, so many steps are run at once, or as many as the worker's concurrency where that is less."""
REPORT_AGAIN_S: Final = 0.5
REPORTED_KEPT: Final = 1_024
LOOK_EVERY_S: Final = 10.0
NO_PLUGIN_TRIES: Final = 20
"""A step of a type that this worker lacks is handed back, for another of its group; then it fails."""
BEGUN: Final = "begun"
"""The kind of the records that say how often an attempt was begun that was handed out again."""
CLAIM: Final = "claim"
"""The kind of the records that say who has begun an ``at_most_once`` step."""
_STEP = msgspec.json.Decoder(StepTask)


class _Stop(msgspec.Struct):
    """Nobody waits for this slot any more."""

    execution_id: str
    slot: str


class _Run:
    """A step in hand."""

    __slots__ = ("lease", "step", "task", "unwanted")

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.step: StepTask | None = None
        self.task: asyncio.Task[None] | None = None
        self.unwanted = False

    def stop(self) -> None:
        """Nobody waits for it any more."""
        self.unwanted = True
        if self.task is not None:
            self.task.cancel()


class RemoteSteps:
    """The steps under way here for drivers elsewhere."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._feeds: dict[Source, Feed] = {}
        self._runs: dict[str, _Run] = {}
        """By the lease's identity."""
        self._reported: OrderedDict[str, None] = OrderedDict()
        """The leases whose results are stored, the latest last: their acks may have been lost."""
        self._draining = False
        self._watches: list[Unsubscribe] = []
        self._background: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> set[asyncio.Task[None]]:
        """The attempts under way."""
        return {run.task for run in self._runs.values() if run.task is not None}

    def serve(self, source: Source, feed: Feed) -> None:
        """Take steps from a feed that was opened for :meth:`take`."""
        if not self._feeds:
            self._start(self._look_after())
        self._feeds[source] = feed
        self._start(self._watch(source))
        feed.request(min(AT_A_TIME, self._services.settings.concurrency))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -- stopping ----------------------------------------------------------------------------

    async def _watch(self, source: Source) -> None:
        """Hear of what is not wanted any more, as it happens."""

        def on_stop(subject: str, data: bytes, headers: dict[str, str]) -> None:
            try:
                stop = msgspec.json.decode(data, type=_Stop)
            except msgspec.DecodeError:
                return
            for run in self._runs.values():
                step = run.step
                if step is not None and (step.tenant_id, step.execution_id, step.slot) == (
                    source.tenant,
                    stop.execution_id,
                    stop.slot,
                ):
                    run.stop()

        pattern = f"workflow.stop.{source.tenant}.{source.queue}"
        while True:
            try:
                self._watches.append(await self._services.ports.live.watch(pattern, on_stop))
                return
            except Unavailable as error:
                log.warning("can't hear of steps to be stopped yet: %s", error)
                await self._services.clock.sleep(HAND_BACK_S)

    async def _look_after(self) -> None:
        """Find out of oneself what is not wanted any more: what is said live may not be heard."""
        while True:
            await self._services.clock.sleep(LOOK_EVERY_S)
            for run in list(self._runs.values()):
                try:
                    if run.step is not None and not await self._is_wanted(run.step):
                        run.stop()
                except PlatformError as error:
                    log.debug("whether a step is wanted still can't be said: %s", error)

    async def _is_wanted(self, step: StepTask) -> bool:
        """Whether the execution may be waiting for this attempt. In doubt, it is."""
        if step.deadline_at and parse_ms(step.deadline_at) <= self._services.clock.now_ms():
            return False
        loaded = await load(self._services.ports, step.tenant_id, step.execution_id)
        if loaded is None or loaded.state.seq < step.seq:
            return True  # read from a replica that has not heard of it yet
        state = loaded.state
        if is_terminal(state.status) or state.run > run_of(step):
            return False
        slot = state.slots.get(step.slot) if state.run == run_of(step) else None
        return slot is None or (slot.status == "open" and slot.attempt <= step.attempt)

    # -- leases ------------------------------------------------------------------------------

    def take(self, lease: Lease) -> None:
        """A step has come."""
        run = self._runs.get(lease.identity)
        if run is not None:
            run.lease = lease  # a heartbeat came too late: the newest lease counts
            self._feeds[lease.source].request(1)
            return
        if self._draining:
            lease.nak()
            return
        run = self._runs[lease.identity] = _Run(lease)
        run.task = asyncio.create_task(self._serve(run))

    def extend(self) -> None:
        """Keep the leases of what is under way alive."""
        for run in self._runs.values():
            run.lease.extend()

    def drain(self) -> None:
        """Take no more."""
        self._draining = True

    def close(self) -> None:
        """Look after nothing any more."""
        for task in self._background:
            task.cancel()

    # -- attempts ----------------------------------------------------------------------------

    async def _serve(self, run: _Run) -> None:
        identity, source = run.lease.identity, run.lease.source
        try:
            await self._see_to(run)
        except asyncio.CancelledError:
            if run.unwanted:
                run.lease.ack()  # the driver has recorded that
                return
            run.lease.nak()
            raise
        except PlatformError as error:
            log.warning("a step on %s is handed back: %s", source.subject, error)
            run.lease.nak(HAND_BACK_S)
        except Exception:
            log.exception("a step on %s is handed back after an error of the engine's own", source.subject)
            run.lease.nak(HAND_BACK_S * 10)
        finally:
            self._runs.pop(identity, None)
            if not self._draining:
                self._feeds[source].request(1)

    async def _see_to(self, run: _Run) -> None:
        """Make the attempt, if it is to be made, and report it; ack."""
        try:
            step = _STEP.decode(run.lease.data)
        except msgspec.DecodeError as error:
            log.error("a step on %s can't be read and is dropped: %s", run.lease.source.subject, error)
            run.lease.ack()
            return
        if (
            run.lease.identity in self._reported
            or self._is_under_way(step)
            or not await self._is_wanted(step)
        ):
            run.lease.ack()
            return
        run.step = step
        known = self._services.runner.has(step.uses)
        if not known and run.lease.delivered < NO_PLUGIN_TRIES:
            log.warning("no plugin here has step type %r; %s is handed back", step.uses, step.slot)
            run.lease.nak(HAND_BACK_S)
            return
        inputs = await self._inputs(step)  # before it is said to have begun: they may not be there yet
        started = self._services.clock.now_ms()
        result: StepResult | None
        if known and step.at_most_once and not await self._claim(step, run.lease):
            result = await self._already_begun(step, run.lease)
            if result is None:
                run.lease.ack()
                return
        elif isinstance(inputs, Failure):
            result = StepResult(error=inputs)
        elif await self._is_hopeless(step, run.lease):
            result = self._given_up()
        else:
            result = await self._attempt(step, inputs, started)
        await self._report(step, result, started)
        self._reported[run.lease.identity] = None
        if len(self._reported) > REPORTED_KEPT:
            self._reported.popitem(last=False)
        run.lease.ack()

    def _is_under_way(self, step: StepTask) -> bool:
        """Whether this very attempt is being made here, for a driver that has sent it twice."""
        return any(
            run.step is not None
            and (run.step.tenant_id, run.step.idempotency_key, run.step.attempt)
            == (step.tenant_id, step.idempotency_key, step.attempt)
            for run in self._runs.values()
        )

    async def _inputs(self, step: StepTask) -> Any:
        """What the step is called with; a Failure where that is lost. Raises Unavailable."""
        if (key := reference(step.inputs)) is None:
            return step.inputs
        try:
            return await self._services.payloads.load(key)
        except NotFound as error:
            return Failure(type="InputLost", message=error.message, retryable=False)

    async def _attempt(self, step: StepTask, inputs: Any, started_ms: int) -> StepResult:
        timeout_ms = step.timeout_ms
        if step.deadline_at:
            left = max(1, parse_ms(step.deadline_at) - started_ms)
            timeout_ms = left if timeout_ms is None else min(left, timeout_ms)
        call = StepCall(
            tenant=step.tenant_id,
            workflow=step.workflow_id,
            execution=step.execution_id,
            step=step.step,
            slot=step.slot,
            uses=step.uses,
            inputs=inputs,
            attempt=step.attempt,
            idempotency_key=step.idempotency_key,
            metadata=step.metadata,
            timeout_s=None if timeout_ms is None else timeout_ms / 1000,
            trim=step.trim,
        )
        self._services.announce(call, started_ms)
        result = await self._services.runner.run(call)
        self._services.trace(call, step.traceparent, started_ms, result.error)
        return result

    async def _report(self, step: StepTask, result: StepResult, started_ms: int) -> None:
        """Store the result as a task for the driver, however long the server is away."""
        while True:
            try:
                await self._store(step, result, started_ms)
                return
            except Unavailable as error:
                log.warning("the result of %s.%s is held: %s", step.execution_id, step.slot, error)
                await self._services.clock.sleep(REPORT_AGAIN_S)

    async def _store(self, step: StepTask, result: StepResult, started_ms: int) -> None:
        services = self._services
        output, error = None, result.error
        if error is None:
            try:
                raw = result.raw or encode(result.output)
                output = await services.payloads.store(step.tenant_id, step.execution_id, result.output, raw)
            except OverLimit as over:
                error = Failure(type="OutputTooLarge", message=over.message, retryable=False)
        task = StepResultTask(
            type=STEP_RESULT,
            execution_id=step.execution_id,
            payload=StepResultPayload(
                slot=step.slot,
                attempt=step.attempt,
                key=step.idempotency_key,
                worker=services.worker,
                started_at=rfc3339(started_ms),
                output=output,
                error=error,
                seq=step.seq,
            ),
        )
        await services.ports.tasks.publish(step.tenant_id, msgspec.json.encode(task), {})

    # -- what ends its workers ---------------------------------------------------------------

    async def _is_hopeless(self, step: StepTask, lease: Lease) -> bool:
        """Whether this attempt has ended so many workers that it is not begun once more.

        Of a step that is handed out again it is counted how often it was begun: it may only have been in
        hand, or handed back. Nothing is counted, and nothing costs, at the first time.
        """
        if lease.delivered == 1:
            return False
        records, name = self._services.ports.records, _claim_name(step)
        found = await records.get(step.tenant_id, BEGUN, name)
        begun, revision = (msgspec.json.decode(found[0], type=int), found[1]) if found else (1, 0)
        if begun > self._services.limits.lost_attempts_max:
            return True
        await records.put(step.tenant_id, BEGUN, name, msgspec.json.encode(begun + 1), revision)
        return False

    def _given_up(self) -> StepResult:
        lost = self._services.limits.lost_attempts_max + 1
        message = f"{lost} workers ended while this step ran; it may be what ends them"
        return StepResult(error=Failure(type=WORKER_LOST, message=message, retryable=False))

    # -- at most once ------------------------------------------------------------------------

    async def _claim(self, step: StepTask, lease: Lease) -> bool:
        """Record that the step begins now. False where it has begun before, perhaps elsewhere."""
        records, name = self._services.ports.records, _claim_name(step)
        mine = msgspec.json.encode({"lease": lease.identity, "id": self._services.next_id()})
        try:
            await records.put(step.tenant_id, CLAIM, name, mine, 0)
            return True
        except (Conflict, Unavailable):
            # An answer that was lost: look whose it is. Who does not wait for that forgets that it was his.
            found = await until_done(lambda: records.get(step.tenant_id, CLAIM, name))
            if found is None:
                raise Unavailable(f"whether {step.slot} has begun can't be said") from None
            return found[0] == mine

    async def _already_begun(self, step: StepTask, lease: Lease) -> StepResult | None:
        """What to report of a step that has begun before; None where another message's holder reports it."""
        found = await self._services.ports.records.get(step.tenant_id, CLAIM, _claim_name(step))
        if found is None or msgspec.json.decode(found[0])["lease"] != lease.identity:
            return None
        message = "the worker ended while this step ran, and at_most_once forbids a second run"
        return StepResult(error=Failure(type="OutcomeUnknown", message=message, retryable=False))


def run_of(step: StepTask) -> int:
    """Which run of its execution, counted by continue_as_new, a step belongs to: its key begins with it."""
    rest = step.idempotency_key.removeprefix(step.execution_id)
    number = rest.partition(":")[0].removeprefix(".")
    return int(number) if number.isdigit() else 1


def _claim_name(step: StepTask) -> str:
    return hashlib.blake2b(f"{step.idempotency_key}:{step.attempt}".encode(), digest_size=16).hexdigest()
