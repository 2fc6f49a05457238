"""What may stand in the text of a ``.pt2`` file, whose reader makes Python code of much of it.

``torch.export.load`` evaluates expressions of sizes, takes operators by any path from ``torch``, and writes names of
nodes and arguments into source code; conditions on inputs are compiled when the program becomes a module. So each text
has to be what ``torch.export.save`` writes in its place, and nothing else.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from graphprune.errors import ModelError
from graphprune.frontends.torch_operators import higher_order_named, operator_named

__all__ = ["check_program"]

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|")
_PLAIN = re.compile(r"[\w.+\-:/ ]*")
_QUOTED = re.compile(r"[^\"'\\{}\x00-\x1f\x7f-\x9f\u2028\u2029]*")
"""What can stand between quotes in Python code as it is."""

_EXPRESSION = re.compile(r"[A-Za-z0-9_ ,.()='+\-*/%<>!&|~]*")
_GUARD = re.compile(r"[A-Za-z0-9_ ,.()='+\-*/%<>!&|~\[\]]*")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?|[+-]?\.[0-9]+([eE][+-]?[0-9]+)?")

_NAMES = frozenset({"name", "as_name", "forward_arg_names", "class_fqn"})
_PATHS = frozenset({"fqn", "parameter_name", "buffer_name", "tensor_constant_name", "user_input_name"})
_FREE = frozenset({"as_string", "as_strings"})
"""Arguments of calls, which are written as literals."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PYTHON = {
    "_operator": _words(
        "add and_ eq floordiv ge getitem gt le lt mod mul ne neg not_ or_ pos pow rshift lshift sub truediv"
    ),
    "math": _words("acos asin atan ceil cos cosh floor log2 sin sinh sqrt tan tanh trunc"),
    "torch": _words("sym_float sym_int sym_ite sym_max sym_min sym_not sym_sum _sym_sqrt _sym_cos _sym_sin _sym_log2"),
    "torch._functorch.predispatch": _words(
        "_add_batch_dim _remove_batch_dim _vmap_increment_nesting _vmap_decrement_nesting lazy_load_decompositions"
    ),
}
"""The functions that are no operators of ATen, by their modules."""

_FUNCTIONS = _words(
    """
    Abs Add And CeilDiv CeilToInt CleanDiv Eq Equality ExprCondPair Float FloatPow FloatTrueDiv FloorDiv FloorToInt Ge
    GreaterThan Gt Identity IntTrueDiv Integer IsNonOverlappingAndDenseIndicator LShift Le LessThan Lt Max Min Mod
    ModularIndexing Mul Ne Not Or Piecewise Pow PowByNatural PythonMod RShift Rational RoundDecimal RoundToInt
    StrictGreaterThan StrictLessThan Symbol ToFloat TruncToFloat TruncToInt Unequality Where ceiling floor
    """
)
"""The functions that expressions of sizes are made of."""

_METHODS = frozenset({"size", "stride", "storage_offset", "dim", "numel", "isnan", "floor", "ceil", "trunc", "sqrt"})
_MODULES = {"torch": frozenset({"sym_float", "sym_int", "sym_max", "sym_min", "sym_not", "sym_ite"}), "math": _METHODS}

_OPERATIONS = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Load,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd, ast.Not, ast.Invert,
    ast.And, ast.Or, ast.BitAnd, ast.BitOr, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip


def check_program(document: Any) -> None:
    """Pass what ``models/model.json`` says, parsed, or refuse it.

    Raises:
        ModelError: some text is not of the form that ``torch.export.save`` gives it.
    """
    _check(document, "", free=False)


def _check(value: Any, key: str, *, free: bool) -> None:
    """``key`` is the name that ``value`` stands under, ``free`` whether it is within the calls of a graph."""
    if isinstance(value, str):
        _check_text(value, key, free=free)
    elif isinstance(value, list):
        for each in value:
            _check(each, key, free=free)
    elif isinstance(value, Mapping):
        for name, each in value.items():
            _demand(_QUOTED, name, "a name")
            if name == "metadata" and key in ("nodes", "graph_module"):  # traces and notes, of which nothing is run
                continue
            _check(each, name, free=name == "nodes" or (free and name != "as_graph"))


def _check_text(text: str, key: str, *, free: bool) -> None:
    if key == "expr_str":
        _check_expression(text)
    elif key == "guards_code":
        _check_guard(text)
    elif key in ("target", "as_operator"):
        _check_target(text)
    elif key in ("in_spec", "out_spec"):
        _check_specification(text)
    elif key in _NAMES:
        _demand(_WORD, text, "a name")
    elif key in _PATHS:
        _demand(_QUOTED, text, "a name")
    elif not (free and key in _FREE):
        _demand(_PLAIN, text, f"'{key}'")


def _demand(pattern: re.Pattern[str], text: object, what: str) -> None:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ModelError(f"{what} that would become code: {_short(text)}")


def _short(text: object) -> str:
    said = repr(text)
    return said if len(said) <= 80 else f"{said[:77]}..."


