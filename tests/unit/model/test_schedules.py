from __future__ import annotations

import pytest

from wpa.errors import Newer
from wpa.model.schedules import (
    CATCH_UP_MAX,
    Firing,
    ScheduleRecord,
    decode_record,
    due_ms,
    encode_record,
    fire,
    next_ms,
    run_name,
    schedule_row,
)
from wpa.model.times import parse_ms, rfc3339

HOUR = 3_600_000


def at(text: str) -> int:
    return parse_ms(f"2026-11-20T{text}Z")


def hourly(**more: object) -> ScheduleRecord:
    given = {
        "workflow": "w",
        "version": "1",
        "spec": "0 0 * * * *",
        "in_force": True,
        "since_ms": at("00:30:00"),
    }
    return ScheduleRecord(**{**given, **more})  # type: ignore[arg-type]


def moments(firing: Firing | None) -> list[str]:
    assert firing is not None
    return [rfc3339(ms)[11:19] for ms in firing.moments]


class TestFire:
    def test_on_time(self) -> None:
        firing = fire(hourly(), at("01:00:00.120"), at("01:00:00.300"))
        assert firing == Firing(moments=[at("01:00:00")], last_ms=at("01:00:00"), missed=0)

    def test_what_was_seen_to_is_not_seen_to_again(self) -> None:
        assert fire(hourly(last_ms=at("01:00:00")), at("01:00:02"), at("01:00:02")) is None

    def test_one_of_before_it_was_set_does_not_count(self) -> None:
        assert fire(hourly(), at("00:10:00"), at("00:31:00")) is None

    @pytest.mark.parametrize(
        ("policy", "started", "missed"),
        [
            ("one", ["05:00:00"], 3),
            ("none", [], 4),
            ("all", ["02:00:00", "03:00:00", "04:00:00", "05:00:00"], 0),
        ],
    )
    def test_after_an_outage_of_the_server_one_firing_stands_for_all(
        self, policy: str, started: list[str], missed: int
    ) -> None:
        record = hourly(last_ms=at("01:00:00"), catch_up=policy)
        firing = fire(record, at("05:30:00"), at("05:30:00.050"))
        assert firing is not None
        assert (moments(firing), firing.missed, firing.last_ms) == (started, missed, at("05:00:00"))

    @pytest.mark.parametrize(("policy", "started"), [("one", 1), ("none", 0), ("all", 4)])
    def test_after_an_outage_of_the_workers_the_firing_stands_for_what_came_after_it(
        self, policy: str, started: int
    ) -> None:
        record = hourly(last_ms=at("01:00:00"), catch_up=policy)
        firing = fire(record, at("02:00:00.100"), at("05:30:00"))
        assert firing is not None
        assert (len(firing.moments), firing.missed) == (started, 4 - started)
        assert firing.last_ms == at("05:00:00")

    def test_one_that_comes_before_its_moment_starts_nothing(self) -> None:
        assert fire(hourly(last_ms=at("01:00:00")), at("01:59:59.999"), at("01:59:59")) is None

    def test_the_servers_clock_may_be_ahead(self) -> None:
        assert moments(fire(hourly(), at("01:00:00"), at("00:59:58"))) == ["01:00:00"]

    def test_a_minute_late_is_not_an_outage(self) -> None:
        record = hourly(catch_up="none")
        assert moments(fire(record, at("01:00:00"), at("01:00:59"))) == ["01:00:00"]
        assert moments(fire(record, at("01:00:00"), at("01:01:01"))) == []

    @pytest.mark.parametrize("policy", ["one", "none", "all"])
    def test_a_worker_that_lags_behind_a_schedule_of_seconds_starts_each_all_the_same(
        self, policy: str
    ) -> None:
        record = hourly(spec="* * * * * *", since_ms=at("01:00:00"), catch_up=policy)
        found: list[str] = []
        for second in range(1, 40, 3):
            fired_ms = at("01:00:00") + second * 1_000
            firing = fire(record, fired_ms, fired_ms + 2_500)
            found += moments(firing)
            assert firing is not None
            record.last_ms = firing.last_ms
        assert found == [f"01:00:{second:02}" for second in range(1, 40)]

    def test_a_month_of_seconds_is_looked_at_from_its_end(self) -> None:
        record = hourly(spec="* * * * * *", since_ms=at("01:00:00") - 30 * 24 * HOUR, catch_up="all")
        firing = fire(record, at("01:00:00"), at("01:00:00"))
        assert firing is not None
        assert CATCH_UP_MAX / 2 <= len(firing.moments) <= CATCH_UP_MAX
        assert firing.moments[-1] == at("01:00:00")
        assert firing.moments == sorted(set(firing.moments))

    def test_time_zones(self) -> None:
        record = hourly(spec="0 0 6 * * *", time_zone="Europe/Madrid")
        assert moments(fire(record, at("05:00:00.010"), at("05:00:01"))) == ["05:00:00"]


