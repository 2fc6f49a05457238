"""The ways back of a pruned module: its own class where that computes the same, the slim graph otherwise."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402
from torch_models import program, random_selection  # noqa: E402
from torch_returned import NETWORKS, Language, Residual, Returned, give_back  # noqa: E402

import graphprune  # noqa: E402
from graphprune.frontends.torch_attention import PrunedMultiheadAttention  # noqa: E402
from graphprune.frontends.torch_back import returned  # noqa: E402
from graphprune.frontends.torch_pruned import PrunedModule  # noqa: E402

pytestmark = pytest.mark.torch

KEEPS_CLASS = [name for name in NETWORKS if name != "stream width"]


def results(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The only result."""
    (found,) = pytree.tree_leaves(module(inputs))
    return found


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", KEEPS_CLASS)
def test_the_class_is_kept(name: str, training: bool) -> None:
    case = give_back(name, training=training)
    assert (case.way, case.back.reason) == ("module", "")
    assert type(case.module) is type(case.source)
    assert case.module.training is training
    count = sum(parameter.numel() for parameter in case.source.parameters())
    assert sum(parameter.numel() for parameter in case.module.parameters()) < 0.7 * count
    case.module.eval()
    if not training:
        expected = results(case.slim.module, case.inputs)
        torch.testing.assert_close(results(case.module, case.inputs), expected, rtol=1e-4, atol=1e-5)


def test_the_users_module_is_untouched() -> None:
    torch.manual_seed(0)
    source = Residual().train()
    before = copy.deepcopy(source.state_dict())
    inputs = torch.randn(4, 3, 6, 6)
    before_program = program(source, inputs)
    structure = before_program.read()
    slim = before_program.clone()
    slim.write(structure, selection := random_selection(structure))
    returned(before_program, slim, structure, selection)
    assert source.features == 12 * 16
    assert source.blocks[0].options == {"widths": [12, 12]}
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())
    assert all(parameter.grad is None for parameter in source.parameters())


def test_attributes_follow() -> None:
    case = give_back("residual")
    channels = case.module.stem.out_channels
    assert channels == case.module.stem.weight.shape[0] < 12
    assert case.module.features == channels * 16 == case.module.head.in_features
    block = case.module.blocks[1]
    inner = block.conv1.out_channels
    assert inner == block.conv1.weight.shape[0] == block.norm.num_features == block.channels != channels
    assert block.options == {"widths": [inner, inner]}
    assert ("blocks.1", ("channels",), 12, inner) in [
        (each.module, each.attribute, each.before, each.after) for each in case.back.patches
    ]


def test_heads_and_their_width_are_told_apart() -> None:
    case = give_back("language")
    for layer in case.module.layers:
        attention = layer.attention
        assert attention.all_head_size == attention.num_heads * attention.head_dim == attention.proj.in_features
        assert 3 * attention.all_head_size == attention.qkv.out_features
        assert attention.scale == 6**-0.5
    assert case.module.head.weight is case.module.embed.weight
    assert case.module.config.vocab_size == 19
    assert case.module.config.hidden_size == case.module.embed.embedding_dim < 24


@pytest.mark.parametrize("name", ["default scale", "computed scale", "scale of values", "two scales", "turned"])
def test_a_scale_that_follows_from_the_width_is_made_up_for(name: str) -> None:
    case = give_back(name)
    assert case.way == "module"
    widths = {layer.attention.head_dim for layer in case.module.layers}
    assert widths != {6}
    assert case.back.program is not None
    inputs = torch.randint(19, (2, 7))
    torch.testing.assert_close(results(case.module, inputs), results(case.slim.module, inputs), rtol=1e-4, atol=1e-5)


def test_attention_of_pytorch_may_be_narrower_than_its_stream() -> None:
    case = give_back("encoder")
    layer = case.module.encoder.layers[0].self_attn
    assert isinstance(layer, PrunedMultiheadAttention)
    assert layer.num_heads * layer.head_dim != layer.embed_dim
    weights = layer(x := torch.randn(3, 4, layer.embed_dim), x, x)[1]
    assert weights.shape == (3, 4, 4)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4))


def test_what_a_class_cannot_express_is_a_graph() -> None:
    case = give_back("stream width")
    assert case.way == "graph"
    assert "layers.0.attention" in case.back.reason
    assert "\n" not in case.back.reason
    assert isinstance(case.module, PrunedModule)


