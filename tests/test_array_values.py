"""What numbers become: of any type, missing or too large, with parameters, from one file or many."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from layout_files import DT, closed, counted, write_arrays, write_groups, write_tensor

from data_adapters.files import find_files
from data_adapters.grid import GridAdapter
from data_adapters.hdf5 import ArrayAdapter, GroupAdapter

ALL = {"order": ["train", "valid", "test"], "valid": 0, "test": 0}
TENSOR: dict[str, Any] = {"dims": ["sample", "time", "x"], "fields": ["tensor"], "splits": ALL}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield from closed()


def all_of(adapter: GridAdapter) -> np.ndarray:
    """[trajectory, time, F, C, D, H, W]."""
    return np.stack([adapter.read(number, 0, adapter.spec.num_steps) for number in range(len(adapter))])


@pytest.mark.parametrize("dtype", ["f4", ">f4", "f8", ">f8", "f2", "i1", "u2", ">i4", "i8", "u8", "?"])
@pytest.mark.parametrize("alone", [True, False], ids=["in place", "with another"])
def test_any_real_number_becomes_float32(tmp_path: Path, dtype: str, alone: bool) -> None:
    values = (counted((3, 4, 5)) % 7).astype(dtype)
    path = write_arrays(tmp_path / "a.h5", {"tensor": values, "other": counted((3, 4, 5))})
    adapter = ArrayAdapter(path, **{**TENSOR, "fields": ["tensor"] if alone else ["tensor", "other"]}, dt=1)
    frames = all_of(adapter)
    assert frames.dtype == np.float32
    np.testing.assert_array_equal(frames[:, :, 0, 0, 0, 0], values.astype("f4"))


@pytest.mark.parametrize("kind", ["bfloat16", "12 bits", "12 bits in 16"])
def test_numbers_that_numpy_has_not_are_converted(tmp_path: Path, kind: str) -> None:
    """HDF5 describes any number of bits; what lies in the file is then not what lies in memory."""
    if kind == "bfloat16":
        stored = h5py.h5t.IEEE_F16LE.copy()
        stored.set_fields(15, 7, 8, 0, 7)
        stored.set_ebias(127)
    else:
        stored = (h5py.h5t.STD_I16LE if "16" in kind else h5py.h5t.STD_I32LE).copy()
        stored.set_precision(12)
        stored.set_offset(4)
    values = counted((3, 4, 5))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = h5py.h5d.create(file.id, b"tensor", stored, h5py.h5s.create_simple(values.shape))
        data.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    adapter = ArrayAdapter(tmp_path / "a.h5", **TENSOR, dt=1)
    np.testing.assert_array_equal(all_of(adapter)[:, :, 0, 0, 0, 0], values)


@pytest.mark.parametrize("alone", [True, False], ids=["in place", "with another"])
@pytest.mark.parametrize("large", [1e39, -1e300, np.inf])
def test_number_beyond_float32_is_an_error(tmp_path: Path, large: float, alone: bool) -> None:
    values = counted((3, 4, 5), dtype="f8")
    values[1, 2, 3] = large
    path = write_arrays(tmp_path / "a.h5", {"tensor": values, "other": counted((3, 4, 5))})
    adapter = ArrayAdapter(path, **{**TENSOR, "fields": ["tensor"] if alone else ["tensor", "other"]}, dt=1)
    adapter.read(1, 0, 2)
    adapter.read(0, 0, 4)
    with pytest.raises(ValueError, match=r"a\.h5: tensor: .*(infinity at 1 points|a number beyond 3.4e38)"):
        adapter.read(1, 0, 4)
    values[1, 2, 3] = np.finfo("f4").max
    adapter = ArrayAdapter(write_arrays(tmp_path / "b.h5", {"tensor": values}), **TENSOR, dt=1)
    assert adapter.read(1, 2, 3).max() == np.finfo("f4").max


def test_small_numbers_of_float64_are_rounded_to_float32(tmp_path: Path) -> None:
    values = np.full((1, 2, 3), 1e-300)
    adapter = ArrayAdapter(write_arrays(tmp_path / "a.h5", {"tensor": values}), **{**TENSOR, "splits": {
        "by": "time", "valid": 0, "test": 0}}, dt=1)  # fmt: skip
    assert not all_of(adapter).any()


def _holes(path: Path) -> np.ndarray:
    values = counted((3, 4, 5))
    values[1, 2, 3] = np.nan
    write_tensor(path, values)
    return values


def test_nan_is_refused_or_masked(tmp_path: Path) -> None:
    values = _holes(tmp_path / "a.h5")
    refused = ArrayAdapter(tmp_path / "a.h5", **TENSOR, dt=1)
    assert not refused.spec.masked
    refused.read(1, 0, 2)
    with pytest.raises(
        ValueError,
        match=r"a\.h5: tensor: field 'tensor': NaN at 1 points of frames 1 to 4 of its trajectory 1, the first in "
        r"frame 2 at \{'x': 3\}; repair it, or choose missing=fill or mask",
    ):
        refused.read(1, 1, 4)
    part = {"start": 1, "stop": 5, "step": 2}
    cropped = ArrayAdapter(tmp_path / "a.h5", **TENSOR, dt=1, space={"x": part}, frames={"start": 1})
    with pytest.raises(ValueError, match=r"frame 2 at \{'x': 3\}; repair it"):  # where the file has it
        cropped.read(1, 0, 3)
    masked = ArrayAdapter(tmp_path / "a.h5", **TENSOR, dt=1, missing="mask")
    assert masked.spec.masked
    np.testing.assert_array_equal(all_of(masked)[:, :, 0, 0, 0, 0], values)


def test_nan_is_filled_with_the_mean_of_the_training_split(tmp_path: Path) -> None:
    values = _holes(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"a\.h5: missing=fill takes the mean .* there is no .*a\.stats\.yaml"):
        ArrayAdapter(tmp_path / "a.h5", **TENSOR, dt=1, missing="fill")
    table = {"mean": {"tensor": 7.5}, "std": {"tensor": 1.0}, "rms_delta": {"tensor": 1.0}}
    for file in ("a.stats.yaml", "elsewhere.yaml"):
        (tmp_path / file).write_text(yaml.safe_dump(table))
        options = {} if file == "a.stats.yaml" else {"statistics": str(tmp_path / file)}
        filled = ArrayAdapter(tmp_path / "a.h5", **TENSOR, **options, dt=1, missing="fill")
        assert filled.statistics_file == str(tmp_path / file)
        np.testing.assert_array_equal(all_of(filled)[:, :, 0, 0, 0, 0], np.where(np.isnan(values), 7.5, values))


def test_infinity_is_no_missing_value(tmp_path: Path) -> None:
    values = counted((3, 4, 5))
    values[0, 0] = [np.inf, np.nan, 1, 2, 3]
    adapter = ArrayAdapter(write_tensor(tmp_path / "a.h5", values), **TENSOR, dt=1, missing="mask")
    with pytest.raises(ValueError, match=r"infinity at 1 points of frames 0 to 4 .* at \{'x': 0\}; repair it$"):
        adapter.read(0, 0, 4)


def test_dt_that_is_given_wins_over_that_of_the_file(tmp_path: Path) -> None:
    write_tensor(tmp_path / "a.h5", counted((2, 4, 5)))
    coordinates = {"time": "t-coordinate"}
    assert ArrayAdapter(tmp_path / "a.h5", **TENSOR, coordinates=coordinates).spec.dt == DT
    own = ArrayAdapter(tmp_path / "a.h5", **TENSOR, coordinates=coordinates, dt=0.1)
    assert own.spec.dt == 0.1
    np.testing.assert_allclose(own.coordinates["time"], 0.1 * np.arange(4))


def test_files_are_joined_in_the_order_of_their_numbers_or_as_listed(tmp_path: Path) -> None:
    pieces = {name: counted((2, 3, 4), 100 * number) for number, name in enumerate(["b_2", "b_10", "b_9", "a_11"])}
    for name, values in pieces.items():
        write_tensor(tmp_path / f"{name}.h5", values, Nu=values[0, 0, 0])
    orders: dict[str, tuple[Any, str]] = {
        "a_11 b_2 b_9 b_10": (str(tmp_path / "*_*.h5"), "numeric"),
        "a_11 b_10 b_2 b_9": (tmp_path / "?_*.h5", "lexicographic"),
        "b_10 b_2 a_11": ([tmp_path / "b_10.h5", str(tmp_path / "b_2.h5"), str(tmp_path / "a_*.h5")], "numeric"),
        "b_9": (tmp_path / "b_9.h5", "numeric"),
    }
    for names, (files, order) in orders.items():
        adapter = ArrayAdapter(files, **TENSOR, dt=1, order=order, parameters=["Nu"])
        expected = np.concatenate([pieces[name] for name in names.split()])
        np.testing.assert_array_equal(all_of(adapter)[:, :, 0, 0, 0, 0], expected)
        for number in range(len(adapter)):
            assert adapter.parameters(number) == {"Nu": expected[2 * (number // 2), 0, 0]}
            assert adapter.place(number) == (str(tmp_path / f"{names.split()[number // 2]}.h5"), number % 2)


def test_order_of_names_is_whole(tmp_path: Path) -> None:
    """Names that count alike, and digits that are none."""
    names = ["a_1²", "a_02", "a_2", "a_2b3", "a_2b20", "a_03"]
    for name in names:
        write_tensor(tmp_path / f"{name}.h5", counted((2, 3, 4)))
    found = [Path(file).stem for file in find_files(str(tmp_path / "a_*.h5"))]
    assert found == ["a_1²", "a_02", "a_2", "a_2b3", "a_2b20", "a_03"]
    assert [Path(file).stem for file in find_files(str(tmp_path / "a_*.h5"), "lexicographic")] == sorted(names)


def test_the_question_mark_of_a_url_is_its_query() -> None:
    url = "https://zenodo.org/records/1/files/a.h5?download=1"
    assert find_files(url) == [url]
    assert find_files([url, url.replace("a.h5", "b.h5")]) == [url, url.replace("a.h5", "b.h5")]


def test_a_file_whose_name_is_a_pattern_is_that_file(tmp_path: Path) -> None:
    write_tensor(tmp_path / "a[1].h5", counted((2, 3, 4)))
    write_tensor(tmp_path / "a1.h5", counted((2, 3, 4), 100))
    assert ArrayAdapter(tmp_path / "a[1].h5", **TENSOR, dt=1).read(0, 0, 1).min() == 1


def test_parameters_are_attributes_or_arrays(tmp_path: Path) -> None:
    arrays = {
        "tensor": counted((3, 2, 4)),
        "each": np.arange(3),
        "one": np.array([4.0]),
        "bare": np.float32(5),
    }
    path = write_arrays(tmp_path / "a.h5", arrays, attribute=6.0)
    with h5py.File(path, "r+") as file:
        file.attrs["text"] = "1e-3"
        file.attrs["list"] = [7.0, 8.0, 9.0]
        file.attrs["config"] = b"physics: {nu: [1, {rho: 10}], eta: 11}"
        file["inner/deep"] = 12
    names = ["each", "one", "bare", "attribute", "text", "list", "eta", "inner/deep"]
    adapter = ArrayAdapter(path, **TENSOR, dt=1, parameters=names)
    for number in range(3):
        found = adapter.parameters(number)
        assert list(found.values()) == [number, 4, 5, 6, 0.001, 7 + number, 11, 12]
    assert adapter.spec.parameters == tuple(names)


def test_parameters_of_a_group_stand_before_those_of_the_file(tmp_path: Path) -> None:
    path = write_groups(tmp_path / "a.h5", counted((2, 3, 4, 1)), ["a: {deep: 1}\nk: 3", "a: {deep: 2}\nk: 4"])
    with h5py.File(path, "r+") as file:
        file.attrs["k"] = 5
        file.attrs["shared"] = 6
        for number in range(2):
            file[f"{number:04d}"].attrs["own"] = [7 + number]
            file[f"{number:04d}/array"] = 9 + number
    names = ["deep", "k", "shared", "own", "array"]
    adapter = GroupAdapter(path, dims=["time", "x", "channel"], parameters=names, dt=1, splits=ALL)
    assert [list(adapter.parameters(number).values()) for number in range(2)] == [[1, 3, 6, 7, 9], [2, 4, 6, 8, 10]]


@pytest.mark.parametrize("parameters", [["nothing"], ["tensor"], ["word"], ["empty"], ["two"]])
@pytest.mark.parametrize("grouped", [True, False])
def test_parameter_that_is_no_number(tmp_path: Path, parameters: list[str], grouped: bool) -> None:
    path = tmp_path / "a.h5"
    reader: Callable[..., GridAdapter]
    if grouped:
        write_groups(path, counted((3, 3, 4, 1)), ["word: high"] * 3)
        with h5py.File(path, "r+") as file:
            file["0000/tensor"] = counted((2, 2))
            file["0000"].attrs["empty"] = h5py.Empty("f4")
            file["0000"].attrs["two"] = [1.0, 2.0]
        reader, options = GroupAdapter, {"dims": ["time", "x", "channel"], "fields": ["data"]}
    else:
        write_tensor(path, counted((3, 3, 4)))
        with h5py.File(path, "r+") as file:
            file.attrs.update(word="high", empty=h5py.Empty("f4"), two=[1.0, 2.0])
        reader, options = ArrayAdapter, {"dims": ["sample", "time", "x"], "fields": ["tensor"]}
    with pytest.raises(ValueError, match=rf"a\.h5: .*parameter '{parameters[0]}': expected (a|one) number.*found"):
        reader(path, **options, parameters=parameters, dt=1)


def test_one_long_record_is_one_trajectory_cut_in_time(tmp_path: Path) -> None:
    values = counted((100, 4, 5))
    path = write_arrays(tmp_path / "a.h5", {"u": values})
    parts = {split: ArrayAdapter(path, split, dims=["time", "x", "y"], dt=0.5) for split in ("train", "valid", "test")}
    frames = {"train": (0, 80), "valid": (82, 90), "test": (92, 100)}
    for split, adapter in parts.items():
        assert adapter.rule == {
            "by": "time", "valid": 0.1, "test": 0.1, "order": ["train", "valid", "test"], "gap": 0.02
        }  # fmt: skip
        first, last = frames[split]
        assert len(adapter) == 1
        np.testing.assert_array_equal(all_of(adapter)[0, :, 0, 0, 0], values[first:last])
        np.testing.assert_array_equal(adapter.coordinates["time"], 0.5 * np.arange(first, last))
        with pytest.raises(IndexError, match=rf"expected frames start < stop within 0 and {last - first}"):
            adapter.read(0, last - first - 1, last - first + 1)
