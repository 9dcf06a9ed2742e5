"""What all commands share: options, the client, and how errors are shown."""

from __future__ import annotations

import asyncio
import getpass
import json
import math
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from wpa.errors import DefinitionError, PlatformError, Problem, TaskRejected, Unavailable, WpaError
from wpa.model.ids import DEFAULT_TENANT

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_FAILED",
    "EXIT_UNAVAILABLE",
    "AsJson",
    "AsUser",
    "NatsUrl",
    "Tenant",
    "console",
    "err",
    "find_url",
    "json_text",
    "login_name",
    "load_json",
    "looking",
    "make_console",
    "plain",
    "print_json",
    "print_problems",
    "read_json",
    "requester",
    "run_async",
    "run_client",
    "shown",
]

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_UNAVAILABLE = 3

URL_FILE = "wpa.json"
USUAL_URL = "nats://127.0.0.1:4222"

T = TypeVar("T")

PIPE_COLUMNS = 1_000
"""Into a pipe or a file nothing is cut: a program, or a grep, needs the whole id."""

CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
CONTROLS |= dict.fromkeys(range(127, 160), 65533)
JSON_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""What JSON allows as it is, in strings, and a terminal may obey."""


def make_console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal, or as COLUMNS says; as wide as need be where there is neither."""
    console = Console(stderr=stderr, emoji=False)
    # Some who run programs say COLUMNS=0 for "not known": in no columns, nothing would be shown.
    if console.width < 1 or (not console.is_terminal and "COLUMNS" not in os.environ):
        console.width = PIPE_COLUMNS
    return console


console = make_console()
err = make_console(stderr=True)

NatsUrl = Annotated[
    str,
    typer.Option("--nats", envvar="WPA_NATS_URL", help="URL of the NATS server, e.g. nats://127.0.0.1:4222"),
]
Tenant = Annotated[str, typer.Option("--tenant", envvar="WPA_TENANT", help="the tenant to speak for")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
AsUser = Annotated[
    str, typer.Option("--as", "--user", envvar="WPA_USER", help="who asks; by default, who is logged in")
]


def login_name() -> str:
    """Who is logged in; empty where the system can't say."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def requester(user: str) -> dict[str, str]:
    """The metadata of what is asked from here."""
    return {"source": "cli", "user_id": user or login_name()}


def plain(text: str) -> str:
    """Text from outside, for a terminal: control characters are shown, never sent.

    What a stranger published (a dead letter, an error message) must not move the cursor, set the
    window's title or hide what it says.
    """
    return text.translate(CONTROLS)


def shown(text: str) -> str:
    """Text from outside, where rich reads markup."""
    return escape(plain(text))


def find_url(given: str) -> str:
    """The server to talk to: the one given, or the ``wpa dev`` of this folder, or the usual port."""
    if given:
        return given
    data_dir = Path(os.environ.get("WPA_DATA_DIR", ".wpa"))
    try:
        found = json.loads((data_dir / URL_FILE).read_text())
        url, pid = str(found["url"]), int(found["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return USUAL_URL
    # One that was killed leaves its file behind.
    return url if _lives(pid) else USUAL_URL


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # somebody else's
    except (OSError, OverflowError):
        return False
    return True


def run_client(
    url: str, tenant: str, main: Callable[[Any], Awaitable[T]], *, letters_only: bool = False
) -> T:
    """Run ``main(client)``; errors become a message and an exit code."""
    from wpa.client import Client

    async def session() -> T:
        creds = os.environ.get("WPA_NATS_CREDS")
        async with await Client.connect(
            find_url(url),
            tenant or DEFAULT_TENANT,
            creds=Path(creds) if creds else None,
            letters_only=letters_only,
        ) as client:
            return await main(client)

    return run_async(session())


@contextmanager
def looking() -> Iterator[Callable[[int], None]]:
    """Tell a person at the terminal how many executions have been looked at, where it takes its time."""
    spinner = err.status("")

    def looked(executions: int) -> None:
        if err.is_terminal:
            spinner.update(f"{executions:,} executions looked at")
            spinner.start()

    try:
        yield looked
    finally:
        spinner.stop()


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; errors become a message and an exit code."""
    try:
        return asyncio.run(main)
    except WpaError as error:
        fail(error)
    except UnicodeEncodeError as error:
        part = error.object[error.start : error.end]
        text = f"[red]not Unicode:[/] {shown(ascii(error.object[:60]))} has {shown(ascii(part))}"
        err.print(f"{text}, which is no character; what is sent must be UTF-8", soft_wrap=True)
        raise typer.Exit(EXIT_BAD_INPUT) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(error: WpaError) -> NoReturn:
    """Show an error as a user wants to read it, and leave with its exit code."""
    if isinstance(error, DefinitionError):
        print_problems(error.problems)
        raise typer.Exit(EXIT_BAD_INPUT)
    if isinstance(error, Unavailable):
        err.print(f"[red]unavailable:[/] {shown(str(error))}", soft_wrap=True)
        raise typer.Exit(EXIT_UNAVAILABLE)
    if isinstance(error, TaskRejected):
        err.print(f"[red]{shown(error.code)}:[/] {shown(error.message)}", soft_wrap=True)
        if len(error.problems) > 1:
            print_problems(error.problems)
        raise typer.Exit(EXIT_BAD_INPUT)
    err.print(f"[red]error:[/] {shown(str(error))}", soft_wrap=True)
    raise typer.Exit(EXIT_UNAVAILABLE if isinstance(error, PlatformError) else EXIT_FAILED)


def print_problems(problems: list[Problem], title: str = "") -> None:
    """All problems, each with its path and hint."""
    if title:
        err.print(title, soft_wrap=True)
    for problem in problems:
        hint = f"  [dim]{shown(problem.hint)}[/]" if problem.hint else ""
        err.print(f"  [cyan]{shown(problem.path)}[/]  {shown(problem.message)}{hint}", soft_wrap=True)
    err.print(f"[red]{len(problems)} problem{'s' if len(problems) != 1 else ''}[/]")


def read_json(text: str, what: str) -> Any:
    """JSON given as text, as ``@file``, or as ``-`` for standard input; leaves where it is none."""
    try:
        if text == "-":
            return load_json(sys.stdin.read())
        if text.startswith("@"):
            return load_json(Path(text[1:]).read_text(encoding="utf-8"))
        return load_json(text)
    except OSError as error:
        err.print(f"[red]{what}:[/] {shown(text[1:])} can't be read: {error.strerror}", soft_wrap=True)
    except RecursionError:
        err.print(f"[red]{what}:[/] nested too deeply", soft_wrap=True)
    except ValueError as error:
        err.print(f"[red]{what}:[/] not JSON: {shown(str(error))}", soft_wrap=True)
    raise typer.Exit(EXIT_BAD_INPUT)


def load_json(text: str) -> Any:
    """What ``text`` says as JSON. Raises ValueError, RecursionError.

    Python reads NaN and Infinity, and 1e400 as infinity, and the encoder would send null instead.
    """
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; send null or a string")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text} is more than a number can be; send a string")
    return number


def print_json(value: Any) -> None:
    """JSON for programs: no colours, no wrapping."""
    typer.echo(json_text(value, indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that people can read and that no terminal takes for commands."""
    return json.dumps(value, indent=indent, ensure_ascii=False).translate(JSON_CONTROLS)
