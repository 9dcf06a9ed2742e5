"""The pytest plugin: the ``wpa`` fixture, and the ``wpa_journals`` marker.

Nothing of wpa is imported before a test asks for it: pytest loads this module at every start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from wpa.testing import WorkflowEnvironment

__all__ = ["pytest_configure", "pytest_generate_tests", "wpa"]

__tracebackhide__ = True

MARKER = "wpa_journals"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(folder): run the test once for each stored journal (*.json) in a folder, which is named "
        "from the test file's own; the test takes it as `journal`",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each journal."""
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is None:
        return
    if len(marker.args) != 1 or "journal" not in metafunc.fixturenames:
        raise pytest.Collector.CollectError(
            f"{metafunc.definition.nodeid}: @pytest.mark.{MARKER}('folder') needs a folder, and a test that "
            "takes `journal`"
        )
    from wpa.testing import TestKitError, journals

    try:
        found = journals(Path(metafunc.definition.path).parent / marker.args[0])
    except TestKitError as error:
        raise pytest.Collector.CollectError(f"{metafunc.definition.nodeid}: {error}") from None
    metafunc.parametrize("journal", found, ids=[path.stem for path in found])


@pytest.fixture
def wpa() -> Iterator[Callable[..., WorkflowEnvironment]]:
    """Makes environments: ``env = wpa(workflow, steps=..., mocks=...)``, closed when the test is over.

    Takes what :class:`wpa.testing.WorkflowEnvironment` takes.
    """
    from wpa.testing import WorkflowEnvironment

    made: list[WorkflowEnvironment] = []

    def make(*args: Any, **options: Any) -> WorkflowEnvironment:
        made.append(WorkflowEnvironment(*args, **options))
        return made[-1]

    yield make
    for environment in made:
        environment.close()
