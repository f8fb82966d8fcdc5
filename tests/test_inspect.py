"""`python -m data_adapters.inspect`: what it writes gives the file's values, and what it cannot know it asks."""

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
import xarray as xr
import yaml

from data_adapters.handles import HANDLES
from data_adapters.inspect.names import Vector, kind_of, vectors
from data_adapters.labelled import DATASETS
from morph.data.adapter import DatasetAdapter
from morph.data.catalogue import find_datasets, open_split
from tests.well_files import code, coded_file, write, write_file

LAT, LON = np.linspace(-60, 60, 33), np.arange(49) * 360 / 49
LAND = (np.abs(LAT)[:, None] < 10) & (np.abs(LON - 200) < 60)


class Inspected:
    """The command in a folder.

    ask: its question: options that answer it, as commands shown by it.
    write: what the YAML says that it has written.
    """

    def __init__(self, call: Callable[..., Any], folder: Path) -> None:
        self.call, self.folder = call, folder

    def run(self, *options: str, code: int) -> Any:
        done = self.call("data_adapters.inspect", *options, cwd=self.folder)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def ask(self, *options: str) -> list[list[str]]:
        done = self.run(*options, code=2)
        assert not list(self.folder.glob("*.yaml"))
        lines = [line.split("#")[0].strip() for line in done.stdout.splitlines()]
        commands = [shlex.split(line) for line in lines if line.startswith("python -m data_adapters.inspect")]
        return [command[3:] for command in commands]

    def refuse(self, *options: str) -> str:
        done = self.run(*options, code=1)
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 0
        return str(done.stderr)

    def write(self, *options: str) -> dict[str, Any]:
        done = self.run(*options, code=0)
        (path,) = self.folder.glob("*.yaml")
        assert f"data={path.name}" in done.stdout
        self.printed = done.stdout
        self.text = path.read_text()
        return dict(yaml.safe_load(self.text))

    def open(self, split: str) -> DatasetAdapter:
        (path,) = self.folder.glob("*.yaml")
        ((_, config),) = find_datasets(str(path), {}).items()
        return open_split(config, split)


