"""Options of a criterion as text: ``reduction=max,order=2`` sets the fields of the dataclass that it is."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, TypeVar

from graphprune.errors import UsageError

__all__ = ["with_options"]

T = TypeVar("T")

_HIDDEN = ("name", "needs", "seed")


def with_options(made: T, text: str, what: str) -> T:
    """``made``, a dataclass, with the fields that ``text`` names set to what it says.

    Raises:
        UsageError: there is no such field, or the value does not fit it.
    """
    hints = typing.get_type_hints(type(made))
    known = [each.name for each in dataclasses.fields(made) if each.init and each.name not in _HIDDEN]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for entry in text.split(","):
        option, equals, value = (part.strip() for part in entry.partition("="))
        option = option.replace("-", "_")
        if option not in known or not equals:
            choice = f"its options are {', '.join(known)}" if known else "it has no options"
            raise UsageError(f"{what} does not take '{entry}': write OPTION=VALUE; {choice}")
        values[option] = _converted(value, hints[option], f"option '{option}' of {what}")
    return dataclasses.replace(made, **values)  # type: ignore[type-var]


def _converted(text: str, hint: Any, what: str) -> Any:
    allowed = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    if allowed:
        if text not in allowed:
            raise UsageError(f"{what} is '{text}': it is one of {', '.join(map(str, allowed))}")
        return text
    if hint is bool:
        if text not in ("true", "false"):
            raise UsageError(f"{what} is '{text}': it is true or false")
        return text == "true"
    try:
        return hint(text)
    except ValueError:
        raise UsageError(f"{what} is '{text}': it is a number") from None
