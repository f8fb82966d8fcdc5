"""What a survey counts is what numpy says of the whole, in the memory of a piece."""

import re
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from data_adapters.handles import HANDLES
from data_adapters.hdf5 import ArrayAdapter
from data_adapters.moments import SMALLEST_SCALE, Moments
from data_adapters.survey import Survey, survey
from tests.array_files import describe, noise, store


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    HANDLES.close(list(HANDLES._open))


def look(options: Mapping[str, Any], **changes: Any) -> Survey:
    missing = options.get("missing", "refuse")
    return survey(lambda split: ArrayAdapter(**options, split=split, tolerant=True), missing, **changes)  # type: ignore[arg-type]


def test_moments_of_what_is_known(tmp_path: Path) -> None:
    time = np.arange(7.0)[None, :, None]
    x = np.array([-1.0, 0.0, 1.0])
    steady, ramp = np.zeros((4, 7, 3)) + x, 2 + 0.5 * time + np.zeros((4, 1, 3))
    store(tmp_path / "mine_0.h5", steady=steady, ramp=ramp, both=np.stack([steady, ramp], -1))
    fields = ["steady", "ramp", {"name": "both", "from": ["steady", "ramp"]}]
    numbers = look(describe(tmp_path, fields=fields)).splits["train"].fields
    assert (numbers["steady"].mean, numbers["steady"].rms_increment) == ((0.0,), 0.0)
    assert numbers["steady"].std == pytest.approx(np.sqrt(2 / 3), rel=1e-12)
    # Of n equally spaced numbers, b apart, the variance is b^2 (n^2 - 1) / 12.
    assert (numbers["ramp"].mean, numbers["ramp"].minimum, numbers["ramp"].maximum) == ((3.5,), 2.0, 5.0)
    assert numbers["ramp"].std == pytest.approx(0.5 * np.sqrt((7**2 - 1) / 12), rel=1e-12)
    assert numbers["ramp"].rms_increment == pytest.approx(0.5, rel=1e-12)
    assert numbers["both"].mean == (0.0, 3.5)
    assert numbers["both"].std == pytest.approx(np.sqrt((2 / 3 + 1) / 2), rel=1e-12)
    assert numbers["both"].rms_increment == pytest.approx(0.5 / np.sqrt(2), rel=1e-12)


@pytest.mark.parametrize("piece", [1, 20, 50, 2**20])
def test_pieces_give_what_the_whole_gives(tmp_path: Path, piece: int) -> None:
    u, v = 1e3 + noise(5, 11, 6), noise(5, 11, 6, seed=1)
    u[1, 4, 2:4] = np.nan
    store(tmp_path / "mine_0.h5", u=u, v=v)
    options = describe(tmp_path, missing="mask", fields=["u", {"name": "w", "from": ["u", "v"]}])
    found = look(options, piece=piece)
    assert not found.errors
    trained = [u[:3].astype(np.float64), v[:3].astype(np.float64)]
    for name, arrays in (("u", trained[:1]), ("w", trained)):
        values, increments = found.moments.scales(name)
        changes = [np.diff(array, axis=1) for array in arrays]
        expected = {
            "num_values": [np.isfinite(array).sum() for array in arrays],
            "mean": [np.nanmean(array) for array in arrays],
            "std": [np.nanstd(array) for array in arrays],
        }
        for key, numbers in expected.items():
            np.testing.assert_allclose(getattr(values, key), numbers, rtol=1e-12)
        np.testing.assert_allclose(increments.num_values, [np.isfinite(change).sum() for change in changes])
        np.testing.assert_allclose(increments.rms, [np.sqrt(np.nanmean(change**2)) for change in changes], rtol=1e-12)
    assert found.splits["train"].fields["u"].missing == pytest.approx(2 / (3 * 11 * 6))
    assert found.splits["valid"].fields["u"].missing == 0


def test_the_frame_before_a_piece_counts_in_its_increment_alone() -> None:
    frames = noise(6, 4, 2)
    whole, pieces = Moments(), Moments()
    whole.add("u", frames, scalar=False)
    pieces.add("u", frames[:1], scalar=False)
    pieces.add("u", frames[1:4], scalar=False, before=frames[0])
    pieces.add("u", frames[4:], scalar=False, before=frames[3])
    for one, other in zip(whole.scales("u"), pieces.scales("u"), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_memory_is_that_of_a_piece(tmp_path: Path) -> None:
    store(tmp_path / "mine_0.h5", u=noise(3, 256, 4096))  # 4 MB each
    options = describe(tmp_path)
    look(options, piece=2**14)
    tracemalloc.start()
    try:
        look(options, piece=2**14)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * 4 * 2**14


def test_what_a_user_should_know_of(tmp_path: Path) -> None:
    u, still, faint = noise(5, 6, 8), np.full((5, 6, 8), 0.1, np.float32), 1e-6 * noise(5, 6, 8, seed=2)
    u[3] += 100
    store(tmp_path / "mine_0.h5", u=u, still=still, faint=faint)
    found = look(describe(tmp_path, fields=["u", "still", "faint"]))
    assert not found.errors
    words = (
        "'u': its mean in valid, .*, lies outside of all values in training",
        "'still' is constant in train, valid and test",
        "'faint': its standard deviation in training is .*e-0., below 0.0001",
        "'faint': its rms increment in training is .*e-0., below 0.0001",
    )
    for warning, pattern in zip(found.warnings, words, strict=True):
        assert re.search(pattern, warning)
    assert found.moments.statistics()["std"]["faint"] == SMALLEST_SCALE


def test_chunks_that_are_read_many_times(tmp_path: Path) -> None:
    """The numbers are those of h5py: chunks that a trajectory, or the part of the grid that is used, shares."""
    values = noise(8, 6, 32)
    options = describe(tmp_path, fields=["u"])
    for chunks, space, words in (
        ((1, 6, 32), None, ""),
        ((1, 2, 8), {"x": {"stop": 8}}, ""),
        ((4, 3, 8), None, r"u: its chunks of 4 x 3 x 8 \(sample, time, x\) hold 4 .* one reads 4: .* u:CHUNK=1x3x32 "),
        ((1, 3, 32), {"x": {"start": 4, "stop": 12}}, r"more than the 8 points .* 4.0 times over: store that part"),
        ((1, 3, 32), {"x": {"step": 2}}, ""),
    ):
        with h5py.File(tmp_path / "mine_0.h5", "w") as file:
            file.create_dataset("u", data=values, chunks=chunks)
        warnings = look({**options, "space": space}).warnings
        assert bool(warnings) == bool(words), warnings
        assert re.search(words, "".join(warnings))
        assert all(warning.startswith(str(tmp_path / "mine_0.h5")) for warning in warnings)


def test_chunks_that_were_never_written_are_counted(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "mine_0.h5", "w") as file:
        for name in ("u", "unused"):
            data = file.create_dataset(name, (4, 5, 8), "f4", chunks=(1, 2, 8))  # three chunks a trajectory
            data[:3] = noise(3, 5, 8)
        data[:1] = 0
        file.create_dataset("v", (4, 5, 8), "f4")
        file.create_dataset("w", data=noise(4, 5, 8), chunks=(3, 3, 3))
    found = look(describe(tmp_path, fields=["u", "v", "w"]))
    counted = [re.search(r": (\w+): (\d+) of its (\d+) chunks were never", line) for line in found.warnings]
    assert [match.groups() for match in counted if match] == [("u", "3", "12"), ("v", "1", "1")]