@pytest.fixture
def inspected(call: Callable[..., Any], tmp_path: Path) -> Any:
    yield Inspected(call, tmp_path)
    for handles in (HANDLES, DATASETS):
        handles.close(list(handles._open))  # type: ignore[attr-defined]


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def hdf5(path: Path, arrays: Mapping[str, Any], **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file.attrs.update(attributes)
    return path


def ocean(num_steps: int = 200, **coordinate: Any) -> xr.Dataset:
    fields = {}
    for seed, name in enumerate(("u", "v", "T")):
        field = values(num_steps, 33, 49, seed=seed)
        field[:, LAND] = np.nan
        fields[name] = (("time", "lat", "lon"), field, {"units": "K" if name == "T" else "m s-1"})
    fields["topography"] = (("lat", "lon"), values(33, 49, seed=9), {})
    units = {"units": "hours since 1900-01-01", **coordinate}
    return xr.Dataset(
        fields,
        {
            "time": ("time", 6.0 * np.arange(num_steps) + 1e6, units),
            "lat": ("lat", LAT, {"units": "degrees_north"}),
            "lon": ("lon", LON, {"units": "degrees_east"}),
        },
    )


def test_an_ocean_with_land(inspected: Inspected) -> None:
    stored = ocean()
    stored.to_netcdf(inspected.folder / "sst.nc")
    config = inspected.write("sst.nc")
    assert config["_target_"] == "data_adapters.labelled.XarrayAdapter"
    assert config["time"] == "time"
    assert config["fields"] == [{"name": "velocity", "from": ["u", "v"]}, "T"]
    assert config["missing"] == "mask"
    assert config["boundary"] == "open"
    assert config["splits"] == {
        "by": "time",
        "order": ["train", "valid", "test"],
        "valid": 0.1,
        "test": 0.1,
        "gap": 0.02,
    }
    assert f"{LAND.mean():.1%} are NaN, at the same points" in inspected.text
    assert "boundary: {lon: periodic} if it closes" in inspected.text
    assert "dt: 6 hours" in inspected.text
    train, test = inspected.open("train"), inspected.open("test")
    assert (train.spec.spatial_shape, train.spec.dt) == ((1, 33, 49), 6.0)
    assert train.spec.fields[0].components == ("velocity_u", "velocity_v")
    expected = np.zeros((3, 2, 2, 1, 33, 49), np.float32)
    for place, name in (((0, 0), "u"), ((0, 1), "v"), ((1, 0), "T")):
        expected[:, place[0], place[1], 0] = stored[name][5:8]
    np.testing.assert_array_equal(train.read(0, 5, 8), expected)
    # The last frame of the test split is the last of the file.
    np.testing.assert_array_equal(
        test.read(0, test.spec.num_steps - 1, test.spec.num_steps)[0, 1, 0, 0], stored["T"][-1]
    )


def test_scattered_gaps(inspected: Inspected) -> None:
    stored = ocean(60)[["T"]]
    stored["T"][7, 20, 20] = np.nan
    stored.to_netcdf(inspected.folder / "a.nc")
    assert inspected.write("a.nc")["missing"] == "mask"
    assert "scattered" in inspected.text


def test_a_cube_in_zarr(inspected: Inspected) -> None:
    shape = (5, 12, 4, 6, 8)
    names = ("rho", "Bx", "By", "Bz")
    dims = ("sample", "time", "z", "y", "x")
    arrays = {name: (dims, values(*shape, seed=i)) for i, name in enumerate(names)}
    stored = xr.Dataset(arrays, {"time": 0.5 * np.arange(12.0)})
    stored.to_zarr(inspected.folder / "cube.zarr", zarr_format=2)
    config = inspected.write("cube.zarr")
    assert config["sample"] == "sample"
    magnetic = {"name": "B", "from": ["Bx", "By", "Bz"]}
    assert magnetic in config["fields"]
    assert "rho" in config["fields"]
    assert config["splits"] == {"by": "trajectory", "valid": 0.1, "test": 0.1, "seed": 0}
    adapters = [inspected.open(split) for split in ("train", "valid", "test")]
    assert [len(adapter) for adapter in adapters] == [3, 1, 1]
    assert adapters[0].spec.axes == ("z", "y", "x")
    rows = [adapter.place(i)[1] for adapter in adapters for i in range(len(adapter))]  # type: ignore[attr-defined]
    assert sorted(rows) == list(range(5))
    first = adapters[0].read(0, 3, 4)[0]
    np.testing.assert_array_equal(
        first[config["fields"].index(magnetic)], [stored[name][rows[0], 3] for name in names[1:]]
    )


def test_whole_arrays_of_pdebench(inspected: Inspected) -> None:
    arrays: dict[str, Any] = {name: values(10, 21, 64, seed=i) for i, name in enumerate(("Vx", "density", "pressure"))}
    coordinates = {"t-coordinate": np.linspace(0, 0.21, 22), "x-coordinate": (np.arange(64) + 0.5) / 64}
    hdf5(inspected.folder / "cfd.hdf5", arrays | coordinates, eta=0.01, zeta=0.02, comment="none")
    config = inspected.write("cfd.hdf5", "boundary=periodic")
    assert config["_target_"] == "data_adapters.hdf5.ArrayAdapter"
    assert config["dims"] == ["sample", "time", "x"]
    assert config["coordinates"] == {"time": "t-coordinate", "x": "x-coordinate"}
    assert config["parameters"] == ["eta", "zeta"]
    assert config["fields"] == ["Vx", "density", "pressure"]
    train = inspected.open("train")
    assert train.spec.dt == pytest.approx(0.01)
    assert train.spec.boundary[2] == "periodic"
    np.testing.assert_allclose(train.coordinates["x"], coordinates["x-coordinate"])
    row = train.place(2)[1]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(
        train.read(2, 4, 6)[:, :, 0, 0, 0], np.stack([a[row, 4:6] for a in arrays.values()], 1)
    )


def test_a_table_of_times(inspected: Inspected) -> None:
    """As in PDEBench's incompressible flow: times for each trajectory, components last, an array of points apart."""
    arrays = {
        "velocity": values(4, 11, 8, 8, 2),
        "t": np.tile(np.arange(11) * 0.1, (4, 1)),
        "force": values(4, 8, 8, 2),
    }
    hdf5(inspected.folder / "ns.h5", arrays)
    config = inspected.write("ns.h5")
    assert config["dims"] == ["sample", "time", "x", "y", "channel"]
    assert config["coordinates"] == {"time": "t"}
    train = inspected.open("train")
    row = train.place(0)[1]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(train.read(0, 3, 4)[0, 0, :, 0], arrays["velocity"][row, 3].transpose(2, 0, 1))


def test_a_group_for_each_trajectory(inspected: Inspected) -> None:
    arrays: dict[str, Any] = {}
    for i in range(6):
        arrays |= {f"{i:04d}/data": values(9, 16, 12, 3, seed=i), f"{i:04d}/grid/t": 0.2 * np.arange(9)}
        arrays |= {f"{i:04d}/grid/x": np.arange(16.0), f"{i:04d}/grid/y": np.arange(12.0)}
    hdf5(inspected.folder / "swe.h5", arrays, nu=0.5)
    config = inspected.write("swe.h5")
    assert config["_target_"] == "data_adapters.hdf5.GroupAdapter"
    assert config["dims"] == ["time", "x", "y", "channel"]
    # Three components on two axes are no vector of this space.
    assert config["fields"] == [{"name": f"data_{i}", "from": "data", "channels": [i]} for i in range(3)]
    assert config["parameters"] == ["nu"]
    train = inspected.open("train")
    row = train.place(1)[1]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(train.read(1, 0, 9)[:, 2, 0, 0], arrays[f"{row:04d}/data"][..., 2])


def test_a_folder_of_the_well(inspected: Inspected) -> None:
    folder = inspected.folder / "coded"
    for split, trajectories in (("train", range(3)), ("valid", range(3, 5)), ("test", range(5, 6))):
        write(folder, coded_file("xy", trajectories), split=split)
    config = inspected.write("coded")
    assert config["_target_"] == "data_adapters.hdf5.WellAdapter"
    assert config["path"] == str(folder)
    assert config["fields"] == ["density", "pressure", "velocity"]
    assert "splits" not in config
    assert "boundary" not in config
    assert "boundary: {x: periodic, y: periodic}, stated by the file" in inspected.text
    valid = inspected.open("valid")
    assert valid.read(1, 2, 3)[0, 2, 1, 0, 1, 3] == code(2, 1, 4, 2, 1, 3)
    # One of its files means the same.
    (inspected.folder / "coded.yaml").unlink()
    assert inspected.write("coded/data/valid/part_0.hdf5")["path"] == str(folder)


def test_a_file_of_the_well_alone(inspected: Inspected) -> None:
    write_file(inspected.folder / "alone.hdf5", coded_file("xy", range(5)))
    config = inspected.write("alone.hdf5")
    assert config["_target_"] == "data_adapters.hdf5.ArrayAdapter"
    assert config["boundary"] == {"x": "periodic", "y": "periodic"}
    train = inspected.open("train")
    row = train.place(0)[1]  # type: ignore[attr-defined]
    assert train.read(0, 2, 3)[0, 2, 1, 0, 1, 3] == code(2, 1, row, 2, 1, 3)
    assert train.spec.boundary[1:] == ("periodic", "periodic")


def test_an_array_without_labels_is_asked_for(inspected: Inspected) -> None:
    stored = values(10, 13, 8, 8)
    hdf5(inspected.folder / "bare.h5", {"u": stored})
    answers = inspected.ask("bare.h5")
    assert answers[0] == ["bare.h5", "dims=[sample,time,x,y]"]
    assert ["bare.h5", "dims=[sample,x,y,time]"] in answers
    # Its first answer leads to the next question, and so on to the end.
    (step,) = inspected.ask(*answers[0])
    assert step == ["bare.h5", "dims=[sample,time,x,y]", "dt=1"]
    assert inspected.write(*answers[1], "dt=0.5", "name=mine")["dims"] == answers[1][1][6:-1].split(",")
    (inspected.folder / "bare.yaml").unlink()
    inspected.write(*answers[0], "dt=0.5", "name=mine")
    train = inspected.open("train")
    assert (train.spec.name, train.spec.dt, train.spec.num_steps) == ("mine", 0.5, 13)
    np.testing.assert_array_equal(train.read(0, 1, 2)[0, 0, 0, 0], stored[train.place(0)[1], 1])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "told",
    [
        {"u": {"dims": "time,x,sample"}},
        {"u": {"DIMENSION_LABELS": ["time", "x", "sample"]}},
        {"": {"axes": "time x sample"}},
    ],
)
def test_an_attribute_names_the_axes(inspected: Inspected, told: Mapping[str, Mapping[str, Any]]) -> None:
    path = hdf5(inspected.folder / "a.h5", {"u": values(9, 8, 5)})
    with h5py.File(path, "a") as file:
        for name, attributes in told.items():
            (file[name] if name else file).attrs.update(attributes)
    assert inspected.write("a.h5", "dt=1")["dims"] == ["time", "x", "sample"]


