"""The documentation names only what exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from jsonschema import Draft202012Validator

from wpa.cli.app import app
from wpa.settings import Settings

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "plugins").glob("*/*.md")])
NOT_SETTINGS = {
    "WPA_NATS_URL": "wpa/cli/common.py",
    "WPA_TENANT": "wpa/cli/common.py",
    "WPA_NATS_SERVER": "wpa/adapters/nats/server.py",
    "WPA_SHOP_DB": "plugins/orders/wpa_orders/__init__.py",
    "WPA_HTTP_ALLOW_PRIVATE": "plugins/http/wpa_http/guard.py",
    "WPA_REWRITE_GOLDEN": "tests/golden/test_dialogues.py",
}
STREAMS = set(re.findall(r"\bWPA_[A-Z]+\b", (ROOT / "wpa/adapters/nats/streams.py").read_text()))
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pages
def test_variables_are_read_by_something(page: Path) -> None:
    settings = {f"WPA_{field.upper()}" for field in Settings.model_fields}
    for name in set(re.findall(r"\bWPA_[A-Z_]*[A-Z]\b", page.read_text())):
        if name in settings or name in STREAMS:
            continue
        assert name in NOT_SETTINGS, f"{page.name} names {name}"
        assert name in (ROOT / NOT_SETTINGS[name]).read_text()


@pages
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in re.findall(r"(?:^|`)make ([a-z ]+)", page.read_text(), re.MULTILINE):
        for target in command.split("  ")[0].split():
            assert target in targets, f"{page.name} says make {target}"


def commands(command: Any, path: str = "") -> Iterator[str]:
    for name, child in getattr(command, "commands", {}).items():
        yield f"{path}{name}"
        yield from commands(child, f"{path}{name} ")


def code(page: Path) -> Iterator[str]:
    """What stands in code: the lines of fenced blocks, and the inline pieces of the rest."""
    text = page.read_text()
    for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`([^`]+)`", rest)


@pages
def test_commands_exist(page: Path) -> None:
    known = set(commands(typer.main.get_command(app)))
    for piece in code(page):
        if found := re.match(r"(?:\.venv/bin/)?wpa ([a-z]+)(?: ([a-z]+))?", piece):
            assert found[1] in known, f"{page.name} says {piece}"
            if any(name.startswith(f"{found[1]} ") for name in known) and found[2]:
                assert f"{found[1]} {found[2]}" in known, f"{page.name} says {piece}"


SCHEMAS = {
    name: json.loads((ROOT / "schemas" / f"{name}.schema.json").read_text())
    for name in ("definition", "task")
}


def shown(page: Path) -> Iterator[Any]:
    """The JSON that a page shows: whole documents, or some members of a definition, or steps in a row."""
    decoder = json.JSONDecoder()
    for block in re.findall(r"^```json\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        text = f"{{{block}}}" if block.startswith('"') else block
        while text := text.strip():
            found, end = decoder.raw_decode(text)
            yield found
            text = text[end:]


@pages
def test_json_is_what_the_schemas_allow(page: Path) -> None:
    noop = {"id": "a", "uses": "core.noop"}
    for found in shown(page):
        if "type" in found:
            name, document = "task", found
        elif "steps" in found:
            name, document = "definition", found
        elif "uses" in found or "switch" in found:
            name, document = "definition", {"id": "w", "version": "1", "steps": [found]}
        elif found.keys() & SCHEMAS["definition"]["properties"].keys():
            name, document = "definition", {"id": "w", "version": "1", "steps": [noop], **found}
        else:
            continue  # an output, as a page shows it
        Draft202012Validator(SCHEMAS[name]).validate(document)


def test_what_operations_quotes_from_the_log_is_what_the_code_says() -> None:
    source = "".join(path.read_text() for path in (ROOT / "wpa").rglob("*.py"))
    quoted = re.findall(
        r"\| (?:worker log: )?`([^`|]*…[^`|]*|is handed[^`]*)`", (ROOT / "docs/operations.md").read_text()
    )
    assert len(quoted) >= 3
    for text in quoted:
        for part in filter(None, (part.strip() for part in re.split(r"…|workflow\.api", text))):
            assert part in source, f"no message says {part!r}"
