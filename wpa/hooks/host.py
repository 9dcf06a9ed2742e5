"""The plugin host: discovers plugins once, holds their step types, and survives the bad ones.

A plugin that can't be imported, or whose hook raises, disables its own step types and nothing else,
loudly. Two plugins that claim one step type: the first keeps it (the built-ins, then by name of the
entry point), and the later one is told so in the log and in ``wpa plugins``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import msgspec
import pluggy

from wpa.hooks import specs
from wpa.hooks.steps import step_type_of
from wpa.model.steptype import StepSignature
from wpa.ports.steps import StepType

__all__ = ["GROUP", "PluginHost", "PluginInfo"]

GROUP = "wpa"

log = logging.getLogger("wpa.plugins")


class PluginInfo(msgspec.Struct, kw_only=True):
    """One plugin, as ``wpa plugins`` lists it."""

    name: str
    distribution: str = ""
    version: str = ""
    location: str = ""
    hooks: list[str] = msgspec.field(default_factory=list)
    steps: list[str] = msgspec.field(default_factory=list)
    error: str = ""


class PluginHost:
    """See the module. Implements :class:`wpa.ports.steps.StepCatalog`; frozen once discovered."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("wpa")
        self._manager.add_hookspecs(specs)
        self._steps: dict[str, StepType] = {}
        self._plugins: list[PluginInfo] = []

    @classmethod
    def discover(cls, extra: Iterable[tuple[str, object]] = ()) -> PluginHost:
        """Load every installed plugin (entry points of group ``wpa``), then ``extra`` (name, module)."""
        host = cls()
        found = sorted(
            metadata.entry_points(group=GROUP), key=lambda entry: (entry.name != "core", entry.name)
        )
        for entry in found:
            info = PluginInfo(name=entry.name, location=entry.value)
            if entry.dist is not None:
                info.distribution, info.version = entry.dist.name, entry.dist.version
            try:
                module = entry.load()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a plugin that calls sys.exit() must not end the worker
                host._break(info, error)
                continue
            host._register(info, module)
        for name, module in extra:
            host._register(PluginInfo(name=name), module)
        return host

    def _break(self, info: PluginInfo, error: BaseException) -> None:
        info.error = f"{type(error).__name__}: {error}"
        log.error("plugin %s is disabled, with all its step types: %s", info.name, info.error, exc_info=error)
        self._plugins.append(info)

    def _register(self, info: PluginInfo, module: Any) -> None:
        info.location = getattr(module, "__file__", None) or info.location
        try:
            self._manager.register(module, name=info.name)
            callers = self._manager.get_hookcallers(module) or []
            info.hooks = sorted(caller.name for caller in callers)
            declared = list(module.wpa_steps()) if "wpa_steps" in info.hooks else []
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if self._manager.has_plugin(info.name):
                self._manager.unregister(name=info.name)
            self._break(info, error)
            return
        for item in declared:
            self._add(info, item)
        self._plugins.append(info)

    def _add(self, info: PluginInfo, item: object) -> None:
        found = step_type_of(item)
        if found is None:
            info.error = f"wpa_steps returned {item!r}, which is not declared with @step"
        elif found.name in self._steps:
            info.error = f"step type {found.name} is taken: {self._steps[found.name].source} has it"
        else:
            source = f"{info.distribution} {info.version} ({found.source})".strip()
            self._steps[found.name] = msgspec.structs.replace(found, source=source)
            info.steps.append(found.name)
            return
        log.error("plugin %s: %s", info.name, info.error)

    # -- what is there -----------------------------------------------------------------------

    def get(self, name: str) -> StepType | None:
        return self._steps.get(name)

    def names(self) -> list[str]:
        return sorted(self._steps)

    def signatures(self) -> dict[str, StepSignature]:
        """The public faces of all step types, by name."""
        return {name: found.signature for name, found in self._steps.items()}

    def plugins(self) -> list[PluginInfo]:
        """Every plugin that was found, the broken ones too."""
        return list(self._plugins)

    # -- hooks -------------------------------------------------------------------------------

    def worker_started(self, worker: str) -> None:
        self._call("wpa_worker_started", worker)

    def worker_stopping(self, worker: str) -> None:
        self._call("wpa_worker_stopping", worker)

    def _call(self, hook: str, worker: str) -> None:
        try:
            getattr(self._manager.hook, hook)(worker=worker)
        except Exception:
            log.exception("hook %s failed", hook)
