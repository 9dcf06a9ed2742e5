"""Why a slot is given up: judgements on one slot, apart from what follows from them."""

from __future__ import annotations

from collections.abc import Mapping

from wpa.kernel.program import StepPolicy, Want
from wpa.kernel.retry import backoff_ms, may_retry
from wpa.model.events import WORKER_LOST, Failure
from wpa.model.limits import Limits
from wpa.model.state import Slot, State
from wpa.model.times import parse_ms

__all__ = [
    "deadline_ms",
    "first_hopeless",
    "hopeless",
    "next_attempt",
    "over_limit",
    "timeout_ms",
    "too_late",
]


def deadline_ms(slot: Slot, policy: StepPolicy) -> int | None:
    """When the slot's deadline is, in milliseconds since the Unix epoch; None where it has none."""
    return None if policy.deadline_ms is None else parse_ms(slot.opened_at) + policy.deadline_ms


def timeout_ms(slot: Slot, policy: StepPolicy, now_ms: int) -> int | None:
    """How long the next attempt at a slot may take: its timeout, or what its deadline leaves."""
    deadline = deadline_ms(slot, policy)
    if deadline is None:
        return policy.timeout_ms
    left = max(1, deadline - now_ms)
    return left if policy.timeout_ms is None else min(left, policy.timeout_ms)


def too_late(slot: Slot, policy: StepPolicy, now_ms: int) -> Failure | None:
    """Why an attempt may not begin any more: the slot's deadline has passed, in a pause or an outage, say."""
    deadline = deadline_ms(slot, policy)
    if deadline is None or now_ms <= deadline:
        return None
    if slot.error is not None:
        return _deadline_exceeded(policy, slot.error)
    message = f"the step's deadline of {policy.deadline_ms} ms was over before an attempt could begin"
    return Failure(type="DeadlineExceeded", message=message, retryable=False)


def next_attempt(slot: Slot, policy: StepPolicy, error: Failure, now_ms: int, key: str) -> int | Failure:
    """When a slot whose attempt has failed is tried again; or why it is not.

    Args:
        slot: as it was during the attempt.
        policy: the step's.
        error: of the attempt.
        now_ms: when it ended.
        key: which slot of which execution it is: chance, for the back-off, follows from it.
    """
    failures = slot.failures + 1
    retry_at = now_ms + backoff_ms(policy.retry, failures, key)
    deadline = deadline_ms(slot, policy)
    if deadline is not None and retry_at >= deadline:
        return _deadline_exceeded(policy, error) if error.retryable else error
    works = slot.kind in ("step", "remote") and not policy.at_most_once
    return retry_at if works and may_retry(policy.retry, error, failures) else error


def _deadline_exceeded(policy: StepPolicy, last: Failure) -> Failure:
    return Failure(
        type="DeadlineExceeded",
        message=f"gave up at the step's deadline of {policy.deadline_ms} ms; "
        f"the last attempt: {last.type}: {last.message}",
        retryable=False,
    )


def hopeless(slot: Slot, want: Want, limits: Limits) -> Failure | None:
    """Why an open slot may not, or should not, be attempted (once more); None where it may."""
    if want.fault is not None:
        return want.fault
    if slot.lost and want.policy.at_most_once:
        return Failure(
            type="OutcomeUnknown",
            message="the worker ended while this step ran: whether it took effect is unknown, and "
            "at_most_once forbids a second run",
            retryable=False,
        )
    if slot.lost > limits.lost_attempts_max:
        message = f"{slot.lost} workers ended while this step ran; it may be what ends them"
        return Failure(type=WORKER_LOST, message=message, retryable=False)
    return None


def first_hopeless(
    state: State, wants: Mapping[str, Want], limits: Limits
) -> tuple[Slot, Want, Failure] | None:
    """The first open slot that is to be given up, and why; None where there is none."""
    for slot_id in state.open:
        slot, want = state.slots[slot_id], wants.get(slot_id)
        if want is None:
            continue  # dropped by a program that goes another way than the one that opened it
        error = hopeless(slot, want, limits)
        if error is not None:
            return slot, want, error
    return None


def over_limit(state: State, limits: Limits) -> Failure | None:
    """Why an execution may not go on; None where it may."""
    if state.seq - state.run_seq < limits.events_max:
        return None
    message = (
        f"the execution has {state.seq - state.run_seq} events, the most allowed; one that goes on for "
        "ever has to continue as new from time to time"
    )
    return Failure(type="OverLimit", message=message, retryable=False)
