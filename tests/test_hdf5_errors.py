"""The reader of The Well's files refuses what it cannot read, and says where and what it expected."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from well_files import DT, NUM_STEPS, WellField, coded_file, coded_folder, with_field, write, write_stats

from data_adapters.hdf5 import WellAdapter


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from coded_folder(tmp_path)


@pytest.mark.parametrize("trajectory", [-1, 3])
def test_trajectory_that_does_not_exist(folder: Path, trajectory: int) -> None:
    adapter = WellAdapter(write(folder, coded_file(("x",))))
    for call in (adapter.parameters, lambda number: adapter.read(number, 0, 1)):
        with pytest.raises(IndexError, match=rf"'coded': expected a trajectory of 0 to 2, found {trajectory}"):
            call(trajectory)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 3), (4, 2), (0, NUM_STEPS + 1)])
def test_frames_that_do_not_exist(folder: Path, start: int, stop: int) -> None:
    adapter = WellAdapter(write(folder, coded_file(("x",))))
    with pytest.raises(IndexError, match=rf"'coded'.*within 0 and 7, found start {start} and stop {stop}"):
        adapter.read(0, start, stop)


_X = coded_file(("x",)).axes["x"]


@pytest.mark.parametrize(
    ("change", "what", "words"),
    [
        ({"axes": {"x": np.arange(6.0)}}, "spatial_shape", r"\(1, 1, 3\), found \(1, 1, 6\)"),
        ({"axes": {"x": 5 + 2 * _X}}, "the spacing along x", r"point 1 at 0\.5 from the first, found 1"),
        ({"times": DT * np.arange(NUM_STEPS + 1)}, "the number of frames", "7, found 8"),
        ({"times": 2 * DT * np.arange(NUM_STEPS)}, "dt", r"0\.25, found 0\.5"),
        ({"boundaries": []}, "boundary", r"\{.*'periodic'\}, found \{.*'open'\}"),
        ({"scalars": {}}, "parameters", r"\['viscosity', 'gamma'\], found \[\]"),
        ({"dataset_name": "another"}, "dataset_name", "coded, found another"),
    ],
)
def test_files_of_a_split_agree(folder: Path, change: dict[str, Any], what: str, words: str) -> None:
    contents = coded_file(("x",), range(3, 5))
    contents = replace(contents, **change)
    num_steps, size = len(contents.times), len(contents.axes["x"])
    resized = {
        name: WellField(np.resize(field.values, (2, num_steps, size, *field.values.shape[3:])), rank=field.rank)
        for name, field in contents.fields.items()
    }
    write(folder, coded_file(("x",)), replace(contents, fields=resized))
    with pytest.raises(ValueError, match=rf"part_1\.hdf5: {what} is not that of .*part_0\.hdf5: expected {words}"):
        WellAdapter(folder)


def test_grids_of_files_may_begin_elsewhere(folder: Path) -> None:
    moved = replace(coded_file(("x",), range(3, 5)), axes={"x": _X + 100})
    write(folder, coded_file(("x",)), moved)
    assert len(WellAdapter(folder)) == 5


def test_files_may_differ_in_the_frames_that_are_not_used(folder: Path) -> None:
    longer = replace(coded_file(("x",), range(3, 5)), times=DT * np.arange(NUM_STEPS + 2))
    resized = {
        name: WellField(np.resize(field.values, (2, NUM_STEPS + 2, *field.values.shape[2:])), rank=field.rank)
        for name, field in longer.fields.items()
    }
    write(folder, coded_file(("x",)), replace(longer, fields=resized))
    with pytest.raises(ValueError, match=r"the number of frames.*expected 7, found 9; .*frames: {stop: \.\.\.}"):
        WellAdapter(folder)
    adapter = WellAdapter(folder, frames={"stop": 5})
    assert adapter.spec.num_steps == 5
    np.testing.assert_array_equal(adapter.read(4, 0, 5)[:, 0, 0, 0, 0], resized["density"].values[1, :5])


def test_files_of_a_split_have_the_same_fields(folder: Path) -> None:
    other = coded_file(("x",))
    without = replace(other, fields={name: field for name, field in other.fields.items() if name != "pressure"})
    write(folder, other, without)
    with pytest.raises(ValueError, match=r"part_1\.hdf5: no field 'pressure'; it has density, velocity"):
        WellAdapter(folder)
    assert len(WellAdapter(folder, fields=["velocity"])) == 6


def _edit(path: Path, change: Callable[[h5py.File], Any]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def _replace(name: str, values: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        attributes = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, data=values).attrs.update(attributes)

    return change


def _delete(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


def _set(name: str, attribute: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file[name].attrs.__setitem__(attribute, value)


def _unset(name: str, attribute: str) -> Callable[[h5py.File], None]:
    return lambda file: file[name].attrs.__delitem__(attribute)


UNEVEN = DT * np.arange(NUM_STEPS) + 0.1 * (np.arange(NUM_STEPS) > 4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_delete("dimensions"), r"expected a group 'dimensions'.*found boundary_conditions, scalars"),
        (_delete("t1_fields"), r"expected a group 't1_fields'.*found boundary_conditions, dimensions"),
        (_delete("scalars"), r"expected a group 'scalars'"),
        (_delete("dimensions/time"), r"expected an array 'dimensions/time', found x, y beside it"),
        (_delete("dimensions/y"), r"expected an array 'dimensions/y', found time, x beside it"),
        (_delete("t0_fields/pressure"), r"expected an array 't0_fields/pressure', found density beside it"),
        (_unset("t0_fields", "field_names"), r"/t0_fields: expected the attribute 'field_names'"),
        (_unset("t1_fields/velocity", "dim_varying"), r"/t1_fields/velocity: expected the attribute 'dim_varying'"),
        (_unset("/", "n_trajectories"), r"expected the attribute 'n_trajectories'"),
        (_set("/", "n_trajectories", 0), r"expected one or more trajectories, found n_trajectories 0"),
        (_set("/", "n_trajectories", 4), r"t0_fields/density: expected shape \(4, 7, 3, 4\).*found \(3, 7, 3, 4\)"),
        (_set("/", "n_spatial_dims", 3), r"dimensions: expected 1 to 3 `spatial_dims`"),
        (_set("t1_fields", "field_names", ["density"]), r"field 'density' stands in both t0_fields and t1_fields"),
        (_set("t0_fields/density", "dim_varying", [True]), r"t0_fields/density: expected `dim_varying` for 2 axes"),
        (_set("t0_fields/density", "time_varying", False), r"t0_fields/density: expected shape \(3, 3, 4\)"),
        (_replace("t0_fields/density", np.ones((3, 7, 3))), r"t0_fields/density: expected shape.*found \(3, 7, 3\)"),
        (_replace("t1_fields/velocity", np.ones((3, 7, 3, 4))), r"t1_fields/velocity: expected shape.*components"),
        (_replace("t1_fields/velocity", np.ones((3, 7, 3, 4, 0))), r"t1_fields/velocity: expected shape"),
        (_replace("t0_fields/density", np.ones((3, 7, 3, 4), complex)), r"t0_fields/density: .* found complex128"),
        (_replace("t0_fields/density", h5py.Empty("f4")), r"expected an array 't0_fields/density'"),
        (_replace("t0_fields/density", b"text"), r"t0_fields/density: expected real numbers"),
        (_replace("scalars/viscosity", np.ones(5)), r"scalars/viscosity: expected shape \(3,\), found \(5,\)"),
        (_replace("scalars/gamma", "high"), r"scalars/gamma: expected real numbers"),
        (_replace("dimensions/time", UNEVEN), r"dimensions/time: .*found 0.35 from frame 4 to 5 where most are 0.25"),
        (_replace("dimensions/time", -np.arange(7.0)), r"dimensions/time: expected times that increase"),
        (_replace("dimensions/time", np.full(7, np.nan)), r"dimensions/time: expected the finite times"),
        (_replace("dimensions/time", np.zeros((2, 2, 7))), r"dimensions/time: expected \(T,\) or"),
        (_replace("dimensions/time", [UNEVEN, UNEVEN, UNEVEN + 1]), r"dimensions/time: .*in trajectory 2 where"),
        (_replace("dimensions/y", 1.0), r"dimensions/y: expected an array of coordinates"),
        (
            _set("boundary_conditions/x_PERIODIC_0", "bc_type", "SLIP"),
            r"/x_PERIODIC_0: expected a bc_type.*'slip' on x",
        ),
        (_set("boundary_conditions/x_PERIODIC_0", "associated_dims", ["q"]), r"/x_PERIODIC_0: expected.*on q"),
        (_replace("boundary_conditions/x_PERIODIC_0/mask", True), r"/x_PERIODIC_0/mask: expected the axes"),
    ],
)
def test_file_that_is_not_in_the_layout(folder: Path, change: Callable[[h5py.File], Any], words: str) -> None:
    write(folder, coded_file(("x", "y")))
    _edit(folder / "data" / "train" / "part_0.hdf5", change)
    with pytest.raises(ValueError, match=rf"coded/data/train/part_0\.hdf5: .*{words[1:]}|part_0\.hdf5: {words}"):
        WellAdapter(folder)


def test_single_frame_has_no_time_step(folder: Path) -> None:
    fields = {"density": WellField(np.ones((3, 1, 3)))}
    write(folder, coded_file(("x",), times=np.array([0.0]), fields=fields))
    with pytest.raises(ValueError, match=r"part_0\.hdf5: dimensions/time: expected the finite times of two or more"):
        WellAdapter(folder)


def _empty_file(path: Path) -> None:
    path.write_bytes(b"")


def _text_file(path: Path) -> None:
    path.write_text("no signature")


def _half_file(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize("damage", [_empty_file, _text_file, _half_file, _loop])
@pytest.mark.parametrize("later", [False, True], ids=["when opened", "when read"])
def test_damaged_file(folder: Path, damage: Callable[[Path], None], later: bool) -> None:
    path = write(folder, coded_file(("x", "y", "z"))) / "data" / "train" / "part_0.hdf5"
    adapter = WellAdapter(folder) if later else None
    damage(path)
    with pytest.raises(
        ValueError, match=r"coded/data/train/part_0\.hdf5: expected .*HDF5 file.*found.*again"
    ) as caught:
        adapter.read(0, 0, 1) if adapter else WellAdapter(folder)
    assert later or damage is _empty_file or isinstance(caught.value.__cause__, OSError)


def test_file_that_changed_since(folder: Path) -> None:
    adapter = WellAdapter(write(folder, coded_file(("x", "y"))))
    write(folder, coded_file(("x",)))
    with pytest.raises(ValueError, match=r"part_0\.hdf5: expected the .* that was opened, found that it has changed"):
        adapter.read(1, 0, 2)
    (folder / "data" / "train" / "part_0.hdf5").unlink()
    adapter.close()
    with pytest.raises(FileNotFoundError, match=r"part_0\.hdf5"):
        adapter.read(1, 0, 2)


def test_folder_that_is_not_a_data_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: expected a folder.*nowhere/data/train.*No such file"):
        WellAdapter(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(FileNotFoundError, match=r"loop: expected a folder.*symbolic links"):
        WellAdapter(tmp_path / "loop")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "stats.yaml").touch()
    with pytest.raises(FileNotFoundError, match=r"bare/data: expected a folder.*bare holds stats\.yaml"):
        WellAdapter(tmp_path / "bare")
    (tmp_path / "bare" / "data" / "valid").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"data/test: expected a folder.*data holds valid"):
        WellAdapter(tmp_path / "bare", split="test")
    (tmp_path / "bare" / "data" / "valid" / "a.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"data/valid: expected files that end in \.h5 or \.hdf5, found a\.txt"):
        WellAdapter(tmp_path / "bare", split="valid")


@pytest.mark.parametrize("split", ["val", "validation", "Train", ""])
def test_unknown_split(folder: Path, split: str) -> None:
    with pytest.raises(ValueError, match=rf"coded: expected a split of train, valid, test, or all, found '{split}'"):
        WellAdapter(write(folder, coded_file(("x",))), split=split)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["speed"], r"no field 'speed'; it has density, pressure, velocity"),
        ([{"name": "u", "from": "speed"}], r"no field 'speed'"),
        ([], r"expected `fields` to be a list of one or more fields, found \[\]"),
        ("density", r"expected `fields` to be a list"),
        ([{"name": "u", "form": "density"}], r"expected a field's name, or a mapping.*'form'"),
        ([{"from": "density"}], r"expected a field's name, or a mapping"),
        ([3], r"expected a field's name, or a mapping.*found 3"),
        ([{"name": "u", "from": []}], r"expected `from` to be a field or a list of fields"),
        ([{"name": "u", "from": 3}], r"expected `from` to be a field or a list of fields"),
        ([{"name": "u", "from": ["velocity", "density"]}], r"field 'u': expected a list of scalar fields in `from`"),
        (["density", "density"], r"'coded': component names repeat: density"),
    ],
)
def test_fields_that_cannot_be_read(folder: Path, fields: Any, words: str) -> None:
    with pytest.raises(ValueError, match=rf"coded.*{words}|data set {words}"):
        WellAdapter(write(folder, coded_file(("x", "y"))), fields=fields)


def test_file_without_scalar_or_vector_field(folder: Path) -> None:
    contents = with_field(coded_file(("x",), fields={}), "stress", np.ones((3, NUM_STEPS, 3, 1, 1)), rank=2)
    with pytest.raises(ValueError, match=r"part_0\.hdf5: expected a scalar or vector field, found stress"):
        WellAdapter(write(folder, contents))


GOOD_STATS = {
    "mean": {"density": 1.0, "velocity": [1.0, 2.0]},
    "std": {"density": 1.0, "velocity": [1.0, 2.0]},
    "rms_delta": {"density": 1.0, "velocity": [1.0, 2.0]},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": {"velocity": [1.0, 2.0]}}, "mean: field 'density': expected 1 finite.*found 'no entry'"),
        ({"std": {"density": 1.0, "velocity": 3.0}}, "std: field 'velocity': expected 2 finite.*found 3.0"),
        ({"std": {"density": -1.0, "velocity": [1.0, 2.0]}}, "std: field 'density': expected.*not negative"),
        ({"rms_delta": {"density": float("nan")}}, "rms_delta: field 'density': expected.*found nan"),
        ({"rms_delta": {"velocity": [1.0, 2.0]}}, "rms_delta: field 'density': expected.*found 'no entry'"),
        ({"mean": {"density": "much"}}, "mean: field 'density': expected.*found 'much'"),
    ],
)
def test_statistics_that_do_not_fit(folder: Path, change: dict[str, Any], words: str) -> None:
    write(folder, coded_file(("x", "y")))
    write_stats(folder, {**GOOD_STATS, **change})
    with pytest.raises(ValueError, match=rf"coded/stats\.yaml: {words}"):
        WellAdapter(folder, fields=["density", "velocity"])


@pytest.mark.parametrize("text", ["", "- 1", "mean: 3", "mean: [", "\x00"])
def test_statistics_that_are_no_table(folder: Path, text: str) -> None:
    write(folder, coded_file(("x", "y")))
    (folder / "stats.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"coded/stats\.yaml: expected (readable YAML|'mean' to map)"):
        WellAdapter(folder, fields=["density", "velocity"])
