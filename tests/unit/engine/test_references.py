"""What looks like a reference to a large payload and is none: somebody else's data, passed on as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.unit.talk import TENANT, Talk, talking

Body = dict[str, Any]

KEY = "other/x/0123456789abcdef0123456789abcdef"
SECRET = {"card": "4111"}
LOOKS: dict[str, Any] = {
    "a reference": {"$blob": {"key": "nope", "size": 3, "sha256": "z"}},
    "one to what another tenant has stored": {"$blob": {"key": KEY, "size": 3, "sha256": "z"}},
}
SHAPES: dict[str, Any] = {
    "bare": lambda look: look,
    "as output": lambda look: {"output": look},
    "as output, beside others": lambda look: {"output": look, "error": None, "status": "COMPLETED"},
    "as payload": lambda look: {"payload": look, "input": look},
    "in a list": lambda look: [look, {"output": [look]}],
}
EVERY = pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
SHAPED = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    async with talking() as talk:
        await talk.services.ports.blobs.put(KEY, msgspec.json.encode(SECRET))
        yield talk


async def deploy(talk: Talk, *steps: Body, **fields: Any) -> None:
    await talk.ok("deploy", document={"id": "order", "version": "1", "steps": list(steps), **fields})


def step(name: str, uses: str, *needs: str, **inputs: Any) -> Body:
    return {"id": name, "uses": uses, "with": inputs, "needs": list(needs)}


WAIT = step("wait", "core.wait", signal="go")
THEN = step("then", "core.echo", "wait", got="${steps.wait.output}")


async def ends(talk: Talk, output: Any) -> None:
    """It completes; its output is ``output``, at which the journal may only hint."""
    ended = await talk.comes_to("x", "COMPLETED")
    stored = ended["output"]
    if type(stored) is dict and list(stored) == ["$blob"]:
        assert stored["$blob"]["key"].startswith(f"{TENANT}/x/")
        stored = msgspec.json.decode(await talk.services.ports.blobs.get(stored["$blob"]["key"]))
    assert stored == output


@EVERY
@SHAPED
async def test_a_signal_to_an_execution_at_rest(talk: Talk, shape: Any, look: Any) -> None:
    await deploy(talk, WAIT, THEN, output="${steps.then.output.got}")
    await talk.start("x")
    await talk.comes_to("x", "WAITING")
    await talk.send("signal", "x", signal="go", payload=shape(look))
    await ends(talk, shape(look))


@EVERY
@SHAPED
async def test_a_signal_to_an_execution_that_is_driven(talk: Talk, shape: Any, look: Any) -> None:
    nap = step("nap", "core.sleep", **{"for": "200ms"})
    late = step("late", "core.wait", "nap", signal="go")
    await deploy(talk, nap, late, output="${steps.late.output}")
    await talk.start("x")
    await talk.comes_to("x", "RUNNING")
    await talk.send("signal", "x", signal="go", payload=shape(look))
    await ends(talk, shape(look))
    assert all(body["epoch"] == 1 for _, body in talk.seen), "it had come to rest before the signal came"


@EVERY
@SHAPED
async def test_an_input_and_a_step_s_output(talk: Talk, shape: Any, look: Any) -> None:
    echo = step("echo", "core.echo", value="${input.given}")
    again = step("again", "core.echo", "echo", value="${steps.echo.output.value}")
    await deploy(talk, echo, again, output="${steps.again.output.value}")
    await talk.start("x", given=shape(look))
    await ends(talk, shape(look))


@EVERY
@SHAPED
async def test_the_default_of_a_wait(talk: Talk, shape: Any, look: Any) -> None:
    wait = step("wait", "core.wait", signal="go", timeout="1ms", default="${input.given}")
    rest = step("rest", "core.wait", "then", signal="on")
    await deploy(talk, wait, THEN, rest, output="${steps.then.output.got}")
    await talk.start("x", given=shape(look))
    await talk.comes_to("x", "WAITING")
    await talk.send("signal", "x", signal="on")  # whoever drives it from here has only the journal
    await ends(talk, shape(look))


@EVERY
async def test_the_default_of_an_approval_of_which_a_signal_was_told(talk: Talk, look: Any) -> None:
    """The signal has its payload loaded, in an older worker at least; the default then is what was loaded."""
    ask = step("wait", "core.approval", users=["eva"], timeout="100ms", default="${input.given}")
    await deploy(talk, ask, THEN, output="${steps.then.output.got}", signals={"other": {}})
    await talk.start("x", given=look)
    await talk.send("signal", "x", signal="other", payload={"output": look})
    await ends(talk, look)


async def test_a_payload_that_was_lost_blocks_the_execution_and_buries_no_task(talk: Talk) -> None:
    nap = step("nap", "core.sleep", **{"for": "300ms"})
    await deploy(talk, nap, step("late", "core.wait", "nap", signal="go"))
    blobs = talk.services.ports.blobs
    await talk.start("x")
    await talk.comes_to("x", "RUNNING")
    given = "x" * 100_000
    put, lost = blobs.put, []

    async def lose(key: str, data: bytes) -> None:
        lost.append((key, data))

    blobs.put = lose  # type: ignore[method-assign]
    await talk.send("signal", "x", signal="go", payload=given)
    blocked = await talk.comes_to("x", "WAITING")
    assert blocked["blocked"]["type"] == "unknown_payload"
    assert (await talk.ok("dlq_list"))["letters"] == []
    await put(*lost[0])
    await talk.ok("resume", execution_id="x")
    await talk.comes_to("x", "COMPLETED")


async def test_a_result_refers_only_to_what_its_own_worker_has_stored(talk: Talk) -> None:
    look = {"$blob": {"key": f"{TENANT}/y/0123456789abcdef0123456789abcdef", "size": 3, "sha256": "z"}}
    await deploy(talk, {**step("far", "core.echo"), "queue": "far"}, output="${steps.far.output}")
    await talk.start("x")
    await talk.comes_to("x", "WAITING")
    await talk.send("step_result", "x", slot="far", attempt=1, output=look)
    await ends(talk, look)
