"""When a repeated schedule fires: six-field cron in a time zone, or ``@every`` some seconds.

This module says what a schedule is, and when it fires next. It reads cron as nats-server does, and is
stricter where that takes what nobody means (fractions of a second, ``*-5``).

==================  ===========================================================================
``S M H d m w``     seconds, minutes, hours, day of the month, month (1-12 or JAN-DEC), day of the
                    week (0-6 or SUN-SAT, Sunday is 0). Each field is ``*`` or ``?`` (any), or a list
                    of numbers, ranges ``a-b`` and steps ``*/n``, ``a/n`` (from a on), ``a-b/n``
``@hourly`` ...     ``@daily`` or ``@midnight``, ``@weekly``, ``@monthly``, ``@yearly`` or
                    ``@annually``
``@every 1h30m``    an interval in h, m and s: whole seconds, at least one
==================  ===========================================================================

Where both the day of the month and that of the week are restricted, either will do. Cron fields are
what a clock on the wall shows: a time that is skipped when clocks go forward doesn't come that day, and
one that is shown twice when they go back fires twice. ``@every`` counts real seconds.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

__all__ = ["check", "next_after"]

CHARS_MAX: Final = 500
EVERY_MAX_S: Final = 100 * 366 * 86_400
SEARCH_YEARS: Final = 5
"""How far ahead a cron expression is followed, as far as the server does."""

_DAY: Final = timedelta(days=1)
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  as a clock on the wall shows it
_MONTH_DAYS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_SHORTCUTS: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", re.ASCII)
_INTERVAL: Final = re.compile(r"(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|ms|s|m|h))+", re.ASCII)
_PART: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|ms|s|m|h)", re.ASCII)
_UNIT_S: Final = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_ITEM: Final = re.compile(
    r"(?:(?P<any>[*?])|(?P<low>\w{1,8})(?:-(?P<high>\w{1,8}))?)(?:/(?P<step>\d{1,8}))?", re.ASCII
)


def check(spec: str, time_zone: str = "") -> None:
    """Raise ValueError, with what is wrong and what to write instead, where ``spec`` is no schedule."""
    _read(spec, time_zone)


def next_after(spec: str, time_zone: str, after_ms: int) -> int:
    """The first moment after ``after_ms`` at which the schedule fires.

    Args:
        spec: the schedule.
        time_zone: the IANA name of its zone; "" for UTC.
        after_ms: a moment, in milliseconds since the Unix epoch; for ``@every``, the one it counts
            from: the moment before, or the one at which it was set.

    Returns milliseconds since the Unix epoch, whole seconds. Raises ValueError as :func:`check` does,
    and where a cron expression matches nothing in the five years ahead.
    """
    schedule = _read(spec, time_zone)
    if isinstance(schedule, int):
        return (_half_up(after_ms) + schedule) * 1_000
    found = _next_match(*schedule, after_ms // 1_000 + 1)
    if found is None:
        raise ValueError(f"schedule {spec!r} does not fire within {SEARCH_YEARS} years")
    return found * 1_000


def _half_up(ms: int) -> int:
    """The nearest whole second, from which an interval is counted."""
    return (ms + 500) // 1_000


# -- reading -----------------------------------------------------------------------------------


class _Field(NamedTuple):
    """One field: the values that match, in order, and whether that is said to be any value."""

    values: tuple[int, ...]
    any: bool


class _Bounds(NamedTuple):
    what: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    """Of the values from ``low`` on."""


_FIELDS: Final = (
    _Bounds("seconds", 0, 59),
    _Bounds("minutes", 0, 59),
    _Bounds("hours", 0, 23),
    _Bounds("day of the month", 1, 31),
    _Bounds(
        "month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
    ),
    _Bounds("day of the week", 0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


class _Cron(NamedTuple):
    """What a wall clock has to show."""

    seconds: _Field
    minutes: _Field
    hours: _Field
    days: _Field
    months: _Field
    weekdays: _Field

    def on(self, day: date) -> bool:
        """Whether it fires on this day, as far as month and day are concerned."""
        if day.month not in self.months.values:
            return False
        by_month = day.day in self.days.values
        by_week = day.isoweekday() % 7 in self.weekdays.values
        if self.days.any or self.weekdays.any:
            return by_month and by_week
        return by_month or by_week

    def at(self, moment: time) -> time | None:
        """The first time of day, from ``moment`` on, that matches."""
        seconds, minutes, hours = self.seconds.values, self.minutes.values, self.hours.values
        for hour in hours[bisect_left(hours, moment.hour) :]:
            if hour > moment.hour:
                return time(hour, minutes[0], seconds[0])
            for minute in minutes[bisect_left(minutes, moment.minute) :]:
                if minute > moment.minute:
                    return time(hour, minute, seconds[0])
                place = bisect_left(seconds, moment.second)
                if place < len(seconds):
                    return time(hour, minute, seconds[place])
        return None

    @property
    def possible(self) -> bool:
        """Whether there is such a day at all: not the 30th of February."""
        if not self.weekdays.any:
            return True
        return any(self.days.values[0] <= _MONTH_DAYS[month - 1] for month in self.months.values)


def _read(spec: str, time_zone: str) -> int | tuple[_Cron, ZoneInfo]:
    """An interval in seconds, or a cron expression and its zone."""
    if len(spec) > CHARS_MAX:
        raise ValueError(f"schedule {spec[:40]!r}... has {len(spec)} characters; {CHARS_MAX} are the most")
    if spec.startswith("@every"):
        if time_zone:
            raise ValueError(
                f"schedule {spec!r} has time zone {time_zone!r}, but an interval is the same in all of "
                "them; leave it out, or write cron fields"
            )
        return _read_interval(spec)
    return _read_cron(spec), _read_zone(time_zone)


def _read_interval(spec: str) -> int:
    text = spec.removeprefix("@every ")
    if not _INTERVAL.fullmatch(text):
        raise ValueError(f"schedule {spec!r} is not an interval; write it as '@every 90s' or '@every 1h30m'")
    seconds = sum(Decimal(number) * _UNIT_S[unit] for number, unit in _PART.findall(text))
    if seconds < 1 or seconds != int(seconds):
        raise ValueError(f"schedule {spec!r}: an interval is a number of whole seconds, at least one")
    if seconds > EVERY_MAX_S:
        raise ValueError(f"schedule {spec!r}: an interval is at most {EVERY_MAX_S // 3_600} h")
    return int(seconds)


def _read_zone(name: str) -> ZoneInfo:
    try:
        if name and not _ZONE.fullmatch(name):
            raise ValueError
        return ZoneInfo(name or "UTC")
    # OSError: a name like "America" is a folder of the time zone database.
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"time zone {name!r} is not known here; write an IANA name such as 'Europe/Berlin', or leave "
            "it out for UTC"
        ) from None


def _read_cron(spec: str) -> _Cron:
    if spec.startswith("@at"):
        raise ValueError(f"schedule {spec!r} is a single moment; give it to the start task as start_at")
    if spec.startswith("@") and spec not in _SHORTCUTS:
        raise ValueError(f"schedule {spec!r} is none of {', '.join(_SHORTCUTS)} and '@every <interval>'")
    expression = _SHORTCUTS.get(spec, spec)
    if not expression.isascii() or not expression.isprintable() or expression != expression.strip():
        raise ValueError(f"schedule {spec!r} holds characters that are not part of one")
    fields = expression.split()
    if len(fields) != len(_FIELDS):
        hint = f"; put the seconds first: {'0 ' + spec!r}" if len(fields) == 5 else ""
        raise ValueError(
            f"schedule {spec!r} has {len(fields)} fields where six are needed: second, minute, hour, day of "
            f"the month, month, day of the week{hint}"
        )
    cron = _Cron(*(_read_field(spec, text, bounds) for text, bounds in zip(fields, _FIELDS, strict=True)))
    if not cron.possible:
        raise ValueError(f"schedule {spec!r} never fires: no such month has such a day")
    return cron


def _read_field(spec: str, text: str, bounds: _Bounds) -> _Field:
    values: set[int] = set()
    any_value = False
    for item in filter(None, text.split(",")):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(f"schedule {spec!r}: {bounds.what} {item!r} is not '*', 5, 1-5, '*/5' or 1-5/2")
        step = int(match["step"] or 1)
        low, high = _read_range(spec, match, bounds)
        if step == 0 or low > high:
            wrong = "a step of 0" if step == 0 else "a range that ends before it begins"
            raise ValueError(f"schedule {spec!r}: {bounds.what} {item!r} has {wrong}")
        any_value = any_value or (match["any"] is not None and step == 1)
        values.update(range(low, high + 1, step))
    if not values:
        raise ValueError(f"schedule {spec!r}: {bounds.what} {text!r} is an empty list")
    return _Field(tuple(sorted(values)), any_value)


def _read_range(spec: str, match: re.Match[str], bounds: _Bounds) -> tuple[int, int]:
    if match["any"]:
        return bounds.low, bounds.high
    low = _read_value(spec, match["low"], bounds)
    if match["high"]:
        return low, _read_value(spec, match["high"], bounds)
    return low, bounds.high if match["step"] else low


def _read_value(spec: str, text: str, bounds: _Bounds) -> int:
    if text.lower() in bounds.names:
        return bounds.names.index(text.lower()) + bounds.low
    if text.isdigit() and bounds.low <= int(text) <= bounds.high:
        return int(text)
    names = f" or {bounds.names[0].upper()}-{bounds.names[-1].upper()}" if bounds.names else ""
    raise ValueError(f"schedule {spec!r}: {bounds.what} {text!r} is not {bounds.low}-{bounds.high}{names}")


# -- searching ---------------------------------------------------------------------------------


def _next_match(cron: _Cron, zone: ZoneInfo, start: int) -> int | None:
    """The first second from ``start`` (Unix time) on at which the zone's clocks show a match.

    Day by day, and within a day from one change of the clocks to the next: between two changes, wall
    time and real time run alike, so one search by the calendar is enough.
    """
    limit = _wall(start, _offset(zone, start)).year + SEARCH_YEARS
    while True:
        end = start + 86_400
        while start < end:
            offset = _offset(zone, start)
            change = _change(zone, start, end, offset)
            match = _next_wall(cron, _wall(start, offset), limit)
            if match is not None and (found := _unix(match) - offset) < change:
                return found
            start = change
        # Nothing on that day. From a day before it, lest the clocks go back, the calendar knows how many
        # days may be left out; two fewer are, whatever the zone does in between.
        wall = _wall(start, _offset(zone, start))
        match = _next_wall(cron, wall - _DAY, limit)
        if match is None:
            return None
        start += max(0, int((match - wall).total_seconds()) - 2 * 86_400)


def _next_wall(cron: _Cron, moment: datetime, limit: int) -> datetime | None:
    """The first match from ``moment`` on, by the calendar alone; None past the year ``limit``."""
    day, start = moment.date(), moment.time()
    while day.year <= limit:
        if day.month not in cron.months.values:
            day = (day.replace(day=28) + 4 * _DAY).replace(day=1)
        elif cron.on(day) and (found := cron.at(start)) is not None:
            return datetime.combine(day, found)
        else:
            day += _DAY
        start = time()
    return None


def _offset(zone: ZoneInfo, unix: int) -> int:
    """By how many seconds the zone's clocks are ahead of UTC at a moment."""
    ahead = datetime.fromtimestamp(unix, zone).utcoffset()
    return 0 if ahead is None else int(ahead.total_seconds())


def _change(zone: ZoneInfo, start: int, end: int, offset: int) -> int:
    """The first second at which the zone's offset is not ``offset`` any more; ``end`` if it stays."""
    if _offset(zone, end) == offset:
        return end
    while end - start > 1:
        middle = (start + end) // 2
        if _offset(zone, middle) == offset:
            start = middle
        else:
            end = middle
    return end


def _wall(unix: int, offset: int) -> datetime:
    return _EPOCH + timedelta(seconds=unix + offset)


def _unix(wall: datetime) -> int:
    return (wall - _EPOCH) // timedelta(seconds=1)
