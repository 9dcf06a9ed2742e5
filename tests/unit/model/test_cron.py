from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from wpa.model.cron import check, next_after
from wpa.model.times import parse_ms, rfc3339


def following(spec: str, zone: str, after: str, count: int = 1) -> list[str]:
    """The next moments, in UTC, without milliseconds (which are always 0)."""
    moments: list[str] = []
    moment = parse_ms(after)
    for _ in range(count):
        moment = next_after(spec, zone, moment)
        assert moment % 1_000 == 0
        moments.append(rfc3339(moment).replace(".000Z", ""))
    return moments


class TestCalendar:
    @pytest.mark.parametrize(
        ("spec", "after", "expected"),
        [
            ("* * * * * *", "2026-11-20T10:00:00Z", "2026-11-20T10:00:01"),
            ("* * * * * *", "2026-11-20T10:00:00.999Z", "2026-11-20T10:00:01"),
            ("0 * * * * *", "2026-11-20T10:00:00Z", "2026-11-20T10:01:00"),
            ("0 0 9 * * *", "2026-11-20T08:59:59.999Z", "2026-11-20T09:00:00"),
            ("0 0 9 * * *", "2026-11-20T09:00:00Z", "2026-11-21T09:00:00"),
            ("59 59 23 31 12 *", "2026-12-31T23:59:59Z", "2027-12-31T23:59:59"),
            ("*/15 * * * * *", "2026-11-20T10:00:46Z", "2026-11-20T10:01:00"),
            ("5/20 * * * * *", "2026-11-20T10:00:05Z", "2026-11-20T10:00:25"),
            ("0 10-30/10 8,20 * * *", "2026-11-20T08:30:00Z", "2026-11-20T20:10:00"),
            ("0 0 0 29 2 *", "2026-11-20T10:00:00Z", "2028-02-29T00:00:00"),
            ("0 0 0 31 * *", "2026-11-20T10:00:00Z", "2026-12-31T00:00:00"),
            ("0 0 0 1 jan *", "2026-11-20T10:00:00Z", "2027-01-01T00:00:00"),
            ("0 0 9 * * MON-FRI", "2026-11-20T10:00:00Z", "2026-11-23T09:00:00"),
            ("0 0 9 * * SUN", "2026-11-20T10:00:00Z", "2026-11-22T09:00:00"),
            # Both days restricted: either will do. One of them any: the other decides.
            ("0 0 9 25 * MON", "2026-11-20T10:00:00Z", "2026-11-23T09:00:00"),
            ("0 0 9 25 * MON", "2026-11-23T10:00:00Z", "2026-11-25T09:00:00"),
            ("0 0 9 25 * ?", "2026-11-20T10:00:00Z", "2026-11-25T09:00:00"),
            ("@hourly", "2026-11-20T10:00:00Z", "2026-11-20T11:00:00"),
            ("@daily", "2026-11-20T10:00:00Z", "2026-11-21T00:00:00"),
            ("@weekly", "2026-11-20T10:00:00Z", "2026-11-22T00:00:00"),
            ("@monthly", "2026-11-20T10:00:00Z", "2026-12-01T00:00:00"),
            ("@yearly", "2026-11-20T10:00:00Z", "2027-01-01T00:00:00"),
        ],
    )
    def test_the_next_moment(self, spec: str, after: str, expected: str) -> None:
        assert following(spec, "", after) == [expected]

    def test_fields_are_read_in_the_zone(self) -> None:
        after = "2026-11-20T10:00:00Z"
        assert following("0 0 9 * * *", "Asia/Tokyo", after) == ["2026-11-21T00:00:00"]
        assert following("0 0 9 * * *", "America/New_York", after) == ["2026-11-20T14:00:00"]
        assert following("0 0 9 * * *", "Asia/Kolkata", after) == ["2026-11-21T03:30:00"]

    def test_never_within_five_years(self) -> None:
        with pytest.raises(ValueError, match="does not fire within 5 years"):
            next_after("0 0 0 29 2 *", "", parse_ms("2096-03-01T00:00:00Z"))


