"""I10: replaying any journal gives the same commands.

The reference interpreter is led through the journal of each plan. Whatever the engine commanded, it must
command, too: which slots are opened and dropped, what is decided, whether there is another attempt, with
which inputs, which output. What a flow commands, only its own code can tell: see :mod:`tests.checker.flows`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.checker.case import Case, Violation
from tests.checker.expressions import Unusable
from tests.checker.facts import Body, Recorded
from tests.checker.fold import Fold, step_of
from tests.checker.interpreter import Interpreter, Want
from tests.checker.names import child_name, spelled_name
from tests.checker.plans import moment_ms

__all__ = ["check"]

GIVEN_UP: Final = ("DeadlineExceeded", "WorkerLost", "OutcomeUnknown")
"""Failures that end a slot for reasons that no plan knows of."""
ENDED_FROM_OUTSIDE: Final = ("DeadlineExceeded", "OverLimit")


def check(case: Case) -> Iterator[Violation]:
    """Lead the interpreter through a plan's journal."""
    replay = _Replay(case)
    for fold, event in case.walk():
        try:
            yield from replay.take(fold, event)
        except KeyError as error:
            yield case.broken("I10", f"the plan does not want {error}", event)
            return
        if replay.run is None:
            return
    yield from replay.inputs()


class _Replay:
    def __init__(self, case: Case) -> None:
        self._case = case
        self.run: Interpreter | None = None
        self._resumed = False
        """Whether the event before has ended a pause."""
        self._asked: dict[str, Want] = {}
        """Every want that was opened, by slot."""

    def _broken(self, what: str, *evidence: Any) -> Violation:
        return self._case.broken("I10", what, *evidence)

    @property
    def _is_broken(self) -> bool:
        """Whether the plan itself has failed: nothing begins any more, and what runs may end."""
        return self.run is not None and bool(self.run.broken)

    def take(self, fold: Fold, event: Recorded) -> Iterator[Violation]:
        """One event, and the state before it."""
        name = event.name.removeprefix("workflow_")
        resumed, self._resumed = self._resumed, fold.status == "PAUSED" and name == "resumed"
        # What had ended in a pause may be recorded just after it: it opens nothing, what follows does.
        # So may what has ended when the execution's time is over.
        over = bool(fold.plain and fold["deadline_at"]) and event.body["timestamp"] >= fold["deadline_at"]
        still = ((resumed and "reason" not in event.data) or over) and not fold.opening(event)
        if name == "started" and not fold.plain:
            self._begin(event)
            if self.run is not None:
                yield from self._opened(fold, event, held=bool(event.data.get("start_at")))
            return
        run = self.run
        if run is None or fold.status == "COMPENSATING":
            return
        if name == "migrated":
            self._migrate(fold, event)
        elif name == "step_completed":
            yield from self._completed(run, fold, event, held=fold.held or still)
        elif name == "step_failed":
            yield from self._failed(run, fold, event, held=fold.held or still)
        elif name == "decision_point":
            yield from self._decided(run, fold, event, held=fold.held or still)
        elif name == "resumed" and "next" in event.data:
            if "cleanup" in event.data:
                yield self._broken("it cleans up, and a plan has no code for that", event)
            yield from self._opened(fold, event, held=fold.held and fold.status != "PAUSED")
        elif name == "waiting" and not fold.held and "blocked" not in event.data:
            yield from self._rests(run, fold, event)
        elif name in ("completed", "failed", "compensating"):
            yield from self._ends(run, fold, event, name)

    # -- beginnings --------------------------------------------------------------------------

    def _begin(self, event: Recorded) -> None:
        case, data, body = self._case, event.data, event.body
        workflow = body["workflow_id"]
        document = case.index.document(case.tenant, workflow, data["version"])
        if document is None:
            return
        started = data.get("start_at") or body["timestamp"]
        self._start(document, data, workflow, data["version"], started)
        for told in data.get("settled", ()):
            self._settle(told["id"], told["status"], told)

    def _start(self, document: Body, data: Body, workflow: str, version: str, started: str) -> None:
        case = self._case
        execution = {
            "id": case.execution,
            "tenant": case.tenant,
            "workflow": workflow,
            "version": version,
            "started_at": started,
            "metadata": data.get("metadata") or {},
            "context": data.get("context") or {},
        }
        given = case.facts.resolve(data.get("input"))
        self.run = Interpreter(document, given, data.get("variables") or {}, execution)

    def _settle(self, slot_id: str, status: str, told: Body) -> None:
        assert self.run is not None
        value = self._case.facts.resolve(told.get("output"))
        self.run.settle(slot_id, status, value, told.get("error"))

    def _migrate(self, fold: Fold, event: Recorded) -> None:
        """Another version: all that was settled, told again."""
        version = event.data["version"]
        document = self._case.index.document(self._case.tenant, fold["workflow"], version)
        assert document is not None, "a plan that is migrated to nothing"
        data = {name: fold[name] for name in ("input", "variables", "metadata", "context")}
        self._start(document, data, fold["workflow"], version, fold["run_started_at"])
        for slot_id in fold.order:
            self._settle(slot_id, fold.slots[slot_id]["status"], fold.slots[slot_id])

    # -- what is settled ---------------------------------------------------------------------

    def _completed(self, run: Interpreter, fold: Fold, event: Recorded, *, held: bool) -> Iterator[Violation]:
        data = event.data
        want = run.wants[data["slot"]]
        if want.uses != data["uses"]:
            yield self._broken(f"{want.slot} uses {want.uses}, not {data['uses']}", event)
        if want.fault:
            yield self._broken(f"{want.slot} was attempted, and can't be: {want.fault}", event)
        output = self._case.facts.resolve(data.get("output"))
        if want.uses == "core.echo" and output != want.inputs:
            yield self._broken(f"{want.slot} was to be given {want.inputs!r}", event)
        run.settle(want.slot, "completed", output)
        yield from self._opened(fold, event, held=held)

    def _decided(self, run: Interpreter, fold: Fold, event: Recorded, *, held: bool) -> Iterator[Violation]:
        want, decision = run.wants[event.data["slot"]], event.data["decision"]
        if want.decision != decision:
            yield self._broken(f"{want.slot} is to be decided as {want.decision}", event)
        run.settle(want.slot, "decided", decision)
        yield from self._opened(fold, event, held=held)

    def _failed(self, run: Interpreter, fold: Fold, event: Recorded, *, held: bool) -> Iterator[Violation]:
        data = event.data
        want, error = run.wants[data["slot"]], data["error"]
        slot = fold.slots.get(want.slot)
        if slot is None:
            if want.fault != error["type"]:
                yield self._broken(f"{want.slot} has {want.fault or 'no fault'}", event)
        else:
            yield from self._another(fold, event, want, slot)
        if not data["final"]:
            yield from self._opened(fold, event, held=True)
            return
        if data["on_error"] != want.policy.on_error:
            yield self._broken(f"on_error of {want.slot} is {want.policy.on_error}", event)
        if data["on_error"] == "continue":
            run.settle(want.slot, "failed", error=error)
            yield from self._opened(fold, event, held=held)
        else:
            yield from self._opened(fold, event, held=True)

    def _another(self, fold: Fold, event: Recorded, want: Want, slot: Body) -> Iterator[Violation]:
        """Whether there is another attempt, and when."""
        data, policy, failures = event.data, want.policy, slot["failures"] + 1
        failing = bool(fold["failing"] or self._is_broken)
        works = slot["kind"] in ("step", "remote") and not policy.at_most_once
        works = works and not (failing and fold.status == "RUNNING")
        may = works and policy.may_retry(data["error"], failures)
        if not data["final"]:
            shortest, longest = policy.backoff_ms(failures)
            backoff = moment_ms(data["retry_at"]) - moment_ms(data["finished_at"])
            if not may:
                yield self._broken(f"{want.slot} may not be tried again", event)
            elif not shortest - 1 <= backoff <= longest + 1:
                yield self._broken(f"{want.slot} waits {backoff} ms, not {shortest} to {longest}", event)
        elif may and not failing and data["error"]["type"] not in GIVEN_UP:  # a pause may have come between
            yield self._broken(f"{want.slot} is given up after {failures} attempts", event)

    # -- what is opened and dropped ----------------------------------------------------------

    def _opened(self, fold: Fold, event: Recorded, *, held: bool) -> Iterator[Violation]:
        """What an event opens and drops is what the plan, at this point, wants and doesn't."""
        run, data = self.run, event.data
        assert run is not None
        opening = fold.opening(event)
        running = [slot for slot in fold.open if slot != data.get("slot") or not _settles(event)]
        unwanted = {slot for slot in running if slot not in run.wants}
        dropped = set(data.get("dropped", ()))
        if dropped & run.wants.keys():
            yield self._broken(f"{sorted(dropped & run.wants.keys())} are wanted, and dropped", event)
        if held or self._is_broken:
            if opening:
                yield self._broken(f"{opening} are opened when nothing may begin", event)
            return
        if unwanted - dropped:
            yield self._broken(f"{sorted(unwanted - dropped)} are not wanted, and stay open", event)
        for slot_id in opening:
            want = run.wants[slot_id]
            self._asked[slot_id] = want
            yield from self._as_wanted(event, want, data.get("waits", {}).get(slot_id))
        ready = [want for slot, want in run.wants.items() if slot not in fold.slots and not want.derived]
        left = [want for want in ready if want.slot not in opening]
        works = sum(fold.slots[slot]["kind"] in ("step", "remote") for slot in running)
        room = max(0, run.plan.max_parallel - works)
        opened = [want for want in ready if want.slot in opening and want.kind == "step"]
        wanted = min(room, sum(want.kind == "step" for want in ready))
        if len(opened) != wanted or any(want.kind != "step" for want in left):
            shown = [want.slot for want in left]
            yield self._broken(f"{wanted} steps are to be opened, and all waits; left are {shown}", event)
        least = min((want.policy.priority for want in opened), default=0)
        if late := [w.slot for w in left if w.kind == "step" and w.policy.priority > least and opened]:
            yield self._broken(f"{late} have a higher priority than what is opened", event)

    def _as_wanted(self, event: Recorded, want: Want, told: Body | None) -> Iterator[Violation]:
        """What is recorded of a slot that is opened."""
        kind = "remote" if want.kind == "step" and want.policy.queue else want.kind
        if (told or {}).get("kind", "step") != kind or want.derived:
            yield self._broken(f"{want.slot} is a {'fault' if want.derived else kind}", event)
            return
        now = moment_ms(event.body["timestamp"])
        wait = want.wait
        delay = want.policy.deadline_ms if kind == "remote" else wait.delay_ms if wait else None
        until = wait.moment_ms if wait and wait.moment_ms is not None else None
        until = now + delay if delay is not None else until
        found = (told or {}).get("until")
        if (moment_ms(found) if found else None) != until:
            yield self._broken(f"{want.slot} is to wait until {until}", event)
        name = want.policy.queue if kind == "remote" else wait.name if wait else ""
        names = (name,)
        if kind == "child" and not name:
            names = tuple(make(self._case.execution, want.slot) for make in (child_name, spelled_name))
        if names[0] and (told or {}).get("name") not in names:
            yield self._broken(f"{want.slot} is to wait for {names[0]}", event)

    # -- rest and end ------------------------------------------------------------------------

    def _rests(self, run: Interpreter, fold: Fold, event: Recorded) -> Iterator[Violation]:
        """At rest, nothing is left to be done."""
        works = sum(fold.slots[slot]["kind"] in ("step", "remote") for slot in fold.open)
        room = run.plan.max_parallel > works
        new = [want for slot, want in run.wants.items() if slot not in fold.slots]
        left = [want.slot for want in new if want.derived or want.kind != "step" or room]
        if (left or run.finished) and not (fold["start_at"] or self._is_broken):
            yield self._broken(f"it comes to rest, and {left or 'its end'} is to be recorded", event)

    def _ends(self, run: Interpreter, fold: Fold, event: Recorded, name: str) -> Iterator[Violation]:
        wanted, fault = None, run.broken
        if run.finished:
            try:
                wanted = run.output()
            except Unusable as error:
                fault = error.type
        if name == "completed":
            output = self._case.facts.resolve(event.data.get("output"))
            if not run.finished or fault:
                yield self._broken(f"it has completed, and {fault or sorted(run.wants)} is left", event)
            elif wanted != output:
                yield self._broken(f"its output is to be {wanted!r:.200}", event)
            return
        kind = event.data["error"]["type"]
        known = bool(fold["failing"]) or fold["cancel"] is not None or kind in ENDED_FROM_OUTSIDE
        if not known and fault != kind:
            yield self._broken(f"it has failed, and the plan has {fault or 'no fault'}", event)

    # -- inputs ------------------------------------------------------------------------------

    def inputs(self) -> Iterator[Violation]:
        """What steps were given, as the status shows it, and what children were started with."""
        status = self._case.status or {}
        for row in status.get("steps", ()):
            want = self._asked.get(row.get("slot", ""))
            shown = row.get("input")
            if want is None or shown is None or "turns" in row or "$omitted" in str(shown):
                continue
            if shown != want.inputs:
                yield self._broken(
                    f"the input of {want.slot} is to be {want.inputs!r:.200}", f"{shown!r:.200}"
                )
        for fold, event in self._case.walk():
            for slot_id, told in event.data.get("waits", {}).items():
                if told.get("kind") == "child" and slot_id in self._asked and not fold.slots.get(slot_id):
                    yield from self._child(self._asked[slot_id], told["name"])

    def _child(self, want: Want, execution: str) -> Iterator[Violation]:
        journal = self._case.index.journals.get((self._case.tenant, execution))
        if not journal or want.wait is None:
            return  # I2 says where it is
        asked, event = want.wait.inputs, journal[0]
        given = self._case.facts.resolve(event.data.get("input"))
        mine = event.data.get("parent", {}).get("slot") == want.slot
        if mine and (event.body["workflow_id"], given) != (asked["workflow"], asked.get("input") or {}):
            yield self._broken(f"the child of {step_of(want.slot)} is to be given {asked!r:.200}", event)


def _settles(event: Recorded) -> bool:
    return event.name != "workflow_step_failed" or bool(event.data["final"])
