"""The plugin host: discovers plugins once, holds their step types and flows, and survives the bad ones.

A plugin that can't be imported, or whose hooks raise, disables its own step types and flows and nothing
else, loudly. Two plugins that claim one step type, or one flow: the first keeps it (the built-ins, then by
name of the entry point), and the later one is told so in the log and in ``wpa plugins``. Each plugin's hooks
are called apart from the others', so that one that raises keeps nobody else from being called.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from importlib import metadata
from typing import TYPE_CHECKING, Any

import msgspec
import pluggy

from wpa.hooks import specs
from wpa.hooks.modules import Declared
from wpa.hooks.steps import input_schema_of, step_type_of
from wpa.model.steptype import StepSignature
from wpa.ports.steps import StepType

if TYPE_CHECKING:
    from wpa.flows import FlowProgram

__all__ = ["GROUP", "PluginHost", "PluginInfo"]

GROUP = "wpa"
CORE = "wpa.hooks.core"

log = logging.getLogger("wpa.plugins")


class PluginInfo(msgspec.Struct, kw_only=True):
    """One plugin, as ``wpa plugins`` lists it."""

    name: str
    distribution: str = ""
    version: str = ""
    location: str = ""
    hooks: list[str] = msgspec.field(default_factory=list)
    steps: list[str] = msgspec.field(default_factory=list)
    flows: list[str] = msgspec.field(default_factory=list)
    error: str = ""
    """All that is wrong with it; it may have working step types all the same."""


class PluginHost:
    """See the module. Implements :class:`wpa.ports.steps.StepCatalog`; frozen once discovered."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("wpa")
        self._manager.add_hookspecs(specs)
        self._steps: dict[str, StepType] = {}
        self._flows: dict[str, FlowProgram] = {}
        self._plugins: list[PluginInfo] = []
        self._registered: list[tuple[PluginInfo, object]] = []

    @classmethod
    def discover(
        cls, extra: Iterable[tuple[str, object]] = (), modules: Iterable[Declared] = ()
    ) -> PluginHost:
        """Load every installed plugin (entry points of group ``wpa``), then ``extra`` (name, module), then
        what ``modules`` declare (:func:`wpa.hooks.modules.load_module`)."""
        host = cls()
        for entry in sorted(metadata.entry_points(group=GROUP), key=_rank):
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
        for declared in modules:
            info = PluginInfo(name=declared.name, location=declared.location)
            host._plugins.append(info)
            # What the module has only imported, a plugin may have registered.
            steps, flows = host._steps.values(), host._flows.values()
            known = [*(found.fn for found in steps), *(found.fn for found in flows)]
            for item in declared.steps:
                if item not in known:
                    host._add(info, item)
            for item in declared.flows:
                if item not in known:
                    host._add_flow(info, item)
        return host

    def _break(self, info: PluginInfo, error: BaseException) -> None:
        info.error = f"{type(error).__name__}: {error}"
        log.error("plugin %s is disabled, with all its step types: %s", info.name, info.error, exc_info=error)
        self._plugins.append(info)

    def _register(self, info: PluginInfo, module: Any) -> None:
        info.location = getattr(module, "__file__", None) or info.location
        registered = False
        try:
            if self._manager.has_plugin(info.name):
                raise ValueError(f"another plugin is called {info.name!r}; rename this one's entry point")
            self._manager.register(module, name=info.name)
            registered = True
            callers = self._manager.get_hookcallers(module) or []
            info.hooks = sorted(caller.name for caller in callers if hasattr(specs, caller.name))
            declared = self._declared("wpa_steps", info, module)
            flows = self._declared("wpa_flows", info, module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if registered:
                self._manager.unregister(name=info.name)
            info.hooks = []
            self._break(info, error)
            return
        self._registered.append((info, module))
        self._plugins.append(info)
        for unknown in sorted({caller.name for caller in callers} - set(info.hooks)):
            self._complain(info, f"there is no hook {unknown}: it is never called")
        for item in declared:
            self._add(info, item)
        for item in flows:
            self._add_flow(info, item)

    def _declared(self, hook: str, info: PluginInfo, module: Any) -> list[object]:
        """What a hook of a plugin returns, which may be any iterable."""
        answers = self._ask(hook, module)
        if hook in info.hooks and not answers:
            raise TypeError(f"{hook} returned None; return a list")
        return [item for answer in answers for item in answer]

    def _add(self, info: PluginInfo, item: object) -> None:
        found = step_type_of(item)
        if found is None:
            self._complain(info, f"wpa_steps returned {item!r}, which is not declared with @step")
        elif found.name in self._steps:
            self._complain(info, f"step type {found.name} is taken: {self._steps[found.name].source} has it")
        else:
            source = f"{info.distribution} {info.version} ({found.source})".strip()
            self._steps[found.name] = msgspec.structs.replace(found, source=source)
            info.steps.append(found.name)

    def _add_flow(self, info: PluginInfo, item: object) -> None:
        from wpa.flows import flow_of  # late: most workers have no flows, and need not pay for them

        found = flow_of(item)
        if found is None:
            self._complain(info, f"wpa_flows returned {item!r}, which is not declared with @flow")
        elif found.id in self._flows:
            self._complain(info, f"flow {found.id} is taken: {self._flows[found.id].fn.__module__} has it")
        else:
            self._flows[found.id] = found.with_signatures(self._signature)
            info.flows.append(found.id)

    def _signature(self, name: str) -> StepSignature | None:
        found = self._steps.get(name)
        return None if found is None else found.signature

    def _complain(self, info: PluginInfo, message: str) -> None:
        info.error = f"{info.error}; {message}" if info.error else message
        log.error("plugin %s: %s", info.name, message)

    # -- what is there -----------------------------------------------------------------------

    def get(self, name: str) -> StepType | None:
        return self._steps.get(name)

    def names(self) -> list[str]:
        return sorted(self._steps)

    def signatures(self) -> dict[str, StepSignature]:
        """The public faces of all step types, by name."""
        return {name: found.signature for name, found in self._steps.items()}

    def flows(self) -> dict[str, FlowProgram]:
        """All flows, by id."""
        return dict(self._flows)

    def flow_documents(self) -> dict[str, dict[str, Any]]:
        """What is shown of each flow, by id: there is no document of it but its code."""
        return {
            name: {
                "id": name,
                "version": found.version,
                "description": (inspect.getdoc(found.fn) or "").strip().partition("\n")[0],
                "module": found.fn.__module__,
                "input": input_schema_of(found.fn),
            }
            for name, found in self._flows.items()
        }

    def plugins(self) -> list[PluginInfo]:
        """Every plugin that was found, the broken ones too."""
        return list(self._plugins)

    @property
    def broken(self) -> list[PluginInfo]:
        """The plugins with which something is wrong; their ``error`` says what."""
        return [info for info in self._plugins if info.error]

    # -- hooks -------------------------------------------------------------------------------

    def worker_started(self, worker: str) -> None:
        """Call ``wpa_worker_started`` of every plugin."""
        self._tell("wpa_worker_started", worker)

    def worker_stopping(self, worker: str) -> None:
        """Call ``wpa_worker_stopping`` of every plugin."""
        self._tell("wpa_worker_stopping", worker)

    def _ask(self, hook: str, plugin: object, **arguments: Any) -> list[Any]:
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        answers: list[Any] = self._manager.subset_hook_caller(hook, others)(**arguments)
        return answers

    def _tell(self, hook: str, worker: str) -> None:
        for info, module in self._registered:
            try:
                self._ask(hook, module, worker=worker)
            except KeyboardInterrupt:
                raise
            except BaseException:  # a hook that calls sys.exit() must not end the worker
                log.exception("plugin %s: its hook %s failed", info.name, hook)


def _rank(entry: metadata.EntryPoint) -> tuple[bool, bool, str, str, str]:
    """The built-ins first (by what they are: anybody may call an entry point core), then by name."""
    distribution = entry.dist.name if entry.dist else ""
    return entry.value != CORE, entry.name != "core", entry.name, distribution, entry.value
