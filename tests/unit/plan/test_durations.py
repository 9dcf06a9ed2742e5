from __future__ import annotations

import pytest

from wpa.plan.durations import parse_duration_ms


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("24h", 86_400_000), ("7d", 604_800_000), ("1h30m", 5_400_000), ("1.5s", 1_500), ("0s", 0)],
)  # fmt: skip
def test_durations_are_read_as_people_write_them(text: str, wanted: int) -> None:
    assert parse_duration_ms(text) == wanted


@pytest.mark.parametrize("text", ["", "30", "s", "30 s", "-1s", "1y", "1h 30m", "٣s", "1e3s", "99999999d"])
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a duration; write it as|longer than"):
        parse_duration_ms(text)