def test_lengths_that_fit_twice_say_nothing(inspected: Inspected) -> None:
    path = hdf5(inspected.folder / "a.h5", {"u": values(16, 16, 12), "t": np.arange(16.0), "x": np.arange(16.0)})
    assert ["a.h5", "dims=[time,x,y]"] in inspected.ask("a.h5")
    # Of one coordinate more, the last two axes are known, and the first can be time or trajectories.
    hdf5(path, {"u": values(16, 14, 12), "y": np.arange(14.0), "x": np.arange(12.0)})
    assert ["a.h5", "dims=[time,y,x]"] in inspected.ask("a.h5")


def test_scales_of_hdf5_are_read_by_xarray(inspected: Inspected) -> None:
    with h5py.File(inspected.folder / "a.h5", "w") as file:
        file["u"] = values(20, 6, 8)
        for i, name in enumerate(("t", "y", "x")):
            file[name] = 0.5 * np.arange(file["u"].shape[i])
            file[name].make_scale(name)
            file["u"].dims[i].attach_scale(file[name])
    config = inspected.write("a.h5")
    assert config["_target_"] == "data_adapters.labelled.XarrayAdapter"
    assert config["time"] == "t"


def test_an_ensemble(inspected: Inspected) -> None:
    days = np.arange("2020-01-01", "2020-01-21", dtype="datetime64[D]").astype("datetime64[ns]")
    dims = ("number", "valid_time", "latitude", "longitude")
    stored = xr.Dataset(
        {"t2m": (dims, values(4, 20, 9, 12)), "u10": (dims, values(4, 20, 9, 12, seed=1))}, {"valid_time": days}
    )
    stored["v10"] = stored["u10"] + 1
    stored.to_netcdf(inspected.folder / "era.nc")
    config = inspected.write("era.nc")
    assert (config["time"], config["sample"]) == ("valid_time", "number")
    assert config["fields"] == ["t2m", {"name": "velocity_10", "from": ["u10", "v10"]}]
    train = inspected.open("train")
    assert (len(train), train.spec.dt) == (2, 1.0)
    velocity = train.read(1, 4, 6)[:, 1, :, 0]
    np.testing.assert_array_equal(velocity[:, 1], velocity[:, 0] + 1)