class TestClocksThatChange:
    """Berlin: forward on 2026-03-29, 2:00 to 3:00 (01:00 UTC); back on 2026-10-25, 3:00 to 2:00 (01:00 UTC)."""

    def test_a_time_that_is_skipped_does_not_come(self) -> None:
        assert following("0 30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3) == [
            "2026-03-28T01:30:00",
            "2026-03-30T00:30:00",
            "2026-03-31T00:30:00",
        ]

    def test_a_time_that_is_shown_twice_fires_twice(self) -> None:
        assert following("0 30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 3) == [
            "2026-10-25T00:30:00",
            "2026-10-25T01:30:00",
            "2026-10-26T01:30:00",
        ]

    def test_one_that_is_earlier_on_the_clock_may_come_later(self) -> None:
        assert following("0 15 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z") == ["2026-10-25T01:15:00"]

    def test_hours_go_on_evenly(self) -> None:
        assert following("@hourly", "Europe/Berlin", "2026-10-24T23:00:00Z", 3) == [
            "2026-10-25T00:00:00",
            "2026-10-25T01:00:00",
            "2026-10-25T02:00:00",
        ]
        assert following("@hourly", "Europe/Berlin", "2026-03-29T00:00:00Z", 2) == [
            "2026-03-29T01:00:00",
            "2026-03-29T02:00:00",
        ]

    def test_half_an_hour(self) -> None:
        # Lord Howe goes back from 2:00 to 1:30 on 2026-04-05 (15:00 UTC the day before).
        assert following("0 45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", 2) == [
            "2026-04-04T14:45:00",
            "2026-04-04T15:15:00",
        ]

    def test_midnight_itself_is_skipped(self) -> None:
        # Havana goes forward from 0:00 to 1:00 on 2026-03-08 (05:00 UTC).
        assert following("@daily", "America/Havana", "2026-03-07T00:00:00Z", 2) == [
            "2026-03-07T05:00:00",
            "2026-03-09T04:00:00",
        ]
        assert following("0 30 1 8 3 *", "America/Havana", "2026-01-01T00:00:00Z") == ["2026-03-08T05:30:00"]

    def test_a_day_that_was_left_out(self) -> None:
        # Apia went from the 29th to the 31st of December 2011.
        assert following("0 0 12 29,30,31 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", 2) == [
            "2011-12-29T22:00:00",
            "2011-12-30T22:00:00",
        ]


ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "Africa/Casablanca", "Africa/Cairo"]
)
CHANGES = [
    parse_ms(f"2026-{day}T00:00:00Z") // 1_000 for day in ("03-08", "03-29", "04-05", "10-25", "11-01")
]
MINUTES = st.sampled_from(["0", "15", "30", "45", "*/20", "*"])
HOURS = st.sampled_from(["*", "0", "1", "2", "3", "0-2", "23", "*/6"])
DAYS = st.sampled_from(["*", "8", "29", "1,25", "4-6"])
WEEKDAYS = st.sampled_from(["*", "SUN", "1-5"])


