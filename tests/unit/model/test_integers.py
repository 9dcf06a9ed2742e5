from __future__ import annotations

import pytest

from wpa.model.integers import PIECE_BYTES, may_hold_too_long, too_long


@pytest.mark.parametrize("before", [0, 1, *range(PIECE_BYTES - 20, PIECE_BYTES + 2), 3 * PIECE_BYTES - 5])
def test_a_long_run_of_digits_is_found_wherever_it_stands(before: int) -> None:
    text = b" " * before
    assert may_hold_too_long(text + b"9223372036854775808" + text)
    assert not may_hold_too_long(text + b"922337203685477580" + text)


def test_what_fits_into_64_bits_is_not_too_long() -> None:
    assert too_long([2**63 - 1, {"a": -(2**63)}, True, None, 1e300, "9" * 30]) is None
    assert too_long([0, {"a": {"b": [2**63]}}]) == "[1].a.b[0]"
    assert too_long({"a b": 2**63}) == "['a b']"
    shortened = too_long({"a b" * 100: 2**63})
    assert shortened is not None
    assert len(shortened) == 82
    assert shortened.endswith("...]")
