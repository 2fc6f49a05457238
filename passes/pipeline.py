"""Pipelines as text: ``canonicalize, prune{ratio=0.5 round-to=8}, verify``."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
import types
import typing
from collections.abc import Iterable

from graphprune.errors import UsageError
from graphprune.passes.base import Pass, passes

__all__ = ["format_pipeline", "make_pass", "parse_pipeline"]


def parse_pipeline(text: str) -> list[Pass]:
    """Return the passes that ``text`` spells, options included.

    Passes are separated by commas; options stand in braces, separated by spaces, as ``name=value``. A bare name sets
    a flag, ``none`` clears an option, commas separate the items of a list, and quotes keep spaces together.

    >>> [step.name for step in parse_pipeline("canonicalize, eliminate-dead-nodes")]
    ['canonicalize', 'eliminate-dead-nodes']

    Raises:
        UsageError: for an unknown pass or option, a value of the wrong type, or unbalanced braces.
    """
    return [_parse_pass(part) for part in _split(text)]


def format_pipeline(steps: Iterable[Pass]) -> str:
    """Return the text that :func:`parse_pipeline` turns back into ``steps``; options at their default are left out."""
    return ", ".join(_format_pass(step) for step in steps)


def make_pass(name: str, options: dict[str, str]) -> Pass:
    """Return the pass called ``name`` with ``options`` converted from text to the types of its fields."""
    known = passes()
    if name not in known:
        raise UsageError(f"there is no pass '{name}'{_suggest(name, known)}: the passes are {', '.join(known)}")
    cls = known[name]
    fields = {field.name.replace("_", "-"): field.name for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    values: dict[str, object] = {}
    for option, text in options.items():
        key = option.replace("_", "-")
        if key not in fields:
            choice = f"its options are {', '.join(fields)}" if fields else "it has no options"
            raise UsageError(f"pass '{name}' has no option '{option}'{_suggest(key, fields)}: {choice}")
        values[fields[key]] = _convert(text, hints[fields[key]], f"option '{key}' of pass '{name}'")
    return cls(**values)


def _split(text: str) -> list[str]:
    """Split at the commas outside braces and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth not in (0, 1):
                raise UsageError(f"braces do not match in the pipeline '{text}': write pass{{option=value ...}}")
        elif character == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += character
    if depth or quote:
        raise UsageError(f"a brace or quote is not closed in the pipeline '{text}'")
    stripped = [part.strip() for part in parts]
    if not all(stripped):
        raise UsageError(f"the pipeline '{text}' has an empty step: separate passes by single commas")
    return stripped


def _parse_pass(text: str) -> Pass:
    name, brace, rest = text.partition("{")
    if brace and not rest.endswith("}"):
        raise UsageError(f"'{text}' goes on after its options: separate passes by commas")
    options: dict[str, str] = {}
    for word in shlex.split(rest.removesuffix("}")):
        option, _, value = word.partition("=")
        if option in options:
            raise UsageError(f"option '{option}' of pass '{name.strip()}' is given twice: keep one")
        options[option] = value if "=" in word else "true"
    return make_pass(name.strip(), options)


def _format_pass(step: Pass) -> str:
    words = []
    for field in dataclasses.fields(step):
        value = getattr(step, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if value != default:
            words.append(f"{field.name.replace('_', '-')}={shlex.quote(_format(value))}")
    return f"{step.name}{{{' '.join(words)}}}" if words else step.name


def _format(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _suggest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _convert(text: str, annotation: object, what: str) -> object:
    """Convert an option's text to the type of its field."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        choices = typing.get_args(annotation)
        if type(None) in choices and text.lower() == "none":
            return None
        errors: list[UsageError] = []
        for choice in choices:
            if choice is not type(None):
                try:
                    return _convert(text, choice, what)
                except UsageError as error:
                    errors.append(error)
        raise errors[0]
    if origin is typing.Literal:
        allowed = [str(choice) for choice in typing.get_args(annotation)]
        if text not in allowed:
            raise UsageError(f"{what} is '{text}'{_suggest(text, allowed)}: choose one of {', '.join(allowed)}")
        return text
    if origin is tuple:
        item = typing.get_args(annotation)[0]
        return tuple(_convert(part.strip(), item, what) for part in text.split(",") if part.strip())
    if annotation is bool:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"{what} is '{text}': write true or false")
        return text.lower() == "true"
    if annotation is str:
        return text
    if annotation in (int, float):
        try:
            return int(text) if annotation is int else float(text)
        except ValueError:
            kind = "a whole number" if annotation is int else "a number"
            raise UsageError(f"{what} is '{text}': write {kind}") from None
    raise TypeError(f"{what} has the type {annotation}, which no text can give")
