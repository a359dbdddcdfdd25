"""Build frozen dataclasses from parsed JSON or TOML, refusing everything that does not fit.

One mechanism serves configuration, manifests and messages:

>>> @dataclass(frozen=True)
... class Gate:
...     distance_mm: float
...     kind: Literal["dry", "gpio"] = "dry"
>>> build(Gate, {"distance_mm": 300})
Gate(distance_mm=300.0, kind='dry')
>>> build(Gate, {"distance_mm": 300, "speed": 1})
Traceback (most recent call last):
protocol.strict.FieldError: speed: unknown key; known keys are distance_mm, kind
"""

from __future__ import annotations

import dataclasses
import math
import types
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class FieldError(ValueError):
    """A key does not fit its dataclass. `key` is its dotted path, `problem` what is wrong with it."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}" if key else problem)
        self.key = key
        self.problem = problem

    def under(self, parent: str) -> FieldError:
        return FieldError(f"{parent}.{self.key}" if self.key else parent, self.problem)


def require(condition: bool, key: str, problem: str) -> None:
    """For `__post_init__`: refuse a value that its type allows but the world does not."""
    if not condition:
        raise FieldError(key, problem)


def build(cls: type[T], mapping: object) -> T:
    """The dataclass `cls` from a mapping of its field names.

    Raises: FieldError for unknown or missing keys, wrong types, non-finite numbers and what `__post_init__` refuses.
    """
    if not isinstance(mapping, dict):
        raise FieldError("", f"must be a table of keys, not {_type_name(mapping)}")
    hints, defaults = _fields(cls)  # type: ignore[arg-type]
    for key in mapping:
        if key not in hints:
            raise FieldError(_shown(key), f"unknown key; known keys are {', '.join(hints)}")
    for key in hints:
        if key not in mapping and key not in defaults:
            raise FieldError(key, "missing")
    values = {key: _convert_field(hints[key], value, key) for key, value in mapping.items()}
    return cls(**values)


@cache
def _fields(cls: type[Any]) -> tuple[dict[str, Any], frozenset[str]]:
    hints = get_type_hints(cls)
    fields = dataclasses.fields(cls)
    optional = frozenset(
        field.name
        for field in fields
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    )
    return {field.name: hints[field.name] for field in fields}, optional


def _convert_field(hint: Any, value: object, key: str) -> Any:
    try:
        return _convert(hint, value)
    except FieldError as error:
        raise error.under(key) from None


def _convert(hint: Any, value: object) -> Any:
    if dataclasses.is_dataclass(hint):
        return build(hint, value)  # type: ignore[arg-type]
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_optional(get_args(hint), value)
    if origin is Literal:
        return _convert_choice(get_args(hint), value)
    if origin is tuple:
        return _convert_tuple(get_args(hint), value)
    if origin is dict:
        return _convert_dict(get_args(hint)[1], value)
    return _convert_plain(hint, value)


def _convert_optional(options: tuple[Any, ...], value: object) -> Any:
    if value is None and type(None) in options:
        return None
    (hint,) = (option for option in options if option is not type(None))
    return _convert(hint, value)


def _convert_choice(choices: tuple[Any, ...], value: object) -> Any:
    if value not in choices:
        raise FieldError("", f"must be one of {', '.join(map(repr, choices))}, not {value!r:.80}")
    return value


def _convert_tuple(hints: tuple[Any, ...], value: object) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise FieldError("", f"must be a list, not {_type_name(value)}")
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(hints) != len(value):
        raise FieldError("", f"must have {len(hints)} values, not {len(value)}")
    return tuple(_convert_field(hint, item, str(i)) for i, (hint, item) in enumerate(zip(hints, value, strict=True)))


def _convert_dict(hint: Any, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FieldError("", f"must be a table of keys, not {_type_name(value)}")
    return {str(key): _convert_field(hint, item, _shown(key)) for key, item in value.items()}


def _convert_plain(hint: Any, value: object) -> Any:
    if hint is Path and isinstance(value, str):
        require("\0" not in value, "", "must be a path without zero bytes")
        return Path(value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _finite(value)
    # subtle: bool is an int to Python, but `port = true` is a mistake
    if type(value) is hint:
        return value
    raise FieldError("", f"must be {_HINT_NAMES.get(hint, str(hint))}, not {_type_name(value)}")


def _finite(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise FieldError("", "must be a finite number")
    return number


_HINT_NAMES = {float: "a number", int: "a whole number", str: "text", bool: "true or false", Path: "a path"}


def _shown(key: object) -> str:
    """A key from outside as part of a one-line message."""
    text = str(key)
    return text if text.isprintable() and len(text) <= 80 else f"{text!r:.80}"


def _type_name(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    return _HINT_NAMES.get(type(value), type(value).__name__)
