"""The record of a schedule, and what a firing comes to. Pure: time is passed in.

The server keeps an alarm for the next moment, and no more. The record is what survives everything else: what
is scheduled, up to which moment it was seen to, what was started last, and what is still to be done for
the last firing. It is written before anything is done and again when it was done, each time by
compare-and-set, so that a firing that is delivered twice, or whose worker dies in the middle, comes to the
same.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from wpa.errors import Newer
from wpa.model import cron
from wpa.model.times import rfc3339

__all__ = [
    "CATCH_UP_MAX",
    "EVERY",
    "Firing",
    "Pending",
    "ScheduleRecord",
    "decode_record",
    "due_ms",
    "encode_record",
    "fire",
    "next_ms",
    "run_name",
    "schedule_row",
]

FORMAT: Final = 1

CATCH_UP_MAX: Final = 1_000
"""Of the moments that were missed in one outage, so many are looked at: the latest ones."""
LATE_MS: Final = 60_000
LATE_LEAST_MS: Final = 5_000
"""``catch_up: none`` starts nothing that is later than a minute, or than a period that is shorter; but five
seconds may always be lost on the way: a moment that is no later was not missed, whatever comes after it."""
EVERY: Final = "@every "
"""How the spec of an interval begins."""

Overlap = Literal["skip", "allow", "cancel_old"]
CatchUp = Literal["one", "none", "all"]


class Pending(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be done for a firing and, as far as is known, has not been done."""

    fired_ms: int
    moments: list[int]
    """For each, an execution is to be started."""
    cancel: str = ""
    """The execution that is to be cancelled before."""


class ScheduleRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All that is known of a workflow's schedule. Moments are milliseconds since the Unix epoch; 0: never."""

    format: int = FORMAT
    workflow: str
    version: str
    """The version of the definition that it was read from."""
    spec: str = ""
    """As :mod:`wpa.model.cron` reads it."""
    time_zone: str = ""
    input: dict[str, Any] = msgspec.field(default_factory=dict)
    overlap: Overlap = "skip"
    catch_up: CatchUp = "one"
    paused: bool = False
    declared_paused: bool = False
    """What the definition says; an operator's word counts until the definition says something else."""
    deleted: bool = False
    in_force: bool = False
    """Whether the server is known to have been told of the schedule as it stands here (or of its end)."""
    since_ms: int = 0
    """When it was set or resumed. No moment before that counts, and an interval counts from it."""
    last_ms: int = 0
    """The last moment that was seen to, whether or not anything was started."""
    last_fired_ms: int = 0
    last_execution: str = ""
    last_started_ms: int = 0
    """When the start of ``last_execution`` was recorded."""
    started: int = 0
    skipped: int = 0
    """Moments at which nothing was started since the execution before had not ended."""
    last_skipped_ms: int = 0
    missed: int = 0
    """Moments in outages that ``catch_up`` does not make up for."""
    pending: Pending | None = None

    @property
    def live(self) -> bool:
        """Whether the server is to keep an alarm."""
        return not self.paused and not self.deleted


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """What a firing comes to, before anybody asks whether the execution before has ended."""

    moments: list[int]
    """Those for which an execution is to be started, in order."""
    last_ms: int
    """The latest that it stands for."""
    missed: int


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(ScheduleRecord)


def encode_record(record: ScheduleRecord) -> bytes:
    """The record's bytes (JSON, so that an operator can read it)."""
    return _ENCODER.encode(record)


def decode_record(data: bytes) -> ScheduleRecord:
    """The inverse of :func:`encode_record`. Raises Newer where this worker is too old to read it."""
    record = _DECODER.decode(data)
    if record.format > FORMAT:
        raise Newer(f"the schedule's record has format {record.format}; this worker reads up to {FORMAT}")
    return record


