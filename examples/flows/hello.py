"""A first flow: greet, sleep durably, then wait for an answer."""

import asyncio

from wpa import call, flow, signal


@flow("hello")
async def hello(name: str, after_s: float = 24 * 3600) -> str:
    await call("core.log", message=f"Hello, {name}")
    await asyncio.sleep(after_s)
    answer = await signal("answer", timeout=7 * 24 * 3600, default={"text": "nothing"})
    return f"{name} said {answer.text}"