def test_times_of_start_and_lead_are_told_apart_by_the_user(inspected: Inspected) -> None:
    dims = ("time", "prediction_timedelta", "lat", "lon")
    days = np.arange(4) * 24
    stored = xr.Dataset({"z": (dims, values(4, 10, 5, 6))}, {"time": days, "prediction_timedelta": 6 * np.arange(10)})
    stored.to_netcdf(inspected.folder / "wb.nc")
    answers = inspected.ask("wb.nc")
    assert answers[0] == ["wb.nc", "dims=[sample,time,lat,lon]"]
    config = inspected.write(*answers[0])
    assert (config["time"], config["sample"]) == ("prediction_timedelta", "time")
    train = inspected.open("train")
    np.testing.assert_array_equal(
        train.read(0, 2, 3)[0, 0, 0, 0], stored["z"][train.place(0)[1], 2]  # type: ignore[attr-defined]
    )  # fmt: skip


def test_more_fields_than_fit_are_asked_for(inspected: Inspected) -> None:
    names = ("t", "q", "u", "v", "w", "ps")
    stored = xr.Dataset({name: (("time", "y", "x"), values(30, 6, 8, seed=i)) for i, name in enumerate(names)})
    stored["time"] = np.arange(30.0)
    stored.to_netcdf(inspected.folder / "many.nc")
    three, everything = inspected.ask("many.nc")
    assert three == ["many.nc", "fields=[t,q,velocity]"]
    assert everything == ["many.nc", "fields=[t,q,velocity,ps]"]
    config = inspected.write("many.nc", "fields=[ps,velocity,{name: speed, from: [u]}]")
    velocity = {"name": "velocity", "from": ["u", "v", "w"]}
    assert config["fields"] == ["ps", velocity, {"name": "speed", "from": ["u"]}]
    np.testing.assert_array_equal(inspected.open("train").read(0, 7, 8)[0, 1, :, 0], [stored[c][7] for c in "uvw"])
    (inspected.folder / "many.yaml").unlink()
    inspected.write(*everything)
    assert "model.capacity.max_fields=4" in inspected.printed
    assert "no field 'nothing'; it has ps, q, t, u, v, velocity, w" in inspected.refuse("many.nc", "fields=[nothing]")


