"""Every known bug can still be planted: `make mutants` takes too long to find out there that code has moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.planted import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_code_that_a_mutant_stands_for_is_there_once(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text()
    assert text.count(mutant.code) == 1
    assert mutant.code != mutant.bug
    compile(text.replace(mutant.code, mutant.bug), mutant.file, "exec")  # else it dies of what it is not
