from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch_models import program  # noqa: E402

from graphprune.proof.torch_agreement import disagreement  # noqa: E402

pytestmark = pytest.mark.torch


class Net(nn.Module):
    """Draws random numbers, keeps statistics, and has several results."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))

    def forward(self, x: Tensor, scale: float = 1.0) -> dict[str, object]:
        return {"y": self.layers(x) * scale, "name": "net", "rest": None}


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def test_a_module_and_its_graph_agree_in_training_mode_and_nothing_is_changed() -> None:
    module, x = net(), torch.randn(8, 4)
    before = copy.deepcopy(module.state_dict())
    graph = program(module, x).module
    assert disagreement(module, graph, (x,)) is None
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())
    assert disagreement(module, module, (x,), {"scale": 2.0}) is None


def test_another_weight_is_seen() -> None:
    one, other, x = net().eval(), net().eval(), torch.randn(8, 4)
    with torch.no_grad():
        other.layers[3].weight[0, 0] += 0.01
    text = disagreement(one, other, (x,))
    assert text is not None
    assert text.startswith("result 0 differs by")


def test_half_precision_may_differ_by_its_rounding() -> None:
    module, x = net().eval(), torch.randn(8, 4)
    half = copy.deepcopy(module).bfloat16()
    rounded = x.bfloat16()
    assert disagreement(half, lambda x: {**half(x), "y": half(x)["y"] * 1.003}, (rounded,)) is None
    assert disagreement(half, lambda x: {**half(x), "y": half(x)["y"] * 1.2}, (rounded,)) is not None


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (lambda x: x[:1], "is float32[1, 4] where the reference is float32[2, 4]"),
        (lambda x: (x, x), "1 results of the first and 2 of the second"),
        (lambda x: None, "is None where the reference is"),
        (lambda x: x.double(), "is float64[2, 4] where"),
        (lambda x: x @ x, "the second cannot be run: "),
    ],
)
def test_other_results_are_told(other: object, text: str) -> None:
    found = disagreement(lambda x: x.clone(), other, (torch.ones(2, 4),))  # type: ignore[arg-type]
    assert found is not None
    assert text in found


def test_arguments_are_not_written_to() -> None:
    x = torch.ones(2, 4)
    assert disagreement(lambda x: x.add_(1), lambda x: x + 1, (x,)) is None
    assert torch.equal(x, torch.ones(2, 4))