def test_a_meaning_that_hides_behind_small_weights_is_seen() -> None:
    case = give_back("small layer scale")
    torch.manual_seed(1)
    with torch.no_grad():
        for one, two in zip(case.module.layers, (0, 1), strict=True):
            one.gamma.fill_(1.0)
            case.slim.module.get_submodule(f"layers.{two}").gamma = nn.Parameter(torch.ones_like(one.gamma))
    expected = results(case.slim.module, case.inputs)
    torch.testing.assert_close(results(case.module, case.inputs), expected, rtol=1e-4, atol=1e-5)


def test_without_a_plain_cut_it_is_a_graph() -> None:
    case = give_back("grouped")
    before = program(case.source, case.inputs)
    back = returned(before, case.slim, case.structure, None)
    assert (back.way, back.reason) == ("graph", "more was changed than the removal of positions")


def test_without_some_of_its_blocks_it_is_a_graph() -> None:
    torch.manual_seed(0)
    source, inputs = Residual().eval(), torch.randn(4, 3, 6, 6)
    result = graphprune.prune(source, (inputs,), pipeline="depth{blocks=1}, prune{ratio=0.3}")
    assert (result.way, result.way_reason) == ("graph", "residual blocks were left out")
    assert result.verified


def test_modules_that_share_a_tuple_have_patches_of_their_own() -> None:
    patches = [
        (each.module, each.after) for each in give_back("encoder").patches if "normalized_shape" in each.attribute
    ]
    assert len({after for _, after in patches}) == 1
    assert [name.rpartition(".")[2] for name, _ in patches] == ["norm1", "norm2", "norm1", "norm2"]


def test_an_exported_program_comes_back_as_a_graph() -> None:
    case = give_back("grouped")
    before = program(case.source, case.inputs)
    before.source = None
    back = returned(before, case.slim, case.structure, case.selection)
    assert back.way == "graph"
    assert "class" in back.reason


def test_a_module_that_cannot_be_copied_comes_back_as_a_graph() -> None:
    class Stubborn(Residual):
        def __deepcopy__(self, memo: object) -> None:
            raise TypeError("never twice")

    inputs = torch.randn(4, 3, 6, 6)
    before = program(Stubborn().eval(), inputs)
    structure = before.read()
    slim = before.clone()
    slim.write(structure, selection := random_selection(structure))
    back = returned(before, slim, structure, selection)
    assert (back.way, back.reason) == ("graph", "Stubborn cannot be copied (TypeError: never twice)")


def test_without_values_it_is_a_graph() -> None:
    with torch.device("meta"):
        source, inputs = Residual().eval(), torch.randn(4, 3, 6, 6)
    before = program(source, inputs)
    structure = before.read()
    slim = before.clone()
    slim.write(structure, selection := random_selection(structure))
    back = returned(before, slim, structure, selection)
    assert back.way == "graph"
    assert "meta device" in back.reason


def _loss(case: Returned) -> torch.Tensor:
    found = results(case.module, case.inputs)
    return (found - torch.linspace(-1, 1, found.shape[-1])).square().mean()


@pytest.mark.parametrize("way", ["auto", "graph"])
@pytest.mark.parametrize("name", ["residual", "language", "encoder", "tagger"])
@pytest.mark.parametrize("training", [False, True])
def test_what_comes_back_trains(name: str, way: str, training: bool) -> None:
    case = give_back(name, way=way, training=training)  # type: ignore[arg-type]
    case.module.eval()
    first = _loss(case).item()
    case.module.train()
    optimizer = torch.optim.Adam(case.module.parameters(), lr=1e-2)
    for _ in range(12):
        optimizer.zero_grad()
        _loss(case).backward()
        optimizer.step()
    case.module.eval()
    assert _loss(case).item() < 0.8 * first


@pytest.mark.parametrize("training", [False, True])
def test_both_ways_have_the_same_state(training: bool) -> None:
    as_module, as_graph = (give_back("language", way=way, training=training) for way in ("module", "graph"))
    assert as_module.way == "module"
    state = as_module.module.state_dict()
    assert set(state) == set(as_graph.module.state_dict()) == set(as_module.source.state_dict())
    as_graph.module.load_state_dict(state)
    as_module.module.eval()
    as_graph.module.eval()
    inputs = torch.randint(19, (2, 7))
    torch.testing.assert_close(results(as_module.module, inputs), results(as_graph.module, inputs))


def test_shared_configurations_are_patched_once() -> None:
    case = give_back("language")
    patched = [each for each in case.back.patches if each.attribute == ("config", "hidden_size")]
    assert len(patched) == 1
    assert isinstance(case.module, Language)
