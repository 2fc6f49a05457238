"""Attributes of a module that spell sizes: what they are, and setting them to what they must be after a cut.

A patch is data: which module, which attribute (also inside a configuration object or a list), the number before and
after. So patches can be stored with the weights and carried out again on another copy of the unpruned module.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphprune.errors import ModelError

__all__ = ["Number", "Patch", "apply_patches", "numbers", "set_number"]

_DEPTH = 3
"""How far configuration objects are followed into one another."""

_OWN = frozenset({"training", "call_super_init", "dump_patches", "T_destination"})


@dataclass(frozen=True, slots=True)
class Patch:
    """A number of a module that a cut changes: ``attribute`` is a path of names, keys and indices from the module.

    >>> str(Patch("layers.0", ("config", "heads"), 8, 4))
    'layers.0: config.heads 8 -> 4'
    """

    module: str
    attribute: tuple[str | int, ...]
    before: int
    after: int

    def __str__(self) -> str:
        return f"{self.module or 'the module'}: {'.'.join(map(str, self.attribute))} {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class Number:
    """An integer that a module holds, how to get there, and the object that holds it directly.

    ``holder`` is the module itself, or a configuration object or list in it.
    """

    module: str
    attribute: tuple[str | int, ...]
    value: int
    holder: Any

    @property
    def name(self) -> str:
        """The innermost name on the way."""
        return next((str(part) for part in reversed(self.attribute) if isinstance(part, str)), "")


def numbers(path: str, module: nn.Module) -> Iterator[Number]:
    """The integers among the attributes of a module, those in tuples, lists, dicts and plain objects included.

    Submodules and tensors are not entered.
    """
    seen: set[int] = set()
    pending: list[tuple[tuple[str | int, ...], Any, int]] = [((), module, 0)]
    while pending:
        attribute, holder, depth = pending.pop(0)
        for key, value in _entries(holder):
            if isinstance(value, int) and not isinstance(value, bool | enum.Enum):
                yield Number(path, (*attribute, key), value, holder)
            elif depth < _DEPTH and _is_plain(value) and id(value) not in seen:
                seen.add(id(value))
                pending.append(((*attribute, key), value, depth + 1))


def _entries(holder: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(holder, Mapping):
        return [(key, value) for key, value in holder.items() if isinstance(key, str)]
    if isinstance(holder, list | tuple):
        return list(enumerate(holder)) if len(holder) <= 64 else []
    own = getattr(holder, "__dict__", {})
    if isinstance(holder, nn.Module):
        hidden = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"} | _OWN
        return [(k, v) for k, v in own.items() if k not in hidden and not k.endswith(("_hooks", "_hooks_with_kwargs"))]
    return [(k, v) for k, v in own.items() if not k.startswith("__")]


def _is_plain(value: object) -> bool:
    """Whether numbers in ``value`` belong to whoever holds it."""
    if isinstance(value, list | tuple):
        return not any(isinstance(each, nn.Module | torch.Tensor) for each in value)
    if isinstance(value, dict):
        return not any(isinstance(each, nn.Module | torch.Tensor) for each in value.values())
    if isinstance(value, nn.Module | torch.Tensor | type | types.ModuleType | enum.Enum) or callable(value):
        return False
    return hasattr(value, "__dict__") and type(value).__module__ not in ("builtins", "torch")


def set_number(root: nn.Module, module: str, attribute: Sequence[str | int], value: int) -> None:
    """Set one number; a tuple that holds it is replaced by another."""
    _set(root.get_submodule(module), list(attribute), value)


def _set(holder: Any, attribute: list[str | int], value: Any) -> None:
    key, rest = attribute[0], attribute[1:]
    if rest:
        inner = _get(holder, key)
        if isinstance(inner, tuple):
            changed = list(inner)
            _set(changed, rest, value)
            made = tuple(changed) if type(inner) in (tuple, torch.Size) else type(inner)(*changed)
            _set(holder, [key], made)
        else:
            _set(inner, rest, value)
    elif isinstance(holder, list | dict):
        holder[key] = value  # type: ignore[index]
    else:
        holder.__dict__[str(key)] = value


def _get(holder: Any, key: str | int) -> Any:
    return holder[key] if isinstance(holder, list | tuple | dict) else holder.__dict__[str(key)]  # type: ignore[index]


def apply_patches(root: nn.Module, patches: Iterable[Patch]) -> None:
    """Carry out patches on a module that is as the unpruned one was.

    Raises:
        ModelError: an attribute is missing, or holds another number than the one that was patched.
    """
    for patch in patches:
        try:
            holder: Any = root.get_submodule(patch.module)
            for key in patch.attribute:
                holder = _get(holder, key)
        except (AttributeError, KeyError, IndexError, TypeError):
            raise ModelError(f"the model has no such number ({patch}): it is not the model that was pruned") from None
        if holder != patch.before:
            raise ModelError(f"the model holds {holder!r} ({patch}): it is not the model that was pruned")
        set_number(root, patch.module, patch.attribute, patch.after)
