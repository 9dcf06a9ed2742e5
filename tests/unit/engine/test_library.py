from __future__ import annotations

from typing import Any

import pytest

from tests.unit.engine.starts import TENANT, World
from wpa.engine.library import FLOWS, Library
from wpa.errors import FlowMissing, NotFound
from wpa.flows import flow, flow_of
from wpa.kernel.program import Program


def a_flow(name: str = "hello", version: str = "") -> Program:
    @flow(name, version=version)
    async def hello(name: str) -> str:
        return name

    found = flow_of(hello)
    assert found is not None
    return found


class Bench:
    def __init__(self, world: World) -> None:
        self.world = world

    def library(self, *flows: Program) -> Library:
        return Library(self.world.ports.definitions, self.world.clock, {found.id: found for found in flows})


@pytest.fixture
async def bench() -> Bench:
    return Bench(await World.open())


async def test_a_flow_serves_every_tenant_whatever_version_was_asked_for(bench: Bench) -> None:
    found = a_flow()
    library = bench.library(found)
    assert await library.program(TENANT, "hello") is found
    assert await library.program("other", "hello", "of-last-year") is found


async def test_a_tenants_own_definition_comes_first_as_soon_as_it_is_deployed(bench: Bench) -> None:
    library = bench.library(a_flow())
    assert not (await library.program(TENANT, "hello")).pinned
    await bench.world.deploy("1", "hello")
    await bench.world.clock.settle()
    own = await library.program(TENANT, "hello")
    assert (own.pinned, own.version) == (True, "1")
    assert not (await library.program("other", "hello")).pinned
    assert not (await library.program(TENANT, "hello", "of-before")).pinned, "one in flight keeps its flow"


async def test_a_flow_that_others_have_is_handed_back(bench: Bench) -> None:
    await bench.library(a_flow()).publish_flows({}, "w1")
    with pytest.raises(FlowMissing, match="'hello' is not installed in this worker"):
        await bench.library().program(TENANT, "hello")


async def test_what_nobody_has_is_unknown_with_a_hint(bench: Bench) -> None:
    await bench.world.deploy("1", "order")
    await bench.library(a_flow()).publish_flows({}, "w1")
    library = bench.library()
    with pytest.raises(NotFound, match="did you mean 'order'") as refused:
        await library.program(TENANT, "oder")
    assert refused.value.code == "unknown_workflow"
    with pytest.raises(NotFound, match="did you mean 'hello'"):
        await library.program(TENANT, "helo")
    with pytest.raises(NotFound, match="the latest is '1'") as refused:
        await library.program(TENANT, "order", "9")
    assert refused.value.code == "unknown_version"


async def test_a_start_hard_upon_the_first_deploy_is_not_rejected(bench: Bench) -> None:
    library = bench.library()
    with pytest.raises(NotFound):
        await library.program(TENANT, "order")
    await bench.world.deploy("1", "order")
    assert (await library.program(TENANT, "order")).version == "1"


async def test_flows_are_listed_and_an_old_code_under_an_old_name_is_told_of(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    library = bench.library(a_flow(version="1"))
    documents: dict[str, dict[str, Any]] = {"hello": {"description": "Say hello."}}
    for _ in range(2):
        await library.publish_flows(documents, "w1")
    (found,) = await library.flows()
    assert (found.workflow, found.version, found.kind, found.deployed_by) == ("hello", "1", "flow", "w1")
    assert bytes(found.document) == b'{"description":"Say hello."}'
    assert caplog.text == ""

    @flow("hello", version="1")
    async def other(name: str, more: int = 1) -> str:
        return name * more

    changed = flow_of(other)
    assert changed is not None
    await bench.library(changed).publish_flows(documents, "w2")
    assert "another code" in caplog.text
    assert await bench.world.ports.definitions.tenants() == {FLOWS}
