"""The checker's own reading of a journal: which event may follow, and the state that it leads to.

Written from the documentation of the events, as a table and a function for each event. It never raises for
a journal that makes no sense: it writes down what is wrong in ``complaints``, and goes on as well as it can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from tests.checker.facts import Recorded
from tests.checker.forms import Slot, cancel, failure, new_slot, normal
from tests.checker.names import next_child_name
from tests.checker.plans import moment_ms

__all__ = ["ASKED", "TERMINAL", "Fold", "step_of", "walk"]

Body = dict[str, Any]

TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "ROLLED_BACK", "CANCELLED"})
ASKED: Final = frozenset({"signalled", "paused", "resumed", "cancel_requested", "cancelled", "migrated"})
"""What others than the driver may append; with a lease, its author is the driver from then on."""

FOLLOWS: Final[dict[str, dict[str, str]]] = {
    "": {"started": "RUNNING"},
    "RUNNING": {
        **dict.fromkeys(
            ("step_completed", "step_failed", "decision_point", "escalated", "recovered", "signalled",
             "resumed", "cancel_requested", "continued"), "RUNNING"),
        "waiting": "WAITING", "paused": "PAUSED", "compensating": "COMPENSATING",
        "completed": "COMPLETED", "failed": "FAILED", "cancelled": "CANCELLED",
    },
    "WAITING": {
        **dict.fromkeys(("signalled", "resumed", "migrated", "cancel_requested"), "RUNNING"),
        "paused": "PAUSED", "waiting": "WAITING", "cancelled": "CANCELLED",
    },
    "PAUSED": {
        **dict.fromkeys(
            ("step_completed", "step_failed", "decision_point", "recovered", "signalled", "waiting", "migrated"),
            "PAUSED"),
        "resumed": "RUNNING", "cancel_requested": "RUNNING", "cancelled": "CANCELLED",
    },
    "COMPENSATING": {
        **dict.fromkeys(
            ("step_compensated", "step_failed", "recovered", "signalled", "waiting", "resumed"),
            "COMPENSATING"),
        "rolled_back": "ROLLED_BACK", "failed": "FAILED", "cancelled": "CANCELLED",
    },
    "FAILED": {"resumed": "RUNNING"},
}  # fmt: skip
"""Status and event in, status out. What is not here is illegal."""

SIGNAL_IDS_KEPT: Final = 1_000


def step_of(slot: str) -> str:
    """The step that a slot belongs to."""
    return slot.partition(":")[0]


def _rfc3339(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


class Fold:
    """The state of one execution after some of its events. Read the attributes between :meth:`apply` calls."""

    def __init__(self) -> None:
        self.status = ""
        self.slots: dict[str, Slot] = {}
        self.open: list[str] = []
        self.order: list[str] = []
        self.complaints: list[tuple[Recorded, str]] = []
        self.plain: Body = {}
        """Everything else, as it is in the snapshot."""
        self.signals: list[Body] = []
        self.position = 0

    def __getitem__(self, name: str) -> Any:
        return self.plain[name]

    @property
    def held(self) -> bool:
        """Whether nothing new may begin."""
        ends = self.plain["cancel"] is not None and self.plain["cleanup"] is None
        return bool(self.plain["failing"]) or ends or self.status == "PAUSED"

    @property
    def key(self) -> str:
        """What this run's idempotency keys begin with."""
        run = self.plain["run"]
        return str(self.plain["execution"]) if run == 1 else f"{self.plain['execution']}.{run}"

    def opening(self, event: Recorded) -> list[str]:
        """The slots that an event, not applied yet, opens."""
        if event.name == "workflow_continued":
            return list(event.data.get("next", ()))
        return [slot for slot in event.data.get("next", ()) if slot not in self.slots]

    def apply(self, event: Recorded) -> None:
        """Fold one event."""
        name = event.name.removeprefix("workflow_")
        after = FOLLOWS.get(self.status, {}).get(name)
        if after is None:
            self._wrong(event, f"{event.name} can't follow {self.status or 'nothing'}")
            after = self.status
        if self.plain and event.seq != self.plain["seq"] + 1:
            self._wrong(event, f"seq {event.seq} follows seq {self.plain['seq']}")
        try:
            if name == "started" and not self.plain:
                self._started(event)
            elif self.plain and name in _CHANGES:
                _CHANGES[name](self, event)
            self._follow(event, name, after)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._wrong(event, f"{event.name} can't be read: {type(error).__name__} {error}")

    def _wrong(self, event: Recorded, what: str) -> None:
        self.complaints.append((event, what))

    # -- what every event says ---------------------------------------------------------------

    def _follow(self, event: Recorded, name: str, after: str) -> None:
        data, plain, body = event.data, self.plain, event.body
        lease = data.get("lease", "")
        self.status = after
        plain["seq"], plain["updated_at"], self.position = event.seq, body["timestamp"], event.sequence
        if lease or name not in ASKED:
            plain["epoch"], plain["worker"] = body["epoch"], body["worker"]
        if lease:
            plain["lease"], plain["blocked"] = lease, None
        if asked := data.get("ask"):
            self._remember(event, asked)
        plain["recorded"] += data.get("recorded", ())
        if plain["start_at"] and "next" in data and body["timestamp"] >= plain["start_at"]:
            plain["start_at"] = ""
        for slot_id in data.get("dropped", ()):
            slot = self.slots[slot_id]
            if slot["status"] == "open":
                slot.update(status="cancelled", retry_at="", finished_at=body["timestamp"])
                self.open = [open_still for open_still in self.open if open_still != slot_id]
        for slot_id in data.get("retry", ()):
            self.slots[slot_id]["retry_at"] = ""
        for slot_id in data.get("next", ()):
            if slot_id not in self.slots:
                self._open(event, slot_id)

    def _open(self, event: Recorded, slot_id: str) -> None:
        slot = self.slots[slot_id] = new_slot(slot_id, event.body["timestamp"])
        self.open.append(slot_id)
        slot.update(event.data.get("waits", {}).get(slot_id, {}))

    def _started(self, event: Recorded) -> None:
        data, body = event.data, event.body
        names = ("version", "definition_hash", "start_hash", "lease", "start_at", "seed", "forked_from",
                 "deadline_at")  # fmt: skip
        self.plain = {
            "tenant": body["tenant_id"], "workflow": body["workflow_id"],
            "execution": body["execution_id"], **{name: data.get(name, "") for name in names},
            **{name: data.get(name) or {} for name in ("variables", "metadata", "context")},
            **{name: body.get(name, "") for name in ("task_id", "global_task_id", "traceparent")},
            "created_at": body["timestamp"], "run_started_at": data.get("start_at") or body["timestamp"],
            "input": data.get("input"), "parent": data.get("parent"), "run": 1, "run_seq": 0, "lost": 0,
            "wake_at": "", "rest_epoch": 0, "finished_at": "", "failing": "", "on_error": "", "failed_step": "", "error": None,
            "undo": [], "undone": [], "not_undone": [], "output": None, "cancel": None, "blocked": None,
            "cleanup": None, "signal_ids": [], "recorded": [],
            "taken_seeds": list(data.get("taken_seeds", ())),
        }  # fmt: skip
        for told in data.get("settled", ()):
            error = failure(told["error"]) if told.get("error") else None
            self.slots[told["id"]] = {**new_slot(told["id"], ""), **told, "error": error}
            self.order.append(told["id"])

    # -- what each event says ----------------------------------------------------------------

    def _settled(self, event: Recorded, status: str | None) -> Slot:
        """The slot that an event is about; with a status, it is settled by it."""
        data, slot_id = event.data, event.data["slot"]
        if slot_id not in self.slots:
            derived = status == "decided" or (status == "failed" and "started_at" not in data)
            if not derived:
                self._wrong(event, f"{slot_id} was never opened")
            self.slots[slot_id] = new_slot(slot_id, event.body["timestamp"])
        elif self.slots[slot_id]["status"] != "open":
            self._wrong(event, f"{slot_id} is settled already: {self.slots[slot_id]['status']}")
        slot = self.slots[slot_id]
        if status != "decided":
            slot["uses"], slot["started_at"] = data.get("uses", ""), data.get("started_at", "")
            slot["attempt"] = data.get("attempt", slot["attempt"])
        if status is not None:
            told = {"status": status, "retry_at": "", "undoes": data.get("undoes", "")}
            slot.update(told, finished_at=data.get("finished_at") or event.body["timestamp"])
            if slot_id in self.open:
                self.open.remove(slot_id)
        if taken := data.get("signals"):
            if missing := set(taken) - {signal["id"] for signal in self.signals}:
                self._wrong(event, f"{slot_id} takes signals that are not there: {sorted(missing)}")
            self.signals = [signal for signal in self.signals if signal["id"] not in taken]
        return slot

    def _step_completed(self, event: Recorded) -> None:
        slot = self._settled(event, "completed")
        slot["output"], slot["error"] = event.data.get("output"), None
        self.order.append(slot["id"])

    def _step_failed(self, event: Recorded) -> None:
        data, plain = event.data, self.plain
        slot = self._settled(event, "failed" if data["final"] else None)
        slot["failures"] += 1
        slot["error"] = failure(data["error"])
        if not data["final"]:
            slot["retry_at"] = data["retry_at"]
            slot["attempt"] += 1
        elif self.status == "COMPENSATING":
            left = plain["undo"][plain["undo"].index(slot["id"]) :]
            plain["not_undone"] = [step_of(undo) for undo in left]
        elif data.get("on_error") == "continue":
            self.order.append(slot["id"])
        elif not plain["failing"]:
            plain.update(failing=slot["id"], on_error=data.get("on_error", "fail"))
            plain.update(failed_step=step_of(slot["id"]), error=slot["error"])

    def _decision_point(self, event: Recorded) -> None:
        slot = self._settled(event, "decided")
        slot["output"] = event.data["decision"]
        self.order.append(slot["id"])

    def _recovered(self, event: Recorded) -> None:
        now, lost = event.body["timestamp"], []
        for slot_id, uses in event.data.get("uses", {}).items():
            self.slots[slot_id]["uses"] = uses
        for slot_id in self.open:
            slot = self.slots[slot_id]
            if slot["kind"] == "step" and slot["retry_at"] <= now:
                slot["attempt"] += not slot["retry_at"]
                slot["retry_at"] = ""
                slot["lost"] += 1
                self.plain["lost"] += 1
                lost.append(slot_id)
        if sorted(lost) != sorted(event.data["lost"]):
            self._wrong(event, f"lost are {lost}, not {event.data['lost']}")

    def _compensating(self, event: Recorded) -> None:
        for slot_id in self.open:
            slot = self.slots[slot_id]
            slot.update(status="failed" if slot["kind"] == "step" else "cancelled", retry_at="")
        self.open.clear()
        data = event.data
        told = {"undo": list(data["undo"]), "failed_step": data.get("failed_step", "")}
        self.plain.update(told, error=failure(data["error"]))

    def _step_compensated(self, event: Recorded) -> None:
        slot = self._settled(event, "completed")
        slot["output"], slot["error"] = event.data.get("output"), None
        self.plain["undone"].append(step_of(slot["id"]))

    def _ended(self, event: Recorded) -> None:
        data, plain = event.data, self.plain
        if event.name == "workflow_completed" and (left := set(self.open) - set(data.get("dropped", ()))):
            self._wrong(event, f"it has completed while {sorted(left)} are open")
        plain.update(finished_at=event.body["timestamp"], lease="", output=data.get("output"))
        if plain["blocked"] is None or plain["blocked"]["type"] != "WorkerLost":
            plain["blocked"] = None
        self.open.clear()
        if "error" in data:
            plain.update(error=failure(data["error"]), failed_step=data.get("failed_step", ""))
        plain["not_undone"] = list(data.get("not_undone", ()))
        if data.get("terminated"):
            plain["cancel"] = cancel(data, compensate=False)

    def _waiting(self, event: Recorded) -> None:
        data = event.data
        blocked = failure(data["blocked"]) if "blocked" in data else None
        if self.status == "WAITING" and blocked is None:
            self._wrong(event, "it comes to rest twice")
        self.plain.update(
            lease="", wake_at=data.get("until", ""), blocked=blocked, rest_epoch=event.body["epoch"]
        )

    def _signalled(self, event: Recorded) -> None:
        told = event.data["signal"]
        if self._remember(event, told["id"]):
            empty: Body = {"name": "", "payload": None, "slot": "", "by": {}}
            self.signals.append({**empty, **told, "at": event.body["timestamp"]})

    def _remember(self, event: Recorded, asked: str) -> bool:
        """Something was asked or told under this id; whether it is news, as it has to be."""
        ids = self.plain["signal_ids"]
        if asked in ids:
            self._wrong(event, f"{asked} is recorded twice")
            return False
        ids.append(asked)
        if len(ids) > SIGNAL_IDS_KEPT:
            kept = {signal["id"] for signal in self.signals}
            old = [known for known in ids[:-SIGNAL_IDS_KEPT] if known in kept]
            self.plain["signal_ids"] = old + ids[-SIGNAL_IDS_KEPT:]
        return True

    def _escalated(self, event: Recorded) -> None:
        self.slots[event.data["slot"]]["escalations"] += 1

    def _resumed(self, event: Recorded) -> None:
        plain = self.plain
        if (begun := event.data.get("cleanup")) is not None:
            late = plain["deadline_at"] and event.body["timestamp"] >= plain["deadline_at"]
            if self.status != "RUNNING" or plain["cleanup"] is not None or not (plain["cancel"] or late):
                self._wrong(event, "it cleans up, and has no reason to, or does so already")
            told = {"until": begun["until"], "compensate": begun["compensate"]}
            plain["cleanup"] = {"after": len(self.order), "began_at": event.body["timestamp"], **told}
        if self.status == "FAILED":
            plain.update(failing="", on_error="", failed_step="", finished_at="", error=None, not_undone=[])
            for slot_id in event.data.get("reopen", ()):
                kept = slot_id in event.data.get("kept", ())
                self._reopen(self.slots[slot_id], event.body["timestamp"], kept=kept)
            plain["deadline_at"] = event.data.get("deadline_at", plain["deadline_at"])

    def _reopen(self, slot: Slot, now: str, *, kept: bool) -> None:
        """A slot begins anew; its time counts from now, and a child that is tried again is another one, unless
        it is ``kept``."""
        attempt = slot["attempt"]
        if slot["kind"] == "child" and not slot["abandon"] and not kept:
            slot["name"] = next_child_name(slot["name"], self.key, slot["id"], attempt)
        slot.update(status="open", retry_at="", finished_at="", failures=0, lost=0, attempt=attempt + 1)
        if slot["kind"] != "timer":
            if slot["until"]:
                late_ms = moment_ms(now) - moment_ms(slot["opened_at"])
                slot["until"] = _rfc3339(moment_ms(slot["until"]) + late_ms)
            slot.update(opened_at=now, escalations=0)
        self.open.append(slot["id"])

    def _cancel_requested(self, event: Recorded) -> None:
        self.plain["cancel"] = cancel(event.data, compensate=event.data.get("compensate", True))

    def _continued(self, event: Recorded) -> None:
        if event.data["run"] != self.plain["run"] + 1:
            self._wrong(event, f"run {event.data['run']} follows run {self.plain['run']}")
        self.plain.update(input=event.data.get("input"), run=self.plain["run"] + 1, run_seq=event.seq)
        self.plain["run_started_at"] = event.body["timestamp"]
        self.plain["seed"] = event.data.get("seed", self.plain["seed"])
        for kept in (self.slots, self.order, self.open, self.plain["recorded"],
                     self.plain["taken_seeds"]):  # fmt: skip
            kept.clear()
        self.signals = [signal for signal in self.signals if not signal["slot"]]

    def _migrated(self, event: Recorded) -> None:
        for name in ("version", "definition_hash"):
            self.plain[name] = event.data[name]

    # -- as a snapshot -----------------------------------------------------------------------

    def snapshot(self) -> Body:
        """The state as it is to be kept, in the form of :func:`normal`."""
        return normal(
            {
                **self.plain,
                "status": self.status,
                "position": self.position,
                "slots": self.slots,
                "order": self.order,
                "open": self.open,
                "signals": self.signals,
            }
        )

    def due_ms(self) -> list[int]:
        """The moments at which something is due by itself, escalations of approvals apart."""
        plain = self.plain
        slots = [self.slots[slot_id] for slot_id in self.open]
        if plain["failing"] and self.status != "COMPENSATING":  # what is made elsewhere is waited for still
            works = [slot for slot in slots if slot["kind"] == "remote" and not slot["retry_at"]]
            return [moment_ms(slot["until"]) for slot in works if slot["until"]]
        texts = [slot["retry_at"] or slot["until"] for slot in slots]
        if self.status != "COMPENSATING":
            texts += [plain["start_at"], (plain["cleanup"] or {"until": plain["deadline_at"]})["until"]]
        return [moment_ms(text) for text in texts if text]


_CHANGES: Final[dict[str, Callable[[Fold, Recorded], None]]] = {
    name.removeprefix("_"): getattr(Fold, name)
    for name in (
        "_step_completed", "_step_failed", "_decision_point", "_recovered", "_compensating",
        "_step_compensated", "_waiting", "_signalled", "_escalated", "_resumed", "_cancel_requested",
        "_continued", "_migrated",
    )
} | dict.fromkeys(("completed", "failed", "rolled_back", "cancelled"), Fold._ended)  # fmt: skip


def walk(journal: list[Recorded]) -> Iterator[tuple[Fold, Recorded]]:
    """The state before each event, and the event; it is applied when the next one is asked for."""
    fold = Fold()
    for event in journal:
        yield fold, event
        fold.apply(event)
