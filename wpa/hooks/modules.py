"""Modules named on the command line: their flows and steps are registered without a package around them."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from wpa.errors import WpaError
from wpa.hooks.steps import step_type_of

__all__ = ["Declared", "ModuleRefused", "load_module", "steps_of"]

OURS: Final = str(Path(__file__).parents[1])


class ModuleRefused(WpaError):
    """A module that can't be imported, or holds nothing of use."""


class Declared(NamedTuple):
    """What a module has in its namespace: its own, and what it imports."""

    name: str
    location: str
    steps: list[object]
    flows: list[object]


def load_module(target: str) -> Declared:
    """Import a Python file, or a module, and find its flows and steps.

    Args:
        target: ``path/to/file.py``, or ``package.module``; with ``:name`` behind it, of its flows only the
            one that the module calls so.

    A file's folder is put on the path, as Python does with a script's; for a module, the current one.
    Raises ModuleRefused.
    """
    place, _, only = (target, "", "") if Path(target).is_file() else target.rpartition(":")
    if not place:
        place, only = target, ""
    if place.endswith(".py"):
        module = _import_file(Path(place))
    else:
        _put_on_path(Path.cwd())
        module = _import(place, place)
    namespace = vars(module)
    flows = [item for item in namespace.values() if hasattr(item, "__wpa_flow__")]
    if only:
        if only not in namespace or not hasattr(namespace[only], "__wpa_flow__"):
            raise ModuleRefused(
                f"{place} has no flow called {only}: nothing of that name is declared with @flow"
            )
        flows = [namespace[only]]
    steps = steps_of(module)
    if not flows and not steps:
        raise ModuleRefused(f"{place} declares nothing with @flow or @step")
    return Declared(module.__name__, getattr(module, "__file__", None) or "", steps, flows)


def steps_of(module: ModuleType) -> list[object]:
    """The functions in a module's namespace that are declared with ``@step``."""
    return [item for item in vars(module).values() if callable(item) and step_type_of(item) is not None]


def _import_file(path: Path) -> ModuleType:
    path = path.absolute()
    if not path.is_file():
        raise ModuleRefused(f"{path} is not there")
    name = path.stem
    if not name.isidentifier():
        raise ModuleRefused(f"{path.name} can't be imported: rename it to a Python name, such as my_flows.py")
    _put_on_path(path.parent)
    module = _import(name, str(path))
    found = getattr(module, "__file__", None)
    if found is None or not Path(found).samefile(path):
        where = found or "Python itself"
        raise ModuleRefused(f"{path.name} can't be imported: {where} is called {name}, too; rename the file")
    return module


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _import(name: str, shown: str) -> ModuleType:
    try:
        return import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module that calls sys.exit() shall say so, not end us
        what = error.msg if isinstance(error, SyntaxError) else error
        text = f"{shown} can't be imported: {type(error).__name__}: {what}{_where(error)}"
        raise ModuleRefused(text) from error


def _where(error: BaseException) -> str:
    """The line that an import failed at: the author's, not the one of ours, or of Python, that noticed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen ", OURS))
    ]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
