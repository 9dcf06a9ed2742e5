"""The keywords of JSON Schema, each at a price: what evaluating it costs is counted, and bounded.

A step is about ten microseconds. The library's own evaluation of a keyword takes one, and more where it goes
over much: many members, a long enumeration, a large value that is shown in an error. What would not end in
a time to be foreseen is done here instead: patterns are matched in linear time (:mod:`wpa.plan.patterns`,
wherever a keyword meets one), equal items are found by hashing, and what other keywords have looked at is
gathered in sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from wpa.plan.pattern_price import price
from wpa.plan.patterns import found

__all__ = ["STEPS_MAX", "Effort", "Keyword", "TooMuch", "own_keywords"]

STEPS_MAX: Final = 500_000
"""So many steps are taken to hold data against a schema; some seconds' work."""
REFERENCE_STEPS: Final = 5
"""What following a reference costs, beside evaluating a keyword."""
PER_STEP: Final = 20
"""So many members or values are gone over in a step."""
SCHEMAS_PER_STEP: Final = 4
"""So many schemas are tried in a step, beside what their keywords cost."""
SHOWN_PER_STEP: Final = 50
"""So much of a value is shown in an error in a step: in time it were more, but the texts are kept, too."""
CHARS: Final = 10
"""So many characters count as one value."""

Keyword = Callable[[Any, Any, Any, Any], Any]
"""(validator, the keyword's value, instance, schema) -> errors, or None."""


class TooMuch(Exception):
    """More work than a worker does for one document."""


