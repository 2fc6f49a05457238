"""Files of exported programs: what ``torch.export.save`` writes is read, and what would run code is refused."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from graphprune.errors import ModelError  # noqa: E402
from graphprune.frontends.torch_file import load_exported  # noqa: E402
from graphprune.frontends.torch_file_text import check_program  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

Entries = dict[str, bytes]


class Network(nn.Module):
    """Sizes that are computed, branches, a loop over rows, odd names, and arguments that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"my-layer 1": nn.Linear(8, 6), "o/p": nn.Linear(6, 4)})
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("table", torch.arange(4.0), persistent=False)

    def forward(self, x: torch.Tensor, *, mode: str = "mean", scale: float = 2.0) -> dict[str, Any]:
        y = self.norm(self.layers["o/p"](self.layers["my-layer 1"](x))) * self.table
        steps = torch.arange(x.shape[0] * 2 + 3) // (x.shape[0] // 2)
        y = torch.cond(x.shape[0] > 5, lambda a: a * 2, lambda a: a + 1, (y,))
        return {"mode": y.mean(0) if mode == "mean" else y, "steps": steps * scale, "rows": torch.vmap(torch.sin)(x)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of it."""
    path = tmp_path_factory.mktemp("saved") / "network.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about branches
        program = torch.export.export(
            Network(),
            (torch.randn(6, 8),),
            {"mode": "mean", "scale": 3.0},
            dynamic_shapes={"x": {0: torch.export.Dim("batch", min=4, max=100)}, "mode": None, "scale": None},
        )
        torch.export.save(program, path, extra_files={"notes.txt": "mine"})
    return path


def entries_of(path: Path) -> Entries:
    """What an archive holds, without its root."""
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def written(path: Path, entries: Entries, *more: tuple[str, bytes]) -> Path:
    """An archive of these entries under one root, and of others as they are named."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"network/{name}", content)
        for name, content in more:
            archive.writestr(name, content)
    return path


def pickled(mark: Path) -> bytes:
    """A checkpoint that leaves a mark where it is read."""

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(mark),)

    buffer = io.BytesIO()
    torch.save(Attack(), buffer)
    return buffer.getvalue()


def test_what_export_saves_is_read(saved: Path, tmp_path: Path) -> None:
    x = torch.randn(9, 8)
    for path in (saved, written(tmp_path / "again.pt2", entries_of(saved))):
        module = load_exported(path).module()
        found = module(x, mode="mean", scale=3.0)
        assert found["mode"].shape == (4,)
        torch.testing.assert_close(found["rows"], x.sin())


Change = Callable[[dict[str, Any], str], None]


def _text(before: str, after: str) -> Change:
    """Replace text of the document; CODE stands for a call."""

    def change(document: dict[str, Any], code: str) -> None:
        text = json.dumps(document)
        assert before in text, before
        changed = json.loads(text.replace(before, after.replace("CODE", json.dumps(code)[1:-1])))
        document.clear()
        document.update(changed)

    return change


def _symbol(document: dict[str, Any], code: str) -> None:
    def visit(value: Any) -> None:
        for each in value.values() if isinstance(value, dict) else value:
            if isinstance(each, dict | list):
                visit(each)
        if isinstance(value, dict) and str(value.get("expr_str", "")).startswith("Symbol"):
            value["expr_str"] = f"[{code}, {value['expr_str']}][1]"

    visit(document)


def _hidden(document: dict[str, Any], code: str) -> None:
    values = document["graph_module"]["graph"]["tensor_values"]
    meta = json.loads(json.dumps(values["x"]))
    meta["sizes"] = [{"as_expr": {"expr_str": code, "hint": None}}]
    values["metadata"] = meta


def _guard(document: dict[str, Any], code: str) -> None:
    document["guards_code"] = [f"L['x'].size()[0] >= 2 or {code}"]


def _node_name(document: dict[str, Any], code: str) -> None:
    graph = document["graph_module"]["graph"]
    text = json.dumps(graph).replace('"linear"', json.dumps(f"{code}; linear"))
    document["graph_module"]["graph"] = json.loads(text)


