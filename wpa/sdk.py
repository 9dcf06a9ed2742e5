"""All that a plugin author imports.

::

    from wpa.sdk import StepContext, StepFailed, hookimpl, step

    @step("payments.charge")
    async def charge(ctx: StepContext, order_id: str, amount_cents: int) -> Receipt: ...

    @hookimpl
    def wpa_steps():
        return [charge]
"""

from __future__ import annotations

from wpa.errors import StepFailed
from wpa.hooks.specs import hookimpl
from wpa.hooks.steps import step
from wpa.ports.steps import StepContext, StepType

__all__ = ["StepContext", "StepFailed", "StepType", "hookimpl", "step"]
