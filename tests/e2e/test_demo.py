"""``make demo`` does the main job, and would say so if it did not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.e2e.processes import EXAMPLES, environment
from tests.waiting import wait_for

DEMO = str(EXAMPLES / "demo")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=environment(),
    )


def test_all_holds(tmp_path: Path) -> None:
    picture = tmp_path / "run.svg"
    done = run(DEMO, "--picture", str(picture))
    assert done.returncode == 0, done.stdout
    assert "  NO  " not in done.stdout
    assert "checks hold: 8 executions" in done.stdout.splitlines()[-1]
    for words in ("COMPLETED", "ROLLED_BACK", "step_progress  text", "the shop is as before", "-> review"):
        assert words in done.stdout
    for words in ("waiting  for approval ask", "not_allowed", "kill -9", "recovered  from", "paused  by ana"):
        assert words in done.stdout
    assert "ROLLED_BACK" in picture.read_text()
    assert "https://cdn" not in picture.read_text()


def test_a_difference_is_named_with_what_is_and_what_should_be() -> None:
    wrong = (
        f"import sys, asyncio; sys.path.insert(0, {DEMO!r}); import main_job, show\n"
        "main_job.PAGES = main_job.PAGES[:1]\n"  # the document has more pages than this
        "show.play = lambda stage, picture: main_job.document(stage)\n"
        "sys.exit(asyncio.run(show.main()))"
    )
    done = run("-c", wrong)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  NO  ")]
    assert "pages and words" in line
    assert "but it should be" in line
    assert "1 of" in done.stdout.splitlines()[-1]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    env = {**environment(), "TMPDIR": str(tmp_path)}
    # Whatever started the tests may have had its interrupts ignored, as a shell's background jobs have.
    heeding = "import signal, runpy, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    demo = subprocess.Popen(
        [sys.executable, "-c", f"{heeding}runpy.run_path({str(DEMO)!r}, run_name='__main__')"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=env,
    )
    pid_files = "wpa-demo-*/data/*.pid"
    pid_file = wait_for(lambda: next(iter(tmp_path.glob(pid_files)), None))
    server = int(wait_for(pid_file.read_text))
    demo.send_signal(signal.SIGINT)
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "Traceback" not in err.decode()
    wait_for(lambda: not alive(server))
    assert list(tmp_path.glob("wpa-demo-*")) == []
