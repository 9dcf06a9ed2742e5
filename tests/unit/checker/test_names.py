from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checker.names import child_name, next_child_name
from wpa.kernel.waits import child_id, next_child_id

KEYS = st.from_regex(r"[A-Za-z0-9_-]{1,128}(\.[2-9])?", fullmatch=True)
STEPS = st.from_regex(r"[a-z_][a-z0-9_-]{0,63}|undo|retry[0-9]", fullmatch=True)
SLOTS = st.builds("{}{}".format, STEPS, st.sampled_from(("", ":2", ":undo", ":2:undo", ":delay:2")))


@given(KEYS, SLOTS, st.integers(1, 3))
def test_it_names_children_as_the_engine_does(key: str, slot: str, attempt: int) -> None:
    name = child_name(key, slot, attempt)
    assert name == child_id(key, slot, attempt)
    assert next_child_name(name, key, slot, attempt) == next_child_id(name, key, slot, attempt)


@pytest.mark.parametrize("name", ["x-ship-2", "mine"])
def test_it_follows_the_names_of_older_journals(name: str) -> None:
    assert next_child_name(name, "x", "ship-2", 1) == next_child_id(name, "x", "ship-2", 1)
