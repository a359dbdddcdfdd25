"""JSON Schema (draft 7, as AsyncAPI 3.0 has it) of message dataclasses: types, enumerations, bounds, and what is meant.

The text of a field is the comment beside it, the text of a message its docstring: there is no second place to keep.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import tokenize
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Schema = dict[str, Any]
_PLAIN: dict[type[Any], Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
}


class Schemas:
    """Of the dataclasses asked for and of those in them, by name: `components/schemas` of a document."""

    def __init__(self, bounds: dict[str, dict[str, Schema]], open_ended: frozenset[str]) -> None:
        """`bounds`: dataclass → field → what its type does not say. `open_ended`: they may bring more keys."""
        self.made: dict[str, Schema] = {}
        self._bounds, self._open_ended = bounds, open_ended

    def refer(self, cls: type[Any]) -> Schema:
        """A reference to the dataclass's schema, which is there from now on."""
        if cls.__name__ not in self.made:
            self.made[cls.__name__] = {}  # a dataclass may have itself in it
            self.made[cls.__name__] = self._describe(cls)
        return {"$ref": f"#/components/schemas/{cls.__name__}"}

    def _describe(self, cls: type[Any]) -> Schema:
        hints, texts, bounds = get_type_hints(cls), field_texts(cls), self._bounds.get(cls.__name__, {})
        properties = {
            field.name: _explain(
                self._of(hints[field.name]) | bounds.get(field.name, {}), texts.get(field.name, ""), field.default
            )
            for field in dataclasses.fields(cls)
        }
        described: Schema = {"type": "object", "title": cls.__name__}
        if class_text(cls):
            described["description"] = class_text(cls)
        return described | {
            "properties": properties,
            "required": [field.name for field in dataclasses.fields(cls) if _is_required(field)],
            "additionalProperties": cls.__name__ in self._open_ended,
        }

    def _of(self, hint: Any) -> Schema:
        origin = get_origin(hint)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self.refer(hint)
        if origin in (Union, types.UnionType):
            return {"anyOf": [{"type": "null"} if one is type(None) else self._of(one) for one in get_args(hint)]}
        if origin is Literal:
            return {"type": "string", "enum": list(get_args(hint))}
        if origin is dict:
            return {"type": "object", "additionalProperties": self._of(get_args(hint)[1])}
        if origin is tuple:
            return {"type": "array", "items": self._of(get_args(hint)[0])}
        return dict(_PLAIN[hint])


def _explain(schema: Schema, text: str, default: object) -> Schema:
    if text:
        # draft 7 reads nothing beside a reference
        schema = ({"allOf": [schema]} if "$ref" in schema else schema) | {"description": text}
    if default is not dataclasses.MISSING and "$ref" not in schema:
        schema |= {"default": default}
    return schema


def class_text(cls: type[Any]) -> str:
    """The docstring, on one line; empty for the one that `dataclass` makes."""
    text = inspect.getdoc(cls) or ""
    return "" if text.startswith(f"{cls.__name__}(") else " ".join(text.split())


def field_texts(cls: type[Any]) -> dict[str, str]:
    """The comment behind each field, inherited ones included."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= _comments(inspect.getsource(base))
    return {field.name: texts[field.name] for field in dataclasses.fields(cls) if field.name in texts}


def _comments(source: str) -> dict[str, str]:
    """Of lines such as `name: type  # comment`."""
    found: dict[str, str] = {}
    line: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and len(line) > 2 and line[1].string == ":":
            found[line[0].string] = token.string.lstrip("# ")
        if token.type in (tokenize.NEWLINE, tokenize.NL):
            line = []
        elif token.type not in (tokenize.INDENT, tokenize.DEDENT):
            line.append(token)
    return found


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
