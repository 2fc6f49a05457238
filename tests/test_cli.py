"""The command line: answers, exit codes, and what is left behind when something goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from command_line import Answer, Run

import graphprune.api
from graphprune.models import digits_path

DIGITS = str(digits_path())
COMMAND = [sys.executable, "-m", "graphprune.cli"]


def test_version_and_help_start_without_heavy_imports() -> None:
    heavy = "numpy onnx onnx_ir onnxruntime networkx"
    script = f"""
import sys
from graphprune.cli import main
assert main(["--version"]) == 0
assert main(["prune", "--help"]) == 0
loaded = [name for name in "{heavy}".split() if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("graphprune 0.")
    assert "--round-to" in done.stdout


def test_no_arguments_show_the_commands(run: Run) -> None:
    answer = run()
    assert answer.code == 0
    for command in ("inspect", "explain", "prune", "apply", "verify", "bench", "demo"):
        assert command in answer.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("prune", "Missing argument 'MODEL'"),
        ("prune MODEL", "how much? Give --ratio"),
        ("prune MODEL --ratio 0.5", "where to? Give --output"),
        ("prune MODEL -o OUT --ratio 0.5 --macs 50%", "--ratio and --macs exclude each other"),
        ("prune MODEL -o OUT --ratio 1.5", "--ratio: '1.5' is not a share"),
        ("prune MODEL -o OUT --ratio half", "--ratio: 'half' is not a share"),
        ("prune MODEL -o OUT --macs lots", "'lots' is no amount"),
        ("prune MODEL -o OUT --ratio 0.5 --criterion guess", "guess"),
        ("prune MODEL -o OUT --ratio 0.5 --scope universal", "universal"),
        ("prune MODEL -o OUT --ratio 0.5 --round-to 0", "--round-to"),
        ("prune MODEL -o OUT --ratio 0.5 --exclude nothing-like-it", "nothing-like-it"),
        ("prune MODEL -o OUT --ratio 0.5 --group x:0.5", "--group: 'x:0.5' is not PATTERN=RATIO"),
        ("prune MODEL -o OUT --ratio 0.5 --dims N=0", "--dims: 'N=0'"),
        ("prune MODEL -o OUT -p levitate", "levitate"),
        ("prune MODEL -o OUT -p canonicalize --ratio 0.5", "the pipeline has no 'prune' without options"),
        ("prune MODEL -o MODEL --ratio 0.5", "the output is the input"),
        ("prune MODEL -o . --ratio 0.5", "the output is a folder"),
        ("prune MODEL -o OUT --ratio 0.5 --plan OUT", "named for two outputs"),
        ("prune MODEL --no-such-option", "No such option: --no-such-option"),
        ("explain MODEL nothing_like_it", "there is no tensor 'nothing_like_it'"),
        ("inspect MODEL --format poem", "poem"),
        ("apply MODEL MODEL -o OUT", "the plan cannot be read"),
        ("levitate", "No such command 'levitate'"),
    ],
)
def test_usage_errors(run: Run, tmp_path: Path, arguments: str, message: str) -> None:
    words = [{"MODEL": DIGITS, "OUT": str(tmp_path / "slim.onnx")}.get(word, word) for word in arguments.split()]
    before = digits_path().read_bytes()
    answer = run(*words)
    assert answer.code == 2
    assert message in answer.err
    assert answer.err.count("\n") == 1
    assert answer.out == ""
    assert not list(tmp_path.iterdir())
    assert digits_path().read_bytes() == before
    refusal = run(*words, "--json")
    assert refusal.code == 2
    assert refusal.document["status"] == "refused"
    assert refusal.document["error"]["code"] == 2


@pytest.mark.parametrize("command", ["inspect", "prune", "bench", "explain"])
@pytest.mark.parametrize("content", [None, b"", b"# not a model\n", bytes(range(256))])
def test_unreadable_input(run: Run, tmp_path: Path, command: str, content: bytes | None) -> None:
    model = tmp_path / "model.onnx"
    if content is not None:
        model.write_bytes(content)
    more: dict[str, list[object]] = {
        "prune": ["-o", tmp_path / "slim.onnx", "--ratio", "0.5", "--plan", tmp_path / "plan.json"],
        "explain": ["x"],
    }
    answer = run(command, model, *more.get(command, []))
    assert answer.code == 3
    assert answer.out == ""
    assert answer.err.count("\n") == 1
    assert "model.onnx" in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"] * (content is not None)


def test_an_output_folder_that_does_not_exist(run: Run, tmp_path: Path) -> None:
    answer = run("prune", DIGITS, "-o", tmp_path / "nowhere" / "slim.onnx", "--ratio", "0.5")
    assert answer.code == 3
    assert "nowhere does not exist" in answer.err


