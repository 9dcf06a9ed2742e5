from __future__ import annotations

import io
import json
import os
from pathlib import Path

import msgspec
import pytest
import typer

from wpa.cli.common import (
    PIPE_COLUMNS,
    fail,
    find_url,
    json_text,
    make_console,
    plain,
    print_problems,
    run_async,
    shown,
)
from wpa.errors import DefinitionError, Problem, StepFailed, TaskRejected, Unavailable, WpaError

USUAL = "nats://127.0.0.1:4222"


def test_the_url_given_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WPA_DATA_DIR", str(tmp_path))
    (tmp_path / "wpa.json").write_text(json.dumps({"url": "nats://h:1", "pid": os.getpid()}))
    assert find_url("nats://given:9") == "nats://given:9"
    assert find_url("") == "nats://h:1"


@pytest.mark.parametrize(
    "text",
    ['{"url": "nats://h:1", "pid": 999999999999}', '{"url": "nats://h:1"}', "{", "[]", '{"pid": 1}'],
)
def test_what_a_killed_dev_left_behind_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    monkeypatch.setenv("WPA_DATA_DIR", str(tmp_path))
    (tmp_path / "wpa.json").write_text(text)
    assert find_url("") == USUAL


def test_without_a_running_dev_it_is_the_usual_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WPA_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_url("") == USUAL


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DefinitionError([Problem("$.steps[0]", "no such step", "did you mean 'a'")]), 2, "$.steps[0]"),
        (TaskRejected("conflict", "another content"), 2, "conflict: another content"),
        (TaskRejected("[/red]", "[/nope] \x1b[2J"), 2, "[/nope] ␛[2J"),
        (Unavailable("nobody there"), 3, "unavailable: nobody there"),
        (StepFailed("broke"), 1, "error: broke"),
    ],
)
def test_each_error_has_words_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: WpaError, code: int, words: str
) -> None:
    with pytest.raises(typer.Exit) as left:
        fail(error)
    assert left.value.exit_code == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_what_is_no_unicode_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    async def send() -> None:
        msgspec.json.encode({"reason": "no \udcff"})

    with pytest.raises(typer.Exit) as raised:
        run_async(send())
    assert raised.value.exit_code == 2
    assert r"not Unicode: 'no \udcff' has '\udcff', which is no character" in capsys.readouterr().err


@pytest.mark.parametrize("columns", ["0", None])
def test_without_a_width_nothing_is_cut(monkeypatch: pytest.MonkeyPatch, columns: str | None) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert make_console().width == PIPE_COLUMNS


def test_problems_are_counted_and_their_hints_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_problems([Problem("$.a", "bad", "do this"), Problem("$['[/b]']", "worse")], "title")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["title", "  $.a  bad  do this", "  $['[/b]']  worse", "2 problems"]


def test_no_control_character_reaches_the_terminal() -> None:
    everything = "".join(map(chr, range(0x100)))
    kept = plain(everything)
    assert len(kept) == len(everything)
    assert [c for c in kept if (ord(c) < 32 or 0x7F <= ord(c) < 0xA0) and c not in "\n\t"] == []
    assert plain("ordinary, ünïcode\n\ttext") == "ordinary, ünïcode\n\ttext"
    assert shown("[red]\x07") == "\\[red]␇"


def test_json_for_programs_is_the_same_value_without_control_characters() -> None:
    value = {"\x9b31m": ["\x1b]0;t\x07", "\x7f", "ünïcode"]}
    text = json_text(value)
    assert json.loads(text) == value
    assert text.isprintable()
    assert "ünïcode" in text
