from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch_models import keeping, program, random_selection  # noqa: E402

from graphprune.frontends.torch_calls import walk  # noqa: E402
from graphprune.frontends.torch_program import TorchProgram  # noqa: E402
from graphprune.proof import Verification  # noqa: E402
from graphprune.proof.torch_mask import masked_original  # noqa: E402
from graphprune.proof.torch_proof import verify_program  # noqa: E402
from graphprune.selection import Selection  # noqa: E402
from graphprune.structure import Structure  # noqa: E402

pytestmark = pytest.mark.torch


class Residual(nn.Module):
    """Convolutions, batch normalisation and a residual sum under a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3)
        self.norm = nn.BatchNorm2d(12)
        self.inner = nn.Conv2d(12, 10, 3, padding=1)
        self.outer = nn.Conv2d(10, 12, 1)
        self.head = nn.Linear(12 * 16, 5)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        x = x + self.outer(self.inner(x).relu_())
        return self.head(F.dropout(x, training=self.training).flatten(1))


class Mixed(nn.Module):
    """A body between two convolutions."""

    def __init__(self, body: Any, *layers: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.layers = nn.ModuleList(layers)
        self.last = nn.Conv2d(8, 4, 3)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.body(self.first(x), *self.layers))
        return y


IMAGE = (2, 3, 6, 6)
KEPT = [0, 2, 3, 7]


class Case:
    """A program, its structure, a selection, and the slim program."""

    def __init__(self, module: nn.Module, *args: Any, place: tuple[str, int] | None = None) -> None:
        self.program = program(module, *args)
        self.structure = self.program.read()
        assert not self.structure.undeclared
        if place is None:
            self.selection = random_selection(self.structure)
        else:
            self.selection = keeping(self.structure, *place, KEPT)

    def slim(self) -> TorchProgram:
        slim = self.program.clone()
        assert slim.write(self.structure, self.selection)
        return slim

    def verify(self, slim: TorchProgram | None = None, **options: Any) -> Verification:
        return verify_program(self.program, slim or self.slim(), self.structure, self.selection, **options)


def image(*shape: int) -> Tensor:
    return torch.randn(shape or IMAGE, generator=torch.Generator().manual_seed(1))


def residual(training: bool = False) -> Case:
    torch.manual_seed(0)
    return Case(Residual().train(training), image())


def mixed(body: Any, *layers: nn.Module) -> Case:
    torch.manual_seed(0)
    return Case(Mixed(body, *layers), image(), place=("first.weight", 0))


def without_masks(structure: Structure, *names: str) -> Structure:
    """As if nobody knew that some operators, or all, mix positions."""
    calls = [replace(call, mixes=[] if call.op in names or not names else call.mixes) for call in structure.calls]
    return Structure(structure.space, structure.tensors, structure.parameters, calls)


# -- what is right ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_a_right_cut_passes_and_is_visible(training: bool) -> None:
    case = residual(training)
    before = {name: value.clone() for name, value in case.program.module.state_dict().items()}
    state = torch.get_rng_state()
    result = case.verify()
    assert result.ok, result.reason
    assert result.visible_ok
    assert not result.reason
    assert result.max_error < result.tolerance < 1e-4 < result.visible
    assert result.runs == 2
    assert result.seconds > 0
    assert not result.random_weights
    assert torch.equal(torch.get_rng_state(), state)
    after = case.program.module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_same_seed_gives_the_same_figures() -> None:
    case = residual()
    first, second = (replace(case.verify(seed=3, runs=3), seconds=0.0) for _ in range(2))
    assert first == second


def test_given_inputs_are_used() -> None:
    case = residual()
    assert case.verify(inputs=[((image(),), {})]).runs == 1
    assert case.verify(inputs=[((image(),), {}), ((image(5, 3, 6, 6)[:2],), {})]).ok


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: Any) -> None:
    torch.manual_seed(0)
    result = Case(Residual().eval().to(dtype), image().to(dtype)).verify()
    assert result.ok, result.reason
    assert result.max_error < 1e-5


def _mean(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x.mean(1, keepdim=True))


BODIES = {
    "mean": _mean,
    "largest": lambda x: x - x.amax(1, keepdim=True),
    "running sum": lambda x: x.cumsum(1),
    "running sum in place": lambda x: x.mul(2).cumsum_(1).relu_(),
    "softmax": lambda x: x.softmax(1),
    "similarity": lambda x: x * F.cosine_similarity(x, x.flip(2), dim=-3).unsqueeze(1),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_operators_that_mix_channels_see_only_what_is_kept(body: Any) -> None:
    case = mixed(body)
    result = case.verify()
    assert result.ok, result.reason
    assert not verify_program(case.program, case.slim(), without_masks(case.structure), case.selection).ok


NORMS = {
    "layer norm over an image": (lambda x, norm: norm(x), nn.LayerNorm([8, 4, 4])),
    "group norm": (lambda x, norm: norm(x), nn.GroupNorm(1, 8)),
}


@pytest.mark.parametrize(("body", "norm"), NORMS.values(), ids=NORMS.keys())
def test_normalisations_see_only_what_is_kept(body: Any, norm: nn.Module) -> None:
    case = mixed(body, norm)
    assert case.verify().ok
    assert not verify_program(case.program, case.slim(), without_masks(case.structure), case.selection).ok


class Attention(nn.Module):
    """A normalised attention with a residual sum."""

    def __init__(self, width: int = 24, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(7, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, -1)
        result: Tensor = self.head(x + self.out(y))
        return result


def test_attention() -> None:
    torch.manual_seed(0)
    result = Case(Attention(), image(2, 5, 7)).verify()
    assert result.ok, result.reason


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.layer(x)[0])
        return y


RECURRENT = {
    "lstm": lambda: nn.LSTM(5, 16, 2, batch_first=True, dropout=0.5),
    "both ways": lambda: nn.LSTM(5, 8, bidirectional=True),
    "gru": lambda: nn.GRU(5, 16),
}


@pytest.mark.parametrize("make", RECURRENT.values(), ids=RECURRENT.keys())
def test_recurrent_layers(make: Any) -> None:
    torch.manual_seed(0)
    result = Case(Recurrent(make()), image(4, 6, 5)).verify()
    assert result.ok, result.reason


class Several(nn.Module):
    """Inputs and outputs of several kinds, nested."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.mix = nn.Linear(8, 6)
        self.last = nn.Linear(6, 4)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, ids: Tensor, more: dict[str, Tensor], *, flag: bool, mask: Tensor) -> dict[str, Any]:
        self.steps.add_(1)  # type: ignore[operator]
        x = self.mix(self.table(ids).mul(mask.unsqueeze(-1)))
        return {"y": [self.last(x) + more["shift"], None], "count": 3, "steps": self.steps.clone()}


