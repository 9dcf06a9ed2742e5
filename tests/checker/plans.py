"""A plan's document, read for the interpreter: its graph, and what each step is to be run with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from tests.checker.expressions import Unusable

__all__ = ["NO_POLICY", "WAITS", "Plan", "Policy", "Wait", "duration_ms", "moment_ms", "waited_for"]

Body = dict[str, Any]

WAITS: Final = {
    "core.sleep": "timer",
    "core.wait": "signal",
    "core.approval": "approval",
    "core.workflow": "child",
}
"""The step types that do no work, and the kind of slot each of them is."""

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
WORKFLOW: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
FIELDS: Final = {
    "core.sleep": {"for", "until"},
    "core.wait": {"signal", "timeout", "default"},
    "core.approval": {"users", "roles", "count", "message", "timeout", "default", "escalate"},
    "core.workflow": {"workflow", "version", "input", "execution_id", "wait", "on_cancel"},
}
_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def duration_ms(text: Any) -> int:
    """Milliseconds in ``1h30m``. Raises ValueError."""
    if not isinstance(text, str) or not text or _PART.sub("", text):
        raise ValueError(f"{text!r} is no duration")
    return round(sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)))


def moment_ms(text: Any) -> int:
    """Milliseconds since the Unix epoch. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no moment")
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return round(moment.timestamp() * 1000)


@dataclass(frozen=True)
class Policy:
    """How a step is attempted, and what follows when it gives up."""

    on_error: str = "fail"
    priority: int = 5
    queue: str = ""
    at_most_once: bool = False
    deadline_ms: int | None = None
    max_attempts: int = 3
    initial_ms: int = 1_000
    factor: float = 2.0
    max_ms: int = 60_000
    jitter: float = 0.2
    retry_on: tuple[str, ...] = ()
    give_up_on: tuple[str, ...] = ()

    def may_retry(self, error: Body, failures: int) -> bool:
        """Whether another attempt follows the ``failures``-th failure."""
        kind = error.get("type")
        if not error.get("retryable", True) or failures >= self.max_attempts or kind in self.give_up_on:
            return False
        return not self.retry_on or kind in self.retry_on

    def backoff_ms(self, failures: int) -> tuple[float, float]:
        """The shortest and the longest wait after the ``failures``-th failure."""
        full = min(self.initial_ms * self.factor ** min(failures - 1, 64), float(self.max_ms))
        return full * (1 - self.jitter), full


NO_POLICY: Final = Policy()


def _policy(retry: Body | None, attempts: int, **more: Any) -> Policy:
    if retry is None:
        return Policy(max_attempts=attempts, **more)
    backoff = retry.get("backoff", {})
    return Policy(
        max_attempts=retry.get("max_attempts", 3),
        initial_ms=duration_ms(backoff.get("initial", "1s")),
        factor=backoff.get("factor", 2.0),
        max_ms=duration_ms(backoff.get("max", "60s")),
        jitter=backoff.get("jitter", 0.2),
        retry_on=tuple(retry.get("retry_on", ())),
        give_up_on=tuple(retry.get("give_up_on", ())),
        **more,
    )


