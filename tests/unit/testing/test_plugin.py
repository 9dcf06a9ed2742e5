"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from tests.unit.testing.plans import plan, sleep
from wpa.testing import run

ROOT = Path(__file__).parents[3]
TESTS = """
import pytest
from wpa.testing import replay

PLAN = {"id": "w", "version": "1", "steps": [{"id": "s", "uses": "core.sleep", "with": {"for": "24h"}}]}


def test_the_fixture(wpa):
    assert wpa(PLAN).start().result().status == "COMPLETED"


async def test_the_fixture_in_an_async_test(wpa):
    assert wpa(PLAN).start().result().status == "COMPLETED"


@pytest.mark.wpa_journals("stored")
def test_replays(journal):
    assert replay(PLAN, journal) is None
"""


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # By its module's name, and not by the entry point: the installed metadata may be older than the source.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:wpa",
        "-p",
        "wpa.testing.plugin",
        "-p",
        "no:cacheprovider",
    ]
    return subprocess.run(
        [*command, "--strict-markers", "-o", "asyncio_mode=auto", "-v", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "stored").mkdir()
    events = run(plan(sleep("s", "24h"))).events
    changed = run(plan(sleep("s", "23h"))).events
    (tmp_path / "stored" / "good.json").write_bytes(msgspec.json.encode(events))
    (tmp_path / "stored" / "bad.json").write_bytes(msgspec.json.encode(changed))
    return tmp_path


def test_fixture_and_marker(folder: Path) -> None:
    done = pytest_in(folder)
    assert "test_the_fixture PASSED" in done.stdout, done.stdout + done.stderr
    assert "test_the_fixture_in_an_async_test PASSED" in done.stdout
    assert "test_replays[good] PASSED" in done.stdout
    assert "test_replays[bad] FAILED" in done.stdout
    assert "3 passed, 1 failed" in done.stdout or "1 failed, 3 passed" in done.stdout


def test_a_marker_that_is_used_wrongly(folder: Path) -> None:
    (folder / "test_it.py").write_text(
        "import pytest\n@pytest.mark.wpa_journals('stored')\ndef test_it():\n    pass\n"
    )
    done = pytest_in(folder)
    assert done.returncode != 0
    assert "a test that takes `journal`" in done.stdout + done.stderr


def test_a_folder_without_journals(folder: Path) -> None:
    for path in (folder / "stored").iterdir():
        path.unlink()
    done = pytest_in(folder)
    assert "test_replays: " in done.stdout
    assert "holds no journal; store one with `wpa history" in done.stdout
    assert "plugin.py" not in done.stdout


def test_a_failure_shows_the_tests_line_and_not_the_kits(folder: Path) -> None:
    (folder / "test_it.py").write_text(
        'PLAN = {"id": "w", "version": "1", "steps": [{"id": "a", "uses": "x.a"}]}\n'
        "def test_plain(wpa):\n    wpa(PLAN).start()\n"
        "async def test_async(wpa):\n    wpa(PLAN).start()\n"
    )
    done = pytest_in(folder)
    assert done.stdout.count("test_it.py:3: Unmocked") == 1, done.stdout
    assert done.stdout.count("test_it.py:5: Unmocked") == 1
    assert "wpa/testing/" not in done.stdout.replace("wpa/testing/plugin.py", "")
    assert "During handling" not in done.stdout


def test_it_imports_nothing_of_the_engine_before_it_is_asked() -> None:
    code = "import sys, wpa.testing.plugin; sys.exit('wpa.engine.worker' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_it_is_installed_as_a_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"wpa": "wpa.testing.plugin"}
    assert not any(requirement.startswith("pytest") for requirement in project["dependencies"])