def test_fields_on_two_grids_are_asked_for(inspected: Inspected) -> None:
    stored = xr.Dataset(
        {"h": (("time", "y", "x"), values(30, 6, 8)), "u": (("time", "y", "xu"), values(30, 6, 9))},
        {"time": np.arange(30.0)},
    )
    stored.to_netcdf(inspected.folder / "c.nc")
    assert inspected.ask("c.nc") == [["c.nc", "fields=[h]"], ["c.nc", "fields=[u]"]]
    inspected.write("c.nc", "fields=[u]")
    np.testing.assert_array_equal(inspected.open("train").read(0, 0, 1)[0, 0, 0, 0], stored["u"][0])


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("time", {}),
        ("t", {}),
        ("Time", {}),
        ("valid_time", {}),
        ("ocean_time", {}),
        ("time_counter", {}),
        ("forecast_time0", {}),
        ("snapshots", {}),
        ("n_frames", {}),
        ("XTIME", {}),
        ("when", {"units": "days since 1850-1-1"}),
        ("record_no", {"axis": "T"}),
        ("epoch", {"standard_name": "time"}),
    ],
)
def test_names_of_time(inspected: Inspected, name: str, attributes: dict[str, str]) -> None:
    field = values(30, 6, 8)
    stored = xr.Dataset({"a": ((name, "y", "x"), field)}, {name: (name, 3.0 * np.arange(30), attributes)})
    stored.to_netcdf(inspected.folder / "a.nc", format="NETCDF3_64BIT")
    assert inspected.write("a.nc")["time"] == name
    train = inspected.open("train")
    assert train.spec.dt == 3.0
    np.testing.assert_array_equal(train.read(0, 0, 5)[:, 0, 0, 0], field[:5])


