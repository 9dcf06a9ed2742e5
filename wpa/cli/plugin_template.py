"""The skeleton that ``wpa plugin new`` writes: a package with one step and a test that passes."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["write_skeleton"]

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "wpa-{name}"
version = "0.1.0"
description = "{name} steps for wpa"
requires-python = ">=3.11"
dependencies = ["wpa-engine"]

[project.entry-points.wpa]
{name} = "wpa_{name}"

[tool.hatch.build.targets.wheel]
packages = ["wpa_{name}"]
"""

MODULE = '''\
"""{name} steps for wpa."""

from dataclasses import dataclass

from wpa.sdk import StepContext, StepFailed, hookimpl, step


@dataclass
class Greeting:
    text: str


@step("{name}.greet")
async def greet(ctx: StepContext, who: str, times: int = 1) -> Greeting:
    """Greet somebody, once or more often."""
    if times < 1:
        # Not retryable: trying again would not make the input better.
        raise StepFailed("times must be 1 or more", retryable=False)
    await ctx.progress(50, "thinking of a greeting")
    return Greeting(text=" ".join(["Hello"] * times) + f", {{who}}!")


@hookimpl
def wpa_steps():
    return [greet]
'''

TEST = """\
import asyncio

import pytest

from wpa.sdk import StepFailed, fake_context
from wpa_{name} import greet


def test_it_greets():
    greeting = asyncio.run(greet(fake_context(), who="Ada", times=2))
    assert greeting.text == "Hello Hello, Ada!"


def test_it_refuses_to_greet_less_than_once():
    with pytest.raises(StepFailed):
        asyncio.run(greet(fake_context(), who="Ada", times=0))
"""

README = """\
# wpa-{name}

{name} steps for wpa.

    pip install -e . pytest
    pytest
    wpa plugins

Then use `{name}.greet` in a definition:

    {{"id": "hello", "uses": "{name}.greet", "with": {{"who": "${{input.name}}"}}}}
"""


def write_skeleton(directory: Path, name: str) -> list[Path]:
    """Write the files and return their paths.

    Raises ValueError for a name that is no Python identifier in lower case, FileExistsError where the
    directory holds something already: nothing is ever overwritten.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name, re.ASCII):
        raise ValueError(f"{name!r} can't be a plugin's name: use a-z, 0-9 and _, the first a letter")
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty; give another folder with --dir")
    contents = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"wpa_{name}/__init__.py": MODULE,
        f"tests/test_{name}.py": TEST,
    }
    written = []
    for relative, text in contents.items():
        path = directory / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(name=name), encoding="utf-8")
        written.append(path)
    return written