def _check_target(text: str) -> None:
    """What a node calls."""
    module, _, name = text.rpartition(".")
    if name in _PYTHON.get(module, ()):
        return
    prefix, _, operator = text.partition("torch.ops.")
    if prefix or not operator:
        raise ModelError(f"a call of {_short(text)}; only operators of PyTorch can be called from a file")
    space, _, rest = operator.partition(".")
    if space == "higher_order":
        higher_order_named(rest)
    else:
        operator_named(operator)


# -- expressions ----------------------------------------------------------------------------------------------------


def _check_expression(text: str) -> None:
    """An expression of sizes in the notation of ``sympy.srepr``, or as it is printed."""
    _Expression(text, _EXPRESSION).check()


def _check_guard(text: str) -> None:
    """A condition on inputs: ``L['x'].size()[0] >= 2``."""
    _Guard(text, _GUARD).check()


class _Expression:
    """An expression made of numbers, symbols, arithmetic and known functions."""

    def __init__(self, text: str, letters: re.Pattern[str]) -> None:
        self.text, self.letters = text, letters

    def check(self) -> None:
        if not self.letters.fullmatch(self.text):
            raise self.refusal()
        try:
            self.visit(ast.parse(self.text, mode="eval"))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise self.refusal() from None

    def refusal(self) -> ModelError:
        return ModelError(f"an expression that is more than arithmetic of sizes: {_short(self.text)}")

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.Call):
            self.call(node)
        elif isinstance(node, ast.Constant):
            if not isinstance(node.value, bool | int | float):
                raise self.refusal()
        elif isinstance(node, ast.Name):
            self.name(node)
        elif isinstance(node, _OPERATIONS):
            for child in ast.iter_child_nodes(node):
                self.visit(child)
        else:
            raise self.refusal()

    def name(self, node: ast.Name) -> None:
        if node.id.startswith("_"):
            raise self.refusal()

    def call(self, node: ast.Call) -> None:
        if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
            raise self.refusal()
        named = node.func.id in ("Symbol", "Float")
        for index, argument in enumerate(node.args):
            if named and index == 0 and isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                _demand(_WORD if node.func.id == "Symbol" else _NUMBER, argument.value, "an expression")
            else:
                self.visit(argument)
        for keyword in node.keywords:
            if not named or not isinstance(keyword.value, ast.Constant) or isinstance(keyword.value.value, str):
                raise self.refusal()


class _Guard(_Expression):
    """The same with sizes of inputs, which are spelled ``L['x'].size()[0]``."""

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.Subscript):
            owner = node.value
            method = isinstance(owner, ast.Call) and isinstance(owner.func, ast.Attribute)
            if not (method or isinstance(owner, ast.Subscript) or (isinstance(owner, ast.Name) and owner.id == "L")):
                raise self.refusal()
            self.visit(owner)
            if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
                _demand(_QUOTED, node.slice.value, "an input")
            else:
                self.visit(node.slice)
        elif isinstance(node, ast.Compare):
            for child in (node.left, *node.comparators):
                if isinstance(child, ast.Constant) and isinstance(child.value, str):
                    _demand(_QUOTED, child.value, "a value")
                else:
                    self.visit(child)
        else:
            super().visit(node)

    def call(self, node: ast.Call) -> None:
        if not isinstance(node.func, ast.Attribute):
            return super().call(node)
        owner = node.func.value
        known = _MODULES.get(owner.id, _METHODS) if isinstance(owner, ast.Name) else _METHODS
        if node.func.attr not in known or node.keywords:
            raise self.refusal()
        self.visit(owner)
        for argument in node.args:
            self.visit(argument)
        return None


# -- nested inputs and results --------------------------------------------------------------------------------------


def _check_specification(text: str) -> None:
    """How inputs or results are nested: containers, and the keys of dicts, which become code."""
    try:
        _, tree = json.loads(text)
        _check_tree(tree)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ModelError(f"a specification that cannot be read: {_short(text)}") from None


def _check_tree(tree: Mapping[str, Any]) -> None:
    kind, context = tree["type"], tree["context"]
    if kind == "collections.defaultdict":
        raise ModelError("an input or result that is a defaultdict, whose factory would be imported; use a dict")
    if kind is not None:
        _demand(_QUOTED, kind, "a class")
    if isinstance(context, str):
        try:
            context = json.loads(context)
        except ValueError:
            _demand(_QUOTED, context, "a key")
    _check_context(context)
    for child in tree["children_spec"]:
        _check_tree(child)


def _check_context(context: Any) -> None:
    if isinstance(context, Mapping):
        if "__enum__" in context:
            raise ModelError("a key that is an enumeration, whose module would be imported; use text")
        for key, value in context.items():
            _demand(_QUOTED, key, "a key")
            _check_context(value)
    elif isinstance(context, list):
        for each in context:
            _check_context(each)
    elif isinstance(context, str):
        _demand(_QUOTED, context, "a key")
