"""Flows: workflows as ordinary Python, durable.

::

    from wpa import call, flow
    import asyncio

    @flow("order")
    async def order(items: list[Item], payment: Payment) -> Receipt:
        stock = await call("inventory.reserve", items=items, undo="inventory.release")
        charge = await call("payments.charge", payment, undo="payments.refund")
        await asyncio.sleep(24 * 3600)                     # a durable timer
        ...

The code is asyncio code that runs on an event loop of its own, over slots: each call, timer, signal,
approval and child is one. A worker keeps the coroutine while it drives the execution; another rebuilds it by
telling a new one what was recorded. See :mod:`wpa.flows.loop` for what makes that deterministic, and
:mod:`wpa.flows.guard` for what a flow can't do.
"""

from __future__ import annotations

from wpa.errors import StepFailed
from wpa.flows.calls import Duration, call
from wpa.flows.declare import flow, flow_of
from wpa.flows.errors import FlowDeclarationError, NotDeterministic, NotInFlow, TimedOut, UnknownSlot
from wpa.flows.loop import Signatures
from wpa.flows.program import FlowProgram
from wpa.flows.recall import continue_as_new, info, log, now, patched, side_effect
from wpa.flows.run import FlowRun
from wpa.flows.saga import saga
from wpa.flows.values import Record
from wpa.flows.waits import approval, child, escalate, signal
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
