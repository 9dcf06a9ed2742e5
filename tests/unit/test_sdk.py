from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.e2e.pages import blocks
from wpa import sdk
from wpa.hooks.steps import step_type_of
from wpa.sdk import StepContext, StepFailed, fake_context, step


@step("sdk.count")
async def count(ctx: StepContext, pages: int) -> int:
    for page in range(pages):
        await ctx.progress(100 * page / pages, f"page {page}", page=page)
    ctx.heartbeat()
    await ctx.emit("counted", {"pages": pages})
    ctx.log.info("counted for %s", ctx.idempotency_key)
    return pages


async def test_a_step_is_tested_as_the_function_it_is() -> None:
    context = fake_context(tenant="acme", attempt=2)
    assert await count(context, pages=2) == 2
    assert context.reported == [(0.0, "page 0", {"page": 0}), (50.0, "page 1", {"page": 1})]
    assert context.emitted == [("counted", {"pages": 2})]
    assert context.heartbeats == 1


def test_the_context_is_one() -> None:
    context: StepContext = fake_context(execution="x-1", step="charge", metadata={"user_id": "u"})
    assert (context.idempotency_key, context.metadata) == ("x-1:charge:1", {"user_id": "u"})
    assert fake_context(idempotency_key="k").idempotency_key == "k"
    context.progress_sync(10, "from a thread")


def test_a_misspelled_field_is_an_error() -> None:
    with pytest.raises(TypeError, match="idempotency"):
        fake_context(idempotency="k")


async def test_it_refuses_the_subjects_that_the_engine_refuses() -> None:
    with pytest.raises(StepFailed) as caught:
        await fake_context().emit("a.>", 1)
    assert (caught.value.type, caught.value.retryable) == ("InvalidInput", False)


def test_all_that_is_offered_is_there() -> None:
    assert set(sdk.__all__) == {
        "StepContext", "StepFailed", "StepType", "fake_context", "hookimpl", "step",
    }  # fmt: skip
    assert all(hasattr(sdk, name) for name in sdk.__all__)


def test_a_plugin_does_not_load_the_engine() -> None:
    """Importing the SDK stays cheap, and ties a plugin to nothing but the SDK."""
    script = "import sys, wpa.sdk; print(*[m for m in sys.modules if m.startswith(('wpa.', 'nats'))])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {name.split(".")[1] if "." in name else name for name in done.stdout.split()}
    assert loaded.isdisjoint({"engine", "adapters", "wire", "client", "cli", "nats"})


def test_what_an_author_imports_is_at_the_top() -> None:
    import wpa
    from wpa import flows

    for name in wpa.__all__:
        assert getattr(wpa, name) is getattr(flows, name, getattr(sdk, name, None))
    with pytest.raises(AttributeError, match="'wpa' has no attribute 'nothing'"):
        wpa.nothing  # noqa: B018


def test_the_guides_step_passes_the_guides_test(monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
    code, test = (block for block in blocks(guide, "python") if "charge" in block)
    module = ModuleType("wpa_payments")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(code, vars(module))
    names: dict[str, Any] = {}
    exec(test, names)
    names["test_it_charges"]()
    assert [step.name for step in map(step_type_of, module.wpa_steps()) if step] == ["payments.charge"]
