"""The composition root: the only place where the engine meets its adapters.

Everything is built here, once, from settings, and handed down. Nothing below looks anything up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import socket
import sys
import uuid
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from wpa.adapters.nats import NatsPorts, examine, open_ports
from wpa.adapters.nats.server import EmbeddedServer
from wpa.adapters.nats.service import ApiService, serve_api
from wpa.adapters.process import end_forks, ended_when_stuck
from wpa.engine.api import Api
from wpa.engine.patience import until_done
from wpa.engine.runner import StepRunner
from wpa.engine.schedules import Schedules
from wpa.engine.services import Services
from wpa.engine.trials import Trials
from wpa.engine.worker import Worker
from wpa.hooks.host import PluginHost
from wpa.hooks.modules import load_module
from wpa.model.limits import Limits
from wpa.model.times import rfc3339
from wpa.ports import Ports
from wpa.ports.tracing import Tracer
from wpa.settings import Settings

__all__ = [
    "WorkerInfo",
    "embedded_server",
    "examine",
    "plugin_host",
    "run",
    "serve_trials",
    "serve_worker",
    "version",
]

log = logging.getLogger("wpa.worker")

T = TypeVar("T")

PRESENCE_EVERY_S = 10.0
PRESENCE_AGAIN_S = 1.0
LEAVE_WITHIN_S = 2.0
HEADERS_BYTES = 16 * 1024
"""Room beside a task in one message."""
ENVELOPE_BYTES = 1024
"""Room beside the rows of an answer in one message: for ``ok``, ``more``, ``next`` and the like."""
INLINE_PER_MESSAGE = 8
"""An event has room for so many inline payloads: it has at most three, and names."""
STUCK_LEASES, STUCK_MIN_S = 6, 3.0
"""A worker's event loop may stand still for so many times what a lease lasts, and at least so long."""


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker says of itself when it is ready."""

    id: str
    url: str
    server_version: str
    durability: str
    step_types: list[str]
    flows: list[str] = field(default_factory=list)
    queues: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def version() -> str:
    """The installed version of wpa."""
    try:
        return metadata.version("wpa-engine")
    except metadata.PackageNotFoundError:
        return "0.0.0"


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on uvloop where there is one."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if sys.platform != "win32":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(main)
        runner.run(_leave())
        return result


async def _leave() -> None:
    """Cancel what is left, and don't wait for ever: a step may ignore its cancellation."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        _, stuck = await asyncio.wait(left, timeout=LEAVE_WITHIN_S)
        if stuck:
            log.error("%d tasks ignore their cancellation; leaving without them: %s", len(stuck), stuck)
            logging.shutdown()
            os._exit(1)


def embedded_server(settings: Settings, *, data_dir: Path, port: int, sync: str = "100ms") -> EmbeddedServer:
    """The embedded default: a real nats-server, on loopback, with its data in ``data_dir``."""
    return EmbeddedServer(data_dir, port=port, sync=sync)


def plugin_host(modules: Iterable[str] = ()) -> PluginHost:
    """Discover the installed plugins, and what ``modules`` (files, too) declare.

    A plugin that fails to import is reported, not raised. Raises ModuleRefused for one of ``modules``.
    """
    return PluginHost.discover(modules=[load_module(name) for name in modules])