def test_inputs_and_outputs_of_several_kinds() -> None:
    torch.manual_seed(0)
    ids, mask = torch.tensor([[0, 10, 3]]), torch.tensor([[True, True, False]])
    found = program(Several(), ids, {"shift": torch.randn(4)}, flag=True, mask=mask)
    structure = found.read()
    selection = random_selection(structure)
    slim = found.clone()
    assert slim.write(structure, selection)
    result = verify_program(found, slim, structure, selection, runs=3)
    assert result.ok, result.reason
    assert result.runs == 3
    assert len(result.outputs) == 4
    assert float(found.module.steps) == 0


# -- what is wrong ---------------------------------------------------------------------------------------------------


def node_of(case: Case, slim: TorchProgram, name: str) -> Any:
    return next(node for _, node, _ in walk(slim.module) if node.name == name)


def test_a_position_out_of_place() -> None:
    case = residual()
    keep = {leaf: mask.copy() for leaf, mask in case.selection.keep.items()}
    mask = next(iter(keep.values()))
    gone, stays = int(np.flatnonzero(~mask)[0]), int(np.flatnonzero(mask)[0])
    mask[gone], mask[stays] = True, False
    slim = case.program.clone()
    assert slim.write(case.structure, Selection(case.structure.space, keep))
    assert "is not the kept part" in case.verify(slim).reason
    result = case.verify(slim, weights=False)
    assert not result.ok
    assert result.visible_ok
    assert "differs from the masked original" in result.reason


def test_a_weight_that_was_changed() -> None:
    case = residual()
    slim = case.slim()
    with torch.no_grad():
        slim.module.inner.weight[0, 0, 0, 0] += 0.1
    assert case.verify(slim).reason == "parameter 'inner.weight' is not the kept part of the original's"
    assert not case.verify(slim, weights=False).ok
    assert case.program.module.inner.weight is not slim.module.inner.weight


def test_a_weight_behind_a_dead_unit_is_seen() -> None:
    case = residual()
    with torch.no_grad():
        case.program.module.inner.bias.fill_(-1e6)
    slim = case.slim()
    with torch.no_grad():
        slim.module.outer.weight.neg_()
    assert "outer.weight" in case.verify(slim).reason


def test_a_number_that_spells_another_size() -> None:
    case = residual()
    slim = case.slim()
    node = node_of(case, slim, "conv2d_1")
    node.args = (*node.args[:4], [0, 0])
    slim.module.recompile()
    result = case.verify(slim)
    assert not result.ok
    assert "the slim program cannot be run" in result.reason


