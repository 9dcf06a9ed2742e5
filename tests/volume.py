"""A small file system of its own, to be filled to the last byte: a real full disk, and nobody else's.

It is a tmpfs in a mount namespace of its own, which a process that does nothing else holds open: whoever knows
that process reaches it as ``/proc/<pid>/root/…``, and it is gone when that process is, however that comes about.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, Self

import pytest

__all__ = ["NoVolume", "Volume", "on_linux"]

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="no file system can be mounted here by anybody")
"""For tests that need a volume."""

SIZE_BYTES: Final = 64 * 1024 * 1024
"""As large as what a container has, see ``SHARED``."""
CHUNK_BYTES: Final = 64 * 1024
WITHIN_S: Final = 20

OWN: Final = f"setpriv --reuid={os.getuid()} --regid={os.getgid()} --clear-groups"
WAYS: Final = {
    "as root": ("unshare --mount", ""),
    "in a user namespace": ("unshare --user --map-root-user --mount", ""),
    # Where those are kept from users, as by Ubuntu's AppArmor. The holder has to be ours, or /proc is closed.
    "with sudo": ("sudo -n unshare --mount", OWN),
}
"""How to mount, in the order in which it is tried: what comes before, and what the holder is run with."""
SHARED: Final = Path("/dev/shm")
SHARED_BYTES_MAX: Final = 256 * 1024 * 1024
"""A container that may not mount has a small file system of its own there, by default of 64 MB. On any other
machine it is as large as half the memory, and everybody's."""


class NoVolume(Exception):
    """There is no small file system here, and none can be mounted: why, each way that was tried."""


class Volume:
    """A file system of one's own.

    Args:
        folder: what it is mounted over, for those who go through :attr:`path`.
        size: in bytes; where it can't be mounted, it is as large as it is.

    Raises NoVolume.
    """

    def __init__(self, folder: Path, size: int = SIZE_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._holder: subprocess.Popen[bytes] | None = None
        complaints = []
        for way, (before, holder) in WAYS.items():
            if complaint := self._mount(folder.absolute(), size, before.split(), holder):
                complaints.append(f"{way}: {complaint}")
            else:
                return
        if not SHARED.is_dir() or shutil.disk_usage(SHARED).total > SHARED_BYTES_MAX:
            raise NoVolume(f"no file system can be mounted here ({'; '.join(complaints)})")
        self.path = Path(tempfile.mkdtemp(prefix="wpa-", dir=SHARED))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _mount(self, folder: Path, size: int, before: list[str], holder: str) -> str:
        """Mount it; "", or what is against that."""
        mount = f"mount -t tmpfs -o size={size},mode=0777 tmpfs {shlex.quote(str(folder))}"
        # It reads what never comes, until we are gone.
        script = f"{mount} && echo mounted && exec {holder} cat"
        try:
            process = subprocess.Popen(
                [*before, "sh", "-c", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            return str(error)
        assert process.stdout is not None
        if process.stdout.readline() != b"mounted\n":
            return process.communicate(timeout=WITHIN_S)[1].decode(errors="replace").strip()
        self._holder = process
        self.path = Path(f"/proc/{process.pid}/root{folder}")
        """Its root, as this and every other process of ours reaches it."""
        return ""

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self.path).free

    def fill(self) -> None:
        """Leave not one byte of room. What has begun a page of memory may still write to its end."""
        with self._balloon.open("ab", buffering=0) as balloon:
            try:
                while True:
                    balloon.write(b"\0" * CHUNK_BYTES)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def make_room(self) -> None:
        """Take back what :meth:`fill` has taken."""
        self._balloon.unlink(missing_ok=True)

    def close(self) -> None:
        """Give it up, with all that is in it, as soon as nobody has a file of it open."""
        if self._holder is None:
            shutil.rmtree(self.path)
        else:
            self._holder.communicate(timeout=WITHIN_S)

    @property
    def _balloon(self) -> Path:
        return self.path / "balloon"
