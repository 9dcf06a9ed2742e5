from __future__ import annotations

import datetime
import random
import subprocess
import sys
import threading
import time
import uuid

import pytest
from pydantic import TypeAdapter

from tests.unit.flows import clocks
from tests.unit.flows.table import EPOCH_MS, Table, run

SECONDS = EPOCH_MS / 1000
AT_START = "2026-11-18T11:06:40"


def test_every_clock_tells_the_time_of_the_last_settlement() -> None:
    first, second, now = run(clocks.looker).output
    for name, value in first.items():
        if isinstance(value, str):
            assert value.replace(" ", "T").startswith(AT_START[: len(value)]), name
        else:
            assert value == (EPOCH_MS * 1_000_000 if name == "ns" else SECONDS), name
    assert second["time"] == second["timer"] == second["made"] == SECONDS + 60
    assert now == "2026-11-18T11:07:40+00:00"


def test_local_time_is_that_of_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        first, *_ = run(clocks.looker).output
        assert first["then"] == AT_START.replace("T", " ")
        assert run(clocks.teller).output == [3600.0, "Thu Jan  1 01:00:00 1970"]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_chance_is_seeded_by_the_execution() -> None:
    first, second, sent = run(clocks.drawer).output
    assert sent == first
    assert len({str(value) for value in first.values()}) == len(first)
    assert not [name for name in first if first[name] == second[name]]
    assert uuid.UUID(first["uuid4"]).version == 4
    again = Table(clocks.drawer).go().output
    other = Table(clocks.drawer, seed="another").go().output
    assert again == [first, second, sent]
    assert not [name for name in first if first[name] == other[0][name]]


def test_without_a_seed_the_id_is_one() -> None:
    outputs = [Table(clocks.drawer, seed="", id=id).go().output for id in ("x1", "x1", "x2")]
    assert outputs[0] == outputs[1] != outputs[2]


def test_classes_are_what_they_look_like() -> None:
    assert Table(clocks.classes).output == [
        True,
        True,
        True,
        False,
        "2026-01-02T03:04:05",
        2026,
        "2026-01-01T05:00:00",
        "1970-01-01T00:00:00",
        3652058,
        86400.0,
        "2026-01-02T03:04:05",
        "2026-01-02T03:04:05",
        True,
        True,
        "5",
        "struct_time",
        "a/b",
    ]


def test_outside_of_flows_everything_is_as_ever() -> None:
    Table(clocks.looker)
    before = time.time()
    seen = clocks.looks()
    assert before <= seen["time"] <= time.time()
    assert before <= seen["made"] <= time.time()
    assert seen["timer"] < seen["perf"] + 1
    one, other = clocks.draws(), clocks.draws()
    assert not [name for name in one if one[name] == other[name]]
    random.seed(5)
    expected = random.Random(5).random()
    assert clocks.random.random() == expected


def test_what_a_test_puts_in_a_clocks_place_is_what_steps_see(monkeypatch) -> None:
    Table(clocks.looker)
    monkeypatch.setattr(time, "time", lambda: 42.0)
    assert clocks.looks()["time"] == 42.0
    assert Table(clocks.looker).go().output[0]["time"] == SECONDS
    monkeypatch.setattr(clocks.time, "time", lambda: 43.0)
    assert time.time() == clocks.looks()["time"] == clocks.looks()["clock"] == 43.0
    monkeypatch.undo()
    assert time.time() > 1_000
    assert type(time.time).__name__ == "builtin_function_or_method"


def test_pydantic_takes_the_classes_for_what_they_stand_for() -> None:
    Table(clocks.looker)
    assert clocks.moment is not datetime.datetime
    made = TypeAdapter(dict[clocks.moment, clocks.date]).validate_python(
        {"2026-01-02T03:04:05": "2026-01-02"}
    )
    assert made == {datetime.datetime.fromisoformat("2026-01-02T03:04:05"): datetime.date(2026, 1, 2)}


def test_other_threads_see_the_real_clock_while_a_flow_runs() -> None:
    stop, seen = threading.Event(), []

    def watch() -> None:
        while not stop.is_set():
            seen.append(clocks.time.time())

    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(200):
        Table(clocks.looker)
    stop.set()
    thread.join()
    assert seen
    assert all(abs(value - time.time()) < 60 for value in seen)


def test_it_is_the_same_in_another_process() -> None:
    script = (
        "from tests.unit.flows import clocks\n"
        "from tests.unit.flows.table import Table\n"
        "print([f.__wpa_flow__.hash for f in (clocks.drawer, clocks.looker)], Table(clocks.drawer).go().output)"
    )
    here = (
        f"{[f.__wpa_flow__.hash for f in (clocks.drawer, clocks.looker)]} {Table(clocks.drawer).go().output}"
    )
    there = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert there.stdout.strip() == here
