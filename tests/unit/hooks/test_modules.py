from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wpa.hooks.host import PluginHost
from wpa.hooks.modules import ModuleRefused, load_module

FLOWS = '''
from wpa.flows import flow, call
from wpa.sdk import step
from wpa_e2e_steps import work

@step("mine.add")
async def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b

@flow("sum")
async def total(numbers: list[int]) -> int:
    """Add them all up."""
    result = 0
    for number in numbers:
        result = await call(add, result, number)
    return result

@flow("nothing")
async def nothing() -> None:
    pass
'''


@pytest.fixture(autouse=True)
def fresh_modules() -> Iterator[None]:
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("tmp_"):
            del sys.modules[name]


def write(folder: Path, text: str, name: str = "tmp_flows.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_a_files_flows_and_steps_are_registered(tmp_path: Path) -> None:
    host = PluginHost.discover(modules=[load_module(write(tmp_path, FLOWS))])
    assert "mine.add" in host.names()
    flows = host.flows()
    assert sorted(flows) == ["nothing", "sum"]
    signatures = getattr(flows["sum"], "signatures", None)
    assert signatures is not None
    assert signatures("mine.add").name == "mine.add"
    document = host.flow_documents()["sum"]
    assert document["description"] == "Add them all up."
    assert document["module"] == "tmp_flows"
    assert document["input"]["required"] == ["numbers"]
    (info,) = [info for info in host.plugins() if info.name == "tmp_flows"]
    assert (info.flows, info.steps, info.error) == (["sum", "nothing"], ["mine.add"], "")


def test_what_it_imports_from_a_plugin_is_the_plugins(tmp_path: Path) -> None:
    host = PluginHost.discover(modules=[load_module(write(tmp_path, FLOWS, "tmp_imports.py"))])
    assert "e2e.work" in host.names()
    assert host.broken == []


def test_of_a_modules_flows_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, FLOWS, "tmp_named.py")
    monkeypatch.chdir(tmp_path)
    assert len(load_module("tmp_named:total").flows) == 1
    assert len(load_module("tmp_named").flows) == 2
    with pytest.raises(ModuleRefused, match="no flow called add"):
        load_module("tmp_named:add")


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("def broken(:\n", "tmp_syntax.py", "SyntaxError"),
        ("import tmp_not_there\n", "tmp_import.py", "No module named 'tmp_not_there'.*tmp_import.py:1"),
        ("raise SystemExit(3)\n", "tmp_exit.py", "SystemExit: 3"),
        ("x = 1\n", "tmp_empty.py", "declares nothing with @flow or @step"),
        ("", "tmp-dashed.py", "rename it to a Python name"),
        ("", "queue.py", "is called queue, too"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, name: str, reason: str) -> None:
    with pytest.raises(ModuleRefused, match=reason):
        load_module(write(tmp_path, text, name))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = (\n", 1),
        ("\nimport tmp_no_such_module\n", 2),
        ("from wpa import flow\n\n@flow('f')\ndef f():\n    pass\n", 3),
    ],
)
def test_the_author_is_told_which_line_of_theirs(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(ModuleRefused) as refused:
        load_module(write(tmp_path, text, "tmp_refused.py"))
    assert str(refused.value).endswith(f"({tmp_path}/tmp_refused.py:{line})")


def test_what_is_not_there() -> None:
    with pytest.raises(ModuleRefused, match=r"tmp_missing\.py is not there"):
        load_module("tmp_missing.py")
    with pytest.raises(ModuleRefused, match="tmp_missing can't be imported"):
        load_module("tmp_missing")


PLUGIN = """
from wpa.flows import flow
from wpa.sdk import hookimpl

@flow("sum")
async def other() -> None:
    pass

@hookimpl
def wpa_flows():
    return [other, 5]
"""


def test_a_plugins_hook_and_a_flow_that_is_taken(tmp_path: Path) -> None:
    write(tmp_path, PLUGIN, "tmp_plugin.py")
    sys.path.insert(0, str(tmp_path))
    plugin = __import__("tmp_plugin")
    host = PluginHost.discover([("p", plugin)], [load_module(write(tmp_path, FLOWS, "tmp_taken.py"))])
    assert host.flows()["sum"].fn.__module__ == "tmp_plugin"
    errors = {info.name: info.error for info in host.broken}
    assert "5, which is not declared with @flow" in errors["p"]
    assert "flow sum is taken: tmp_plugin has it" in errors["tmp_taken"]
