"""JSON, nearly JSON, and what every reader must decide for itself: values, and what wpa makes of each.

By the grammar of RFC 8259: what must be read, what must be refused, and what is left to the reader, for which
our own answer is written down here. Each text is that of one value.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

__all__ = ["CASES", "Case", "as_input"]

NOT_JSON: Final = "not_json"
TOO_MUCH: Final = "over_limit"
NO_NUMBER: Final = "bad_number"


class Case(NamedTuple):
    """A text, and what becomes of it as a task's input: ``code`` why it is refused; empty: it is ``value``."""

    name: str
    text: bytes
    code: str = ""
    value: Any = None


def _read(*cases: tuple[str, bytes | str, Any]) -> list[Case]:
    return [Case(name, _bytes(text), value=value) for name, text, value in cases]


def _refused(*cases: tuple[str, bytes | str], code: str = NOT_JSON) -> list[Case]:
    return [Case(name, _bytes(text), code=code) for name, text in cases]


def _bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _nested(depth: int, opening: bytes, closing: bytes, middle: bytes = b"1") -> bytes:
    return opening * depth + middle + closing * depth


def _deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


MUST_READ: Final = [
    *_read(
        ("null", "null", None),
        ("true", "true", True),
        ("false", "false", False),
        ("an empty string", '""', ""),
        ("an empty list", "[]", []),
        ("an empty object", "{}", {}),
        ("an empty key", '{"": 1}', {"": 1}),
        ("all white space", " \t\r\n[ \t\r\n1 \t\r\n, \t\r\n2 \t\r\n] \t\r\n", [1, 2]),
        ("no white space", '{"a":[1,{"b":null}]}', {"a": [1, {"b": None}]}),
        ("mixed lists", '[null, 1, "1", {"a": []}, [true]]', [None, 1, "1", {"a": []}, [True]]),
    ),
    *_read(
        ("zero", "0", 0),
        ("a negative number", "-123", -123),
        ("a fraction", "0.5", 0.5),
        ("exponents", "[1e2, 1E2, 1e+2, 1E-2, 0e0]", [100.0, 100.0, 100.0, 0.01, 0.0]),
        ("many digits after the point", "0." + "1" * 400, 0.1111111111111111),
        ("the largest double", "1.7976931348623157e308", 1.7976931348623157e308),
        ("the smallest double", "5e-324", 5e-324),
        ("an integer past doubles", "9007199254740993", 9007199254740993),
        ("the largest integer", "9223372036854775807", 2**63 - 1),
        ("the least integer", "-9223372036854775808", -(2**63)),
    ),
    *_read(
        ("every short escape", r'"\" \\ \/ \b \f \n \r \t"', '" \\ / \b \f \n \r \t'),
        ("an escaped NUL", r'"a\u0000b"', "a\0b"),
        ("a pair of surrogates", r'"\ud83d\ude00"', "😀"),
        ("hexadecimal in both cases", r'"\u00E9\u00e9"', "éé"),
        ("an escaped key", r'{"\u0061": 1}', {"a": 1}),
        ("characters of four bytes", '"😀𝄞"', "😀𝄞"),
        ("characters that are none", '"\ufffe\uffff\U0010ffff"', "\ufffe\uffff\U0010ffff"),
        ("line separators", '"\u2028\u2029"', "\u2028\u2029"),
        ("a delete character", '"\x7f"', "\x7f"),
        ("a byte order mark within a string", '"\ufeff"', "\ufeff"),
        ("text from right to left", '"\u202eabc"', "\u202eabc"),
        ("brackets and comments in a string", r'"[{/* // ]} \\"', "[{/* // ]} \\"),
        ("a long string", '"' + "x" * 1_000_000 + '"', "x" * 1_000_000),
        ("a long string of escapes", '"' + r"\n" * 200_000 + '"', "\n" * 200_000),
        ("keys of other languages' objects", '{"__proto__": 1, "constructor": 2}', {"__proto__": 1, "constructor": 2}),
    ),
    *_read(
        ("100,000 keys", "{" + ",".join(f'"k{n}":{n}' for n in range(100_000)) + "}", {f"k{n}": n for n in range(100_000)}),
        ("100,000 items", "[" + "1," * 99_999 + "1]", [1] * 100_000),
        ("many lists side by side", "[" + "[]," * 9_999 + "[]]", [[] for _ in range(10_000)]),
        ("as deep as is allowed", _nested(62, b"[", b"]"), _deep(62)),
    ),
]  # fmt: skip

