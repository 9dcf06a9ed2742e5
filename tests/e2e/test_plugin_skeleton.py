"""From an empty folder to an installed, tested step: what ``wpa plugin new`` writes works as it is."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.e2e.processes import run_wpa


def test_the_skeleton_installs_is_found_and_passes_its_test(tmp_path: Path) -> None:
    done = run_wpa("plugin", "new", "payments", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "wpa-payments"
    # An environment on top of this one, so that nothing is installed into the developer's.
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, system_site_packages=False)
    site = next((home / "lib").glob("python*")) / "site-packages"
    (site / "parent.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    for extra in _editable_paths():
        with (site / "parent.pth").open("a") as out:
            out.write(f"\n{extra}")
    python = home / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--no-build-isolation", "--editable", str(folder)], check=True, timeout=120)
    tests = subprocess.run(
        [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        capture_output=True, text=True, timeout=120, check=False, cwd=folder,
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout + tests.stderr
    listed = subprocess.run(
        [str(python), "-c", "from wpa.cli import main; main()", "plugins", "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = {plugin["name"]: plugin for plugin in json.loads(listed.stdout)}
    assert found["payments"]["steps"] == ["payments.greet"]
    assert found["payments"]["distribution"] == "wpa-payments"


def _editable_paths() -> list[str]:
    import wpa

    return [str(Path(wpa.__file__).parents[1])]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    assert run_wpa("plugin", "new", "payments", cwd=tmp_path).returncode == 0
    again = run_wpa("plugin", "new", "payments", cwd=tmp_path)
    assert again.returncode == 2
    assert "not empty" in again.stderr


@pytest.mark.parametrize("name", ["Pay Ments", "1st", "../up", ""])
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    done = run_wpa("plugin", "new", name, cwd=tmp_path)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []
