"""docs/testing.md: its code is a project with tests that pass, and what it says that is printed, is."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.e2e.pages import blocks
from wpa.testing import NotEnded, ReplayFailure, assert_replays, run

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
INPUT = {"order_id": "o-1", "cents": 1790}
MOCKS: dict[str, Any] = {
    "payments.charge": {"id": "c-1"},
    "payments.status": "paid",
    "shipping.create": lambda order_id: {"id": "parcel"},
}


FlowIn = Callable[[Path], Any]


@pytest.fixture
def flow_in(monkeypatch: pytest.MonkeyPatch) -> FlowIn:
    """The flow of a file, which is imported for this test alone."""

    def load(path: Path) -> Any:
        spec = importlib.util.spec_from_file_location(f"page_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module.order

    return load


@pytest.fixture
def project(tmp_path: Path, flow_in: FlowIn) -> Path:
    """The page's modules, with the example that it names and a stored journal."""
    shop, *tests = blocks(PAGE, "python")
    (tmp_path / "shop.py").write_text(shop)
    (tmp_path / "test_shop.py").write_text("\n".join(tests))
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "approval.json", tmp_path / "examples")
    journal = run(
        flow_in(tmp_path / "shop.py"),
        INPUT,
        mocks=MOCKS,
        script=lambda run: run.signal("delivered", {"by": "Ada"}),
    )
    (tmp_path / "journals").mkdir()
    (tmp_path / "journals" / "o-17.json").write_bytes(msgspec.json.encode(journal.events))
    return tmp_path


def test_its_tests_pass(project: Path) -> None:
    # By the module's name, and not by the entry point: the installed metadata may be older than the source.
    plugins = ["-p", "no:wpa", "-p", "wpa.testing.plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-q", "-o", "asyncio_mode=auto"],
        cwd=project, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    written = len(re.findall(r"^(?:async )?def test_", PAGE, re.MULTILINE))
    assert f"{written} passed" in done.stdout, done.stdout + done.stderr


def test_its_words_are_those_of_the_kit(project: Path, flow_in: FlowIn) -> None:
    diverged, waits = blocks(PAGE, "text")
    changed = project / "changed.py"
    changed.write_text(
        (project / "shop.py")
        .read_text()
        .replace('@flow("order")', '@flow("order", version="2")')
        .replace("await asyncio.sleep(24 * 3600)", 'await call("shipping.create", order_id=order_id)')
    )
    with pytest.raises(ReplayFailure) as told:
        assert_replays(flow_in(changed), project / "journals")
    assert str(told.value).replace("page_changed", "shop") == diverged.strip()
    endless = project / "endless.py"
    endless.write_text((project / "shop.py").read_text().replace(", timeout=14 * 24 * 3600", ""))
    with pytest.raises(NotEnded) as ended:
        run(flow_in(endless), INPUT, mocks=MOCKS)
    assert str(ended.value).startswith(waits)