def _many(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


@dataclass(frozen=True)
class Wait:
    """What is waited for."""

    delay_ms: int | None = None
    """From the opening of the slot: a timer's time, or the time-out of anything else."""
    moment_ms: int | None = None
    name: str = ""
    """A signal's, or the execution id that a child was given."""
    inputs: Body = field(default_factory=dict)


class Plan:
    """The graph of a document: who needs whom, who is chosen by whom, who leaves whom behind."""

    def __init__(self, document: Body) -> None:
        self.document = document
        self.items: dict[str, Body] = {item["id"]: item for item in document["steps"]}
        self.max_parallel: int = document.get("max_parallel", 32)
        self.number = {name: index for index, name in enumerate(self.items)}
        self.targets = {name: self._targets(item) for name, item in self.items.items() if "switch" in item}
        self.gates = {n: [gate for gate, to in self.targets.items() if n in to] for n in self.items}
        self.needs = {
            name: [need for need in dict.fromkeys(item.get("needs", ())) if need not in self.gates[name]]
            for name, item in self.items.items()
        }
        self.parents = {name: [*self.needs[name], *self.gates[name]] for name in self.items}
        self.children: dict[str, list[str]] = {name: [] for name in self.items}
        for name in self.items:
            for parent in self.parents[name]:
                self.children[parent].append(name)
        self.ancestors = self._ancestors()
        self.leaves = [n for n in self.items if not self.children[n] and n not in self.targets]
        setters = [name for name, item in self.items.items() if item.get("set")]
        self.setters = sorted(setters, key=lambda name: (len(self.ancestors[name]), self.number[name]))

    @staticmethod
    def _targets(item: Body) -> list[str]:
        branches = [step for branch in item["switch"] for step in _many(branch["next"])]
        return list(dict.fromkeys([*branches, *_many(item.get("default"))]))

    def _ancestors(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        left = list(self.items)
        while left:
            later = []
            for name in left:
                if all(parent in found for parent in self.parents[name]):
                    found[name] = {*self.parents[name]}.union(*(found[p] for p in self.parents[name]))
                else:
                    later.append(name)
            if len(later) == len(left):
                raise ValueError(f"the steps {later} wait for each other")
            left = later
        return found

    def taken(self, name: str, branch: int | None) -> list[str]:
        """The steps that a decision chooses: those of a branch, or of the default."""
        item = self.items[name]
        return _many(item.get("default") if branch is None else item["switch"][branch]["next"])

    def quorum(self, name: str) -> int:
        """How many of its needs a step waits for; 0: for all."""
        join = self.items[name].get("join", "all")
        if join == "all":
            return 0
        return min(join if isinstance(join, int) else 1, len(self.needs[name]))

    def rivals(self, race: str) -> set[str]:
        """The steps from which every path leads to the race: nobody else waits for them."""
        if self.items[race].get("join") != "race":
            return set()
        found = {race}
        while True:
            more = {n for n in self.ancestors[race] - found if set(self.children[n]) <= found}
            if not more:
                return found - {race}
            found |= more

    def policy(self, name: str) -> Policy:
        """Of a step, or of each of its items or rounds."""
        item = self.items[name]
        saga = any(other.get("compensate") for other in self.items.values())
        on_error = item.get("on_error") or ("compensate" if saga else "fail")
        if "switch" in item:
            return Policy(on_error=on_error)
        if item.get("foreach", {}).get("on_error") == "continue":
            on_error = "continue"
        priority = item.get("priority", 5)
        if item["uses"] in WAITS:
            return Policy(max_attempts=1, on_error=on_error, priority=priority)
        deadline = item.get("deadline")
        return _policy(
            item.get("retry") or self.document.get("defaults", {}).get("retry"),
            3,
            on_error=on_error,
            priority=priority,
            queue=item.get("queue", ""),
            at_most_once=item.get("at_most_once", False),
            deadline_ms=duration_ms(deadline) if deadline else None,
        )

    def undo_policy(self, name: str) -> Policy:
        """Of what undoes a step."""
        item = self.items[name]
        return _policy(item["compensate"].get("retry"), 10, queue=item.get("queue", ""))


def waited_for(item: Body, inputs: Body) -> Wait:
    """What a step that does no work waits for. Raises Unusable (``InvalidInput``)."""
    uses = item["uses"]
    timeout = inputs.get("timeout") or item.get("timeout")
    try:
        if set(inputs) - FIELDS[uses]:
            raise ValueError(f"{uses} takes no {set(inputs) - FIELDS[uses]}")
        if uses == "core.sleep":
            given = {key: value for key, value in inputs.items() if value is not None}
            if len(given) != 1:
                raise ValueError("one of 'for' and 'until'")
            if "for" in given:
                return Wait(delay_ms=duration_ms(given["for"]))
            return Wait(moment_ms=moment_ms(given["until"]))
        delay = None if timeout is None else duration_ms(timeout)
        if uses == "core.wait":
            return Wait(delay, name=_name(NAME, inputs.get("signal")), inputs=inputs)
        if uses == "core.workflow":
            _name(WORKFLOW, inputs.get("workflow"))
            return Wait(delay, name=inputs.get("execution_id") or "", inputs=inputs)
        return Wait(delay, inputs={**inputs, "escalate": _escalations(inputs.get("escalate") or ())})
    except (ValueError, TypeError) as error:
        raise Unusable("InvalidInput", str(error)) from None


def _name(pattern: re.Pattern[str], value: Any) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{value!r} is no name")
    return value


def _escalations(told: Iterable[Body]) -> list[Body]:
    timed = [{**one, "after_ms": duration_ms(one["after"])} for one in told]
    return sorted(timed, key=lambda one: int(one["after_ms"]))
