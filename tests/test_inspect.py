"""`python -m data_adapters.inspect`: what it writes gives the file's values."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
import xarray as xr

from tests.inspected import Inspected, hdf5, in_folder, values
from tests.well_files import code, coded_file, write, write_file

LAT, LON = np.linspace(-60, 60, 33), np.arange(49) * 360 / 49
LAND = (np.abs(LAT)[:, None] < 10) & (np.abs(LON - 200) < 60)


@pytest.fixture
def inspected(call: Callable[..., Any], tmp_path: Path) -> Iterator[Inspected]:
    yield from in_folder(call, tmp_path)


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


def test_of_large_arrays_a_part_is_read(inspected: Inspected) -> None:
    field = np.tile(np.arange(256, dtype=np.float32)[:, None], (20, 1, 512))
    field[:, :, :64] = np.nan
    hdf5(inspected.folder / "a.h5", {"u": field, "t": np.arange(20.0), "x": np.arange(256.0), "y": np.arange(512.0)})
    assert inspected.write("a.h5", "scan=2")["missing"] == "mask"
    assert "Ranges from 4 of 20 frames: 2.0 MB read; 10.0 MB in memory" in inspected.printed
    assert "12.5% are NaN, at the same points" in inspected.text
    # Where two frames are too much, rows around the middle of the first axis.
    field = np.tile(field, (1, 4, 1))
    hdf5(inspected.folder / "b.h5", {"u": field, "t": np.arange(20.0), "x": np.arange(1024.0), "y": np.arange(512.0)})
    (inspected.folder / "a.yaml").unlink()
    inspected.write("b.h5", "scan=1")
    assert "Ranges from parts of 2 of 20 frames" in inspected.printed


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


def test_what_a_name_and_chunks_say(inspected: Inspected) -> None:
    """A comment each: the file's name tells of the boundary, and a chunk covers several trajectories."""
    path = hdf5(inspected.folder / "1D_CFD_periodic_Train.hdf5", {"t": np.arange(9.0), "x": np.arange(16.0)})
    with h5py.File(path, "a") as file:
        file.create_dataset("u", data=values(10, 9, 16), chunks=(5, 3, 8))
    assert inspected.write(path.name)["boundary"] == "open"
    assert "# boundary: periodic if the name means that: 1D_CFD_periodic_Train.hdf5 says periodic" in inspected.text
    assert "# u: its chunks of 5 x 3 x 8 (sample, time, x) hold 5 trajectories each" in inspected.text
    path.rename(inspected.folder / "non_periodic.hdf5")
    (inspected.folder / "1D_CFD_periodic_Train.yaml").unlink()
    inspected.write("non_periodic.hdf5")
    assert "says periodic" not in inspected.text


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
    assert "# x, y: names given here to axes that have none, in this order" in inspected.text
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


def test_what_is_not_taken_is_said(inspected: Inspected) -> None:
    stored = xr.Dataset({"a": (("time", "y", "x"), values(30, 6, 8))}, {"time": np.arange(30.0)})
    stored["still"] = stored["a"][:1].isel(time=0).expand_dims(time=stored["time"])
    stored["depth_map"] = stored["a"][0].drop_vars("time")
    stored["gauge"] = (("t2", "y", "x"), values(7, 6, 8))
    stored.to_netcdf(inspected.folder / "a.nc")
    config = inspected.write("a.nc", "fields=[a,still,depth_map]")
    assert config["fields"] == ["a", "still", "depth_map"]
    assert "- still # all frames that were read are alike" in inspected.text
    constant = inspected.open("train").read(0, 3, 5)[:, 2, 0, 0]
    np.testing.assert_array_equal(constant, np.stack([stored["depth_map"]] * 2))
    (inspected.folder / "a.yaml").unlink()
    inspected.write("a.nc", "fields=[a]")
    assert "Note: gauge is left out: what its axes are is not known" in inspected.printed
    assert "also there, taken where `fields` names it: still (time, y, x), depth_map (y, x)" in inspected.text


def test_a_second_axis_of_time_is_left_out(inspected: Inspected) -> None:
    stored = xr.Dataset({"a": (("time", "y", "x"), values(30, 6, 8)), "b": (("time2", "y", "x"), values(30, 6, 8))})
    stored.to_netcdf(inspected.folder / "a.nc")
    assert inspected.write("a.nc", "dt=1")["fields"] == ["a"]
    assert "Note: b is left out: it lies along time2, y, x, unlike the others" in inspected.printed


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
    order = "dims=[sample,time,channel,x,y]"
    assert inspected.ask("c.h5", order)[1][2] == "fields=[data_0,data_1,data_2,data_3]"
    with h5py.File(path, "a") as file:
        file["data"].attrs["channel_names"] = ["rho", "vx", "vy", "p"]
    config = inspected.write("c.h5", order)
    assert [field["channels"] for field in config["fields"]] == [[0], [1, 2], [3]]
    assert [field["name"] for field in config["fields"]] == ["rho", "velocity", "p"]


def test_known_orders_of_a_square(inspected: Inspected) -> None:
    """MATLAB's is reversed, PDEBench's is x, y; two arrays of a file lie alike."""
    lines = {"t": np.arange(11.0), "x": np.arange(8.0), "y": np.arange(8.0), "z": np.arange(8.0)}
    square = {name: lines[name] for name in "txy"}
    for arrays, dims in (({"u": values(11, 8, 8, 8), **lines}, "zyx"), ({"u": values(11, 8, 8), **square}, "yx")):
        with h5py.File(hdf5(inspected.folder / "m.mat", arrays), "a") as file:
            file["u"].attrs["MATLAB_class"] = np.bytes_("single")
        assert inspected.write("m.mat", "dt=1", "overwrite=true")["dims"] == ["time", *dims]
        assert "are equally long: reversed, as MATLAB stores them" in inspected.text
    (inspected.folder / "m.yaml").unlink()
    fields = {name: values(5, 11, 8, 8, seed=i) for i, name in enumerate(("Vx", "Vy", "density"))}
    hdf5(inspected.folder / "cfd.h5", fields | {f"{name}-coordinate": line for name, line in square.items()})
    assert inspected.write("cfd.h5")["dims"] == ["sample", "time", "x", "y"]
    assert "x and y are equally long: in this order, as in PDEBench" in inspected.text


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
