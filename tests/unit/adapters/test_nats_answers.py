from __future__ import annotations

import pytest

from wpa.adapters.nats.answers import Refused, sequence_of


@pytest.mark.parametrize(
    ("err_code", "words"),
    [
        (10047, r"^s: why; the server's store is full, .*make room there, then restart it \(10047\)$"),
        (10077, r"^s: why \(10077\)$"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words_and_what_to_do_where_that_is_known(
    err_code: int, words: str
) -> None:
    answer = b'{"error": {"code": 503, "err_code": %d, "description": "why"}}' % err_code
    with pytest.raises(Refused, match=words) as refused:
        sequence_of("s", answer, b"")
    assert refused.value.err_code == err_code
