"""When a failed attempt is tried again, and after how long. Pure: the jitter comes from the names."""

from __future__ import annotations

from zlib import crc32

from wpa.kernel.program import Retry
from wpa.model.events import Failure

__all__ = ["backoff_ms", "may_retry"]


def may_retry(retry: Retry, failure: Failure, failures: int) -> bool:
    """Whether another attempt follows ``failure``, after ``failures`` failed ones (it included)."""
    if not failure.retryable or failures >= retry.max_attempts:
        return False
    if failure.type in retry.give_up_on:
        return False
    return not retry.retry_on or failure.type in retry.retry_on


def backoff_ms(retry: Retry, failures: int, salt: str) -> int:
    """Milliseconds to wait after the ``failures``-th failed attempt.

    Exponential, capped, and spread downwards by ``retry.jitter``. The spread is a hash of ``salt``
    and the count, so that the decision is the same whoever makes it, and yet executions that failed
    together don't come back together.
    """
    # The exponent is bounded so that a long-lived step can't overflow a float.
    full = min(retry.initial_ms * retry.factor ** min(failures - 1, 64), float(retry.max_ms))
    share = crc32(f"{salt}:{failures}".encode()) / 0xFFFFFFFF
    return round(full * (1 - retry.jitter * share))