def test_an_operator_that_reads_what_no_rule_says() -> None:
    """What was removed is zero in the original, so that only other values show who reads it."""
    torch.manual_seed(0)
    module = Mixed(lambda x: x.cumsum(1))
    nn.init.zeros_(module.first.bias)
    with torch.no_grad():
        module.first.weight[[1, 4, 5, 6]] = 0
    case = Case(module, image(), place=("first.weight", 0))
    bare, slim = without_masks(case.structure, "aten.cumsum"), case.slim()
    assert verify_program(case.program, slim, bare, case.selection, poisoned=False).max_error < 1e-6
    result = verify_program(case.program, slim, bare, case.selection)
    assert not result.ok
    assert "depends on what was removed" in result.reason


# -- what shows nothing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["head", "outer"])
def test_a_layer_of_zeros_is_proved_with_random_weights(name: str) -> None:
    torch.manual_seed(0)
    module = Residual().eval()
    nn.init.zeros_(module.get_submodule(name).weight)
    nn.init.zeros_(module.get_submodule(name).bias)
    found = program(module, image())
    structure = found.read()
    selection = keeping(structure, "inner.weight", 0, range(4))
    slim = found.clone()
    assert slim.write(structure, selection)
    result = verify_program(found, slim, structure, selection)
    assert result.ok, result.reason
    assert result.random_weights
    wrong = found.clone()
    assert wrong.write(structure, keeping(structure, "inner.weight", 0, range(1, 5)))
    assert not verify_program(found, wrong, structure, selection).ok


def test_a_faint_branch_is_proved_in_float64() -> None:
    torch.manual_seed(0)
    module = Residual().eval()
    with torch.no_grad():
        module.outer.weight.mul_(1e-6)
    found = program(module, image())
    structure = found.read()
    selection = keeping(structure, "inner.weight", 0, range(4))
    slim = found.clone()
    assert slim.write(structure, selection)
    result = verify_program(found, slim, structure, selection)
    assert result.ok, result.reason
    assert result.widened
    assert not result.random_weights
    assert result.max_error < result.tolerance < 1e-10 < result.visible < 1e-4


def test_nothing_removed_shows_nothing() -> None:
    case = residual()
    result = verify_program(case.program, case.program.clone(), case.structure, Selection(case.structure.space, {}))
    assert not result.ok
    assert "nothing was shown" in result.reason


def test_weights_that_are_not_there() -> None:
    with torch.device("meta"):
        module = Residual()
    found = program(module, torch.empty(IMAGE, device="meta"))
    structure = found.read()
    selection = random_selection(structure)
    slim = found.clone()
    assert slim.write(structure, selection)
    result = verify_program(found, slim, structure, selection)
    assert not result.ok
    assert "load the weights first" in result.reason


# -- the parts -------------------------------------------------------------------------------------------------------


def test_the_masked_original_runs_by_itself_and_shares_weights() -> None:
    case = residual()
    masked = masked_original(case.program, case.structure, case.selection)
    x = image()
    slim = case.slim()
    assert torch.allclose(masked(x), slim.module(x), atol=1e-5)
    assert not torch.allclose(case.program.module(x), slim.module(x), atol=1e-3)
    assert masked.stem.weight is case.program.module.stem.weight


def test_infinities_at_removed_positions_add_nothing() -> None:
    case = residual()
    keep = case.selection.mask(case.structure.axis("inner.weight", 0))
    with torch.no_grad():
        case.program.module.inner.bias[torch.from_numpy(~keep)] = float("inf")
    assert case.verify().ok


def test_what_a_saturated_end_hides_is_compared() -> None:
    case = mixed(BODIES["mean"])
    torch.manual_seed(0)
    module = Mixed(BODIES["mean"])
    ended = Case(nn.Sequential(module, nn.Sigmoid()), image(), place=("0.first.weight", 0))
    result = ended.verify()
    assert result.ok, result.reason
    assert [output.name for output in result.outputs] == ["sigmoid_1", "conv2d_1"]
    assert [output.name for output in case.verify().outputs] == ["conv2d_1"]


def test_a_view_of_a_masked_tensor_does_not_depend_on_its_layout() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).softmax(-1).view(-1, 8))

    own = program(Net(), torch.randn(2, 5, 3))
    structure = own.read()
    masked = masked_original(own, structure, random_selection(structure))
    targets = [node.target for _, node, _ in walk(masked)]
    assert torch.ops.aten.view.default in [node.target for _, node, _ in walk(own.module)]
    assert torch.ops.aten.view.default not in targets
    assert masked(*own.args).shape == (10, 4)
