"""Graphs as documents: what comes from anyone is text, and nothing of it becomes code."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch_models import program  # noqa: E402

from graphprune.errors import ModelError  # noqa: E402
from graphprune.frontends.torch_operators import higher_order_named, operator_named  # noqa: E402
from graphprune.frontends.torch_pruned import PrunedModule  # noqa: E402
from graphprune.frontends.torch_text import from_document, tensors_of, to_document  # noqa: E402

pytestmark = pytest.mark.torch

CODE = "__import__('pathlib').Path({path!r}).touch()"


class Network(nn.Module):
    """A keyword argument, a flag, and names of modules that are no words."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"my-layer 1": nn.Linear(8, 6), "o/p": nn.Linear(6, 4), "it's": nn.Linear(4, 4)})

    def forward(self, x: torch.Tensor, *, flag: bool = True) -> dict[str, torch.Tensor]:
        y = self.layers["it's"](self.layers["o/p"](self.layers["my-layer 1"](x)))
        return {"the result": y if flag else -y}


def stored() -> tuple[dict[str, Any], dict[str, torch.Tensor], PrunedModule]:
    """A document, the tensors it names, and the module it is of."""
    module = PrunedModule.of(program(Network().eval(), torch.randn(2, 8), flag=True).detached().module)
    document = json.loads(json.dumps(to_document(module, training=False)))
    return document, tensors_of(module), module


def test_any_name_of_a_module_comes_back() -> None:
    document, tensors, module = stored()
    loaded = from_document(document, tensors, set(tensors))
    x = torch.randn(2, 8)
    assert torch.equal(loaded(x, flag=True)["the result"], module(x, flag=True)["the result"])
    assert list(loaded.state_dict()) == list(module.state_dict())
    with pytest.raises(ValueError, match="'flag' was fixed at True when the graph was exported, and False"):
        loaded(x, flag=False)


def _keyword(document: dict[str, Any], code: str) -> None:
    call = [node for node in document["nodes"] if node["op"] == "call_function"][-1]
    call["kwargs"] = {f"a={code}, b": 1}


def _keyword_lines(document: dict[str, Any], code: str) -> None:
    call = [node for node in document["nodes"] if node["op"] == "call_function"][-1]
    call["kwargs"] = {f"a=1)\n\n{code}\ndef g():\n    dict(b": 1}


def _signature(document: dict[str, Any], code: str) -> None:
    document["signature"]["inputs"]["parts"][1]["keys"] = [f"flag':flag, 'y':{code}, 'z"]


def _argument(document: dict[str, Any], code: str) -> None:
    document["signature"]["arguments"][0] = f"x={code}"


def _node(document: dict[str, Any], code: str) -> None:
    document["nodes"][0]["name"] = f"x={code}"


def _attribute(document: dict[str, Any], code: str) -> None:
    node = next(node for node in document["nodes"] if node["op"] == "get_attr")
    node["target"] = f'layers.my-layer 1", {code}).weight'


@pytest.mark.parametrize("attack", [_keyword, _keyword_lines, _signature, _argument, _node, _attribute])
def test_no_text_becomes_code(attack: Callable[[dict[str, Any], str], None], tmp_path: Path) -> None:
    document, tensors, _ = stored()
    mark = tmp_path / "ran"
    attack(document, CODE.format(path=str(mark)))
    tensors |= {str(node.get("target")): next(iter(tensors.values())) for node in document["nodes"]}
    with pytest.raises(ModelError, match="not a graph") as caught:
        from_document(document, tensors, set(tensors))(torch.randn(2, 8), flag=True)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("word", ["import", "None"])
def test_words_of_the_language_are_no_names(word: str) -> None:
    document, tensors, _ = stored()
    document["nodes"][-2]["kwargs"] = {word: 1}
    with pytest.raises(ModelError, match="not a graph"):
        from_document(document, tensors, set(tensors))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("aten.from_file.default", "touches files"),
        ("aten.save.default", "touches files"),
        ("debugprims.load_tensor.default", "not allowed"),
        ("prim.Print.default", "not allowed"),
        ("higher_order.aoti_call_delegate", "not allowed"),
        ("higher_order.inductor_compiled_code", "not allowed"),
        ("higher_order.call_torchbind", "not allowed"),
        ("torch.load.default", "not allowed"),
        ("aten.__class__.mro", "no operator"),
        ("aten.add.__class__", "no operator"),
        ("aten.nothing.default", "import the package"),
        ("aten.add.Tensor; x", "no operator"),
    ],
)
def test_operators_that_graphs_may_not_call(target: str, message: str) -> None:
    document, tensors, _ = stored()
    [node for node in document["nodes"] if node["op"] == "call_function"][-1]["target"] = target
    with pytest.raises(ModelError, match=message):
        from_document(document, tensors, set(tensors))


def test_operators_that_graphs_may_call(monkeypatch: pytest.MonkeyPatch) -> None:
    assert operator_named("aten.__and__.Tensor") is torch.ops.aten.__and__.Tensor
    assert operator_named("prims.sin.default") is torch.ops.prims.sin.default
    assert higher_order_named("cond") is torch.ops.higher_order.cond
    with pytest.raises(ModelError, match=r"bind a rule to 'debugprims\.load_tensor'"):
        operator_named("debugprims.load_tensor.default")
    monkeypatch.setattr("graphprune.frontends.torch_operators.table", lambda: {"mine.op": None, "onnx.Conv": None})
    with pytest.raises(ModelError, match="import the package"):
        operator_named("mine.op.default")
    with pytest.raises(ModelError, match="not allowed"):
        operator_named("onnx.Conv.default")


def test_documents_are_not_changed_by_reading_them() -> None:
    document, tensors, _ = stored()
    before = copy.deepcopy(document)
    from_document(document, tensors, set(tensors))
    assert document == before