def test_an_axis_that_may_grow_is_time(inspected: Inspected) -> None:
    stored = xr.Dataset({"a": (("n", "y", "x"), values(30, 6, 8))})
    stored.to_netcdf(inspected.folder / "a.nc")
    assert inspected.ask("a.nc") == [["a.nc", "dims=[time,y,x]"]]
    stored.to_netcdf(inspected.folder / "a.nc", unlimited_dims=["n"])
    assert inspected.write("a.nc", "dt=2")["time"] == "n"


def test_a_step_that_is_not_stated_or_not_equal_is_asked_for(inspected: Inspected) -> None:
    stored = xr.Dataset({"a": (("time", "y", "x"), values(36, 6, 8))})
    stored.to_netcdf(inspected.folder / "a.nc")
    assert inspected.ask("a.nc") == [["a.nc", "dt=1"]]
    stored["time"] = xr.date_range("2001-01-01", periods=36, freq="MS")
    stored.to_netcdf(inspected.folder / "months.nc")
    assert inspected.ask("months.nc") == [["months.nc", "dt=31"]]
    assert inspected.write("months.nc", "dt=30.44")["dt"] == 30.44
    assert inspected.open("train").spec.dt == 30.44
    hdf5(inspected.folder / "b.h5", {"u": values(5, 9, 8)}, dt=0.001)
    (inspected.folder / "months.yaml").unlink()
    assert inspected.ask("b.h5", "dims=[sample,time,x]") == [["b.h5", "dims=[sample,time,x]", "dt=0.001"]]


def test_times_beside_the_coordinate(inspected: Inspected) -> None:
    """As WRF has them, with places in two dimensions that are no fields."""
    dims = ("Time", "south_north", "west_east")
    arrays = {name: (dims, values(40, 6, 8, seed=i)) for i, name in enumerate(("T2", "XLAT", "XLONG"))}
    stored = xr.Dataset(arrays, {"XTIME": ("Time", 60.0 * np.arange(40), {"units": "minutes since 2000-01-01"})})
    stored.set_coords(["XLAT", "XLONG"]).to_netcdf(inspected.folder / "wrf.nc")
    config = inspected.write("wrf.nc")
    assert config["dt"] == 60.0
    assert config["fields"] == ["T2"]
    assert "dt: 60.0 # in minutes: from XTIME" in inspected.text


def test_rows_of_matlab(inspected: Inspected) -> None:
    arrays = {"u": values(5, 9, 8), "t": 0.5 * np.arange(9.0)[None], "x": np.arange(8.0)[None]}
    with h5py.File(hdf5(inspected.folder / "fno.mat", arrays), "a") as file:
        file["u"].attrs["MATLAB_class"] = np.bytes_("single")
    assert inspected.write("fno.mat")["coordinates"] == {"time": "t", "x": "x"}
    assert inspected.open("train").spec.dt == 0.5
    assert "MATLAB stores the last index first" in inspected.printed


@pytest.mark.parametrize("same_date", [True, False])
def test_pieces_of_a_record_are_joined(inspected: Inspected, same_date: bool) -> None:
    whole = values(30, 6, 8)
    for i in range(3):
        date = "2000-01-01" if same_date else f"2000-01-{1 + 10 * i:02d}"
        days = np.arange(10.0) + (10 * i if same_date else 0)
        piece = xr.Dataset({"a": (("time", "y", "x"), whole[10 * i : 10 * i + 10])})
        piece["time"] = ("time", days, {"units": f"days since {date}"})
        (inspected.folder / "parts").mkdir(exist_ok=True)
        piece.to_netcdf(inspected.folder / "parts" / f"p_{i}.nc")
    config = inspected.write("parts")
    assert config["join"] == "time"
    assert config.get("dt") == (None if same_date else 1.0)
    train = inspected.open("train")
    assert train.spec.dt == 1.0
    np.testing.assert_array_equal(train.read(0, 8, 13)[:, 0, 0, 0], whole[8:13])


def test_files_that_start_alike_are_trajectories(inspected: Inspected) -> None:
    for i in range(4):
        hdf5(inspected.folder / f"run_{i}.h5", {"u": values(9, 8, seed=i), "t": np.arange(9.0), "x": np.arange(8.0)})
    config = inspected.write("run_*.h5", "out=runs.yaml")
    assert config["files"] == str(inspected.folder / "run_*.h5")
    assert [len(inspected.open(split)) for split in ("train", "valid", "test")] == [2, 1, 1]


