"""An approval with a reminder every day until somebody answers."""

import asyncio

from wpa import Record, approval, call, flow

DAY_S = 24 * 3600.0


@flow("expense")
async def expense(
    employee: str, amount_cents: int, remind_every_s: float = DAY_S, reminders: int = 3
) -> Record:
    question = asyncio.create_task(
        approval(f"Pay {amount_cents} cents to {employee}?", roles=["finance"], name="finance")
    )
    for number in range(1, reminders + 1):
        await asyncio.wait({question}, timeout=remind_every_s)
        if question.done():
            break
        await call("core.log", message=f"reminder {number}: {employee} waits for {amount_cents} cents")
    else:
        await asyncio.wait({question}, timeout=remind_every_s)
    if not question.done():
        question.cancel()
        return Record(paid=False, why=f"nobody answered {reminders} reminders")
    verdict = question.result()
    if verdict.approved:
        await call("core.echo", step_name="pay", to=employee, amount_cents=amount_cents)
    return Record(paid=verdict.approved, why=f"decided by {verdict.answers[-1].by.user_id}")