def _target(target: str, *arguments: str) -> Change:
    def change(document: dict[str, Any], code: str) -> None:
        node = document["graph_module"]["graph"]["nodes"][-1]
        node["target"] = target
        node["inputs"] = [{"name": "", "arg": {"as_string": each}, "kind": 1} for each in arguments or (code,)]

    return change


def _specification(document: dict[str, Any], code: str) -> None:
    entry = document["graph_module"]["module_call_graph"][0]["signature"]
    entry["in_spec"] = entry["in_spec"].replace('\\"mode\\"', json.dumps(json.dumps(f"mode':{code}, 'x"))[1:-1])


def _argument_name(document: dict[str, Any], code: str) -> None:
    document["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"][0] = f"x={code}"


def _enumeration(document: dict[str, Any], code: str) -> None:
    tree = {"type": "builtins.dict", "context": '[{"__enum__": true, "fqn": "evil:X", "name": "y"}]'}
    leaf = {"type": None, "context": None, "children_spec": []}
    entry = document["graph_module"]["module_call_graph"][0]["signature"]
    entry["out_spec"] = json.dumps([1, {**tree, "children_spec": [leaf]}])


def _factory(document: dict[str, Any], code: str) -> None:
    context = {"default_factory_module": "evil", "default_factory_name": "x", "dict_context": []}
    entry = document["graph_module"]["module_call_graph"][0]["signature"]
    entry["out_spec"] = json.dumps([1, {"type": "collections.defaultdict", "context": context, "children_spec": []}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_symbol, "more than arithmetic"),
        (_hidden, "more than arithmetic"),
        (_guard, "more than arithmetic"),
        (_node_name, "become code"),
        (_text("layers.my-layer 1.weight", 'layers.a\\", CODE, \\"b'), "become code"),
        (_text('"as_string": "mean"', '"as_string": "\' or CODE or \'"'), "become code"),
        (_target("torch.serialization.os.system"), "only operators"),
        (_target("torch.load"), "only operators"),
        (_target("torch.hub.load"), "only operators"),
        (_target("_operator.methodcaller"), "only operators"),
        (_target("torch.ops.aten.from_file.default"), "touches files"),
        (_target("torch.ops.debugprims.load_tensor.default"), "not allowed"),
        (_target("torch.ops.higher_order.aoti_call_delegate"), "not allowed"),
        (_target("torch.ops.aten.__class__.mro"), "no operator"),
        (_target("torch.ops.load_library"), "no operator"),
        (_target("#evil:op"), "only operators"),
        (_specification, "become code"),
        (_argument_name, "become code"),
        (_enumeration, "enumeration"),
        (_factory, "defaultdict"),
    ],
)
def test_text_that_would_run(change: Change, message: str, saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    entries = entries_of(saved)
    document = json.loads(entries["models/model.json"])
    change(document, f"__import__('os').mkdir({str(mark)!r})")
    entries["models/model.json"] = json.dumps(document).encode()
    path = written(tmp_path / "evil.pt2", entries)
    with pytest.raises(ModelError, match=message) as caught:
        load_exported(path).module()
    assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "Max('__import__(1)')",
        "Symbol('s0').func",
        "Symbol('s0', cls='x')",
        "exec(s0)",
        "(lambda: 1)()",
        "[s0 for s0 in s1]",
        "s0 if s1 else s2",
        "__builtins__",
        "FloorDiv(s0, 2)[0]",
        "Symbol('s0')\n.x",
        "1 +",
        "(" * 400 + "1" + ")" * 400,
    ],
)
def test_expressions_that_are_refused(text: str) -> None:
    with pytest.raises(ModelError):
        check_program({"expr_str": text})
    with pytest.raises(ModelError):
        check_program({"guards_code": [text.replace("s0", "L['x'].size()[0]")]})


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s0', positive=True, integer=True)",
        "Add(Mul(Integer(-2), Symbol('u0', integer=True)), Rational(1, 2), Float('0.25', precision=53))",
        "s0*(s1 + 3)//2 % 4 - -s2**2",
        "And(Eq(Mod(s0, 8), 0), Not(Ne(PythonMod(s0, 2), 1)), s1 >= 2)",
        "StrictGreaterThan(Max(Integer(1), FloorDiv(Symbol('s7', integer=True), Integer(2))), Integer(5))",
    ],
)
def test_expressions_that_are_read(text: str) -> None:
    check_program({"expr_str": text})


@pytest.mark.parametrize(
    "text",
    [
        "L['x'].size()[0] >= 2 and not L['kwargs']['a b'][0].size()[1] == 3",
        "Mod(L['x'].stride()[0], 16) != 0 or L['mode'] == 'mean'",
        "math.floor(L['x'].size()[0] / 2) <= torch.sym_max(3, L['n'])",
    ],
)
def test_guards_that_are_read(text: str) -> None:
    check_program({"guards_code": [text]})


@pytest.mark.parametrize(
    "text", ["L['x'].tofile('a')", "os.system('x')", "torch.load('x')", "L['x'].size", "L['x'].__class__", "math.x(1)"]
)
def test_guards_that_are_refused(text: str) -> None:
    with pytest.raises(ModelError, match="more than arithmetic"):
        check_program({"guards_code": [text]})


def test_older_archives_are_not_read(saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    model = entries_of(saved)["models/model.json"]
    old = [("version", b"8.1"), ("serialized_exported_program.json", model)]
    old += [(f"serialized_{name}.pt", pickled(mark)) for name in ("state_dict", "constants", "example_inputs")]
    paths = [
        written(tmp_path / "a.pt2", {"archive_format": b"pt2"}, *old),
        written(tmp_path / "b.pt2", entries_of(saved), *old),
        written(tmp_path / "c.pt2", {"archive_format": b"pt2", "archive_version": b"0", **dict(old)}),
    ]
    for path in paths:
        with pytest.raises(ModelError):
            load_exported(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("data/aotinductor/model/lib.so", "compiled code"),
        ("data/constants/custom_obj_0", "pickled object"),
        ("data/constants/opaque_obj_0", "pickled object"),
        ("models/other.json", "no part of"),
        ("data/weights/../../x", "no part of"),
        ("executorch/x", "no part of"),
        ("data/weights/Weight_0", "same name"),
    ],
)
def test_entries_that_are_refused(entry: str, message: str, saved: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "evil.pt2", entries_of(saved) | {entry: b"x"})
    with pytest.raises(ModelError, match=message):
        load_exported(path)


def test_entries_that_are_there_twice(saved: Path, tmp_path: Path) -> None:
    entries = entries_of(saved)
    with pytest.warns(UserWarning, match="Duplicate"):
        path = written(tmp_path / "evil.pt2", entries, ("network/models/model.json", entries["models/model.json"]))
    with pytest.raises(ModelError, match="same name"):
        load_exported(path)


@pytest.mark.parametrize("entry", ["data/sample_inputs/model.pt", "data/weights/weight_0", "data/constants/model.pt"])
def test_pickles_hold_tensors_alone(entry: str, saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    entries = entries_of(saved) | {entry: pickled(mark)}
    config = json.loads(entries["data/weights/model_weights_config.json"])
    for tensor in config["config"].values():
        tensor["use_pickle"] = tensor["path_name"] == "weight_0"
    entries["data/weights/model_weights_config.json"] = json.dumps(config).encode()
    with pytest.raises(ModelError, match="holds pickled objects"):
        load_exported(written(tmp_path / "evil.pt2", entries))
    assert not mark.exists()


def test_weights_that_lie_elsewhere(saved: Path, tmp_path: Path) -> None:
    entries = entries_of(saved)
    config = json.loads(entries["data/weights/model_weights_config.json"])
    next(iter(config["config"].values()))["path_name"] = "../../extra/notes.txt"
    entries["data/weights/model_weights_config.json"] = json.dumps(config).encode()
    with pytest.raises(ModelError, match="holds no tensor"):
        load_exported(written(tmp_path / "evil.pt2", entries))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive"])
def test_other_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt2").write_bytes(content)
    with pytest.raises(ModelError, match="not an archive") as caught:
        load_exported(tmp_path / "x.pt2")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="cannot be read"):
        load_exported(tmp_path / "nowhere.pt2")


def test_checkpoints_are_not_programs(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "x.pt2")
    with pytest.raises(ModelError, match="a checkpoint is loaded into its module first"):
        load_exported(tmp_path / "x.pt2")
