"""Schedules: executions that start by themselves, without a process that waits for them to be due.

The server keeps one alarm for each schedule, set for its next moment. What rings comes on the tenant's due
feed, leased like a task, and is seen to by whichever worker gets it. What is known of a schedule is its
record (:mod:`wpa.model.schedules`); when the alarm has to ring follows from it alone, so an outage shifts
nothing. The order of actions makes a firing count once, whatever dies:

1. what the record says is still to be done for the firing before is done;
2. this firing is decided, and the record written by compare-and-set, with what is now to be done;
3. that is done (starts under names that follow from the moment, so a second try changes nothing);
4. the record is written again, without it;
5. the alarm is set for the moment after; only then is the firing acked.

A firing that comes too early, or again, begins nothing, and has the alarm set all the same. Pausing, deleting
and deploying write the record first, too, and then have the server follow it. So does a worker that begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from wpa.engine.door import ONCE_HEADER
from wpa.engine.loading import load
from wpa.engine.services import Services
from wpa.errors import Conflict, NotFound, TaskRejected
from wpa.kernel.program import Program
from wpa.model import cron
from wpa.model.schedules import (
    EVERY,
    Pending,
    ScheduleRecord,
    decode_record,
    due_ms,
    encode_record,
    fire,
    run_name,
    schedule_row,
)
from wpa.model.state import is_terminal
from wpa.model.tasks import CANCEL, START, CancelPayload, CancelTask, StartPayload, Task, TaskMetadata
from wpa.model.tasks import schedule_due as body_of
from wpa.model.times import rfc3339
from wpa.plan import Plan
from wpa.plan.durations import parse_duration_ms
from wpa.plan.starts import Schedule
from wpa.plan.suggest import suggest
from wpa.ports.tasks import Lease

__all__ = ["Schedules"]

log = logging.getLogger("wpa.engine")

KIND: Final = "schedule"
"""The kind of its records."""
SOURCE: Final = "schedule"
"""``metadata.source`` of what is started."""
QUEUED_MS: Final = 600_000
"""So long, an execution that was started and isn't there counts as still queued; then, as rejected."""

Found = tuple[ScheduleRecord, int]
"""A record and its revision."""
Records = list[ScheduleRecord]
Rows = list[dict[str, Any]]


class Schedules:
    """The schedules of all tenants. Stateless: any worker may see to any of them."""

    def __init__(self, services: Services) -> None:
        self._services = services

    # -- deploying ---------------------------------------------------------------------------

    async def deployed(self, tenant: str, program: Program) -> None:
        """A version was deployed: set, replace or remove the schedule, if that version is the latest.

        May be called at any time, by any worker, again and again: nothing happens that has happened, but for
        the alarm, which is set again. Raises TaskRejected (``bad_schedule``) where it is no schedule, or
        Unavailable.
        """
        while True:
            found = await self._get(tenant, program.id)
            # Read after the record: whoever deploys later finds it changed, or changes it himself.
            latest = await self._services.ports.definitions.latest(tenant, program.id)
            if latest is not None and latest != program.version:
                program = await self._services.library.program(tenant, program.id, latest)
            schedule = program.schedule if isinstance(program, Plan) else None
            if found is None and schedule is None:
                return
            if found is not None and found[0].version == program.version:
                if found[0].live or not found[0].in_force:
                    await self._enforce(tenant, program.id)
                return
            try:
                if found is None:
                    record, revision = ScheduleRecord(workflow=program.id, version=""), 0
                else:
                    record, revision = await self._catch_up(tenant, *found)
                self._adopt(record, program.version, schedule)
                await self._put(tenant, record, revision)
            except Conflict:
                continue
            if not record.in_force:
                await self._enforce(tenant, program.id)
            return

    def _adopt(self, record: ScheduleRecord, version: str, schedule: Schedule | None) -> None:
        """Into the record: what a new version says."""
        before = (record.spec, record.time_zone, record.live)
        record.version = version
        if schedule is None:
            record.in_force = record.in_force and record.deleted
            record.deleted = True
            return
        if schedule.paused != record.declared_paused or not record.spec:
            record.paused = schedule.paused
        record.declared_paused = schedule.paused
        record.deleted = False
        record.spec, record.time_zone = spec_of(schedule), schedule.time_zone
        record.input = schedule.input
        record.overlap, record.catch_up = schedule.overlap, schedule.catch_up
        if before != (record.spec, record.time_zone, record.live):
            record.in_force = False
            record.since_ms = self._services.clock.now_ms()

    async def _enforce(self, tenant: str, workflow: str) -> None:
        """Have the server keep the alarm that the record asks for, or none.

        Somebody may change the record meanwhile, and have the server follow that before we come to it. Then
        ours was the last word, and wrong; so whoever finds the record changed does it all again.
        """
        timers, name = self._services.ports.timers, f"{workflow}.schedule"
        while True:
            found = await self._get(tenant, workflow)
            if found is None:
                return
            record, revision = found
            if due := due_ms(record):
                await timers.set(tenant, name, due, body_of(workflow))
            else:
                await timers.clear(tenant, name)
            if record.in_force:
                again = await self._get(tenant, workflow)
                if again is None or again[1] == revision:
                    return
                continue
            record.in_force = True
            try:
                await self._put(tenant, record, revision)
                return
            except Conflict:
                continue

    # -- what people ask ---------------------------------------------------------------------

    async def list(self, tenant: str) -> Rows:
        """Every schedule of a tenant, as :func:`wpa.model.schedules.schedule_row` shows it, by workflow."""
        now = self._services.clock.now_ms()
        return [schedule_row(record, now) for record in await self._records(tenant)]

    async def pause(self, tenant: str, workflow: str) -> dict[str, Any]:
        """Start nothing by itself until it is resumed, whatever is deployed meanwhile. Idempotent.

        Here, as below, the answer is the schedule as it is then. Raises NotFound (``unknown_schedule``).
        """

        def pause(record: ScheduleRecord) -> None:
            record.paused = True

        return await self._change(tenant, workflow, pause)

    async def resume(self, tenant: str, workflow: str) -> dict[str, Any]:
        """End a pause. What was due in the meantime is not made up for. Idempotent."""

        def resume(record: ScheduleRecord) -> None:
            if record.paused:
                record.paused = False
                record.since_ms = self._services.clock.now_ms()

        return await self._change(tenant, workflow, resume)

    async def delete(self, tenant: str, workflow: str) -> dict[str, Any]:
        """Forget the schedule; deploying a new version that has one brings it back."""

        def delete(record: ScheduleRecord) -> None:
            record.deleted = True

        return await self._change(tenant, workflow, delete)

    async def trigger(self, tenant: str, workflow: str, execution: str = "") -> dict[str, Any]:
        """Start an execution now, paused or not, whatever runs. Once for each ``execution`` that is named;
        where none is, once a second.

        The answer has its ``execution_id``. Raises NotFound (``unknown_schedule``).
        """
        record, _ = await self._wanted(tenant, workflow)
        moment = self._services.clock.now_ms() // 1_000 * 1_000
        execution = execution or run_name(workflow, moment, manual=True)
        await self._start(tenant, record, execution, moment, moment)
        return {"workflow_id": workflow, "execution_id": execution}

    async def _change(
        self, tenant: str, workflow: str, change: Callable[[ScheduleRecord], None]
    ) -> dict[str, Any]:
        while True:
            record, revision = await self._wanted(tenant, workflow)
            try:
                record, revision = await self._catch_up(tenant, record, revision)
                was, live = encode_record(record), record.live
                change(record)
                record.in_force = record.in_force and record.live == live
                if encode_record(record) != was:
                    await self._put(tenant, record, revision)
            except Conflict:
                continue
            if not record.in_force:
                await self._enforce(tenant, workflow)
                record.in_force = True
            return schedule_row(record, self._services.clock.now_ms())

    # -- firings -----------------------------------------------------------------------------

    async def fired(self, lease: Lease, workflow: str) -> None:
        """See to a firing, and ack it. Raises PlatformError where that has to be tried again."""
        tenant, now = lease.tenant, self._services.clock.now_ms()
        while True:
            found = await self._get(tenant, workflow)
            if found is None or not found[0].live:
                break  # it rang while it was being taken down
            try:
                record, revision = await self._catch_up(tenant, *found)
                firing = fire(record, lease.stored_ms, now)
                if firing is None:
                    await self._enforce(tenant, workflow)
                    break
                record.last_ms, record.last_fired_ms = firing.last_ms, max(lease.stored_ms, firing.last_ms)
                record.missed += firing.missed
                if firing.missed:
                    log.warning("schedule %s.%s missed %d of its moments", tenant, workflow, firing.missed)
                if firing.moments:
                    await self._decide(tenant, record, firing.moments)
                revision = await self._put(tenant, record, revision)
                await self._catch_up(tenant, record, revision)
                await self._enforce(tenant, workflow)
                break
            except Conflict:
                continue
        lease.ack()

    async def _decide(self, tenant: str, record: ScheduleRecord, moments: Sequence[int]) -> None:
        """Into the record: what is to be done for these moments, given what runs."""
        now, cancel = self._services.clock.now_ms(), ""
        if record.overlap != "allow":
            busy = await self._is_busy(tenant, record)
            if record.overlap == "cancel_old":
                record.missed += len(moments) - 1
                moments = moments[-1:]
                cancel = record.last_execution if busy else ""
            else:
                chosen = [] if busy else moments[:1]
                if len(chosen) < len(moments):
                    record.skipped += len(moments) - len(chosen)
                    record.last_skipped_ms = now
                moments = chosen
        if not moments:
            log.info("schedule %s.%s: %s runs still", tenant, record.workflow, record.last_execution)
            return
        record.pending = Pending(fired_ms=record.last_fired_ms, moments=[*moments], cancel=cancel)
        record.started += len(moments)
        record.last_execution, record.last_started_ms = run_name(record.workflow, moments[-1]), now

    async def _is_busy(self, tenant: str, record: ScheduleRecord) -> bool:
        """Whether the last execution that was started has not ended."""
        if not record.last_execution:
            return False
        found = await load(self._services.ports, tenant, record.last_execution)
        if found is None:
            return self._services.clock.now_ms() - record.last_started_ms < QUEUED_MS
        return not is_terminal(found.state.status)

    async def _catch_up(self, tenant: str, record: ScheduleRecord, revision: int) -> Found:
        """Do what the record says is still to be done; the record without it.

        Raises Conflict where somebody else has written the record meanwhile.
        """
        pending = record.pending
        if pending is None:
            return record, revision
        if pending.cancel:
            await self._cancel(tenant, pending.cancel, run_name(record.workflow, pending.moments[-1]))
        for moment in pending.moments:
            execution = run_name(record.workflow, moment)
            await self._start(tenant, record, execution, moment, pending.fired_ms)
        record.pending = None
        return record, await self._put(tenant, record, revision)

    async def _cancel(self, tenant: str, execution: str, successor: str) -> None:
        found = await load(self._services.ports, tenant, execution)
        if found is not None and is_terminal(found.state.status):
            return
        task = CancelTask(
            type=CANCEL,
            execution_id=execution,
            metadata=TaskMetadata(source=SOURCE),
            payload=CancelPayload(reason=f"its schedule starts {successor}"),
        )
        await self._services.ports.tasks.publish(tenant, msgspec.json.encode(task), {})

    async def _start(
        self, tenant: str, record: ScheduleRecord, execution: str, moment_ms: int, fired_ms: int
    ) -> None:
        times = {"fired_at": rfc3339(fired_ms), "scheduled_for": rfc3339(moment_ms)}
        task = Task(
            type=START,
            workflow_id=record.workflow,
            execution_id=execution,
            created_at=rfc3339(self._services.clock.now_ms()),
            metadata=TaskMetadata(source=SOURCE),
            payload=StartPayload(input_data=record.input, execution_context={"schedule": times}),
        )
        # One execution for each moment, even where its start is issued again with another input or time.
        headers = {ONCE_HEADER: execution}
        await self._services.ports.tasks.publish(tenant, msgspec.json.encode(task), headers)

    # -- records -----------------------------------------------------------------------------

    async def _get(self, tenant: str, workflow: str) -> Found | None:
        found = await self._services.ports.records.get(tenant, KIND, workflow)
        return None if found is None else (decode_record(found[0]), found[1])

    async def _put(self, tenant: str, record: ScheduleRecord, revision: int) -> int:
        records = self._services.ports.records
        return await records.put(tenant, KIND, record.workflow, encode_record(record), revision)

    async def _wanted(self, tenant: str, workflow: str) -> Found:
        found = await self._get(tenant, workflow)
        if found is None or found[0].deleted:
            names = [record.workflow for record in await self._records(tenant)]
            hint = suggest(workflow, names, "see `wpa schedule list`" if names else "there is none")
            raise NotFound(
                "unknown_schedule", f"tenant {tenant} has no schedule for workflow {workflow!r}; {hint}"
            )
        return found

    async def _records(self, tenant: str) -> Records:
        found = await self._services.ports.records.list(tenant, KIND)
        records = sorted((decode_record(data) for _, data in found), key=lambda record: record.workflow)
        return [record for record in records if not record.deleted]


def spec_of(schedule: Schedule) -> str:
    """A definition's schedule as :mod:`wpa.model.cron` reads it. Raises TaskRejected (``bad_schedule``)."""
    if schedule.cron is not None:
        try:
            cron.check(schedule.cron, schedule.time_zone)
        except ValueError as error:
            raise TaskRejected("bad_schedule", str(error)) from None
        return schedule.cron
    seconds, rest = divmod(parse_duration_ms(schedule.every or ""), 1_000)
    if rest or not seconds:
        raise TaskRejected("bad_schedule", f"every {schedule.every!r} is not a number of whole seconds")
    return f"{EVERY}{seconds}s"
