"""Splits are disjoint, complete and the same each time; nothing of one leaks into another."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.errors import InstantiationException
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_files import closed, counted, write_tensor

from data_adapters.hdf5 import ArrayAdapter
from data_adapters.splits import SPLITS, Part, divide, full_rule
from morph.data.catalogue import open_split
from morph.data.windows import Windows

fast = settings(max_examples=300, derandomize=True, deadline=None)
shares = st.one_of(st.floats(0, 0.45), st.integers(0, 6))
orders = st.permutations(SPLITS)
all_counts = st.lists(st.integers(1, 30), min_size=1, max_size=6)
places = st.one_of(
    st.fixed_dictionaries({"order": orders}, optional={"within": st.sampled_from(["file", "all"])}),
    st.fixed_dictionaries({}, optional={"seed": st.integers(0, 9), "within": st.sampled_from(["file", "all"])}),
)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield from closed()


def parts(counts: list[int], num_steps: int, rule: dict[str, Any]) -> dict[str, Part]:
    """Those splits that are not empty."""
    full = full_rule(rule, sum(counts), "here")
    found = {}
    for split in SPLITS:
        try:
            found[split] = divide(counts, num_steps, full, split, "here")
        except ValueError as error:
            message = str(error)
            if "is left for training" in message:
                return {}
            if not message.startswith(("here: no trajectory is left for ", "here: no frame is left for ")):
                raise
    return found


@fast
@given(all_counts, shares, shares, places)
def test_trajectories_are_divided_without_remainder(
    counts: list[int], valid: float, test: float, place: dict[str, Any]
) -> None:
    rule = {"by": "trajectory", "valid": valid, "test": test, **place}
    found = parts(counts, 7, rule)
    if not found:
        groups = counts if full_rule(rule, sum(counts), "here")["within"] == "file" else [sum(counts)]
        expected = [sum(_size(share, count) for share in (valid, test)) for count in groups]
        assert any(taken >= count for taken, count in zip(expected, groups, strict=True))
        return
    assert found == parts(counts, 7, dict(reversed(rule.items())))  # the rule alone decides
    used = [number for part in found.values() for number in part.trajectories]
    assert sorted(used) == list(range(sum(counts)))
    for part in found.values():
        assert part.frames == range(7)
        assert list(part.trajectories) == sorted(part.trajectories)


def _size(share: float, count: int) -> int:
    """As the docstring of full_rule says, in other words."""
    if isinstance(share, int):
        return share
    return 0 if share == 0 else max(1, round(share * count))


@fast
@given(all_counts, shares, shares, st.sampled_from(["file", "all"]), orders)
def test_blocks_lie_in_the_stated_order(
    counts: list[int], valid: float, test: float, within: str, order: list[str]
) -> None:
    found = parts(counts, 7, {"by": "trajectory", "valid": valid, "test": test, "within": within, "order": order})
    if not found:
        return
    groups = counts if within == "file" else [sum(counts)]
    expected: dict[str, list[int]] = {split: [] for split in SPLITS}
    first = 0
    for count in groups:
        sizes = {"valid": _size(valid, count), "test": _size(test, count)}
        sizes["train"] = count - sum(sizes.values())
        for split in order:
            expected[split] += range(first, first + sizes[split])
            first += sizes[split]
    assert {split: list(part.trajectories) for split, part in found.items()} == {
        split: numbers for split, numbers in expected.items() if numbers
    }


@fast
@given(st.integers(1, 5), st.integers(1, 200), shares, shares, st.one_of(st.floats(0, 0.3), st.integers(0, 9)), orders)
def test_frames_are_divided_with_a_gap(
    count: int, num_steps: int, valid: float, test: float, gap: float, order: list[str]
) -> None:
    rule = {"by": "time", "valid": valid, "test": test, "gap": gap, "order": order}
    found = parts([count], num_steps, rule)
    width = _size(gap, num_steps)
    last = -1
    for split in order:
        if split in found:
            assert found[split].trajectories == tuple(range(count))
            frames = found[split].frames
            # Nothing is between two neighbours but the gap, which is whole.
            assert frames.step == 1
            assert frames.start - last - 1 >= width or frames.start == 0
            last = frames[-1]
    if len(found) == 3:
        sizes = [_size(share, num_steps) for share in (valid, test)]
        lost = num_steps - sum(len(part.frames) for part in found.values())
        assert lost == 2 * width
        assert sum(len(found[split].frames) for split in ("valid", "test")) >= sum(sizes) - 2 * width


@pytest.mark.parametrize(
    "options",
    [
        {"splits": {"by": "trajectory", "seed": 3}},
        {"splits": {"by": "trajectory", "order": ["test", "train", "valid"], "within": "file", "valid": 2}},
        {"splits": {"by": "time", "valid": 0.25, "test": 0.25, "gap": 2}},
        {"splits": {"by": "time", "valid": 3, "test": 3, "gap": 1}, "frames": {"start": 3, "step": 2}},
        {"splits": {"by": "trajectory", "valid": 9, "test": 30}},  # leaves none for training
    ],
)
def test_all_is_undivided(tmp_path: Path, options: dict[str, Any]) -> None:
    """Each trajectory once and as it lies in the files, whole; what the splits hold stands there, too."""
    stored = np.concatenate([counted((10, 30, 3), 1000 * number) for number in range(2)])
    for number in range(2):
        write_tensor(tmp_path / f"a_{number}.h5", stored[10 * number : 10 * number + 10])
    frames = range(30)[slice(*(options.get("frames", {}).get(key) for key in ("start", "stop", "step")))]

    def opened(split: str) -> ArrayAdapter:
        config = {"_target_": "data_adapters.hdf5.ArrayAdapter", "files": str(tmp_path / "a_*.h5"),
                  "dims": ["sample", "time", "x"], "fields": ["tensor"], "dt": 1, **options}  # fmt: skip
        adapter = open_split(config, split, "a")
        assert isinstance(adapter, ArrayAdapter)
        return adapter

    whole = opened("all")
    assert [whole.place(i) for i in range(20)] == [
        (str(tmp_path / f"a_{number}.h5"), row) for number in range(2) for row in range(10)
    ]
    assert (len(whole), whole.frames) == (20, frames)
    values = np.stack([whole.read(i, 0, len(frames))[:, 0, 0, 0, 0] for i in range(20)])
    np.testing.assert_array_equal(values, stored[:, frames])
    if options["splits"].get("test") == 30:
        with pytest.raises(InstantiationException, match="none is left for training"):
            opened("train")
        return
    parts = [opened(split) for split in SPLITS]
    seen = [(part.place(i), frame) for part in parts for i in range(len(part)) for frame in part.frames]
    assert len(set(seen)) == len(seen)
    left = {(whole.place(i), frame) for i in range(20) for frame in frames} - set(seen)
    # By trajectory nothing is left out, by time the frames of two gaps in each.
    gap = options["splits"].get("gap", 0)
    assert len(left) == 20 * 2 * gap


def test_another_seed_is_another_split_and_the_seed_is_all_that_it_takes() -> None:
    first = divide([100], 5, full_rule({"seed": 0}, 100, ""), "test", "")
    assert first == divide([100], 5, full_rule(None, 100, ""), "test", "")
    assert first == divide([40, 60], 5, full_rule(None, 100, ""), "test", "")  # over all files
    assert first.trajectories != divide([100], 5, full_rule({"seed": 1}, 100, ""), "test", "").trajectories
    # The same numbers on any machine and with any NumPy.
    assert first.trajectories == (29, 33, 41, 54, 56, 59, 69, 78, 79, 95)


def test_rules_of_the_published_readers() -> None:
    """PDEBench tests on the first tenth of each file, PDEgym on the last 240 of all chunks together."""
    rule = full_rule({"by": "trajectory", "order": ["test", "valid", "train"]}, 40, "")
    assert rule["within"] == "file"
    assert divide([20, 20], 5, rule, "test", "").trajectories == (0, 1, 20, 21)
    rule = full_rule(
        {"by": "trajectory", "order": ["train", "valid", "test"], "valid": 3, "test": 4, "within": "all"}, 20, ""
    )
    assert divide([7, 13], 5, rule, "valid", "").trajectories == (13, 14, 15)
    assert divide([7, 13], 5, rule, "test", "").trajectories == (16, 17, 18, 19)


@pytest.mark.parametrize(
    "options",
    [
        {"splits": {"by": "trajectory", "order": ["valid", "test", "train"]}},
        {"splits": {"by": "trajectory", "seed": 3, "within": "file", "valid": 2}},
        {"splits": {"by": "time", "valid": 0.25, "test": 0.25, "gap": 0}},
        {"splits": {"by": "time", "valid": 5, "test": 6, "gap": 2, "order": ["test", "train", "valid"]}},
        {"splits": {"by": "time", "valid": 0.3, "test": 0.3, "gap": 1}, "frames": {"start": 3, "step": 2}},
        {"splits": None},
    ],
)
def test_no_number_of_a_window_is_in_two_splits(tmp_path: Path, options: dict[str, Any]) -> None:
    """Every number stands at one place of the files: a window that crossed a cut would show it."""
    for number in range(2):
        write_tensor(tmp_path / f"a_{number}.h5", counted((10, 30, 3), 1000 * number))
    seen: dict[str, set[float]] = {}
    for split in SPLITS:
        adapter = ArrayAdapter(
            str(tmp_path / "a_*.h5"), split, dims=["sample", "time", "x"], fields=["tensor"], dt=1, **options
        )
        windows = Windows(adapter, context=2, target=1)
        assert len(windows) > 0
        batch = windows.batch(range(len(windows)))
        seen[split] = {*batch.context.unique().tolist(), *batch.target.unique().tolist()}
        step = adapter.spec.dt
        for first, last in ((batch.context[:, 0], batch.context[:, 1]), (batch.context[:, 1], batch.target[:, 0])):
            assert ((last - first) == 3 * step).all()  # neighbours in the file
        assert adapter.rule["by"] == (options["splits"] or {"by": "trajectory"})["by"]
    assert not seen["train"] & seen["valid"]
    assert not seen["train"] & seen["test"]
    assert not seen["valid"] & seen["test"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"by": "chance"}, r"splits.by: expected trajectory or time, found 'chance'"),
        ({"by": ["time"]}, r"splits.by: expected trajectory or time"),
        (
            {"fraction": 0.1},
            r"splits: expected by, order, seed, test, valid, within with by=trajectory, found fraction",
        ),
        ({"gap": 1}, r"splits: expected .* with by=trajectory, found gap"),
        ({"by": "time", "seed": 1}, r"splits: expected by, gap, order, test, valid with by=time, found seed"),
        ({"by": "time", "within": "all"}, r"splits: expected .* with by=time, found within"),
        (
            {"order": ["train", "valid", "test"], "seed": 0},
            r"splits: `order` takes blocks as they lie and `seed` shuffles",
        ),
        ({"order": ["train", "test"]}, r"splits.order: expected train, valid and test in some order"),
        ({"order": ["train", "val", "test"]}, r"splits.order: expected train, valid and test"),
        ({"order": None}, r"splits.order: expected train, valid and test in some order, found None"),
        ({"order": [1, "valid", "test"]}, r"splits.order: expected train, valid and test"),
        ({"valid": 1.0}, r"splits.valid: expected a fraction below 1 or a count, found 1.0"),
        ({"test": -1}, r"splits.test: expected a fraction below 1 or a count, found -1"),
        ({"test": float("nan")}, r"splits.test: expected a fraction below 1 or a count, found nan"),
        ({"test": True}, r"splits.test: expected a fraction below 1 or a count, found True"),
        ({"test": "0.1"}, r"splits.test: expected a fraction below 1 or a count, found '0.1'"),
        ({"by": "time", "gap": -0.1}, r"splits.gap: expected a fraction below 1 or a count"),
        ({"seed": -1}, r"splits.seed: expected an integer of 0 or more, found -1"),
        ({"seed": 0.5}, r"splits.seed: expected an integer"),
        ({"seed": True}, r"splits.seed: expected an integer"),
        ({"within": "folder"}, r"splits.within: expected file or all, found 'folder'"),
        ("random", r"splits: expected a mapping of by, valid, test and more, found 'random'"),
        ({1: 2}, r"splits: expected a mapping"),
    ],
)
def test_rule_that_is_none(rule: Any, words: str) -> None:
    with pytest.raises(ValueError, match=rf"here: {words}"):
        full_rule(rule, 10, "here")


@pytest.mark.parametrize(
    ("counts", "num_steps", "rule", "words"),
    [
        (
            [10],
            5,
            {"valid": 5, "test": 5},
            r"splits: of 10 trajectories, valid takes 5 and test 5, and none is left for",
        ),
        ([2], 5, {}, r"splits: of 2 trajectories, valid takes 1 and test 1, and none is left for training; lower them"),
        ([9, 1], 5, {"within": "file"}, r"splits: of 1 trajectories in one of the files \(choose within=all\), valid"),
        ([10], 5, {"valid": 0}, r"no trajectory is left for valid: 10 in 1 file\(s\), splits .*raise the share"),
        ([1], 2, {}, r"splits: of 2 frames, valid takes 1 and test 1, and none is left for training"),
        ([1], 9, {"gap": 1}, r"no frame is left for valid: 9 frames, splits .*; raise the share .* or lower the gap"),
        ([1], 9, {"valid": 0}, r"no frame is left for valid"),
    ],
)
def test_split_that_would_be_empty(counts: list[int], num_steps: int, rule: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=rf"here: {words}"):
        divide(counts, num_steps, full_rule(rule, sum(counts), "here"), "valid", "here")


def test_order_of_a_shuffle_is_no_order_of_the_file() -> None:
    """A split that took neighbours would leak where a file holds similar runs side by side."""
    part = divide([1000], 5, full_rule({"test": 0.5}, 1000, ""), "test", "")
    runs = np.count_nonzero(np.diff(part.trajectories) == 1)
    assert 200 < runs < 300  # of 499 neighbours, half by chance
