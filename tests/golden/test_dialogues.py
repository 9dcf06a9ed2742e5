from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.golden.dialogue import FILES, play, transcript
from wpa.model.state import encode_state

REWRITE = os.environ.get("WPA_REWRITE_GOLDEN") == "1"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_kernel_answers_as_recorded(path: Path) -> None:
    dialogue = json.loads(path.read_text())
    events = transcript(play(dialogue))
    if REWRITE:
        dialogue["events"] = events
        path.write_text(json.dumps(dialogue, indent=2, ensure_ascii=False) + "\n")
    assert events == dialogue["events"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_fold_of_the_journal_is_the_state(path: Path) -> None:
    table = play(json.loads(path.read_text()))
    assert encode_state(table.folded()) == encode_state(table.state)


def test_there_are_dialogues() -> None:
    assert len(FILES) >= 6