class Effort:
    """Counts the work on one document. All is done on one thread, from the first step to the last."""

    def __init__(self) -> None:
        self._steps = 0
        self._sizes: dict[int, int] = {}
        """By the identity of what is a part of the document or of its schema: they live as long."""
        self._schema: Any = None

    def begin(self, schema: Any) -> None:
        """Begin with the next document, which is held against ``schema``."""
        self._steps = 0
        self._sizes.clear()
        self._schema = schema

    def spend(self, steps: int) -> None:
        """Raises TooMuch where these are too many."""
        self._steps += steps
        if self._steps > STEPS_MAX:
            raise TooMuch

    def size(self, value: Any) -> int:
        """How many values it holds, all the way down; texts count by their length."""
        if isinstance(value, str):
            return 1 + len(value) // CHARS
        if not isinstance(value, list | dict):
            return 1
        known = self._sizes.get(id(value))
        if known is None:
            members = value.values() if isinstance(value, dict) else value
            keys = sum(map(len, value)) // CHARS if isinstance(value, dict) else 0
            known = 1 + keys + sum(map(self.size, members))
            if known > SHOWN_PER_STEP:  # there may be a million small ones
                self._sizes[id(value)] = known
        return known

    def found(self, pattern: str, text: str) -> bool:
        """Whether ``pattern`` matches somewhere in ``text``. Raises PatternError."""
        self.spend(price(pattern, len(text)))
        return found(pattern, text)

    def counted(self, name: str, keyword: Keyword) -> Keyword:
        """The keyword, at its price."""

        def evaluate(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            self.spend(self._price(name, value, instance))
            for error in keyword(validator, value, instance, schema) or ():
                if not getattr(error, "is_counted", False):  # it may come through many schemas
                    error.is_counted = True
                    self.spend((self.size(instance) + self.size(value)) // SHOWN_PER_STEP)
                yield error

        return evaluate

    def reference_price(self, target: str) -> int:
        """What following a reference costs."""
        if target == "#" or target.startswith("#/"):
            return REFERENCE_STEPS + target.count("/")
        # A name is looked for all over the schema, each time.
        return REFERENCE_STEPS + self.size(self._schema) // 2

    def _price(self, name: str, value: Any, instance: Any) -> int:
        if name in ("$ref", "$dynamicRef"):
            return self.reference_price(value)
        if name in ("allOf", "anyOf", "oneOf"):
            return 1 + len(value) // SCHEMAS_PER_STEP
        if name in ("const", "enum", "dependentRequired"):
            gone_over = self.size(value) if isinstance(instance, list | dict | str) else len(_list(value))
        elif name == "uniqueItems":
            gone_over = self.size(instance)
        else:
            gone_over = len(_list(value)) + len(_list(instance))
        return 1 + gone_over // PER_STEP


def _list(value: Any) -> Any:
    """What has members; anything else has none."""
    return value if isinstance(value, list | dict) else ()


def own_keywords(effort: Effort) -> dict[str, Keyword]:
    """Those that take the place of the library's, by name."""
    own = _Own(effort)
    return {
        "pattern": own.pattern,
        "patternProperties": own.pattern_properties,
        "additionalProperties": own.additional_properties,
        "unevaluatedProperties": own.unevaluated_properties,
        "unevaluatedItems": own.unevaluated_items,
        "uniqueItems": own.unique_items,
    }


class _Own:
    """Keywords that are done in another way than the library does them; they mean the same."""

    def __init__(self, effort: Effort) -> None:
        self._effort = effort

    def pattern(self, validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, str) and not self._effort.found(pattern, instance):
            yield _error(f"{instance[:200]!r} does not match {pattern!r}")

    def pattern_properties(
        self, validator: Any, patterns: dict[str, Any], instance: Any, schema: Any
    ) -> Iterator[Any]:
        if not isinstance(instance, dict):
            return
        for pattern, inner in patterns.items():
            for key, value in instance.items():
                if self._effort.found(pattern, key):
                    yield from validator.descend(value, inner, path=key, schema_path=pattern)

    def additional_properties(self, validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if not isinstance(instance, dict):
            return
        named = self._named(instance, schema)
        extras = [key for key in instance if key not in named]
        if wanted is not False:
            for key in extras:
                yield from validator.descend(instance[key], wanted, path=key)
        elif extras:
            yield _unexpected("Additional properties", sorted(extras))

    def unevaluated_properties(
        self, validator: Any, wanted: Any, instance: Any, schema: Any
    ) -> Iterator[Any]:
        if isinstance(instance, dict):
            looked_at = self._looked_at(validator, instance, schema, "unevaluatedProperties")
            left = [key for key in instance if key not in looked_at]
            wrong = [key for key in left if not _fits(validator, wanted, instance[key])]
            if wrong:
                yield _unexpected("Unevaluated properties", sorted(wrong))

    def unevaluated_items(self, validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, list):
            looked_at = self._looked_at(validator, instance, schema, "unevaluatedItems")
            left = [item for index, item in enumerate(instance) if index not in looked_at]
            wrong = [item for item in left if not _fits(validator, wanted, item)]
            if wrong:
                yield _unexpected("Unevaluated items", wrong)

    def unique_items(self, validator: Any, wanted: bool, instance: Any, schema: Any) -> Iterator[Any]:
        if wanted and isinstance(instance, list) and len(set(map(_text, instance))) < len(instance):
            yield _error("the items are not unique")

    # -- what was looked at ------------------------------------------------------------------

    def _named(self, instance: dict[str, Any], schema: dict[str, Any]) -> set[str]:
        """The properties that ``properties`` and ``patternProperties`` of a schema speak of."""
        named = set(schema.get("properties", {}).keys() & instance.keys())
        for pattern in schema.get("patternProperties", {}):
            named |= {key for key in instance if key not in named and self._effort.found(pattern, key)}
        return named

    def _looked_at(self, validator: Any, instance: Any, schema: Any, but: str = "") -> set[Any]:
        """The names of the properties, or the indexes of the items, that a schema has an opinion on.

        Args:
            validator: of the schema.
            instance: an object or an array.
            schema: one that the instance fits, or that has said already that it doesn't.
            but: a keyword that doesn't count.
        """
        if isinstance(schema, bool):
            return set()
        self._effort.spend(1 + len(instance) // PER_STEP)
        rest = ("additionalProperties", "unevaluatedProperties")
        if isinstance(instance, list):
            rest = ("items", "unevaluatedItems")
        if any(word in schema and word != but for word in rest):
            return set(instance) if isinstance(instance, dict) else set(range(len(instance)))
        if isinstance(instance, dict):
            looked_at: set[Any] = set(self._named(instance, schema))
        else:
            looked_at = set(range(len(schema.get("prefixItems", ()))))
            if "contains" in schema:
                wanted = schema["contains"]
                looked_at |= {n for n, item in enumerate(instance) if _fits(validator, wanted, item)}
        for inner_validator, inner in self._in_place(validator, instance, schema):
            looked_at |= self._looked_at(inner_validator, instance, inner)
        return looked_at

    def _in_place(self, validator: Any, instance: Any, schema: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
        """The schemas within a schema that are held against the same instance, as far as it fits them."""
        for word in ("$ref", "$dynamicRef"):
            if word in schema:
                self._effort.spend(self._effort.reference_price(schema[word]))
                resolved = validator._resolver.lookup(schema[word])  # noqa: SLF001
                inner = validator.evolve(schema=resolved.contents, _resolver=resolved.resolver)
                yield inner, resolved.contents
        if isinstance(instance, dict):
            for key, inner in schema.get("dependentSchemas", {}).items():
                if key in instance:
                    yield validator, inner
        for word in ("allOf", "anyOf", "oneOf"):
            for inner in schema.get(word, ()):
                if _fits(validator, inner, instance):
                    yield validator, inner
        if "if" in schema:
            fits = _fits(validator, schema["if"], instance)
            if fits:
                yield validator, schema["if"]
            branch = "then" if fits else "else"
            if branch in schema:
                yield validator, schema[branch]


def _fits(validator: Any, schema: Any, instance: Any) -> bool:
    return next(validator.descend(instance, schema), None) is None


def _error(message: str) -> Exception:
    import jsonschema

    return jsonschema.ValidationError(message)


def _unexpected(what: str, which: list[Any]) -> Exception:
    verb = "was" if len(which) == 1 else "were"
    return _error(f"{what} are not allowed ({', '.join(map(repr, which))} {verb} unexpected)")


def _text(value: Any) -> str:
    """The same for what JSON Schema calls equal: 1 and 1.0 are, 1 and true are not.

    A text, since it is hashed: numbers can be chosen so that many of them have one hash, texts can't.
    """
    if isinstance(value, float) and value.is_integer():
        return repr(int(value))
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key!r}:{_text(value[key])}' for key in sorted(value))}}}"
    return repr(value)
