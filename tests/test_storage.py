"""Pruned modules in folders: whole or not at all, without pickles, with and without the code of their class."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from torch import nn  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402
from torch_returned import NETWORKS, Returned, give_back  # noqa: E402

from graphprune.errors import ModelError, UsageError  # noqa: E402
from graphprune.frontends.torch_pruned import PrunedModule  # noqa: E402
from graphprune.storage import load, save  # noqa: E402

pytestmark = pytest.mark.torch


def trained(name: str, way: str, *, training: bool = False) -> Returned:
    """A pruned network whose weights are no longer those it was cut from."""
    case = give_back(name, way=way, training=training)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(case.module.parameters(), lr=0.1)
    (found,) = pytree.tree_leaves(case.module(case.inputs))
    found.square().mean().backward()
    optimizer.step()
    case.module.eval()
    return case


def same(a: nn.Module, b: nn.Module, inputs: torch.Tensor) -> None:
    """Assert that both compute the same, and have the same state."""
    torch.testing.assert_close(a(inputs), b(inputs), rtol=1e-4, atol=1e-5)
    assert list(a.state_dict()) == list(b.state_dict())


@pytest.mark.parametrize("way", ["auto", "graph"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_needs_no_other_code(name: str, way: str, tmp_path: Path) -> None:
    case = trained(name, way, training=name == "residual")
    loaded = load(save(case, tmp_path / "slim"))
    assert isinstance(loaded, PrunedModule)
    assert loaded.training is False
    same(loaded, case.module, case.inputs)
    trainable = {name: parameter.requires_grad for name, parameter in case.module.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in loaded.named_parameters()} == trainable
    loaded.train()
    sum(each.sum() for each in pytree.tree_leaves(loaded(case.inputs))).backward()
    assert any(parameter.grad is not None for parameter in loaded.parameters())


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "stream width"])
def test_the_class_comes_back(name: str, tmp_path: Path) -> None:
    case = trained(name, "module")
    folder = save(case, tmp_path / "slim")
    for model in (NETWORKS[name][0], NETWORKS[name][0]()):
        loaded = load(folder, model)
        assert type(loaded) is type(case.source)
        same(loaded, case.module, case.inputs)
    assert isinstance(model, nn.Module)
    assert sum(p.numel() for p in model.parameters()) > sum(p.numel() for p in loaded.parameters())


def test_modes_switch_after_loading(tmp_path: Path) -> None:
    case = trained("residual", "graph", training=True)
    loaded = load(save(case, tmp_path / "slim"))
    assert torch.equal(loaded(case.inputs), loaded(case.inputs))
    loaded.train()
    assert not torch.equal(loaded(case.inputs), loaded(case.inputs))
    assert "offset" not in loaded.state_dict()


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    case = trained("language", "module")
    folder = save(case, tmp_path / "slim")
    assert json.loads((folder / "manifest.json").read_text())["ties"] == {"head.weight": "embed.weight"}
    for loaded in (load(folder), load(folder, case.source)):
        assert loaded.get_parameter("head.weight") is loaded.get_parameter("embed.weight")


def test_the_manifest_says_what_is_stored(tmp_path: Path) -> None:
    case = trained("language", "module")
    manifest = json.loads((save(case, tmp_path / "slim") / "manifest.json").read_text())
    assert manifest["class"] == "torch_returned:Language"
    assert manifest["way"] == "module"
    assert manifest["outputs"] == ["logits"]
    assert manifest["inputs"] == [{"name": "tokens", "shape": [2, 7], "dtype": "int64"}]
    assert manifest["versions"]["torch"] == torch.__version__


def test_nothing_is_pickled(tmp_path: Path) -> None:
    folder = save(trained("encoder", "graph"), tmp_path / "slim")
    names = {"manifest.json", "model.safetensors", "graph.json", "constants.safetensors", "plan.json"}
    assert {each.name for each in folder.iterdir()} == names
    for each in folder.glob("*.json"):
        json.loads(each.read_text())


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    case = trained("grouped", "graph")
    target = tmp_path / "deep" / "slim"
    save(case, target)
    (target / "plan.json").write_text("older")
    save(case, target)
    assert json.loads((target / "plan.json").read_text())
    load(target)
    assert [each.name for each in target.parent.iterdir()] == ["slim"]


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("42")
    case = trained("grouped", "graph")
    with pytest.raises(UsageError, match="not a folder of graphprune"):
        save(case, tmp_path)
    (tmp_path / "manifest.json").write_text('{"name": "of an application"}')
    with pytest.raises(UsageError, match="not a folder of graphprune"):
        save(case, tmp_path)
    with pytest.raises(UsageError, match="not a folder of graphprune"):
        save(case, tmp_path / "thesis.tex")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["manifest.json", "thesis.tex"]


@pytest.mark.parametrize("folder", [False, True])
def test_files_of_others_beside_ours_are_left_alone(folder: bool, tmp_path: Path) -> None:
    case = trained("grouped", "graph")
    target = save(case, tmp_path / "slim")
    before = (target / "manifest.json").stat().st_mtime_ns
    if folder:
        (target / "plan.json").unlink()
        (target / "plan.json").mkdir()
    else:
        (target / "epoch 3.pt").write_text("mine")
    with pytest.raises(UsageError, match="holds 'plan.json'" if folder else "holds 'epoch 3.pt'"):
        save(case, target)
    assert (target / "manifest.json").stat().st_mtime_ns == before
    assert len(list(target.iterdir())) == 5 + (not folder)


@pytest.mark.parametrize("name", [".", ""])
def test_the_folder_one_is_in(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = trained("grouped", "graph")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        load(save(case, name))
        assert Path.cwd() == tmp_path
        assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("dangling", [False, True])
def test_links_are_written_through(dangling: bool, tmp_path: Path) -> None:
    case = trained("grouped", "graph")
    (tmp_path / "link").symlink_to("real")
    if not dangling:
        (tmp_path / "real").mkdir()
    load(save(case, tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "manifest.json").is_file()


def test_a_failed_write_leaves_the_older_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = trained("grouped", "graph")
    target = save(case, tmp_path / "slim")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ModelError, match="No space left"):
        save(case, target)
    monkeypatch.undo()
    load(target)
    assert len(list(target.iterdir())) == 5


def test_the_library_of_weights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = trained("grouped", "graph")
    folder = save(case, tmp_path / "slim")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    for act in (lambda: save(case, tmp_path / "other"), lambda: load(folder)):
        with pytest.raises(ModelError, match="safetensors: pip install"):
            act()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_and_what_is_frozen_come_back(dtype: torch.dtype, tmp_path: Path) -> None:
    case = trained("language", "module")
    case.module.to(dtype)
    frozen = next(iter(dict(case.module.named_parameters())))
    case.module.get_parameter(frozen).requires_grad_(False)
    folder = save(case, tmp_path / "slim")
    expected = {name: (each.dtype, each.requires_grad) for name, each in case.module.named_parameters()}
    assert not all(trains for _, trains in expected.values())
    for loaded in (load(folder), load(folder, case.source), load(folder, NETWORKS["language"][0])):
        assert {name: (each.dtype, each.requires_grad) for name, each in loaded.named_parameters()} == expected
        assert loaded.get_parameter("head.weight") is loaded.get_parameter("embed.weight")
        assert all(torch.equal(value, case.module.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_models_that_cannot_be_made(tmp_path: Path) -> None:
    folder = save(trained("residual", "module"), tmp_path / "slim")

    def broken() -> nn.Module:
        raise TypeError("no width")

    with pytest.raises(ModelError, match=r"the factory failed \(TypeError: no width\)") as caught:
        load(folder, broken)
    assert "damaged" not in str(caught.value)
    with pytest.raises(UsageError, match="not a str"):
        load(folder, "Residual")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="makes a int"):
        load(folder, lambda: 3)  # type: ignore[arg-type, return-value]
    (folder / "plan.json").write_text("{}")
    with pytest.raises(ModelError, match=r"damaged .*not a plan"):
        load(folder, NETWORKS["residual"][0])
    (folder / "plan.json").unlink()
    with pytest.raises(ModelError, match=r"plan\.json is missing"):
        load(folder, NETWORKS["residual"][0])
    load(folder)


@pytest.mark.parametrize("device", ["nowhere", "xla", "cpu:x"])
def test_devices_that_are_not_there(device: str, tmp_path: Path) -> None:
    folder = save(trained("grouped", "graph"), tmp_path / "slim")
    with pytest.raises(UsageError, match="map_location") as caught:
        load(folder, map_location=device)
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = trained("grouped", "graph")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ModelError, match="No space left"):
        save(case, tmp_path / "slim")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("manifest.json", "{", "not JSON"),
        ("manifest.json", "[]", "not a JSON object"),
        ("manifest.json", "{}", "not a folder that graphprune stored"),
        ("manifest.json", '{"kind": "graphprune module", "format": 99}', "format 99"),
        ("manifest.json", '{"kind": "graphprune module", "format": 1}', "damaged"),
        ("graph.json", "{}", "KeyError"),
        ("graph.json", '{"format": 1, "training": false, "parameters": {}, "nodes": [{"op": "exec"}]}', "not a graph"),
        ("model.safetensors", "nothing", "model.safetensors cannot be read"),
        ("constants.safetensors", "", "constants.safetensors cannot be read"),
    ],
)
def test_damaged_folders(file: str, text: str, message: str, tmp_path: Path) -> None:
    folder = save(trained("grouped", "graph"), tmp_path / "slim")
    (folder / file).write_text(text)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["manifest.json", "graph.json", "model.safetensors", "constants.safetensors"])
def test_missing_files(file: str, tmp_path: Path) -> None:
    folder = save(trained("grouped", "graph"), tmp_path / "slim")
    (folder / file).unlink()
    with pytest.raises(ModelError, match=file):
        load(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("os.system.default", "not allowed"),
        ("aten.from_file.default", "not allowed"),
        ("operator.attrgetter", "no operator"),
        ("higher_order.nothing", "not allowed"),
        ("aten.__class__.mro", "no operator"),
    ],
)
def test_graphs_call_nothing_but_operators(target: str, message: str, tmp_path: Path) -> None:
    folder = save(trained("grouped", "graph"), tmp_path / "slim")
    document = json.loads((folder / "graph.json").read_text())
    next(node for node in document["nodes"] if node["op"] == "call_function")["target"] = target
    (folder / "graph.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=message):
        load(folder)


@pytest.mark.parametrize("where", ["name", "target"])
def test_names_cannot_be_code(where: str, tmp_path: Path) -> None:
    folder = save(trained("grouped", "graph"), tmp_path / "slim")
    document = json.loads((folder / "graph.json").read_text())
    node = next(node for node in document["nodes"] if node["op"] == "placeholder")
    node[where] = "x=__import__('os').getcwd()"
    (folder / "graph.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="not a graph"):
        load(folder)


def test_another_model_is_refused(tmp_path: Path) -> None:
    case = trained("residual", "module")
    folder = save(case, tmp_path / "slim")
    with pytest.raises(ModelError, match="was stored from a"):
        load(folder, nn.Linear(2, 2))
    with pytest.raises(ModelError, match="where the plan was made for"):
        load(folder, case.module)
    other = NETWORKS["residual"][0]()
    other.features = 7
    with pytest.raises(ModelError, match="features"):
        load(folder, other)


def test_a_graph_takes_no_model(tmp_path: Path) -> None:
    case = trained("stream width", "auto")
    folder = save(case, tmp_path / "slim")
    with pytest.raises(UsageError, match="load it without a model"):
        load(folder, case.source)


def test_values_are_needed(tmp_path: Path) -> None:
    case = give_back("grouped", way="graph")
    case.module.to("meta")
    with pytest.raises(ModelError, match="meta device"):
        save(case, tmp_path / "slim")


def test_the_device_is_that_of_the_reader(tmp_path: Path) -> None:
    case = trained("tagger", "graph")
    loaded = load(save(case, tmp_path / "slim"), map_location="cpu")
    assert {parameter.device.type for parameter in loaded.parameters()} == {"cpu"}
    loaded = load(tmp_path / "slim", map_location="meta")
    assert {parameter.device.type for parameter in loaded.parameters()} == {"meta"}