def test_named_components(inspected: Inspected) -> None:
    stored = values(5, 11, 4, 8, 8)
    arrays = {"data": stored, "t": np.arange(11.0), "x": np.arange(8.0), "y": np.arange(8.0)}
    path = hdf5(inspected.folder / "c.h5", arrays)
    assert inspected.ask("c.h5")[1][1] == "fields=[data_0,data_1,data_2,data_3]"
    with h5py.File(path, "a") as file:
        file["data"].attrs["channel_names"] = ["rho", "vx", "vy", "p"]
    config = inspected.write("c.h5")
    assert [field["channels"] for field in config["fields"]] == [[0], [1, 2], [3]]
    assert [field["name"] for field in config["fields"]] == ["rho", "velocity", "p"]
    assert "x and y are equally long: that they lie in this order is an assumption" in inspected.text


def test_a_file_behind_a_url(inspected: Inspected) -> None:
    ocean(40)[["T"]].to_netcdf(inspected.folder / "a.nc")
    system = fsspec.filesystem("memory")
    system.pipe("/remote/a.nc", (inspected.folder / "a.nc").read_bytes())
    try:
        config = inspected.write("memory://remote/a.nc")
        assert config["files"] == "memory://remote/a.nc"
    finally:
        system.rm("/remote", recursive=True)


def test_a_short_record_keeps_frames_for_each_split(inspected: Inspected) -> None:
    for num_steps, context in ((6, 1), (11, 2), (18, 4)):
        hdf5(
            inspected.folder / "a.h5",
            {"u": values(num_steps, 8), "t": np.arange(float(num_steps)), "x": np.arange(8.0)},
        )
        inspected.write("a.h5", "overwrite=true")
        assert min(inspected.open(split).spec.num_steps for split in ("train", "valid", "test")) >= context + 1
        assert ("window.context" in inspected.printed) == (context < 4)
    hdf5(inspected.folder / "a.h5", {"u": values(5, 8), "t": np.arange(5.0), "x": np.arange(8.0)})
    assert "expected 6 or more frames" in inspected.refuse("a.h5", "overwrite=true")


