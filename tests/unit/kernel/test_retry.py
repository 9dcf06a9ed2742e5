from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wpa.kernel.program import Retry
from wpa.kernel.retry import backoff_ms, may_retry
from wpa.model.events import Failure

RETRIES = st.builds(
    Retry,
    initial_ms=st.integers(0, 10_000),
    factor=st.floats(1, 10),
    max_ms=st.integers(0, 1_000_000),
    jitter=st.floats(0, 1),
)


@given(RETRIES, st.integers(1, 10_000), st.text())
def test_a_backoff_is_bounded_and_the_same_whoever_computes_it(
    retry: Retry, failures: int, salt: str
) -> None:
    wait = backoff_ms(retry, failures, salt)
    assert 0 <= wait <= retry.max_ms
    assert wait == backoff_ms(retry, failures, salt)


def test_jitter_spreads_executions_that_failed_together() -> None:
    waits = {backoff_ms(Retry(initial_ms=10_000, jitter=0.5), 1, f"execution-{n}:a") for n in range(50)}
    assert len(waits) > 40
    assert all(5_000 <= wait <= 10_000 for wait in waits)


def test_backoff_grows_by_its_factor_up_to_its_maximum() -> None:
    retry = Retry(initial_ms=100, factor=3, max_ms=2_000, jitter=0.0)
    assert [backoff_ms(retry, n, "s") for n in (1, 2, 3, 4)] == [100, 300, 900, 2_000]


def test_attempts_are_counted() -> None:
    failure = Failure(type="Busy", message="")
    assert [may_retry(Retry(max_attempts=3), failure, n) for n in (1, 2, 3)] == [True, True, False]