def run_name(workflow: str, moment_ms: int, *, manual: bool = False) -> str:
    """The execution that is started for a moment: the same at every try."""
    moment = datetime.fromtimestamp(moment_ms // 1_000, UTC)
    return f"{workflow}-{'manual-' if manual else ''}{moment:%Y%m%dT%H%M%SZ}"


# -- firings ---------------------------------------------------------------------------------


def fire(record: ScheduleRecord, fired_ms: int, now_ms: int) -> Firing | None:
    """What a firing comes to, for all moments up to now; None where none is due that has not been seen to.

    Args:
        record: the schedule as it is now.
        fired_ms: when the server fired, by its own clock, which may be ahead of ours.
        now_ms: the time now: later, where no worker was there.
    """
    after_ms, until_ms = _seen_to_ms(record), max(fired_ms, now_ms)
    if record.spec.startswith(EVERY):
        moments = _intervals(record.spec, after_ms, until_ms)
    else:
        moments = _matches(record.spec, record.time_zone, after_ms, until_ms)
    if not moments:
        return None
    last_ms = moments[-1]
    following_ms = _next(record, last_ms) or now_ms + LATE_MS
    late_ms = min(LATE_MS, max(LATE_LEAST_MS, following_ms - last_ms))
    if record.catch_up == "all":
        chosen = moments
    elif now_ms - last_ms <= LATE_LEAST_MS:
        chosen = [moment for moment in moments if now_ms - moment <= LATE_LEAST_MS]
    else:
        chosen = moments[-1:] if record.catch_up == "one" or now_ms - last_ms <= late_ms else []
    return Firing(moments=chosen, last_ms=last_ms, missed=len(moments) - len(chosen))


def due_ms(record: ScheduleRecord) -> int:
    """The first moment that has not been seen to, even if it has passed; 0 where there is none."""
    return _next(record, _seen_to_ms(record)) if record.live else 0


def next_ms(record: ScheduleRecord, now_ms: int) -> int:
    """When it fires next: now, where it is overdue; 0 where it doesn't."""
    due = due_ms(record)
    return max(now_ms, due) if due else 0


def _seen_to_ms(record: ScheduleRecord) -> int:
    return max(record.since_ms, record.last_ms)


def _next(record: ScheduleRecord, after_ms: int) -> int:
    try:
        return cron.next_after(record.spec, record.time_zone, after_ms)
    except ValueError:  # it will not fire for years
        return 0


def _matches(spec: str, time_zone: str, after_ms: int, until_ms: int) -> list[int]:
    """The moments of a cron expression past ``after_ms`` and up to ``until_ms``: the latest ones, where
    there are too many."""
    while True:
        found: list[int] = []
        at_ms = after_ms
        while len(found) <= CATCH_UP_MAX:
            try:
                at_ms = cron.next_after(spec, time_zone, at_ms)
            except ValueError:
                return found
            if at_ms > until_ms:
                return found
            found.append(at_ms)
        # The latter half holds more than enough, or at least is half as long.
        after_ms += (until_ms - after_ms) // 2


def _intervals(spec: str, after_ms: int, until_ms: int) -> list[int]:
    """As :func:`_matches`, for an interval. Each moment is counted from the one before, however late that was
    seen to, so the phase is that of the moment when the schedule was set."""
    first_ms, every_ms = cron.next_after(spec, "", after_ms), cron.next_after(spec, "", 0)
    count = max(0, (until_ms - first_ms) // every_ms + 1)
    return [first_ms + number * every_ms for number in range(max(0, count - CATCH_UP_MAX), count)]


# -- what is shown ---------------------------------------------------------------------------


def schedule_row(record: ScheduleRecord, now_ms: int) -> dict[str, Any]:
    """A schedule as ``wpa schedule list`` shows it."""

    def moment(ms: int) -> str | None:
        return rfc3339(ms) if ms else None

    return {
        "workflow_id": record.workflow,
        "version": record.version,
        "schedule": record.spec.removeprefix("@"),
        "time_zone": record.time_zone,
        "overlap": record.overlap,
        "catch_up": record.catch_up,
        "input": record.input,
        "paused": record.paused,
        "in_force": record.in_force,
        "next_at": moment(next_ms(record, now_ms)),
        "last_fired_at": moment(record.last_fired_ms),
        "last_scheduled_for": moment(record.last_ms),
        "last_execution_id": record.last_execution or None,
        "started": record.started,
        "skipped": record.skipped,
        "last_skipped_at": moment(record.last_skipped_ms),
        "missed": record.missed,
    }
