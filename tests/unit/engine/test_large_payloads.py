"""What it takes to show an execution with large payloads: no more of them than its program looks at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.talk import TENANT, Talk, talking
from wpa.model.limits import Limits

Body = dict[str, Any]

LARGE = 100_000
"""More characters than a journal takes inline."""


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    async with talking() as talk:
        yield talk


@pytest.fixture
def loaded(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the payloads that are loaded, as it happens."""
    keys: list[str] = []
    blobs = talk.services.ports.blobs
    get = blobs.get

    async def noted(key: str) -> bytes:
        keys.append(key)
        return await get(key)

    monkeypatch.setattr(blobs, "get", noted)
    return keys


async def deploy(talk: Talk, *steps: Body, output: Any = None) -> None:
    """A workflow whose first step, ``make``, puts out the input's text, ten times."""
    text = " + ".join(["input.text"] * 10)
    make = {"id": "make", "uses": "core.echo", "with": {"text": f"${{{text}}}"}}
    document: Body = {"id": "order", "version": "1", "steps": [make, *steps]}
    if output is not None:
        document["output"] = output
    await talk.ok("deploy", document=document)


def after_make(step: str, uses: str, **inputs: Any) -> Body:
    return {"id": step, "uses": uses, "with": inputs, "needs": ["make"]}


async def steps_of(talk: Talk, execution: str = "x") -> dict[str, Body]:
    status = (await talk.ok("status", execution_id=execution))["execution"]
    return {step["step"]: step for step in status["steps"]}


@pytest.mark.parametrize("output", [None, "${steps.make.output.text}"])
async def test_an_output_that_no_step_reads_is_not_loaded(
    talk: Talk, loaded: list[str], output: str | None
) -> None:
    await deploy(talk, after_make("then", "core.echo", how="${steps.make.status}"), output=output)
    ended = await talk.run("x", text="x" * (LARGE // 10))
    assert ended["status"] == "COMPLETED"
    loaded.clear()
    steps = await steps_of(talk)
    assert steps["make"]["output"]["$blob"]["key"].startswith(f"{TENANT}/x/")
    assert steps["then"]["input"] == {"how": "completed"}
    assert loaded == []


async def test_while_it_is_under_way_only_what_is_read_is_loaded(talk: Talk, loaded: list[str]) -> None:
    await deploy(
        talk,
        after_make("unread", "core.echo", text="y" * LARGE),
        after_make("size", "core.echo", size="${size(steps.make.output.text)}"),
        after_make("wait", "core.wait", signal="go"),
    )
    await talk.start("x", text="x" * (LARGE // 10))
    await talk.comes_to("x", "WAITING")
    loaded.clear()
    steps = await steps_of(talk)
    assert loaded == [steps["make"]["output"]["$blob"]["key"]]
    assert "$blob" in steps["unread"]["output"]
    assert steps["size"]["input"] == {"size": LARGE}
    assert steps["wait"]["status"] == "waiting"


async def test_a_loop_looks_at_its_own_output(talk: Talk, loaded: list[str]) -> None:
    again = {
        "id": "again",
        "uses": "core.echo",
        "with": {"text": "y" * LARGE},
        "repeat": {"until": "size(output.text) > 0", "max": 2},
    }
    await deploy(talk, again)
    await talk.run("x", text="x")
    loaded.clear()
    assert (await steps_of(talk))["again"]["turns"]["done"] == 1
    assert len(loaded) == 1


async def test_what_undoes_a_step_looks_at_its_output(talk: Talk, loaded: list[str]) -> None:
    undone = after_make("unlike", "core.echo", text="y" * LARGE)
    undone["compensate"] = {"uses": "core.echo", "with": {"size": "${size(steps.unlike.output.text)}"}}
    await deploy(talk, undone, {"id": "fail", "uses": "core.fail", "needs": ["unlike"]})
    ended = await talk.run("x", text="x")
    assert ended["status"] == "ROLLED_BACK"
    loaded.clear()
    assert (await steps_of(talk))["unlike"]["compensation"]["status"] == "completed"
    assert len(loaded) == 1


async def test_of_an_ended_one_that_has_read_too_much_the_record_is_shown(
    talk: Talk, loaded: list[str]
) -> None:
    await deploy(talk, after_make("size", "core.echo", size="${size(steps.make.output.text)}"))
    await talk.start("x", text="x" * 500_000)
    ended = await talk.comes_to("x", "COMPLETED")
    loaded.clear()
    steps = await steps_of(talk)
    assert loaded == []
    assert [(name, step["status"]) for name, step in steps.items()] == [
        ("make", "completed"),
        ("size", "completed"),
    ]
    assert steps["make"]["output"]["$blob"]["size"] > 5_000_000
    assert steps["size"]["output"] == {"size": 5_000_000}
    assert ended["progress"]["completed"] == 2
    assert ended["blocked"] is None


async def test_a_step_of_a_queue_whose_inputs_are_too_large_to_be_stored_fails() -> None:
    """It could not even be cancelled: whoever goes on sends it once more, first of all."""
    async with talking(limits=Limits(blob_bytes_max=150_000)) as talk:
        far = after_make("far", "core.echo", both=["${steps.make.output}", "${steps.make.output}"])
        far["queue"] = "far"
        await deploy(talk, far)
        ended = await talk.run("x", text="x" * (LARGE // 10))
        assert (ended["status"], ended["error"]["type"]) == ("FAILED", "InputTooLarge")
