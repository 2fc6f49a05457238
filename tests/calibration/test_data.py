"""Batches from whatever the user has, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import parse, run

from graphprune.calibration.data import Batches, Data, load_batches
from graphprune.calibration.pieces import Array
from graphprune.calibration.slots import slots_of
from graphprune.errors import GraphpruneError, ModelError, UsageError
from graphprune.sample_inputs import InputSpec


def spec(name: str, *dims: int | str | None, dtype: str = "float32") -> InputSpec:
    return InputSpec(name, np.dtype(dtype), dims)


VECTOR = [spec("x", "batch", 3)]
IMAGES = [spec("images", "N", 3, 8, 10)]
TEXT = [spec("ids", "batch", "seq", dtype="int64"), spec("mask", "batch", "seq", dtype="int64")]


def rows(count: int) -> Array:
    """Rows whose numbers tell which they are."""
    return np.repeat(np.arange(count, dtype=np.float32)[:, None], 3, 1)


def joined(batches: Batches, name: str = "x") -> Array:
    return np.concatenate([feed[name] for feed in batches.feeds])


def test_an_array_is_cut_to_batches_in_an_order_drawn_by_the_seed() -> None:
    batches = load_batches(rows(40), VECTOR, batch=16)
    assert [len(feed["x"]) for feed in batches.feeds] == [16, 16, 8] == list(batches.counts)
    assert (batches.samples, batches.synthetic, batches.targets) == (40, False, None)
    order = joined(batches)[:, 0]
    assert sorted(order) == list(range(40))
    assert list(order) != list(range(40))
    assert np.array_equal(order, joined(load_batches(rows(40), VECTOR))[:, 0])
    assert not np.array_equal(order, joined(load_batches(rows(40), VECTOR, seed=1))[:, 0])
    assert (
        batches.digest() == load_batches(rows(40), VECTOR).digest() != load_batches(rows(40), VECTOR, seed=1).digest()
    )


def test_a_limit_draws_from_all_samples() -> None:
    batches = load_batches(rows(1000), VECTOR, limit=20)
    assert batches.samples == 20
    assert joined(batches)[:, 0].max() > 500


def test_labels_go_with_their_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=rows(20), y=np.arange(20))
    named = load_batches(tmp_path / "data.npz", VECTOR, limit=10)
    own = load_batches({"x": rows(20)}, VECTOR, labels=np.arange(20), limit=10)
    np.savez(tmp_path / "other.npz", x=rows(20), wanted=np.arange(20))
    chosen = load_batches(tmp_path / "other.npz", VECTOR, labels="wanted", limit=10)
    for batches in (named, own, chosen):
        assert batches.targets is not None
        assert np.array_equal(np.concatenate(batches.targets), joined(batches)[:, 0])


def test_a_fixed_batch_size_cuts_feeds_and_leaves_out_the_rest() -> None:
    batches = load_batches(rows(7), [spec("x", 2, 3)])
    assert [feed["x"].shape for feed in batches.feeds] == [(2, 3)] * 3
    assert batches.notes == ("1 sample left out: the model takes batches of exactly 2",)
    single = load_batches(rows(3), [spec("x", 1, 3)])
    assert [feed["x"].shape for feed in single.feeds] == [(1, 3)] * 3
    with pytest.raises(UsageError, match="batches of exactly 8 samples, and 7 are given; give 8 or more"):
        load_batches(rows(7), [spec("x", 8, 3)])


def test_items_of_an_iterable_are_samples_or_batches() -> None:
    samples = load_batches([(row, index) for index, row in enumerate(rows(5))], VECTOR, batch=2)
    assert [len(feed["x"]) for feed in samples.feeds] == [2, 2, 1]
    assert samples.targets is not None
    assert [list(labels) for labels in samples.targets] == [[0, 1], [2, 3], [4]]
    batched = load_batches(({"x": rows(4), "labels": np.arange(4)} for _ in range(3)), [spec("x", 1, 3)])
    assert len(batched) == 12
    limited = load_batches((rows(4) for _ in iter(int, 1)), VECTOR, limit=6)  # a loader that never ends
    assert limited.samples == 6


def test_items_of_other_lengths_stay_apart() -> None:
    items = [{"ids": np.ones((2, length), np.int32), "mask": np.ones((2, length))} for length in (4, 6, 4)]
    batches = load_batches(items, TEXT)
    assert [feed["ids"].shape for feed in batches.feeds] == [(4, 4), (2, 6)]
    assert {feed["mask"].dtype.name for feed in batches.feeds} == {"int64"}


def test_inputs_without_a_batch_are_shared_or_fed_whole() -> None:
    recurrent = [spec("x", "N", "T", 4), spec("state", 2, "N", 3), spec("rate", dtype="int64")]
    given = {"x": np.ones((6, 5, 4)), "state": np.ones((2, 6, 3)), "rate": np.array(16000)}
    batches = load_batches(given, recurrent, batch=4)
    assert [[v.shape for v in feed.values()] for feed in batches.feeds] == [
        [(4, 5, 4), (2, 4, 3), ()],
        [(2, 5, 4), (2, 2, 3), ()],
    ]
    frames = load_batches(np.ones((3, 9, 4)), [spec("x", "frames", 4)])
    assert [feed["x"].shape for feed in frames.feeds] == [(9, 4)] * 3


def test_folders_of_arrays_are_read(tmp_path: Path) -> None:
    for index, row in enumerate(rows(6)):
        (tmp_path / str(index // 3)).mkdir(exist_ok=True)
        np.save(tmp_path / str(index // 3) / f"{index}.npy", row)
    batches = load_batches(tmp_path, VECTOR, limit=5)
    assert batches.samples == 5
    assert batches.targets is not None
    assert np.array_equal(np.concatenate(batches.targets), joined(batches)[:, 0] // 3)


def refusals(folder: Path) -> dict[str, tuple[Any, list[InputSpec]]]:
    """Data that do not fit, by what must be said about them."""
    bad = rows(4)
    bad[2, 1] = np.nan
    np.savez(folder / "bad.npz", x=bad)
    np.savez(folder / "objects.npz", x=np.array([{}], dtype=object))
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    (folder / "pickled.npy").write_bytes(pickle.dumps([1]))
    (folder / "text.csv").write_text("1,2,3")
    (folder / "empty").mkdir()
    return {
        r"bad.npz: input 'x': holds NaN; leave such samples out": (folder / "bad.npz", VECTOR),
        r"objects.npz: cannot be read .*pickled objects, which are never loaded": (folder / "objects.npz", VECTOR),
        r"broken.npz: cannot be read": (folder / "broken.npz", VECTOR),
        r"pickled.npy: cannot be read .*pickled objects": (folder / "pickled.npy", VECTOR),
        r"text.csv: calibration inputs are an .npz": (folder / "text.csv", VECTOR),
        r"no such file or folder of calibration inputs": (folder / "missing.npz", VECTOR),
        r"empty: holds neither pictures nor .npy": (folder / "empty", VECTOR),
        r"has no input 'z'; its inputs are ids, mask": ({"z": rows(2)}, TEXT),
        r"input 'mask' is missing; give an array for each of ids, mask": ({"ids": np.ones((2, 2), int)}, TEXT),
        r"has shape 4x5, and the model takes samplesx3": (np.ones((4, 5)), VECTOR),
        r"has shape 4x8x10x3, .*array.transpose\(0, 3, 1, 2\)": (np.ones((4, 8, 10, 3)), IMAGES),
        r"holds pixels \(uint8\) .*--preprocess imagenet": (np.ones((4, 3, 8, 10), np.uint8), IMAGES),
        r"different numbers of samples \(2 of 'ids', 3 of 'mask'\)": (
            {"ids": np.ones((2, 4), int), "mask": np.ones((3, 4), int)},
            TEXT,
        ),
        r"'ids': holds float64 values that int64 cannot have": ([(np.full((1, 2), 0.5), np.ones((1, 2)))], TEXT),
        r"there are 3 labels for 4 samples": ({"x": rows(4), "labels": np.arange(3)}, VECTOR),
        r"iterable of calibration inputs is empty": ([], VECTOR),
        r"holds <U1, which is no array of numbers": (np.array([["a"]]), VECTOR),
        r"values too large for float16": (np.full((1, 3), 1e6), [spec("x", "N", 3, dtype="float16")]),
        r"a int gives no calibration inputs": (3, VECTOR),
        r"the model has no inputs": (rows(2), []),
    }


def test_what_does_not_fit_is_refused_in_a_line(tmp_path: Path) -> None:
    for message, (source, specs) in refusals(tmp_path).items():
        with pytest.raises(GraphpruneError, match=message) as caught:
            load_batches(source, specs)
        assert isinstance(caught.value, UsageError | ModelError)
        assert caught.value.exit_code in (2, 3)


def test_labels_are_read_from_text(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", rows(1)[0])
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\na.npy,7\nb,9\n")
    batches = load_batches(tmp_path, VECTOR, labels=labels)
    assert batches.targets is not None
    assert sorted(np.concatenate(batches.targets)) == [7, 9]
    labels.write_text("a.npy,7\n")
    with pytest.raises(UsageError, match=r"b.npy: has no label; add a line 'b.npy LABEL'"):
        load_batches(tmp_path, VECTOR, labels=labels)
    labels.write_text("a.npy,7\nb,cat\n")
    with pytest.raises(UsageError, match="line 2 ends with 'cat', which is no whole number"):
        load_batches(tmp_path, VECTOR, labels=labels)


def test_data_are_read_once_the_model_is_known() -> None:
    data = Data(rows(9), limit=4, batch=2)
    batches = load_batches(data, VECTOR)
    assert [len(feed["x"]) for feed in batches.feeds] == [2, 2]
    assert load_batches(batches, IMAGES) is batches


def test_dims_settle_what_a_model_leaves_open() -> None:
    (slot,) = slots_of([spec("x", "batch", "width")], {"width": 5})
    assert slot.spec.dims == ("batch", 5)
    assert slot.axis == 0


def test_synthetic_inputs_are_said_to_be() -> None:
    batches = load_batches("synthetic", [spec("images", "N", 3, 32, 32)], limit=32)
    assert batches.synthetic
    assert "SYNTHETIC" in batches.notes[0]
    images = joined(batches, "images")
    assert images.shape == (32, 3, 32, 32)
    assert images.mean() == pytest.approx(0, abs=0.2)  # standardised over each batch of 16 as a whole
    assert images.std() == pytest.approx(1, abs=0.1)
    power = np.square(np.abs(np.fft.fft2(images))).mean((0, 1))[0]
    assert power[1] / power[8] > 30  # 64 where the amplitude is 1 / frequency; 1 for white noise
    assert np.corrcoef(images[:, 0].ravel(), images[:, 1].ravel())[0, 1] > 0.6
    with pytest.raises(UsageError, match="synthetic inputs have no labels"):
        load_batches("synthetic", IMAGES, labels=[1])


def test_synthetic_pixels_go_through_the_preprocessing() -> None:
    batches = load_batches("synthetic", IMAGES, limit=16, preprocess="unit")
    images = joined(batches, "images")
    assert 0 <= images.min() < images.max() <= 1
    raw = load_batches("synthetic", [spec("images", 1, 8, 10, 3, dtype="uint8")], limit=4)
    assert raw.feeds[0]["images"].shape == (1, 8, 10, 3)
    assert joined(raw, "images").std() > 20


def test_synthetic_tokens_stay_within_the_table_and_sizes_are_such_that_the_model_runs() -> None:
    table = np.ones((11, 4), np.float32)
    model = parse(
        """
        g (int64[N, T] tokens, int64[N, T] attention_mask) => (float[N, T, 4] y) {
            ids = Cast<to=6>(tokens)
            y = Gather(table, ids)
        }""",
        table=table,
    )
    batches = load_batches("synthetic", model, limit=8)
    tokens = joined(batches, "tokens")
    assert (tokens.min(), tokens.max()) == (0, 10)
    assert joined(batches, "attention_mask").min() == 1
    assert run(model, {"tokens": tokens[:1], "attention_mask": tokens[:1]})[0].shape == (1, 64, 4)
    strided = parse(
        "g (float[N, T] x) => (float[N, 1, U] y) { a = Constant<value_ints=[1]>() b = Unsqueeze(x, a) y = Conv(b, w) }",
        w=np.ones((1, 1, 200), np.float32),
    )
    assert load_batches("synthetic", strided).feeds[0]["x"].shape == (16, 224)