def limits_of(settings: Settings, message_bytes_max: int) -> Limits:
    """The limits at the door that these settings ask for, or less, where the server takes no such messages.

    A task has to leave as it has come: with headers, and as the task of a child or a dead letter. An event
    carries a few inline payloads, and names beside them. An answer is a message, too.
    """
    return Limits(
        task_bytes_max=min(settings.task_bytes_max, message_bytes_max - HEADERS_BYTES),
        inline_bytes_max=min(settings.inline_bytes_max, message_bytes_max // INLINE_PER_MESSAGE),
        answer_bytes_max=message_bytes_max - ENVELOPE_BYTES,
    )


def _tell_of(limits: Limits, settings: Settings, message_bytes_max: int) -> None:
    """Say once which limits are lower than was asked for."""
    for name in ("task_bytes_max", "inline_bytes_max"):
        asked, given = getattr(settings, name), getattr(limits, name)
        if given < asked:
            log.warning(
                "WPA_%s is %d instead of %d, for the server takes messages of %d bytes; "
                "raise max_payload in its configuration, best to 8MB",
                name.upper(), given, asked, message_bytes_max,
            )  # fmt: skip


def _worker_id() -> str:
    """Readable for an operator, unique for ever: host, process, and a random tail."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname().split(".")[0])[:32] or "worker"
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


async def serve_worker(
    settings: Settings,
    url: str,
    *,
    stop: asyncio.Event,
    ready: Callable[[WorkerInfo], None] | None = None,
    host: PluginHost | None = None,
    around: Callable[[Ports], Ports] = lambda ports: ports,
) -> None:
    """Run one worker, and its share of the API, until ``stop`` is set; then drain.

    ``around`` may put something between the engine and its ports: chaos tests do.

    Raises Unavailable where no server answers at ``url``, PlatformError where it won't do, and ModuleRefused
    for a module of flows that can't be imported.
    """
    host = host or plugin_host(settings.flow_modules)
    worker_id = _worker_id()
    ports = await open_ports(
        url,
        worker=worker_id,
        ack_wait_s=settings.ack_wait_s,
        replicas=settings.replicas,
        creds=str(settings.nats_creds) if settings.nats_creds else None,
        group_appends=settings.group_appends,
    )
    tracer = _tracer(settings, worker_id)
    runner = StepRunner(host, ports.live, ports.clock, worker_id, settings.threads, settings.process_workers)
    limits = limits_of(settings, ports.message_bytes_max)
    _tell_of(limits, settings, ports.message_bytes_max)
    stuck_after_s = max(STUCK_MIN_S, STUCK_LEASES * settings.ack_wait_s)
    trials = _trials(ports, settings, limits, stuck_after_s)
    try:
        services = Services(
            around(ports),
            runner,
            settings,
            limits,
            worker_id,
            tracer,
            host.flows(),
            roster=ports.roster,
            trials=trials,
        )
        # A stream that was made this moment may have no leader yet: what can't be written is not given up.
        await until_done(lambda: services.library.publish_flows(host.flow_documents(), worker_id))
        worker = Worker(services)
        service = await _serve_requests(ports, services, host, worker)
        about = _about(ports, worker_id, host, settings.queue_names)
        await ports.announce(worker_id, about)
        if left := await ports.release_leftovers(worker_id, settings.ack_wait_s):
            log.info("no other worker is there: %d tasks that were in hand are handed out again", left)
        presence = asyncio.create_task(_announce(ports, about), name="wpa-presence")
        info = await _info(ports, worker_id, url, host, settings.queue_names)
        log.info("worker %s on nats-server %s; %s", worker_id, info.server_version, info.durability)
        host.worker_started(worker_id)
        if ready is not None:
            ready(info)
        end_forks(ports.transport)
        try:
            async with ended_when_stuck(stuck_after_s):
                await worker.run(stop)
        finally:
            presence.cancel()
            host.worker_stopping(worker_id)
            await service.stop()
    finally:
        if tracer is not None:
            tracer.close()
        await runner.aclose()
        if trials is not None:
            await trials.aclose()
        await ports.aclose()


def _trials(ports: Ports, settings: Settings, limits: Limits, within_s: float) -> Trials | None:
    if sys.platform == "win32":
        return None
    told = {"settings": settings.model_dump(mode="json"), "limits": limits, "within_s": within_s}
    start = f"from {__name__} import serve_trials; serve_trials()"
    return Trials(ports, start, msgspec.json.encode(told).decode(), within_s)


def serve_trials() -> None:
    """Be a child in which suspects are tried, as long as the worker is there that has started it."""
    # Imported late: it has modules that not every platform has.
    from wpa.engine import trial_child

    told = msgspec.json.decode(sys.argv[1], type=trial_child.Told)
    settings = Settings.model_validate(told.settings)
    trial_child.serve(told, settings, plugin_host(settings.flow_modules).flows())


def _tracer(settings: Settings, worker_id: str) -> Tracer | None:
    if not settings.trace:
        return None
    # Imported late: the SDK costs every start a tenth of a second, and most run without it.
    from wpa.adapters.otel import OtelTracer, exporter_named

    return OtelTracer(exporter_named(settings.trace), worker_id)


async def _serve_requests(
    ports: NatsPorts, services: Services, host: PluginHost, worker: Worker
) -> ApiService:
    """Begin to answer what is asked on ``workflow.api.>``."""
    api = Api(
        services,
        host.signatures(),
        lambda: uuid.uuid4().hex,
        follow=worker.follow,
        schedules=Schedules(services),
        roster=ports.roster,
    )
    return await serve_api(ports.transport, api.verbs, api.handle, version())


async def _info(
    ports: NatsPorts, worker_id: str, url: str, host: PluginHost, queues: list[str]
) -> WorkerInfo:
    return WorkerInfo(
        id=worker_id,
        url=url,
        server_version=ports.server_version,
        durability=await until_done(ports.durability),
        step_types=host.names(),
        flows=sorted(host.flows()),
        queues=queues,
        broken=[f"{plugin.name}: {plugin.error}" for plugin in host.plugins() if plugin.error],
    )


def _about(ports: NatsPorts, worker_id: str, host: PluginHost, queues: list[str]) -> dict[str, Any]:
    """What a worker says of itself to those who ask who is there."""
    return {
        "worker": worker_id,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "version": version(),
        "started_at": rfc3339(ports.clock.now_ms()),
        "step_types": host.names(),
        "queues": queues,
        "flows": sorted(host.flows()),
        "codes": {name: program.hash for name, program in host.flows().items()},
    }


async def _announce(ports: NatsPorts, about: dict[str, Any]) -> None:
    """Keep the worker's presence fresh; after an outage, renew it soon."""
    renewed = True
    while True:
        await ports.clock.sleep(PRESENCE_EVERY_S if renewed else PRESENCE_AGAIN_S)
        renewed = await ports.announce(about["worker"], about)
