"""A flow's code, looked at but not run: its hash, and what it imports where it may not."""

from __future__ import annotations

import dis
import hashlib
import inspect
import re
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, Final

__all__ = ["code_hash", "imports"]

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


def code_hash(fn: Callable[..., Any]) -> str:
    """The hash of what a function does: its bytecode, names and constants, nested functions, and defaults.

    It is the same in each process that has the same code under the same minor version of Python, and does
    not depend on line numbers or file names. Helper functions elsewhere in the module don't count.
    """
    digest = hashlib.sha256()
    for part in _parts(fn.__code__):
        digest.update(part)
        digest.update(b"\0")
    for name, parameter in inspect.signature(fn).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            digest.update(f"{name}={_ADDRESS.sub('', repr(parameter.default))}\0".encode())
    return digest.hexdigest()


def _parts(code: CodeType) -> Iterator[bytes]:
    yield code.co_name.encode()
    yield code.co_code
    yield code.co_exceptiontable
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)).encode()
    yield repr((code.co_argcount, code.co_kwonlyargcount, code.co_flags)).encode()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
        elif isinstance(constant, frozenset):
            # Sets of strings have another order in each process.
            yield repr(sorted(map(repr, constant))).encode()
        else:
            yield repr(constant).encode()


def imports(code: CodeType) -> Iterator[tuple[int, str]]:
    """The modules imported in the body of a function and of the functions in it, with the lines."""
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        if instruction.starts_line is not None:
            line = getattr(instruction, "line_number", None) or instruction.starts_line
        if instruction.opname == "IMPORT_NAME":
            yield line, str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from imports(constant)