class TestIntervals:
    def every(self, seconds: int, **more: object) -> ScheduleRecord:
        return hourly(spec=f"@every {seconds}s", since_ms=at("01:00:00.400"), **more)

    def test_counted_from_the_firing_before(self) -> None:
        record = self.every(90)
        assert moments(fire(record, at("01:01:30.100"), at("01:01:30.200"))) == ["01:01:30"]
        record.last_ms = at("01:01:30")
        assert moments(fire(record, at("01:03:00.499"), at("01:03:00.600"))) == ["01:03:00"]

    def test_the_same_firing_stored_twice(self) -> None:
        record = self.every(90, last_ms=at("01:01:30"))
        assert fire(record, at("01:01:31"), at("01:01:32")) is None
        assert fire(record, at("01:02:14"), at("01:02:15")) is None

    def test_an_outage_does_not_shift_it(self) -> None:
        record = self.every(60, last_ms=at("01:00:00"), catch_up="all")
        firing = fire(record, at("01:04:40"), at("01:04:40"))
        assert moments(firing) == ["01:01:00", "01:02:00", "01:03:00", "01:04:00"]
        record.last_ms = at("01:04:00")
        assert due_ms(record) == at("01:05:00")
        assert moments(fire(record, at("01:05:00.2"), at("01:05:00.3"))) == ["01:05:00"]

    def test_every_second_each_counts(self) -> None:
        record = self.every(1)
        for second in range(1, 30):
            firing = fire(record, at(f"01:00:{second:02}.250"), at(f"01:00:{second:02}.300"))
            assert firing is not None
            assert moments(firing) == [f"01:00:{second:02}"]
            record.last_ms = firing.last_ms

    def test_too_many_are_cut_to_the_latest(self) -> None:
        record = self.every(1, catch_up="all", last_ms=at("01:00:00"))
        firing = fire(record, at("02:00:00"), at("02:00:00"))
        assert firing is not None
        assert len(firing.moments) == CATCH_UP_MAX
        assert firing.moments[-2:] == [at("01:59:59"), at("02:00:00")]


class TestNext:
    def test_cron(self) -> None:
        assert next_ms(hourly(last_ms=at("01:00:00")), at("01:20:00")) == at("02:00:00")

    def test_an_interval_counts_from_the_last_moment(self) -> None:
        record = hourly(
            spec="@every 90s",
            since_ms=at("01:00:00"),
            last_ms=at("01:03:00"),
            last_fired_ms=at("01:03:20"),
        )
        assert next_ms(record, at("01:03:30")) == at("01:04:30")
        assert due_ms(record) == at("01:04:30")
        assert next_ms(record, at("01:09:00")) == at("01:09:00"), "overdue: at any moment"

    @pytest.mark.parametrize("field", ["paused", "deleted"])
    def test_one_that_rests_has_none(self, field: str) -> None:
        record = hourly(**{field: True})
        assert (next_ms(record, at("01:20:00")), due_ms(record)) == (0, 0)


def test_the_name_follows_from_the_moment_alone() -> None:
    assert run_name("nightly", at("05:00:00.999")) == "nightly-20261120T050000Z"
    assert run_name("nightly", at("05:00:00"), manual=True) == "nightly-manual-20261120T050000Z"


def test_a_record_comes_back_as_it_was() -> None:
    record = hourly(last_execution="x", input={"a": [1]}, missed=3)
    assert decode_record(encode_record(record)) == record


def test_a_newer_format_is_left_to_newer_workers() -> None:
    with pytest.raises(Newer, match="format 99"):
        decode_record(encode_record(hourly(format=99)))


def test_what_is_shown() -> None:
    row = schedule_row(hourly(spec="@every 90s", started=2, last_execution="x"), at("01:00:00"))
    assert row["schedule"] == "every 90s"
    assert (row["started"], row["last_execution_id"], row["last_fired_at"]) == (2, "x", None)