def test_prune_answers_with_a_document(run: Run, tmp_path: Path) -> None:
    slim, plan, report = tmp_path / "slim.onnx", tmp_path / "plan.json", tmp_path / "report.json"
    answer = run("prune", DIGITS, "-o", slim, "--ratio", "50%", "--plan", plan, "--report", report, "--json")
    assert answer.code == 0
    assert answer.err == ""
    found = answer.document
    assert found["status"] == "pruned"
    for cost in ("params", "macs", "bytes"):
        assert 0 < found[cost]["after"] < 0.7 * found[cost]["before"]
    assert found["bytes"]["after"] < slim.stat().st_size
    assert 0 < found["groups"]["cut"] <= found["groups"]["total"]
    assert found["ceiling"]["params"] > 0.5
    assert found["verified"] is True
    assert found["max_error"] < 1e-3
    assert found["undeclared"] == []
    assert found["output"] == str(slim)
    assert sum(found["seconds"].values()) > 0
    assert json.loads(report.read_text()) == found
    assert json.loads(plan.read_text())["cuts"]
    onnx.checker.check_model(str(slim))


def test_prune_speaks_to_people(run: Run, tmp_path: Path) -> None:
    slim = tmp_path / "slim.onnx"
    answer = run("prune", DIGITS, "-o", slim, "--ratio", "0.5")
    assert answer.code == 0
    for word in ("parameters", "MACs", "bytes", "before", "after", "verified", "seconds", "groups", str(slim)):
        assert word in answer.out
    assert answer.err == ""


def test_quiet_is_silent_and_replaces_an_earlier_output(run: Run, tmp_path: Path) -> None:
    slim = tmp_path / "slim.onnx"
    slim.write_bytes(b"older")
    assert run("prune", DIGITS, "-o", slim, "--ratio", "0.5", "-q") == Answer(0, "", "")
    assert ir.load(slim).graph.name


def test_dry_run_writes_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = run("prune", DIGITS, "--ratio", "0.5", "--dry-run", "--json")
    assert answer.code == 0
    assert answer.document["output"] is None
    assert not list(tmp_path.iterdir())


def test_options_reach_the_choice(run: Run, tmp_path: Path) -> None:
    slim = tmp_path / "slim.onnx"
    run("prune", DIGITS, "-o", slim, "--ratio", "0.5", "--round-to", "8", "--criterion", "l2", "--json")
    shapes = [value.shape for value in ir.load(slim).graph.initializers.values() if value.shape is not None]
    widths = {shape[0] for shape in shapes if len(shape) == 4}
    assert {width for width in widths if isinstance(width, int) and width % 8} <= {4}, "only groups of 8 lose a half"
    assert widths - {4}


def test_a_pipeline_takes_the_options_beside_it(run: Run, tmp_path: Path) -> None:
    written = run("prune", DIGITS, "-o", tmp_path / "a.onnx", "-p", "canonicalize, prune{ratio=0.5}, verify", "--json")
    beside = run("prune", DIGITS, "-o", tmp_path / "b.onnx", "-p", "prune", "--ratio", "0.5", "--json")
    assert written.document["params"] == beside.document["params"]
    assert written.document["verified"] is beside.document["verified"] is True
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_groups_are_counted_where_they_are_cut(run: Run, tmp_path: Path) -> None:
    steps = "prune{ratio=0.3}, prune{ratio=0.3}"
    groups = run("prune", DIGITS, "-o", tmp_path / "slim.onnx", "-p", steps, "--json").document["groups"]
    assert groups == {"total": 8, "cut": 8}


def test_a_target_is_met(run: Run, tmp_path: Path) -> None:
    answer = run("prune", DIGITS, "-o", tmp_path / "slim.onnx", "--macs", "40%", "--scope", "global", "--json")
    macs = answer.document["macs"]
    assert 0.2 * macs["before"] < macs["after"] <= 0.4 * macs["before"]


def test_a_target_out_of_reach_leaves_nothing(run: Run, tmp_path: Path) -> None:
    words = ("prune", DIGITS, "-o", tmp_path / "slim.onnx", "--plan", tmp_path / "plan.json", "--macs", "10")
    answer = run(*words)
    assert answer.code == 4
    assert answer.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
    refusal = run(*words, "--json")
    assert refusal.document["status"] == "refused"
    assert refusal.document["error"]["code"] == 4
    assert refusal.document["macs"]["before"] > 0
    assert refusal.document["groups"]["cut"] == 0
    assert refusal.document["output"] is None


