"""graphprune makes neural networks structurally smaller, the way a compiler transforms a program.

>>> import graphprune
>>> from graphprune.models import digits_path
>>> result = graphprune.prune(digits_path(), ratio=0.5)
>>> result.status, result.verified, result.params.after < result.params.before
('pruned', True, True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphprune.api import apply, inspect, prune, verify
    from graphprune.api import load_module as load
    from graphprune.curves import Curves
    from graphprune.errors import GraphpruneError, ModelError, SlowerError, TargetError, UsageError, VerificationError
    from graphprune.measuring import sensitivity
    from graphprune.optimizing import Optimized, optimize
    from graphprune.plan import Plan
    from graphprune.proof import Verification
    from graphprune.result import Inspection, PruneResult
    from graphprune.version import __version__

__all__ = [
    "Curves",
    "GraphpruneError",
    "Inspection",
    "ModelError",
    "Optimized",
    "Plan",
    "PruneResult",
    "SlowerError",
    "TargetError",
    "UsageError",
    "Verification",
    "VerificationError",
    "__version__",
    "apply",
    "inspect",
    "load",
    "optimize",
    "prune",
    "sensitivity",
    "verify",
]

_HOMES = {
    **dict.fromkeys(("apply", "inspect", "load", "prune", "verify"), "api"),
    **dict.fromkeys(
        ("GraphpruneError", "ModelError", "SlowerError", "TargetError", "UsageError", "VerificationError"), "errors"
    ),
    "Curves": "curves",
    "Optimized": "optimizing",
    "Plan": "plan",
    "Inspection": "result",
    "PruneResult": "result",
    "Verification": "proof",
    "__version__": "version",
    "optimize": "optimizing",
    "sensitivity": "measuring",
}

_CALLED = {"load": "load_module"}
"""Names that are other ones at home."""


def __getattr__(name: str) -> Any:
    # Names are imported when they are first used: `graphprune --help` must not wait for ONNX Runtime.
    if name not in _HOMES:
        raise AttributeError(f"module 'graphprune' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f"graphprune.{_HOMES[name]}"), _CALLED.get(name, name))
    globals()[name] = value
    return value
