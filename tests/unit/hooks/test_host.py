from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from wpa.hooks import core, host, specs
from wpa.hooks.host import PluginHost
from wpa.hooks.specs import hookimpl
from wpa.hooks.steps import step

ROOT = Path(__file__).parents[3]


def plugin(*steps: Any, **hooks: Any) -> ModuleType:
    module = ModuleType("made")
    module.wpa_steps = hookimpl(lambda: list(steps), specname="wpa_steps")  # type: ignore[attr-defined]
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function, specname=name))
    return module


@step("made.one")
async def one() -> None: ...


@step("core.echo")
async def impostor() -> None: ...


class Entry:
    """Stands in for an installed entry point."""

    def __init__(self, name: str, load: Any) -> None:
        self.name, self.value, self.dist, self._load = name, f"made:{name}", None, load

    def load(self) -> Any:
        return self._load()


def discover(monkeypatch: pytest.MonkeyPatch, **entries: Any) -> PluginHost:
    found = [Entry(name, load) for name, load in entries.items()]
    monkeypatch.setattr(metadata, "entry_points", lambda group: found)
    monkeypatch.setattr(host.metadata, "entry_points", lambda group: found)
    return PluginHost.discover()


def test_the_built_ins_come_through_the_same_door() -> None:
    found = PluginHost.discover()
    assert {"core.noop", "core.echo", "core.fail", "core.emit", "core.log"} <= set(found.names())
    assert found.plugins()[0].name == "core"
    assert found.plugins()[0].distribution == "wpa-engine"


def test_a_plugin_that_fails_to_import_disables_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode() -> Any:
        raise ImportError("no module named bank")

    def leave() -> Any:
        raise SystemExit(3)

    found = discover(monkeypatch, core=lambda: core, bad=explode, worse=leave, good=lambda: plugin(one))
    assert "made.one" in found.names()
    errors = {info.name: info.error for info in found.plugins() if info.error}
    assert errors == {"bad": "ImportError: no module named bank", "worse": "SystemExit: 3"}


def test_a_hook_that_raises_disables_only_its_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("boom")

    module = ModuleType("broken")
    module.wpa_steps = hookimpl(broken, specname="wpa_steps")  # type: ignore[attr-defined]
    found = discover(monkeypatch, broken=lambda: module, good=lambda: plugin(one))
    assert found.names() == ["made.one"]


def test_the_first_of_two_claims_wins_and_the_second_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = discover(monkeypatch, aaa=lambda: plugin(impostor, one), core=lambda: core)
    echo = found.get("core.echo")
    assert echo is not None
    assert echo.fn is core.echo
    told = next(info for info in found.plugins() if info.name == "aaa")
    assert "core.echo is taken" in told.error
    assert told.steps == ["made.one"]


def test_what_is_no_step_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = discover(monkeypatch, odd=lambda: plugin(print))
    assert "not declared with @step" in found.plugins()[0].error


def test_worker_hooks_are_called_and_their_failures_contained(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    def stopping(worker: str) -> None:
        raise RuntimeError("boom")

    module = plugin(wpa_worker_started=lambda worker: heard.append(worker), wpa_worker_stopping=stopping)
    found = discover(monkeypatch, made=lambda: module)
    found.worker_started("w1")
    found.worker_stopping("w1")
    assert heard == ["w1"]


def test_every_hook_is_documented() -> None:
    guide = (ROOT / "docs" / "plugins.md").read_text()
    hooks = [name for name in vars(specs) if name.startswith("wpa_")]
    assert len(hooks) >= 3
    for name in hooks:
        assert f"`{name}(" in guide, name
        assert vars(specs)[name].__doc__