def test_a_plan_is_applied_and_verified(run: Run, tmp_path: Path) -> None:
    slim, again, plan = tmp_path / "slim.onnx", tmp_path / "again.onnx", tmp_path / "plan.json"
    run("prune", DIGITS, "-o", slim, "--ratio", "0.4", "--plan", plan)
    answer = run("apply", plan, DIGITS, "-o", again, "--json")
    assert answer.code == 0
    assert answer.document["verified"] is True
    assert again.read_bytes() == slim.read_bytes()
    verified = run("verify", DIGITS, slim, "--plan", plan, "--json")
    assert verified.code == 0
    assert verified.document["verified"] is True
    assert verified.document["max_error"] <= verified.document["tolerance"] < 1e-3
    assert "verified" in run("verify", DIGITS, slim, "--plan", plan).out


def test_a_wrong_slim_model_fails_verification(run: Run, tmp_path: Path) -> None:
    slim, plan = tmp_path / "slim.onnx", tmp_path / "plan.json"
    run("prune", DIGITS, "-o", slim, "--ratio", "0.4", "--plan", plan)
    model = onnx.load(slim)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values[::-1]), weight.name))
    onnx.save(model, slim)
    answer = run("verify", DIGITS, slim, "--plan", plan, "--json")
    assert answer.code == 5
    assert answer.document["status"] == "refused"
    assert answer.document["error"]["code"] == 5
    assert answer.document["verified"] is False
    assert "slim.onnx" in answer.err


def test_bench(run: Run, tmp_path: Path) -> None:
    slim = tmp_path / "slim.onnx"
    run("prune", DIGITS, "-o", slim, "--ratio", "0.5", "-q")
    answer = run("bench", DIGITS, slim, "--repeats", "3", "--warmup", "1", "--threads", "1", "--json")
    assert answer.code == 0
    first, second = answer.document["models"]
    assert first["speedup"] == 1
    assert second["bytes"] < first["bytes"]
    assert second["median_ms"] > 0
    assert "speed-up" in run("bench", DIGITS, "--repeats", "2").out


@pytest.mark.parametrize("form", ["table", "json", "dot", "graphml", "text"])
def test_inspect(run: Run, form: str) -> None:
    answer = run("inspect", DIGITS, "--format", form)
    assert answer.code == 0
    assert answer.err == ""
    start = {"table": "", "json": "{", "dot": "graph couplings {", "graphml": "<graphml", "text": "a0  channel["}[form]
    assert answer.out.startswith(start)
    if form == "table":
        assert "ceiling: pruning can reach" in answer.out
    if form == "json":
        assert answer.out == run("inspect", DIGITS, "--json").out
        assert answer.document["groups"][0]["slices"][0].keys() == {"tensor", "dim"}
        assert answer.document["ledger"]


def test_explain(run: Run) -> None:
    group = run("inspect", DIGITS, "--json").document["groups"][0]
    first, last = (f"{place['tensor']}:{place['dim']}" for place in (group["slices"][0], group["slices"][-1]))
    assert f"group {group['name']}: channel" in run("explain", DIGITS, first).out
    answer = run("explain", DIGITS, first, last, "--json")
    assert answer.document["coupled"] is True
    assert answer.document["couplings"][0]["path"]


def test_names_are_printed_as_they_are(run: Run, tmp_path: Path) -> None:
    model = ir.load(digits_path())
    value = next(value for value in model.graph.initializers.values() if len(value.shape or ()) == 4)
    value.name = "[bold]weight[/bold] :smile:"
    odd = tmp_path / "odd.onnx"
    ir.save(model, odd)
    assert "[bold]weight[/bold] :smile:" in run("inspect", odd, "--all").out


def test_a_bug_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise KeyError("gone")

    monkeypatch.setattr(graphprune.api, "inspect", fail)
    answer = run("inspect", DIGITS, "--json")
    assert answer.code == 1
    assert answer.err == (
        "graphprune: internal error: KeyError: 'gone'; please report it (--debug shows the traceback)\n"
    )
    assert answer.document["status"] == "failed"
    assert "Traceback" in run("inspect", DIGITS, "--debug").err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(run: Run, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    monkeypatch.setattr(graphprune.api, "inspect", lambda *a, **k: os.kill(os.getpid(), number))
    answer = run("inspect", DIGITS)
    assert answer.code == code
    assert answer.err.count("\n") == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MemoryError(), 3, "not enough memory for this model"),
        (OSError(28, "No space left on device", "slim.onnx"), 3, "slim.onnx: No space left on device"),
    ],
)
def test_what_the_machine_lacks(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, message: str
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(graphprune.api, "inspect", fail)
    assert run("inspect", DIGITS) == Answer(code, "", f"graphprune: {message}\n")


def test_nobody_reads_the_output() -> None:
    done = subprocess.run(
        f"{' '.join(COMMAND)} inspect {DIGITS} --format graphml; echo $? >&2",
        shell=True,
        stdout=_closed_pipe(),
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == "141\n"


def _closed_pipe() -> int:
    """The writing end of a pipe whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer
