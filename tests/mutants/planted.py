"""Known bugs, to be planted one at a time: each breaks a promise, and some test has to notice.

A mutant is a piece of code and what stands in its place. One whose piece is no longer found is an error, not a
success: the code has moved on, and the mutant has to follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["MUTANTS", "Mutant"]


@dataclass(frozen=True)
class Mutant:
    """A bug. ``code`` stands in ``file`` exactly once."""

    name: str
    file: str
    code: str
    bug: str


DRIVER: Final = "wpa/engine/driver.py"
DRIVE: Final = "wpa/engine/drive.py"
EFFECTS: Final = "wpa/engine/effects.py"
WORKER: Final = "wpa/engine/worker.py"
ENDING: Final = "wpa/kernel/ending.py"

MUTANTS: Final = (
    Mutant(
        "ack before append",
        DRIVER,
        "                if await self._begin():\n",
        "                self._request.lease.ack()\n                if await self._begin():\n",
    ),
    Mutant(
        "no compare-and-set",
        "wpa/adapters/memory/journal.py",
        "self._stream.append(subject, data, headers, after)",
        "self._stream.append(subject, data, headers)",
    ),
    Mutant(
        "no compare-and-set, on NATS",
        "wpa/adapters/nats/journal.py",
        'f"Nats-Expected-Last-Subject-Sequence: {after}\\r\\n"',
        '""',
    ),
    Mutant(
        "effects not issued again after a takeover",
        DRIVE,
        "                await self._effects.open_slot(self._execution, slot_id)\n\n    # -- the dialogue",
        "                pass\n\n    # -- the dialogue",
    ),
    Mutant(
        "no read-back of an append without an answer",
        "wpa/engine/commit.py",
        "        if tail:\n",
        "        if False:\n",
    ),
    Mutant(
        "a lost append taken for one's own",
        "wpa/engine/commit.py",
        "if tail[0][1].id == event.id:",
        "if True:",
    ),
    Mutant(
        "a zombie acks",
        WORKER,
        '            log.warning("stopped driving: %s", error)',
        '            request.lease.ack()\n            log.warning("stopped driving: %s", error)',
    ),
    Mutant(
        "the old driver goes on after a takeover",
        DRIVE,
        "            if event.epoch > self.epoch or not asked:\n",
        "            if False:\n",
    ),
    Mutant(
        "the old driver is taken for somebody who asks",
        DRIVE,
        'event.event in ev.ASKED and "next" not in event.data',
        "event.event in ev.ASKED",
    ),
    Mutant(
        "a takeover ends what only asks",
        DRIVER,
        "return self._drive.execution is not None and self._drive.epoch < epoch",
        "return self._drive.epoch < epoch",
    ),
    Mutant(
        "undo in the wrong order", "wpa/kernel/saga.py", "in reversed(state.order)", "in list(state.order)"
    ),
    Mutant(
        "an undo that gave up counts as done",
        "wpa/kernel/saga.py",
        "    if state.not_undone:\n",
        "    if False:\n",
    ),
    Mutant(
        "what is done elsewhere is not waited for",
        "wpa/kernel/saga.py",
        "slot.under_way or slot.id in busy",
        "slot.in_flight or slot.id in busy",
    ),
    Mutant(
        "what was done elsewhere is forgotten at the end",
        "wpa/kernel/execution.py",
        "        if (found := self._mail.take_work(state, script.wants, now_ms, done=ends)) is not None:\n",
        "        if (found := None) is not None:\n",
    ),
    Mutant(
        "a cancel cuts short what a saga undoes",
        "wpa/flows/saga.py",
        "    if loop.ledger.patched(TO_ITS_END):\n",
        "    if False:\n",
    ),
    Mutant(
        "a signal before its wait is lost",
        "wpa/kernel/requests.py",
        '    _check_running(state, "be signalled")\n',
        '    _check_running(state, "be signalled")\n    if not state.at_rest and not signal.slot:\n        return None\n',
    ),
    Mutant(
        "a signal counts twice",
        "wpa/kernel/requests.py",
        "    if signal.id in state.signal_ids:\n        return None\n",
        "",
    ),
    Mutant(
        "a sender's own data are taken for a reference",
        "wpa/engine/loading.py",
        "    if not slot:\n        return payload\n",
        "",
    ),
    Mutant(
        "a default is taken for a reference",
        "wpa/kernel/execution.py",
        "output=found.output if found.default else self._resolve(found.output),",
        "output=self._resolve(found.output),",
    ),
    Mutant(
        "a signal takes the id of a child's end",
        "wpa/engine/asks.py",
        '    return f"signal:{given}" if colon and kind.partition("#")[0] in ID_KINDS else given\n',
        "    return given\n",
    ),
    Mutant(
        "the limit of events ends what is paused",
        "wpa/kernel/execution.py",
        'if status != "PAUSED" and (error := verdict',
        "if (error := verdict",
    ),
    Mutant(
        "the alarm is not set",
        DRIVE,
        "        await self._effects.set_alarm(state)\n",
        "        pass\n",
    ),
    Mutant(
        "each rest has the same alarm",
        "wpa/engine/effects.py",
        'rest = f"-{state.rest_epoch}" if state.rest_epoch else ""',
        'rest = ""',
    ),
    Mutant(
        "the alarm is not set again where its setting was cut short",
        DRIVER,
        "            await self._drive.settle_down(state)\n",
        "            pass\n",
    ),
    Mutant(
        "an alarm is lost to a replica that lags behind",
        DRIVER,
        "isinstance(self._request.task, ChildEndedTask | TimerDue)",
        "isinstance(self._request.task, ChildEndedTask)",
    ),
    Mutant(
        "what a replica has not heard of is refused",
        DRIVER,
        "            return await load_latest(ports, self._services.clock, tenant, execution)\n",
        "            return await load(ports, tenant, execution)\n",
    ),
    Mutant(
        "timers ring early",
        "wpa/kernel/mail.py",
        "        if now_ms < self._due_ms:\n",
        "        now_ms += 60_000\n        if now_ms < self._due_ms:\n",
    ),
    Mutant(
        "an older snapshot replaces a newer",
        "wpa/engine/snapshots.py",
        "if stored is not None and stored.seq >= state.seq:",
        "if False:",
    ),
    Mutant(
        "the snapshot at rest is not written",
        DRIVE,
        "        await self._effects.set_alarm(state)\n        await self._keeper.rest(state)\n",
        "        await self._effects.set_alarm(state)\n",
    ),
    Mutant(
        "at most once, more than once",
        "wpa/kernel/verdict.py",
        "if slot.lost and want.policy.at_most_once:",
        "if False:",
    ),
    Mutant(
        "another key at each attempt",
        "wpa/engine/attempts.py",
        "idempotency_key=idempotency_key(state.key, slot_id)",
        'idempotency_key=idempotency_key(state.key, f"{slot_id}:{slot.attempt}")',
    ),
    Mutant(
        "retries without end", "wpa/kernel/retry.py", "failures >= retry.max_attempts", "failures >= 1 << 30"
    ),
    Mutant(
        "a pause that begins new work",
        DRIVE,
        '            if far or state.status == "PAUSED":\n',
        "            if far:\n",
    ),
    Mutant(
        "a cancel that undoes nothing",
        ENDING,
        "    if undo and (state.cancel is None or state.cancel.compensate):\n",
        "    if undo and state.cancel is None:\n",
    ),
    Mutant(
        "a parent is not told of its child's end",
        EFFECTS,
        "        if state.parent is not None:\n",
        "        if False:\n",
    ),
    Mutant(
        "the children of an execution that ends go on",
        EFFECTS,
        "        await self.close_left(state)\n",
        "        pass\n",
    ),
    Mutant(
        "a child that took too long goes on",
        DRIVE,
        "            if is_left(failed, state):\n",
        "            if False:\n",
    ),
    Mutant(
        "a child that took too long goes on when a worker dies",
        EFFECTS,
        '        return slot.kind == "child" and slot.error is not None and slot.error.type != CHILD_FAILED\n',
        "        return False\n",
    ),
    Mutant(
        "a second child beside the first when the parent is tried again",
        DRIVER,
        "            await self._effects.close_left(state)\n",
        "            pass\n",
    ),
    Mutant(
        "no deadline",
        ENDING,
        "        if now_ms < self._deadline_ms or state.failing:\n            return None\n",
        "        if True:\n            return None\n",
    ),
    Mutant(
        "a rejected task vanishes",
        "wpa/engine/letters.py",
        "        await bury(services, lease.tenant, lease.data, headers)\n",
        "        pass\n",
    ),
    Mutant(
        "a start under a taken name is no conflict",
        DRIVER,
        "        if state.start_hash != request.start_hash:\n            raise conflict(state)\n",
        "",
    ),
    Mutant(
        "an accepted start runs on what is deployed after it",
        "wpa/engine/door.py",
        "        request.version = check_version(headers[VERSION_HEADER])\n",
        "        pass\n",
    ),
    Mutant(
        "the lease is not kept alive",
        WORKER,
        "                held.request.lease.extend()\n",
        "                pass\n",
    ),
    Mutant(
        "tenants share their snapshots",
        "wpa/adapters/memory/stores.py",
        'return self._bucket.get(f"{tenant}.{execution}")',
        'return next((self._bucket.get(k) for k in self._bucket.keys if k.endswith(f".{execution}")), None)',
    ),
    Mutant(
        "a divergence goes unnoticed",
        "wpa/kernel/match.py",
        "    if want is None or (slot.uses and want.uses != slot.uses):\n",
        "    if want is None:\n",
    ),
    Mutant(
        "a cancel that never comes into a flow",
        ENDING,
        "        return self._tell(state, script, cleaner, reason, now_ms) if state.cleanup is None else None\n",
        "        return _end(state, script, reason, now_ms)\n",
    ),
    Mutant(
        "a cancel that a rebuilt flow is told too early",
        "wpa/kernel/cleanup.py",
        "        after=len(state.order),\n",
        "        after=0,\n",
    ),
    Mutant(
        "a cancel that cuts off a shielded step",
        DRIVE,
        "        alone = alone and execution.stops(ready[0])",
        "        alone = alone and True",
    ),
    Mutant(
        "a delayed flow that counts as replayed when it begins",
        "wpa/kernel/telling.py",
        "        rebuilt=state.begun,\n",
        "        rebuilt=True,\n",
    ),
    Mutant(
        "runs of a flow that draw the same again",
        "wpa/kernel/outcome.py",
        '        seed = hashlib.blake2b(f"{state.seed}.{run}".encode(), digest_size=16).hexdigest()\n',
        "        seed = state.seed\n",
    ),
    Mutant(
        "a rerun that takes over what was undone",
        "wpa/kernel/fork.py",
        "if slot_id in undone_later or undo_slot(slot_id) in state.slots\n",
        "if slot_id in undone_later\n",
    ),
)
