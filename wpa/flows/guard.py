"""How a flow's code is kept from what a replay would not repeat.

Two things are done when the first run of a flow begins:

* **Stand-ins** (:mod:`wpa.flows.standins`) are put in place of the clock and of chance, by identity, whatever
  they are called: into the names of the flow's module and of the modules of the same top-level package, or
  beside it in its folder, that it imports from, directly or not, and into the closures and defaults of the
  functions and classes there (``field(default_factory=uuid4)`` of a dataclass, a pydantic model's default
  factories). They act on flow code only, for everybody else they pass calls on, so they stay for good.
* An **audit hook** refuses files, sockets, processes, threads and the like in a thread that is running flow
  code at that moment. What imports, logging, warnings, tracebacks, time zones and the debugger need
  passes. Outside flows the hook costs a look into a dict for each audited event.

What this does not see: clocks and random generators that installed packages read on a flow's behalf,
``send`` and ``recv`` on a socket or a file that was opened elsewhere, a ``random.Random()`` made when the
module was imported, default factories of msgspec structs, environment variables, the order of a set of
strings or of objects that hash by their address, and the local time zone in methods of a naive datetime.
Where such things change what a flow asks for, the kernel finds the divergence at the next replay.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import zoneinfo
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, Final

from pydantic import BaseModel

from wpa.flows.loop import running_flow
from wpa.flows.sites import current_site, is_beside, is_within
from wpa.flows.standins import stand_in_for
from wpa.flows.tasks import refusal
from wpa.flows.watchdog import watchdog

__all__ = ["guard"]

REFUSED: Final = {
    **dict.fromkeys(("open", "os.truncate", "mmap.__new__"), "opens a file"),
    **dict.fromkeys(
        (
            "os.chmod", "os.chown", "os.link", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.rmdir",
            "os.scandir", "os.symlink", "os.utime", "os.walk", "os.fwalk", "glob.glob", "pathlib.Path.glob",
            "pathlib.Path.rglob", "shutil.copyfile", "shutil.copytree", "shutil.move", "shutil.rmtree",
            "tempfile.mkdtemp", "tempfile.mkstemp", "os.chdir", "os.lockf", "fcntl.flock", "fcntl.lockf",
        ),
        "works on files",
    ),
    **dict.fromkeys(
        (
            "socket.__new__", "socket.bind", "socket.connect", "socket.getaddrinfo", "socket.gethostbyaddr",
            "socket.gethostbyname", "socket.gethostname", "socket.getnameinfo", "socket.getservbyname",
            "socket.getservbyport", "socket.sendmsg", "socket.sendto", "urllib.Request", "ftplib.connect",
            "http.client.connect", "smtplib.connect", "imaplib.open", "poplib.connect",
            "telnetlib.Telnet.open",
        ),
        "uses the network",
    ),
    **dict.fromkeys(
        (
            "subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
            "os.startfile", "os.system", "pty.spawn", "os.kill", "os.killpg", "webbrowser.open",
        ),
        "works on processes",
    ),
    **dict.fromkeys(("_thread.start_new_thread", "_thread.start_joinable_thread"), "starts a thread"),
    **dict.fromkeys(("sqlite3.connect", "sqlite3.connect/handle"), "opens a database"),
    "time.sleep": "blocks its thread",
    "builtins.input": "asks somebody at a terminal",
}  # fmt: skip
"""The audit events that are refused, and what the flow does there in words."""

ALLOWED: Final = frozenset(
    {
        "_frozen_importlib",
        "_frozen_importlib_external",
        "importlib",
        "zipimport",
        "logging",
        "warnings",
        "linecache",
        "traceback",
        "bdb",
        "pdb",
        "zoneinfo",
    }
)
"""The packages on whose behalf everything is allowed."""


def guard(fn: Callable[..., Any]) -> None:
    """Put the stand-ins where a flow's code can reach the real things, and have the audit hook installed.

    Args:
        fn: the flow's function. May be guarded any number of times, for example after further imports.
    """
    _watch()
    watchdog().start()
    _guard_names(fn.__globals__, fn.__module__)
    _guard_function(fn)


# -- stand-ins -------------------------------------------------------------------------------


def _guard_names(names: dict[str, Any], module: str) -> None:
    """Walk through a module's names, and on into those modules of the same package, or beside it, that they
    come from."""
    root = module.partition(".")[0]
    seen = {id(names)}
    found = [names]
    while found:
        names = found.pop()
        for name, value in list(names.items()):
            stand_in = stand_in_for(value)
            if stand_in is not None:
                names[name] = stand_in
                continue
            origin = value if isinstance(value, ModuleType) else sys.modules.get(_home(value))
            if origin is None:
                continue
            home = origin.__name__.partition(".")[0]
            if home != root and not is_beside(root, home):
                continue
            if id(vars(origin)) not in seen:
                seen.add(id(vars(origin)))
                found.append(vars(origin))
            if isinstance(value, FunctionType):
                _guard_function(value)
            elif isinstance(value, type):
                _guard_class(value)


def _home(value: object) -> str:
    try:
        home = getattr(value, "__module__", "")
    except Exception:  # an object whose attributes can't be asked for here and now
        return ""
    return home if isinstance(home, str) else ""


def _guard_function(fn: Callable[..., Any]) -> None:
    for cell in getattr(fn, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # an empty cell
            stand_in = stand_in_for(cell.cell_contents)
            if stand_in is not None:
                cell.cell_contents = stand_in
    if isinstance(fn, FunctionType):
        if fn.__defaults__:
            fn.__defaults__ = tuple(_replaced(value) for value in fn.__defaults__)
        if fn.__kwdefaults__:
            fn.__kwdefaults__ = {name: _replaced(value) for name, value in fn.__kwdefaults__.items()}


def _guard_class(cls: type) -> None:
    for member in list(vars(cls).values()):
        inner = getattr(member, "__func__", member)
        if isinstance(inner, FunctionType):
            _guard_function(inner)
    if issubclass(cls, BaseModel):
        changed = False
        for field in cls.model_fields.values():
            stand_in = stand_in_for(field.default_factory)
            if stand_in is not None:
                field.default_factory, changed = stand_in, True
        if changed:
            cls.model_rebuild(force=True)


def _replaced(value: Any) -> Any:
    stand_in = stand_in_for(value)
    return value if stand_in is None else stand_in


# -- the audit hook --------------------------------------------------------------------------


@functools.cache
def _watch() -> None:
    """Install the audit hook, once in the life of the process: there is no way to take one back."""
    refused, running = REFUSED, running_flow

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in refused:
            loop = running()
            if loop is not None and not _is_allowed(event, args):
                raise refusal(current_site(loop.root), f"{refused[event]} ({event})")

    sys.addaudithook(hook)
    if sys.version_info < (3, 12):
        _watch_threads()


def _watch_threads() -> None:
    """Before Python 3.12 no audit event tells that a thread is started: let ``threading`` tell."""
    start: Callable[..., int] = vars(threading)["_start_new_thread"]

    def watched(*args: Any, **kwargs: Any) -> int:
        sys.audit("_thread.start_new_thread", *args)
        return start(*args, **kwargs)

    vars(threading)["_start_new_thread"] = watched


def _is_allowed(event: str, args: tuple[Any, ...]) -> bool:
    # The time zone database is read by C code, which leaves no frame of its own.
    if event == "open" and str(args[0]).startswith(zoneinfo.TZPATH):
        return True
    return is_within(sys._getframe(1), ALLOWED)  # noqa: SLF001  there is no other way to look up the stack
