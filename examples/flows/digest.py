"""A flow that runs for ever: every round asks its children, then starts over with an empty history."""

import asyncio

from wpa import call, child, continue_as_new, flow


@flow("digest-topic")
async def topic(name: str) -> int:
    """How much is new under one topic; in real life, a few steps that ask somebody."""
    found = await call("core.echo", step_name="look", topic=name)
    return len(found.topic)


@flow("digest")
async def digest(topics: list[str], every_s: float = 3600, rounds: int = 1_000_000, total: int = 0) -> int:
    counts = await asyncio.gather(*(child(topic, name=name) for name in topics))
    total += sum(counts)
    await call("core.log", message=f"{total} things are new")
    if rounds > 1:
        await asyncio.sleep(every_s)
        continue_as_new(topics=topics, every_s=every_s, rounds=rounds - 1, total=total)
    return total
