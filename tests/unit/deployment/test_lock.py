"""The locks hold what the project asks for, so that nobody installs what was never tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PROJECTS = sorted(path.relative_to(ROOT) for path in (ROOT / "plugins").glob("*/pyproject.toml"))


def project(path: Path) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text())


def locked(name: str) -> dict[str, str]:
    """Each distribution's pinned version; a universal lock may pin one differently by platform."""
    pins: dict[str, str] = {}
    for line in (ROOT / name).read_text().splitlines():
        if found := re.match(r"([a-z0-9][a-z0-9._-]*)==([^ ;]+)", line):
            pins[canonicalize_name(found[1])] = found[2]
    return pins


def group(name: str) -> list[str]:
    wanted: list[str] = []
    for item in project(Path("pyproject.toml"))["dependency-groups"][name]:
        wanted += group(item["include-group"]) if isinstance(item, dict) else [item]
    return wanted


def asked_by_plugins() -> list[str]:
    wanted = [item for path in PROJECTS for item in project(path)["project"]["dependencies"]]
    return [item for item in wanted if item != "wpa-engine"]


@pytest.mark.parametrize(
    ("lock", "groups"), [("requirements.lock", ["dev"]), ("requirements-image.lock", ["plugins"])]
)
def test_the_lock_satisfies_what_is_asked(lock: str, groups: list[str]) -> None:
    wanted = [*project(Path("pyproject.toml"))["project"]["dependencies"], *asked_by_plugins()]
    pins = locked(lock)
    for item in [*wanted, *(item for name in groups for item in group(name))]:
        requirement = Requirement(item)
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{item} is not in {lock}: run `make lock`"
        assert requirement.specifier.contains(version, prereleases=True), f"{item}: {lock} has {version}"


def test_the_image_holds_the_versions_that_are_tested() -> None:
    assert locked("requirements-image.lock").items() <= locked("requirements.lock").items()
    assert not {"pytest", "mypy", "ruff"} & set(locked("requirements-image.lock"))


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-image.lock"])
def test_every_pin_has_its_hashes_and_no_machine_of_ours(lock: str) -> None:
    text = (ROOT / lock).read_text()
    for entry in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]
    assert not re.search(r"file:|https?:|--find-links|--index", text)


def test_every_plugin_is_installed_by_make_and_by_the_image() -> None:
    makefile, dockerfile = (ROOT / "Makefile").read_text(), (ROOT / "Dockerfile").read_text()
    for path in PROJECTS:
        assert str(path.parent) in makefile
        assert f"./{path.parent}" in dockerfile