MUST_REFUSE: Final = [
    *_refused(
        ("nothing", ""),
        ("white space", " \n\t "),
        ("a form feed as white space", "\f1"),
        ("a no-break space as white space", "\u00a01"),
        ("a byte order mark", b"\xef\xbb\xbf1"),
        ("UTF-16", "[1]".encode("utf-16")),
        ("UTF-32", "[1]".encode("utf-32")),
    ),
    *_refused(
        ("two values", "1 2"),
        ("a value and a comma", "1,"),
        ("a value and a brace", "{}}"),
        ("a value and a NUL", b"1\0"),
        ("a comma at the end of a list", "[1,]"),
        ("a comma at the end of an object", '{"a": 1,}'),
        ("a comma at the beginning", "[,1]"),
        ("two commas", "[1,,2]"),
        ("no comma", "[1 2]"),
        ("a colon in a list", "[1:2]"),
        ("a key without quotes", "{a: 1}"),
        ("a number as key", "{1: 1}"),
        ("null as key", "{null: 1}"),
        ("a key without value", '{"a"}'),
        ("a colon without value", '{"a":}'),
        ("a value without key", "{: 1}"),
        ("two colons", '{"a":: 1}'),
        ("a list that is closed by a brace", "[1}"),
        ("an object that is closed by a bracket", '{"a": 1]'),
        ("only a bracket", "["),
        ("only a closing bracket", "]"),
        ("a list that is cut short", "[1, 2"),
        ("an object that is cut short", '{"a": 1'),
        ("a word that is cut short", "tru"),
        ("a word in capitals", "True"),
        ("None", "None"),
        ("undefined", "undefined"),
        ("a word and more", "nullx"),
        ("a comment", "1 // one"),
        ("a comment in C", "/* one */ 1"),
        ("a comment in Python", "# one\n1"),
    ),
    *_refused(
        ("NaN", "NaN"),
        ("Infinity", "[Infinity]"),
        ("minus Infinity", "-Infinity"),
        ("inf", "inf"),
        ("a plus sign", "+1"),
        ("two minus signs", "--1"),
        ("only a minus sign", "-"),
        ("a leading zero", "01"),
        ("a leading zero after a minus sign", "-01"),
        ("a point without digits before it", ".5"),
        ("a point without digits behind it", "1."),
        ("an exponent without digits", "1e"),
        ("an exponent with a sign only", "1e+"),
        ("an exponent with a fraction", "1e1.5"),
        ("hexadecimal", "0x10"),
        ("octal", "0o17"),
        ("digits of another script", "\u0661"),
        ("digits of full width", "\uff11"),
        ("a number with separators", "1_000"),
        ("a number with commas and points", "1.2.3"),
    ),
    *_refused(
        ("single quotes", "'a'"),
        ("a string that is cut short", '"abc'),
        ("a string that ends in a backslash", '"abc\\'),
        ("an escaped end", '"abc\\"'),
        ("an unknown escape", r'"\x41"'),
        ("an escaped quote of the other kind", r'"\'"'),
        ("an escape that is cut short", r'"\u00"'),
        ("an escape that is no hexadecimal", r'"\u00zz"'),
        ("a line end in a string", '"a\nb"'),
        ("a tab in a string", '"a\tb"'),
        ("a NUL in a string", b'"a\0b"'),
        ("a byte that begins nothing", b'"\xff"'),
        ("a byte that goes on with nothing", b'"\x80"'),
        ("a character that is cut short", b'"\xe2\x82"'),
        ("an overlong slash", b'"\xc0\xaf"'),
        ("an overlong NUL", b'"\xc0\x80"'),
        ("a surrogate in UTF-8", b'"\xed\xa0\x80"'),
        ("past the end of Unicode", b'"\xf4\x90\x80\x80"'),
        ("Latin-1", '"é"'.encode("latin-1")),
        ("bad bytes in a key", b'{"\xff": 1}'),
        ("bad bytes outside of strings", b"[1, \xff]"),
    ),
]  # fmt: skip

FOR_THE_READER_TO_DECIDE: Final = [
    *_read(
        ("minus zero", "-0", 0),
        ("minus zero as a fraction", "-0.0", -0.0),
        ("a number too small for a double", "1e-400", 0.0),
        ("a number between doubles", "0.1000000000000000055511151231257827", 0.1),
        ("a key that comes twice", '{"a": 1, "a": 2}', {"a": 2}),
        ("a key that comes twice, once escaped", r'{"a": 1, "\u0061": 2}', {"a": 2}),
        ("letters that only look alike", '{"é": 1, "e\u0301": 2}', {"é": 1, "e\u0301": 2}),
    ),
    *_refused(
        ("a number too large for a double", "1e400"),
        ("a negative one", "-1e400"),
        ("a huge exponent", "1e99999999999999999999"),
        ("an integer of more than 64 bits", "9223372036854775808"),
        ("a negative one of more than 64 bits", "-9223372036854775809"),
        ("an integer of 400 digits", "1" * 400),
        ("an integer of 100,000 digits", "1" * 100_000),
        code=NO_NUMBER,
    ),
    *_refused(
        ("half a pair of surrogates", r'"\ud800"'),
        ("the other half", r'"\udc00"'),
        ("the halves in the wrong order", r'"\ude00\ud83d"'),
        ("half a pair, and a letter", r'"\ud800a"'),
        ("half a pair as a key", r'{"\udfff": 1}'),
    ),
    *_refused(
        ("a level too deep", _nested(63, b"[", b"]")),
        ("lists 100,000 deep", _nested(100_000, b"[", b"]")),
        ("objects 100,000 deep", _nested(100_000, b'{"a":', b"}")),
        ("lists that are never closed", b"[" * 100_000),
        ("objects that are never closed", b'{"a":' * 100_000),
        ("lists and objects in turns", _nested(50_000, b'[{"a":', b"}]")),
        ("a string past the limit", '"' + "x" * 4_200_000 + '"'),
        ("white space past the limit", " " * 4_200_000 + "1"),
        code=TOO_MUCH,
    ),
]

CASES: Final = [*MUST_READ, *MUST_REFUSE, *FOR_THE_READER_TO_DECIDE]


def as_input(text: bytes, workflow: str = "order") -> bytes:
    """A start whose input is the text, whatever that is."""
    return b'{"type": "workflow_start", "workflow_id": "%s", "payload": {"input_data": %s}}' % (
        workflow.encode(),
        text,
    )
