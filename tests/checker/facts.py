"""What was recorded of a run, from outside: plain structs, and a JSON file to keep them in.

Moments are milliseconds since the Unix epoch. The judge knows nothing but these facts: what clients asked
and were told, what lay in the streams and buckets in the end, what the steps did to the world (the
ledger), and what was done to the processes (the faults).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

from tests.checker.typed import read

__all__ = [
    "Bounds",
    "Call",
    "Definition",
    "Effect",
    "Facts",
    "Fault",
    "Message",
    "Recorded",
    "Snapshot",
    "Status",
    "load",
    "read_ledger",
    "save",
]

Body = dict[str, Any]
Outcome = Literal["ok", "failed", "unknown"]


@dataclass(frozen=True)
class Call:
    """What a client asked, and what it was told."""

    kind: str
    """``start``, or what was asked of an execution: ``signal``, ``answer``, ``pause`` ..."""
    tenant: str
    execution: str
    outcome: Outcome
    """``ok``: acknowledged; ``failed``: refused; ``unknown``: no answer came."""
    via: Literal["api", "publish"] = "api"
    """By request, which checks before it acknowledges, or as a message that was stored."""
    workflow: str = ""
    input: Any = None
    body: Body = field(default_factory=dict)
    """What else was sent."""
    code: str = ""
    """Why it was refused, or not answered."""
    why: str = ""
    """The words that came with it."""
    version: str = ""
    """Of a start that was acknowledged by request: what it was told that it runs on."""
    asked_ms: int = 0
    answered_ms: int = 0


@dataclass(frozen=True)
class Recorded:
    """A message of the journal: ``body`` is the event, ``subject`` where it was stored."""

    subject: str
    sequence: int
    stored_ms: int
    body: Body

    @property
    def name(self) -> str:
        """Which event it is."""
        return str(self.body.get("event", ""))

    @property
    def data(self) -> Body:
        """What the event carries."""
        found = self.body.get("data")
        return found if isinstance(found, dict) else {}

    @property
    def seq(self) -> int:
        """Its number within its execution, from 1."""
        return int(self.body.get("seq", 0))

    @property
    def key(self) -> tuple[str, str]:
        """Tenant and execution, by the subject."""
        tokens = self.subject.split(".")
        return (tokens[2], tokens[3]) if len(tokens) == 4 else ("", self.subject)


@dataclass(frozen=True)
class Message:
    """Any other message that lay in a stream; ``body`` is its JSON, or its text where it is none."""

    subject: str
    sequence: int
    stored_ms: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def tenant(self) -> str:
        """Whose it is, by the subject."""
        tokens = self.subject.split(".")
        return tokens[2] if len(tokens) > 2 else ""


@dataclass(frozen=True)
class Snapshot:
    """The state that was kept of an execution."""

    tenant: str
    execution: str
    state: Body


@dataclass(frozen=True)
class Definition:
    """A plan, as it was deployed."""

    tenant: str
    workflow: str
    version: str
    hash: str
    document: Body


@dataclass(frozen=True)
class Status:
    """What the API said of an execution in the end."""

    tenant: str
    execution: str
    document: Body


@dataclass(frozen=True)
class Effect:
    """A line that a step left in the ledger outside."""

    execution: str
    step: str
    key: str
    """The idempotency key that the step was given."""
    attempt: int
    what: str
    """``start`` and ``undo`` are side effects; ``end`` says that a step had come to its end."""
    at_ms: int
    tenant: str = ""
    """Empty where the ledger does not say."""
    once: bool = False
    """The step is known to be ``at_most_once``; plans say it themselves."""

    @property
    def happened(self) -> bool:
        """Whether it is a side effect, and no remark on the way."""
        return self.what in ("start", "undo")


@dataclass(frozen=True)
class Fault:
    """Something was away, or held up, from one moment to another."""

    what: str
    at_ms: int
    until_ms: int


@dataclass(frozen=True)
class Bounds:
    """How much is tolerated. Milliseconds."""

    settle_ms: int = 15_000
    """After the last fault, and the last thing that was asked, everything comes to an end, or to rest, within
    this time; a step that works for longer needs more."""
    late_ms: int = 1_500
    """How late a timer may be while the server and a worker are there."""
    return_ms: int = 7_000
    """How late it may be after they have come back."""
    skew_ms: int = 5
    """How far the clocks of workers, server and ledger are apart."""
    pause_ms: int = 1_500
    """How long a pause may take to reach whoever drives the execution."""


@dataclass
class Facts:
    """All that is known of a run. Lists are in the order of their streams."""

    taken_ms: int = 0
    """When the streams and buckets were read."""
    closed: bool = False
    """Whether ``calls`` holds every start that anybody made."""
    bounds: Bounds | None = None
    """What was tolerated when they were judged first; None where nobody has said."""
    statuses_asked: bool = False
    """Whether every execution was asked for its status: one that is not in ``statuses`` has told none."""
    ledgered: list[str] = field(default_factory=list)
    """The step types that leave a line for each side effect."""
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    events: list[Recorded] = field(default_factory=list)
    tasks: list[Message] = field(default_factory=list)
    timers: list[Message] = field(default_factory=list)
    letters: list[Message] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    definitions: list[Definition] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    payloads: dict[str, Any] = field(default_factory=dict)
    """Large payloads, by key."""
    effects: list[Effect] = field(default_factory=list)
    canaries: dict[str, str] = field(default_factory=dict)
    """For each tenant a word that only its own data holds."""

    def journals(self) -> dict[tuple[str, str], list[Recorded]]:
        """The events of each execution, by tenant and execution, in the order of the stream."""
        found: dict[tuple[str, str], list[Recorded]] = {}
        for event in self.events:
            found.setdefault(event.key, []).append(event)
        return found

    def resolve(self, value: Any) -> Any:
        """A value as the program sees it: what stands for a large payload is replaced by it."""
        if isinstance(value, dict) and len(value) == 1:
            blob = value.get("$blob")
            if isinstance(blob, dict) and isinstance(blob.get("key"), str):
                return self.payloads.get(blob["key"], value)
        return value

    def quiet_after(self, moment_ms: int, within_ms: int) -> int:
        """When the world was well again: ``moment_ms``, or the end of the last fault that began, or went on,
        within the time after it."""
        quiet = moment_ms
        for fault in sorted(self.faults, key=lambda fault: fault.at_ms):
            if fault.at_ms <= quiet + within_ms and fault.until_ms > quiet:
                quiet = fault.until_ms
        return quiet


_NEEDED: Final = (
    "taken_ms", "calls", "faults", "events", "tasks", "timers", "letters", "snapshots", "definitions", "statuses",
    "effects",
)  # fmt: skip
"""What every file holds, be it empty. All else may be missing: it came later, or says little."""


def save(facts: Facts, path: Path) -> None:
    """Keep a run in a file, one fact a line."""
    parts = [f'"{one.name}": {_written(getattr(facts, one.name))}' for one in fields(facts)]
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def _written(value: Any) -> str:
    if isinstance(value, list) and value and not isinstance(value[0], str):
        return "[\n" + ",\n".join(_json(asdict(item)) for item in value) + "\n]"
    return _json(asdict(value) if isinstance(value, Bounds) else value)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def load(path: Path) -> Facts:
    """The run that :func:`save` has kept.

    Raises ValueError for a file of another kind, with what is missing, or wrong, and where.
    """
    try:
        found = json.loads(path.read_text())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    missing = [name for name in _NEEDED if name not in found] if isinstance(found, dict) else []
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    facts: Facts = read(Facts, found, "facts")
    return facts


def read_ledger(path: Path) -> Iterator[Effect]:
    """The ledger that steps have written, a JSON object a line, ``at`` in seconds."""
    for line in path.read_text().splitlines() if path.exists() else ():
        told = json.loads(line)
        yield Effect(
            execution=told["execution"],
            step=told["step"],
            key=told["key"],
            attempt=told["attempt"],
            what=told["what"],
            at_ms=round(told["at"] * 1000),
            tenant=told.get("tenant", ""),
        )
