"""Every known bug can still be planted: `make mutants` takes too long to find out there that code has moved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mutants.__main__ import NOTICED
from tests.mutants.planted import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_code_that_a_mutant_stands_for_is_there_once(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text()
    assert text.count(mutant.code) == 1
    assert mutant.code != mutant.bug
    compile(text.replace(mutant.code, mutant.bug), mutant.file, "exec")  # else it dies of what it is not


def test_the_tests_that_noticed_them_are_there() -> None:
    """Where one is renamed, `make mutants` has to look through all tests again, which takes an hour."""
    for mutant, test in json.loads(NOTICED.read_text()).items():
        assert mutant in {each.name for each in MUTANTS}
        path, _, name = test.partition("::")
        assert f"def {name.rpartition('::')[2].partition('[')[0]}(" in (ROOT / path).read_text()