def test_what_is_there_stays(inspected: Inspected) -> None:
    hdf5(inspected.folder / "a.h5", {"u": values(5, 20, 8), "t": np.arange(20.0), "x": np.arange(8.0)})
    (inspected.folder / "a.yaml").write_text("mine: true\n")
    assert "a.yaml: it is there already; replace it with overwrite=true" in inspected.refuse("a.h5")
    # What the real reader refuses is not written, and takes nothing away.
    message = inspected.refuse("a.h5", "overwrite=true", "boundary=soft")
    assert "boundary: expected periodic, open, wall, found 'soft'" in message
    assert (inspected.folder / "a.yaml").read_text() == "mine: true\n"
    inspected.write("a.h5", "overwrite=true")
    assert len(list(inspected.folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.nc", "nothing.nc: "),
        ("empty.nc", "empty.nc: expected data, found 0 bytes"),
        ("text.csv", "found a text file"),
        ("folder", "folder: expected files that end in .nc"),
        ("array.npy", "found a NumPy array; read it with numpy.load"),
        ("line.nc", "expected an array along time and 1 to 3 axes of space, found only a (6,)"),
        ("line.h5", "expected an array along time and 1 to 3 axes of space, found only a (6,)"),
        ("words.nc", "expected arrays of numbers, found a (no real numbers: text)"),
        ("words.h5", "expected arrays of numbers, found a (text)"),
        ("hollow.h5", "expected arrays of numbers, found none"),
        ("frame.nc", "expected two or more frames, found one"),
        ("infinite.nc", "infinity at 1 points"),
        ("cut.h5", "cut.h5"),
    ],
)
def test_bad_files(inspected: Inspected, name: str, message: str) -> None:
    folder = inspected.folder
    (folder / "empty.nc").touch()
    (folder / "text.csv").write_text("x,y\n1,2\n")
    (folder / "folder").mkdir()
    (folder / "folder" / "README").touch()
    np.save(folder / "array.npy", values(3, 3))
    if name == "line.nc":
        xr.Dataset({"a": ("x", values(6))}).to_netcdf(folder / name)
    if name == "words.nc":
        xr.Dataset({"a": ("x", np.array(["one", "two"]))}).to_netcdf(folder / name)
    if name == "frame.nc":
        xr.Dataset({"a": (("time", "x"), values(1, 6))}, {"time": [0.0]}).to_netcdf(folder / name)
    if name == "infinite.nc":
        field = values(30, 6)
        field[0, 0] = np.inf
        xr.Dataset({"a": (("time", "x"), field)}, {"time": np.arange(30.0)}).to_netcdf(folder / name)
    if name == "cut.h5":
        path = hdf5(folder / name, {"u": values(20, 64, 64)})
        path.write_bytes(path.read_bytes()[:9000])
    for other, arrays in (("line.h5", {"a": values(6)}), ("words.h5", {"a": np.array([b"a"])}), ("hollow.h5", {})):
        hdf5(folder / other, arrays)
    assert message in inspected.refuse(name)
    assert not list(folder.glob("*.yaml"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a.h5", "dt=fast"], "dt: expected a positive number, found 'fast'"),
        (["a.h5", "step=2"], "expected options of out, overwrite, name, dims"),
        (["a.h5", "--force"], "found --force; see --help"),
        (["a.h5", "dims=[time"], "dims: expected a value or a list, found 'dims=[time'"),
        (["a.h5", "dims=[x,y,z]"], "dims: expected different names, time and 1 to 3 axes of space among them"),
        (["a.h5", "dims=[time,x]"], "dims: expected names for the axes of an array"),
        (["a.h5", "batch_size=0"], "batch_size: expected a positive integer, found 0"),
        (["a.h5", "out=here.txt"], "out: expected the name of a YAML file, found here.txt"),
        (["overwrite=true"], "expected a path, a URL, a pattern or a folder"),
    ],
)
def test_a_wrong_option_is_one_line(inspected: Inspected, options: list[str], message: str) -> None:
    hdf5(inspected.folder / "a.h5", {"u": values(5, 20, 8), "t": np.arange(20.0), "x": np.arange(8.0)})
    assert message in inspected.refuse(*options)


def test_help_names_every_option(inspected: Inspected) -> None:
    text = inspected.run("--help", code=0).stdout
    named = re.findall(r"^  (\w+)=", text, re.MULTILINE)
    found = inspected.refuse("a.h5", "nothing=1").partition("options of ")[2].partition(", found")[0]
    assert sorted(named) == sorted(found.split(", "))


def test_names_of_vectors() -> None:
    found = vectors(["u", "v", "p", "Vx", "Vy", "Vz", "uo", "vo", "u10", "v10", "mom_x", "mom_y", "nu", "mv", "flux"])
    assert found == [
        Vector("velocity", ("u", "v")),
        Vector("velocity", ("Vx", "Vy", "Vz")),
        Vector("velocity", ("uo", "vo")),
        Vector("velocity_10", ("u10", "v10")),
        Vector("mom", ("mom_x", "mom_y")),
    ]
    assert vectors(["v", "w"]) == vectors(["u", "w"]) == vectors(["x"]) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [("temperature", None), ("lifetime", None), ("nu", None), ("rlat", "space"), ("isobaricInhPa", "space"),
     ("theta", "space"), ("trajectories", "sample"), ("num_samples", "sample"), ("realization", "sample"),
     ("component", "channel"), ("t-coordinate", "time")],
)  # fmt: skip
def test_names_of_axes(name: str, kind: str | None) -> None:
    assert kind_of(name)[0] == kind
