"""One plugin's faults are its own."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from wpa.hooks.host import PluginHost
from wpa.hooks.specs import hookimpl
from wpa.hooks.steps import step


def plugin(**hooks: Any) -> ModuleType:
    module = ModuleType("made")
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function, specname=name))
    return module


@step("made.one")
async def one() -> None: ...


@step("made.two")
async def two() -> None: ...


def leave(**_: Any) -> None:
    raise SystemExit(3)


def test_a_hook_that_fails_keeps_no_other_plugin_from_being_called() -> None:
    heard: list[str] = []

    def hear(name: str) -> Any:
        return lambda worker: heard.append(f"{name} {worker}")

    def explode(worker: str) -> None:
        raise RuntimeError("boom")

    def quit_(worker: str) -> None:
        raise SystemExit(3)

    host = PluginHost.discover(
        [
            ("a", plugin(wpa_worker_started=hear("a"), wpa_worker_stopping=hear("a"))),
            ("b", plugin(wpa_worker_started=explode, wpa_worker_stopping=quit_)),
            ("c", plugin(wpa_worker_started=hear("c"), wpa_worker_stopping=hear("c"))),
        ]
    )
    host.worker_started("w1")
    host.worker_stopping("w1")
    assert heard == ["a w1", "c w1", "a w1", "c w1"]


def test_a_second_plugin_of_the_same_name_does_not_put_out_the_first() -> None:
    heard: list[str] = []
    first = plugin(wpa_steps=lambda: [one], wpa_worker_started=lambda worker: heard.append(worker))
    host = PluginHost.discover([("pay", first), ("pay", plugin(wpa_steps=lambda: [two]))])
    assert host.get("made.one") is not None
    assert host.get("made.two") is None
    (broken,) = host.broken
    assert "pay" in broken.error
    host.worker_started("w1")
    assert heard == ["w1"]


def test_a_hook_under_another_name_is_found() -> None:
    module = ModuleType("made")
    module.my_steps = hookimpl(lambda: [one], specname="wpa_steps")  # type: ignore[attr-defined]
    assert PluginHost.discover([("made", module)]).get("made.one") is not None


def test_a_hook_that_does_not_exist_is_told_and_the_rest_works() -> None:
    host = PluginHost.discover([("made", plugin(wpa_steps=lambda: [one], wpa_worker_startd=leave))])
    assert host.get("made.one") is not None
    (info,) = host.broken
    assert info.hooks == ["wpa_steps"]
    assert "wpa_worker_startd" in info.error


@pytest.mark.parametrize("answer", [None, 5])
def test_no_list_of_steps_is_an_error(answer: Any) -> None:
    host = PluginHost.discover([("made", plugin(wpa_steps=lambda: answer))])
    assert [info.name for info in host.broken] == ["made"]


def test_all_complaints_are_kept() -> None:
    host = PluginHost.discover([("made", plugin(wpa_steps=lambda: [print, one, one]))])
    (info,) = host.broken
    assert "not declared with @step" in info.error
    assert "made.one is taken" in info.error
    assert info.steps == ["made.one"]


def test_a_plugin_without_steps_is_fine() -> None:
    host = PluginHost.discover([("quiet", ModuleType("quiet"))])
    assert host.broken == []
    assert "quiet" in [info.name for info in host.plugins()]


def test_what_was_found_can_be_looked_up() -> None:
    host = PluginHost.discover([("made", plugin(wpa_steps=lambda: [one, two]))])
    assert {"made.one", "made.two"} <= set(host.names()) == set(host.signatures())
    assert host.get("made.three") is None
