"""The whole state machine as one table: status and event in, status out.

What is not in it is illegal, whoever asks. What else an event changes, :mod:`wpa.kernel.fold` says.
"""

from __future__ import annotations

from typing import Final

from wpa.model import events as ev
from wpa.model.state import Status

__all__ = ["LEGAL"]

LEGAL: Final[dict[tuple[str, str], Status]] = {
    ("", ev.STARTED): "RUNNING",
    ("RUNNING", ev.STEP_COMPLETED): "RUNNING",
    ("RUNNING", ev.STEP_FAILED): "RUNNING",
    ("RUNNING", ev.DECIDED): "RUNNING",
    ("RUNNING", ev.ESCALATED): "RUNNING",
    ("RUNNING", ev.RECOVERED): "RUNNING",
    ("RUNNING", ev.SIGNALLED): "RUNNING",
    ("RUNNING", ev.RESUMED): "RUNNING",
    ("RUNNING", ev.CANCEL_REQUESTED): "RUNNING",
    ("RUNNING", ev.CONTINUED): "RUNNING",
    ("RUNNING", ev.WAITING): "WAITING",
    ("RUNNING", ev.PAUSED): "PAUSED",
    ("RUNNING", ev.COMPENSATING): "COMPENSATING",
    ("RUNNING", ev.COMPLETED): "COMPLETED",
    ("RUNNING", ev.FAILED): "FAILED",
    ("RUNNING", ev.CANCELLED): "CANCELLED",
    ("WAITING", ev.SIGNALLED): "RUNNING",
    ("WAITING", ev.RESUMED): "RUNNING",
    ("WAITING", ev.MIGRATED): "RUNNING",
    ("WAITING", ev.CANCEL_REQUESTED): "RUNNING",
    ("WAITING", ev.PAUSED): "PAUSED",
    ("WAITING", ev.WAITING): "WAITING",
    ("WAITING", ev.CANCELLED): "CANCELLED",
    ("PAUSED", ev.STEP_COMPLETED): "PAUSED",
    ("PAUSED", ev.STEP_FAILED): "PAUSED",
    ("PAUSED", ev.DECIDED): "PAUSED",
    ("PAUSED", ev.RECOVERED): "PAUSED",
    ("PAUSED", ev.SIGNALLED): "PAUSED",
    ("PAUSED", ev.WAITING): "PAUSED",
    ("PAUSED", ev.MIGRATED): "PAUSED",
    ("PAUSED", ev.RESUMED): "RUNNING",
    ("PAUSED", ev.CANCEL_REQUESTED): "RUNNING",
    ("PAUSED", ev.CANCELLED): "CANCELLED",
    ("COMPENSATING", ev.STEP_COMPENSATED): "COMPENSATING",
    ("COMPENSATING", ev.STEP_FAILED): "COMPENSATING",
    ("COMPENSATING", ev.RECOVERED): "COMPENSATING",
    ("COMPENSATING", ev.SIGNALLED): "COMPENSATING",
    ("COMPENSATING", ev.WAITING): "COMPENSATING",
    ("COMPENSATING", ev.RESUMED): "COMPENSATING",
    ("COMPENSATING", ev.ROLLED_BACK): "ROLLED_BACK",
    ("COMPENSATING", ev.FAILED): "FAILED",
    ("COMPENSATING", ev.CANCELLED): "CANCELLED",
    ("FAILED", ev.RESUMED): "RUNNING",
}
