"""Flows: workflows as ordinary Python, durable.

::

    from wpa.flow import call, flow
    import asyncio

    @flow("order")
    async def order(items: list[Item], payment: Payment) -> Receipt:
        stock = await call("inventory.reserve", items=items, undo="inventory.release")
        charge = await call("payments.charge", payment, undo="payments.refund")
        await asyncio.sleep(24 * 3600)                     # a durable timer
        ...

The code is asyncio code that runs on an event loop of its own, over slots: each call, timer, signal,
approval and child is one. A worker keeps the coroutine while it drives the execution; another rebuilds it by
telling a new one what was recorded. See :mod:`wpa.flow.loop` for what makes that deterministic, and
:mod:`wpa.flow.guard` for what a flow can't do.
"""

from __future__ import annotations

from wpa.errors import StepFailed
from wpa.flow.calls import Duration, call
from wpa.flow.declare import flow, flow_of
from wpa.flow.errors import FlowDeclarationError, NotDeterministic, NotInFlow, TimedOut, UnknownSlot
from wpa.flow.loop import Signatures
from wpa.flow.program import FlowProgram
from wpa.flow.recall import continue_as_new, info, log, now, patched, side_effect
from wpa.flow.run import FlowRun
from wpa.flow.saga import saga
from wpa.flow.values import Record
from wpa.flow.waits import approval, child, escalate, signal
from wpa.kernel.program import ExecutionInfo, Retry

__all__ = [
    "Duration",
    "ExecutionInfo",
    "FlowDeclarationError",
    "FlowProgram",
    "FlowRun",
    "NotDeterministic",
    "NotInFlow",
    "Record",
    "Retry",
    "Signatures",
    "StepFailed",
    "TimedOut",
    "UnknownSlot",
    "approval",
    "call",
    "child",
    "continue_as_new",
    "escalate",
    "flow",
    "flow_of",
    "info",
    "log",
    "now",
    "patched",
    "saga",
    "side_effect",
    "signal",
]
