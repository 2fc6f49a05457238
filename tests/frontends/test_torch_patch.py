"""Numbers among the attributes of modules."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import NamedTuple

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from graphprune.errors import ModelError  # noqa: E402
from graphprune.frontends.torch_evidence import Source, hypotheses  # noqa: E402
from graphprune.frontends.torch_layers import sizes_of_layer  # noqa: E402
from graphprune.frontends.torch_patch import Patch, apply_patches, numbers, set_number  # noqa: E402

pytestmark = pytest.mark.torch


class Pair(NamedTuple):
    high: int
    wide: int


@dataclass
class Options:
    heads: int = 4
    widths: list[int] = field(default_factory=lambda: [8, 16])
    inner: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(depth=3))


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Linear(2, 3)
        self.width, self.flag, self.rate, self.name = 32, True, 0.5, "x"
        self.shape, self.pair, self.table = (4, 8), Pair(5, 6), {"a": 7, 1: 9}
        self.options = Options()
        self.weights = [torch.ones(2)]


def test_all_numbers_are_found() -> None:
    found = {each.attribute: each.value for each in numbers("", Holder())}
    assert found == {
        ("width",): 32,
        ("shape", 0): 4,
        ("shape", 1): 8,
        ("pair", 0): 5,
        ("pair", 1): 6,
        ("table", "a"): 7,
        ("options", "heads"): 4,
        ("options", "widths", 0): 8,
        ("options", "widths", 1): 16,
        ("options", "inner", "depth"): 3,
    }


def test_every_number_can_be_set() -> None:
    module = Holder()
    for each in list(numbers("", module)):
        set_number(module, "", each.attribute, each.value + 100)
    assert all(each.value > 100 for each in numbers("", module))
    assert module.shape == (104, 108)
    assert module.pair == Pair(105, 106)
    assert isinstance(module.pair, Pair)


def test_patches_fit_one_model_only() -> None:
    module = Holder()
    apply_patches(module, [Patch("", ("shape", 1), 8, 5), Patch("child", ("in_features",), 2, 1)])
    assert module.shape == (4, 5)
    assert module.child.in_features == 1
    with pytest.raises(ModelError, match="holds 5"):
        apply_patches(module, [Patch("", ("shape", 1), 8, 5)])
    for wrong in (("nothing",), ("shape", 7), ("width", 0)):
        with pytest.raises(ModelError, match="no such number"):
            apply_patches(module, [Patch("", wrong, 8, 5)])


@pytest.mark.parametrize(
    ("layer", "spelled", "expected"),
    [
        (nn.Conv2d(8, 8, 3, groups=8), {"groups": 8}, {"in_channels": 8, "out_channels": 8, "groups": 8}),
        (nn.Conv1d(6, 4, 3, groups=2), {"groups": 2}, {"in_channels": 6, "out_channels": 4, "groups": 2}),
        (nn.ConvTranspose2d(6, 4, 3, groups=2), {}, {"in_channels": 6, "out_channels": 4, "groups": 2}),
        (nn.Linear(3, 5), {}, {"in_features": 3, "out_features": 5}),
        (nn.Bilinear(3, 4, 5), {}, {"in1_features": 3, "in2_features": 4, "out_features": 5}),
        (nn.BatchNorm2d(7), {}, {"num_features": 7}),
        (nn.InstanceNorm1d(7, track_running_stats=True), {}, {"num_features": 7}),
        (nn.LayerNorm((3, 4)), {}, {"normalized_shape": (3, 4)}),
        (nn.RMSNorm(6), {}, {"normalized_shape": (6,)}),
        (nn.LayerNorm(6, elementwise_affine=False), {"normalized_shape": [5]}, {"normalized_shape": (5,)}),
        (nn.GroupNorm(2, 6), {"num_groups": 2}, {"num_groups": 2, "num_channels": 6}),
        (nn.Embedding(9, 4), {}, {"num_embeddings": 9, "embedding_dim": 4}),
        (nn.PReLU(5), {}, {"num_parameters": 5}),
        (nn.LSTM(3, 5, proj_size=2), {}, {"input_size": 3, "proj_size": 2, "hidden_size": 5}),
        (nn.GRU(3, 5), {}, {"input_size": 3, "hidden_size": 5}),
        (nn.LSTMCell(3, 5), {}, {"input_size": 3, "hidden_size": 5}),
        (nn.MultiheadAttention(6, 2), {}, {"embed_dim": 6, "kdim": 6, "vdim": 6}),
        (nn.MultiheadAttention(6, 2, kdim=3, vdim=5), {}, {"embed_dim": 6, "kdim": 3, "vdim": 5}),
        (nn.ReLU(), {}, {}),
    ],
)
def test_layers_say_their_sizes(layer: nn.Module, spelled: dict[str, object], expected: dict[str, object]) -> None:
    """What a layer says of itself is what it was made with."""
    found = sizes_of_layer(layer, spelled)
    assert found == expected
    if "normalized_shape" not in spelled:
        assert all(tuple(v) == v if isinstance(v := getattr(layer, k), tuple) else v == found[k] for k in found)


def _source(place: str, before: int, after: int, role: str = "", *, spelled: bool = True, own: bool = True) -> Source:
    return Source((place,), before, after, spelled, own, role)


def test_instances_tell_places_apart() -> None:
    """The first stage has three heads, and three is also the number of projections."""
    stages = [
        [_source("three", 3, 3), _source("heads", 3, 2)],
        [_source("three", 3, 3), _source("heads", 6, 4)],
    ]
    (first, *rest) = hypotheses("num_heads", [3, 6], stages)
    assert first.after == (2, 4)
    assert not rest or all(each.after != (3, 4) for each in rest[:1])


def test_roles_and_names_go_together() -> None:
    found = [_source("a", 8, 2, "head"), _source("b", 8, 5, "head width"), _source("c", 8, 8)]
    assert hypotheses("num_heads", [8], [found])[0].after == (2,)
    assert hypotheses("head_dim", [8], [found])[0].after == (5,)


def test_settings_stay() -> None:
    found = [_source("a", 3, 2)]
    choices = hypotheses("kernel_size", [3], [found])
    assert [each.after for each in choices] == [(3,), (2,)]


def test_nothing_changes_without_evidence() -> None:
    assert hypotheses("width", [8], [[_source("a", 8, 8), _source("b", 9, 3)]]) == []
