"""Readers of arrays refuse what they cannot read: which file, which array or option, what was expected and found."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from layout_files import closed, counted, write_arrays, write_groups, write_tensor

from data_adapters.hdf5 import ArrayAdapter, GroupAdapter, WellAdapter
from data_adapters.labelled import XarrayAdapter

DIMS = ["sample", "time", "x", "y"]
GROUP = {"dims": ["time", "x", "channel"], "coordinates": {"time": "grid/t"}}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield from closed()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    arrays = {
        "u": counted((6, 4, 5, 3)),
        "v": counted((6, 4, 5, 3)),
        "short": counted((6, 4, 5, 2)),
        "few": counted((5, 4, 5, 3)),
        "mask": counted((5, 3)),
        "complex": counted((6, 4, 5, 3)).astype("c8"),
        "words": np.full((6, 4, 5, 3), b"a"),
        "none": np.empty((0, 4, 5, 3), "f4"),
        "channels": counted((6, 4, 5, 3, 2)),
        "t": 0.5 * np.arange(5),
        "uneven": np.array([0, 1, 2, 4.0]),
        "back": np.arange(4.0)[::-1],
        "nan": np.array([0, 1, np.nan, 3]),
        "rows": np.tile(np.arange(4.0), (6, 1)),
        "wrong_rows": np.arange(24.0).reshape(6, 4),
        "x": np.linspace(0, 1, 5),
    }
    return write_arrays(tmp_path / "a.h5", arrays, nu=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fields": ["w"]}, r"no field 'w' in /: expected an array, found .*u \(6, 4, 5, 3\) of float32"),
        ({"fields": ["u", "short"]}, r"/short: expected 3 along y as in /u, found shape \(6, 4, 5, 2\)"),
        ({"fields": ["u", "few"]}, r"/few: expected 6 along sample as in /u"),
        ({"fields": ["mask"]}, r"/mask: expected the axes sample, time, x, y, found shape \(5, 3\); correct `dims`"),
        ({"fields": ["complex"]}, r"/complex: expected real numbers, found complex64; store .* as two fields"),
        ({"fields": ["words"]}, r"/words: expected real numbers, found \|S1"),
        ({"fields": ["none"]}, r"/none: expected values, found shape \(0, 4, 5, 3\)"),
        ({"fields": ["channels"]}, r"/channels: expected the axes .*found shape \(6, 4, 5, 3, 2\)"),
        (
            {"fields": [{"name": "m", "from": "mask", "dims": ["x", "y"]}]},
            r"dims: expected a field along time and x, y, found x, y",
        ),
        ({"fields": [{"name": "m", "from": "mask", "dims": ["x", "q"]}]}, r"field 'm': dims: expected some of .*x, q"),
        ({"fields": [{"name": "m", "from": "mask", "dims": ["x", "x"]}]}, r"field 'm': dims: .* each once, found x, x"),
        ({"fields": [{"name": "u", "from": "u", "channels": [0]}]}, r"field 'u' names `channels`.*its axes are sample"),
        (
            {"dims": [*DIMS, "channel"], "fields": [{"name": "c", "from": "channels", "channels": [2]}]},
            r"field 'c': expected channels of 0 to 1, found \[2\]",
        ),
        ({"dims": ["sample", "time"]}, r"dims: expected different names with 1 to 3 spatial axes"),
        ({"dims": ["time", "a", "b", "c", "d"]}, r"dims: expected different names with 1 to 3 spatial axes"),
        ({"dims": ["sample", "time", "x", "x"]}, r"dims: expected different names"),
        ({"dims": "txy"}, r"dims: expected a list of names, found 'txy'"),
        ({"dims": [0, 1]}, r"dims: expected a list of names, found \[0, 1\]"),
        (
            {"dims": ["sample", "x", "y"], "fields": None},
            r"expected an array of real numbers with the axes sample, x, y",
        ),
        ({"dims": ["sample", "a", "x", "y"]}, r"dims: expected a field along time and a, x, y"),
        ({"coordinates": ["t"]}, r"coordinates: expected a mapping of time and axes to names of arrays, found \['t'\]"),
        ({"coordinates": {"time": 3}}, r"coordinates: expected a mapping .*\{'time': 3\}"),
        ({"coordinates": {"z": "t"}}, r"coordinates: expected time and x, y, found z"),
        ({"coordinates": {"time": "w"}}, r"no field 'w' in /"),
        (
            {"coordinates": {"x": "t", "y": "u"}},
            r"/u: expected the same in all trajectories, found .*in trajectory 1 where",
        ),
        ({"coordinates": {"time": "x"}}, None),
        ({"coordinates": {"x": "uneven"}}, r"/uneven: expected 5 coordinates \(or 6.*found shape \(4,\)"),
        (
            {"coordinates": {"time": "uneven"}, "dt": None},
            r"uneven: expected equal time steps, found 2 from frame 2 to 3",
        ),
        ({"coordinates": {"time": "back"}, "dt": None}, r"back: expected times that increase, found steps of -1"),
        ({"coordinates": {"time": "nan"}, "dt": None}, r"nan: expected the finite times of two or more frames"),
        ({"coordinates": {"time": "rows"}, "dt": None}, None),
        (
            {"coordinates": {"time": "wrong_rows"}},
            r"/wrong_rows: expected the same in all trajectories, found .* in trajectory 1 where trajectory 0",
        ),
        ({"dt": None}, r"it states no times; give `dt`, the time between two frames, or the array in coordinates.time"),
        ({"dt": 0}, r"dt: expected a positive number, found 0"),
        ({"dt": float("nan")}, r"dt: expected a positive number"),
        ({"dt": float("inf")}, r"dt: expected a positive number"),
        ({"dt": True}, r"dt: expected a positive number, found True"),
        ({"dt": "1"}, r"dt: expected a positive number, found '1'"),
        ({"parameters": "nu"}, r"parameters: expected a list of names, found 'nu'"),
        ({"parameters": ["nu", "nu"]}, r"parameters: expected different names"),
        ({"parameters": ["mu"]}, r"parameter 'mu': expected a number .* found nothing; its attributes: nu"),
        ({"parameters": ["mask"]}, r"parameter 'mask': expected one number, or one for each of 6 .*shape \(5, 3\)"),
        ({"axes": ["x"]}, r"axes: expected x, y in some order, found \['x'\]"),
        ({"axes": "yx"}, r"axes: expected x, y in some order, found yx"),
        ({"axes": ["y", 3]}, r"axes: expected x, y in some order"),
        ({"boundary": "slip"}, r"boundary: expected periodic, open, wall, found 'slip'"),
        (
            {"boundary": {"z": "open"}},
            r"boundary: expected a mapping with some of the axes x, y, found \{'z': 'open'\}",
        ),
        ({"boundary": {"x": ["open"]}}, r"boundary: expected periodic, open, wall, found \['open'\]"),
        ({"boundary": ["open"]}, r"boundary: expected a mapping with some of the axes x, y"),
        ({"space": {"z": {"step": 2}}}, r"space: expected a mapping with some of the axes x, y"),
        ({"space": [2]}, r"space: expected a mapping with some of the axes x, y, found \[2\]"),
        ({"space": {"x": 3}}, r"space\.x: expected whole numbers start, stop and step, such as .*, found 3"),
        ({"space": {"x": {"size": 3}}}, r"space\.x: expected whole numbers start, stop and step"),
        ({"space": {"x": {"stop": 6}}}, r"space\.x: expected 0 <= start < stop <= 5"),
        ({"space": {"x": {"start": -1}}}, r"space\.x: expected 0 <= start < stop <= 5"),
        ({"space": {"x": {"start": 3, "stop": 3}}}, r"space\.x: expected 0 <= start < stop <= 5"),
        ({"space": {"x": {"step": 0}}}, r"space\.x: .*a step of 1 or more, found \{'step': 0\}"),
        ({"frames": {"step": -1}}, r"frames: .*a step of 1 or more"),
        ({"frames": {"stop": 2.0}}, r"frames: expected whole numbers"),
        ({"frames": {"start": True}}, r"frames: expected whole numbers"),
        ({"frames": 3}, r"frames: expected whole numbers start, stop and step, such as .*, found 3"),
        ({"frames": {"start": 4}}, r"frames: expected 0 <= start < stop <= 4"),
        ({"missing": "ignore"}, r"missing: expected refuse, fill, mask, found 'ignore'"),
        ({"split": "val"}, r"expected a split of train, valid, test, or all, found 'val'"),
        ({"field": ["u"]}, r"expected options of files, dims, coordinates, .*fields, name.* found 'field'"),
        ({"name": 3}, r"name: expected a text, found 3"),
        ({"statistics": ["s"]}, r"statistics: expected a text"),
        ({"cache": 3}, r"cache: expected a text"),
        ({"time": "t"}, r"expected options of .* found 'time'"),
        ({"fields": "u"}, r"expected `fields` to be a list of one or more fields, found 'u'"),
        ({"fields": [{"name": "u", "unit": 3}]}, r"expected `unit` to be a text"),
        ({"fields": [{"name": "u", "channels": [0, 0]}]}, r"expected `channels` to be a list of different numbers"),
        ({"fields": [{"name": "u", "channels": 0}]}, r"expected `channels` to be a list of different numbers"),
        ({"fields": [{"name": "u", "dims": "xy"}]}, r"expected `dims` to be a list of names"),
        ({"fields": ["u", "u"]}, r"component names repeat"),
    ],
)
def test_option_or_file_that_does_not_fit(path: Path, options: dict[str, Any], words: str | None) -> None:
    options = {"dims": DIMS, "fields": ["u"], "dt": 1.0, **options}
    if words is None:
        assert ArrayAdapter(path, **options).spec.num_steps == 4
        return
    with pytest.raises(ValueError, match=rf"(a\.h5|data set 'a').*{words}"):
        ArrayAdapter(path, **options)


def test_one_frame_has_no_time_step(tmp_path: Path) -> None:
    write_tensor(tmp_path / "a.h5", counted((3, 1, 4)))
    options: dict[str, Any] = {"dims": ["sample", "time", "x"], "fields": ["tensor"]}
    with pytest.raises(ValueError, match=r"a\.h5: t-coordinate: expected the finite times of two or more frames"):
        ArrayAdapter(tmp_path / "a.h5", **options, coordinates={"time": "t-coordinate"})
    assert ArrayAdapter(tmp_path / "a.h5", **options, dt=1).spec.num_steps == 1  # a steady state


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda f: f.pop("0001/data"), {}, r"no field 'data' in /0001: expected an array, found grid/"),
        (lambda f: f.pop("0001/grid/t"), {}, r"no field 'grid/t' in /0001"),
        (
            lambda f: (f.pop("0001/data"), f.create_dataset("0001/data", data=counted((4, 5, 2)))),
            {},
            r"0001/data: expected the shape \(3, 5, 2\) of group 0000, found \(4, 5, 2\); .* a data set of their own",
        ),
        (
            lambda f: f["0001/grid/t"].__setitem__(slice(None), [0, 1, 2]),
            {},
            r"0001/grid/t: expected the same .* found \[0\. 1\. 2\.\] in trajectory 1 where .* \[0\. +0\.25 0\.5 \]",
        ),
        (lambda f: f.create_group("about"), {}, r"no field 'data' in /about: expected an array, found nothing"),
        (lambda f: None, {"dims": ["sample", "time", "x", "channel"]}, r"dims: a group holds one .* leave sample"),
        (
            lambda f: None,
            {"fields": [{"name": "c", "from": "data", "dims": ["sample", "time", "x"]}]},
            r"dims: a group holds one trajectory; leave sample",
        ),
        (lambda f: None, {"fields": None, "dims": ["time", "x"]}, r"expected an array .* found data \(3, 5, 2\)"),
        (lambda f: [f.pop(name) for name in list(f)], {}, r"expected a group for each trajectory, found nothing"),
        (
            lambda f: ([f.pop(name) for name in list(f)], f.create_dataset("data", data=1)),
            {},
            r"expected a group for each trajectory, found data; whole arrays are read by .*ArrayAdapter",
        ),
    ],
)  # fmt: skip
def test_groups_that_do_not_fit(
    tmp_path: Path, change: Callable[[h5py.File], Any], options: dict[str, Any], words: str
) -> None:
    path = write_groups(tmp_path / "a.h5", counted((4, 3, 5, 2)), compression=None)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=rf"a\.h5: .*{words}|a\.h5: {words}"):
        GroupAdapter(path, **{**GROUP, "fields": ["data"], **options})


def test_a_file_that_differs_from_the_first(tmp_path: Path) -> None:
    write_tensor(tmp_path / "a_0.h5", counted((3, 4, 5)), Nu=1)
    options: dict[str, Any] = {
        "dims": ["sample", "time", "x"], "fields": ["tensor"], "coordinates": {"time": "t-coordinate"}
    }  # fmt: skip
    for shape, what in [((3, 5, 5), "the number of frames"), ((3, 4, 6), "spatial_shape")]:
        write_tensor(tmp_path / "a_1.h5", counted(shape))
        with pytest.raises(ValueError, match=rf"a_1\.h5: {what} is not that of .*a_0\.h5: expected .*, found .*own"):
            ArrayAdapter(str(tmp_path / "a_*.h5"), **options)
    write_tensor(tmp_path / "a_1.h5", counted((1, 4, 5)))
    with pytest.raises(ValueError, match=r"a_1\.h5: parameter 'Nu': .*found nothing; its attributes: none"):
        ArrayAdapter(str(tmp_path / "a_*.h5"), **options, parameters=["Nu"])
    splits = {"order": ["train", "valid", "test"]}
    with pytest.raises(ValueError, match=r"splits: of 1 trajectories in one of the files \(choose within=all\), valid"):
        ArrayAdapter(str(tmp_path / "a_*.h5"), **options, splits={**splits, "valid": 1})
    with h5py.File(tmp_path / "a_1.h5", "r+") as file:
        file["t-coordinate"][:] *= 2
    with pytest.raises(ValueError, match=r"a_1\.h5: dt is not that of .*a_0\.h5: expected 0.25, found 0.5"):
        ArrayAdapter(str(tmp_path / "a_*.h5"), **options)
    assert ArrayAdapter(str(tmp_path / "a_*.h5"), **options, dt=1).spec.dt == 1


READERS: dict[str, Callable[..., Any]] = {
    "arrays": lambda files, **options: ArrayAdapter(files, dims=["sample", "time", "x"], dt=1, **options),
    "groups": lambda files, **options: GroupAdapter(files, dims=["time", "x"], dt=1, **options),
    "xarray": lambda files, **options: XarrayAdapter(files, dt=1, **options),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_files_that_are_not_there(tmp_path: Path, reader: Callable[..., Any]) -> None:
    (tmp_path / "b.h5").touch()
    (tmp_path / "dangling.h5").symlink_to(tmp_path / "gone.h5")
    for files, words in [
        (tmp_path / "a.h5", r"a\.h5: .* holds b\.h5, dangling\.h5; fetch the data, or correct the path"),
        (str(tmp_path / "a*.h5"), r"a\*\.h5: no file matches; .* holds b\.h5"),
        (str(tmp_path / "no" / "a.h5"), r"a\.h5: .*the folder .*no does not exist \(.* does\)"),
        (str(tmp_path / "no" / "*.h5"), r"\*\.h5: no file matches; the folder .*no does not exist"),
        (tmp_path / "b.h5" / "a.h5", r"a\.h5: .*the folder .*b\.h5 does not exist"),
        (tmp_path / "dangling.h5", r"dangling\.h5: the file, or what it links to, does not exist"),
        ([tmp_path / "b.h5", tmp_path / "a.h5"], r"a\.h5: .* holds b\.h5"),
    ]:
        with pytest.raises(FileNotFoundError, match=words):
            reader(files)
    for files, words in [
        ([], "files: expected one or more, found an empty list"),
        ([3], r"files: expected a path, a pattern, a URL, or a list of them, found \[3\]"),
        ("", r"files: expected a path"),
        (None, r"files: expected a path, .* found None"),
        ([tmp_path / "b.h5", str(tmp_path / "*.h5")], r"b\.h5 is named twice"),
        ([tmp_path / "b.h5", tmp_path / "." / ".." / tmp_path.name / "b.h5"], r"b\.h5 is named twice"),
    ]:
        with pytest.raises(ValueError, match=words):
            reader(files)
    with pytest.raises(ValueError, match=r"order: expected numeric or lexicographic, found 'date'"):
        reader(tmp_path / "b.h5", order="date")


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("text"),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        _loop,
        _folder,
    ],
)
@pytest.mark.parametrize("later", [False, True], ids=["when opened", "when read"])
def test_damaged_file(path: Path, damage: Callable[[Path], Any], later: bool) -> None:
    adapter = ArrayAdapter(path, dims=DIMS, dt=1, fields=["u"]) if later else None
    damage(path)
    with pytest.raises(ValueError, match=r"a\.h5: expected .*HDF5 file.*found.*again"):
        adapter.read(0, 0, 1) if adapter else ArrayAdapter(path, dims=DIMS, dt=1, fields=["u"])


def test_file_replaced_while_open(path: Path) -> None:
    adapter = ArrayAdapter(path, dims=DIMS, dt=1, fields=["u"])
    adapter.read(0, 0, 4)
    other = write_arrays(path.with_name("b.h5"), {"u": counted((6, 4, 5, 3), 1000)})
    other.replace(path)
    with pytest.raises(ValueError, match=r"a\.h5: expected the .* that was opened, found that it has changed since"):
        adapter.read(0, 0, 4)
    assert ArrayAdapter(path, dims=DIMS, dt=1, fields=["u"]).read(0, 0, 4).min() >= 1000
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.h5"):
        ArrayAdapter(path, dims=DIMS, dt=1, fields=["u"])


def test_the_folders_of_the_well_are_its_splits(tmp_path: Path) -> None:
    from well_files import coded_file, write  # its files take other options

    write(tmp_path / "well", coded_file(("x",)))
    with pytest.raises(ValueError, match=r"well: splits: its folders are its splits; leave the option out"):
        WellAdapter(tmp_path / "well", splits={"valid": 0.1})
    with pytest.raises(ValueError, match=r"well: expected options of path, cache, fields, .* found 'dims'"):
        WellAdapter(tmp_path / "well", dims=["x"])
    with pytest.raises(ValueError, match=r"field 'density': `dims` has no effect, the file states them"):
        WellAdapter(tmp_path / "well", fields=[{"name": "density", "dims": ["x"]}])


@pytest.mark.parametrize(
    ("attribute", "value", "refused"),
    [
        ("scale_factor", 0.001, True),
        ("add_offset", 5.0, True),
        ("_FillValue", np.float32(9.97e36), True),
        ("missing_value", -999, True),
        ("_FillValue", np.float32(np.nan), False),
        ("scale_factor", 1.0, False),
        ("add_offset", 0.0, False),
    ],
)
def test_packed_numbers_are_left_to_xarray(tmp_path: Path, attribute: str, value: Any, refused: bool) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["u"] = np.zeros((4, 5, 6), np.float32)
        file["u"].attrs[attribute] = value
    options = {"files": str(tmp_path / "a.h5"), "dims": ["sample", "time", "x"], "dt": 1.0}
    if not refused:
        assert len(ArrayAdapter(**options)) == 2
        return
    with pytest.raises(
        ValueError, match=rf"a\.h5: /u: expected the numbers themselves, found {attribute}=.*XarrayAdapter"
    ):
        ArrayAdapter(**options)