def by_looking(fields: list[str], zone: str, start: int) -> int | None:
    """The next match by looking at a clock every minute for 40 hours: slow, and plainly right."""
    values = []
    for text, (low, high) in zip(fields, [(0, 59), (0, 23), (1, 31), (0, 6)], strict=True):
        matching: set[int] = set()
        for item in text.replace("SUN", "0").split(","):
            span, _, step = item.partition("/")
            first, _, last = ("-".join(map(str, (low, high))) if span == "*" else span).partition("-")
            matching.update(range(int(first), int(last or first) + 1, int(step or 1)))
        values.append(matching)
    clock = ZoneInfo(zone)
    for moment in range((start // 60 + 1) * 60, start + 40 * 3_600, 60):
        shown = datetime.fromtimestamp(moment, UTC).astimezone(clock)
        days = shown.day in values[2], shown.isoweekday() % 7 in values[3]
        fits = all(days) if "*" in (fields[2], fields[3]) else any(days)
        if fits and shown.minute in values[0] and shown.hour in values[1]:
            return moment
    return None


@settings(max_examples=150)
@given(MINUTES, HOURS, DAYS, WEEKDAYS, ZONES, st.sampled_from(CHANGES), st.integers(-86_400, 86_400))
@example("30", "2", "*", "*", "Europe/Berlin", CHANGES[1], -3_600)
@example("15", "2", "*", "*", "Europe/Berlin", CHANGES[3], 1_800)
def test_around_every_change_it_is_what_clocks_show(
    minute: str, hour: str, day: str, weekday: str, zone: str, change: int, shift: int
) -> None:
    start = change + shift
    expected = by_looking([minute, hour, day, weekday], zone, start)
    found = next_after(f"0 {minute} {hour} {day} * {weekday}", zone, start * 1_000) // 1_000
    if expected is None:
        assert found >= start + 40 * 3_600 - 60
    else:
        assert found == expected


class TestIntervals:
    @pytest.mark.parametrize(
        ("spec", "seconds"),
        [
            ("1s", 1),
            ("90s", 90),
            ("1h30m", 5_400),
            ("1.5h", 5_400),
            (".5m", 30),
            ("2m1000ms", 121),
            ("8784h", 31_622_400),
        ],
    )
    def test_count_real_seconds(self, spec: str, seconds: int) -> None:
        start = parse_ms("2026-10-24T12:00:00Z")
        assert next_after(f"@every {spec}", "", start) == start + seconds * 1_000

    def test_count_from_the_nearest_second(self) -> None:
        assert following("@every 10s", "", "2026-11-20T10:00:00.499Z") == ["2026-11-20T10:00:10"]
        assert following("@every 10s", "", "2026-11-20T10:00:00.500Z") == ["2026-11-20T10:00:11"]


class TestRefusals:
    """Which of them the server refuses, too, is tested against it (tests/contract/)."""

    @pytest.mark.parametrize(
        ("spec", "zone", "reason"),
        [
            (
                "*/5 * * * *",
                "",
                r"has 5 fields where six are needed.*put the seconds first: '0 \*/5 \* \* \* \*'",
            ),
            ("", "", "has 0 fields"),
            ("0 0 9 * * 7", "", "day of the week '7' is not 0-6 or SUN-SAT"),
            ("0 0 24 * * *", "", "hours '24' is not 0-23"),
            ("0 0 9 * FOO *", "", "month 'FOO' is not 1-12 or JAN-DEC"),
            ("0 0 9 * JANUARY *", "", "month 'JANUARY' is not"),
            ("0 0 9 * * " + "9" * 5_000, "", "has 5010 characters"),
            ("0 0 9 * * " + "9" * 400, "", "day of the week '999"),
            ("0 30-10 9 * * *", "", "minutes '30-10' has a range that ends before it begins"),
            ("*/0 * * * * *", "", "seconds '\\*/0' has a step of 0"),
            (", * * * * *", "", "seconds ',' is an empty list"),
            ("0 0 0 31 2,4 *", "", "never fires: no such month has such a day"),
            (" * * * * * *", "", "characters"),
            ("* * * * *\u00a0*", "", "characters"),
            ("٣ * * * * *", "", "characters"),
            ("@noon", "", "none of @yearly"),
            ("@at 2026-11-20T10:00:00Z", "", "start_at"),
            ("@every", "", "not an interval"),
            ("@every 5", "", "write it as '@every 90s'"),
            ("@every 1500ms", "", "whole seconds"),
            ("@every 0s", "", "at least one"),
            ("@every 1000000h", "", "at most"),
            ("@every " + "9" * 400 + "h", "", "at most"),
            ("@every 5s", "Europe/Berlin", "an interval is the same in all"),
            ("0 0 9 * * *", "Berlin", "time zone 'Berlin' is not known here; write an IANA name"),
            ("0 0 9 * * *", "Europe", "time zone 'Europe' is not known"),
            ("0 0 9 * * *", "../../etc/passwd", "time zone"),
            ("0 0 9 * * *", "Europe/Berlin\n", "time zone"),
            ("0 0 9 * * *", "Europe/Berlin\x00", "time zone"),
        ],
    )
    def test_say_what_is_wrong(self, spec: str, zone: str, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            check(spec, zone)
        with pytest.raises(ValueError, match=reason):
            next_after(spec, zone, 0)

    @given(st.text(max_size=40), st.text(max_size=20))
    def test_nothing_else_is_ever_raised(self, spec: str, zone: str) -> None:
        for text in (spec, f"0 0 {spec}", f"@every {spec}"):
            try:
                check(text, zone)
            except ValueError:
                continue
            next_after(text, zone, 0)
